"""The spec of a job as its row keeps it: sealed, the same however it is written, damage is found."""

import msgspec
import pytest
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.plans.spec import JobSpec, is_intact, written, written_with

SPEC = JobSpec(
    options={"word": 'Grüße, "}'}, behalf=Behalf(sub="spiffe://x/user/a", roles=("admin",))
)
INPUTS = [b"1", b'{"input":0}', '"ü"'.encode(), b"[]", b"null"]


@pytest.mark.parametrize("spec", [SPEC, JobSpec()])
def test_specs_written_together_are_those_written_alone(spec):
    alone = [written(msgspec.structs.replace(spec, input=msgspec.Raw(one))) for one in INPUTS]
    assert list(written_with(spec, INPUTS)) == alone


@pytest.mark.parametrize("text", [*written_with(SPEC, INPUTS), written(SPEC), written(JobSpec())])
def test_what_was_written_is_intact(text):
    assert is_intact(text)
    msgspec.json.decode(text, type=JobSpec)


@pytest.mark.parametrize(
    ("found", "instead"),
    [("admin", "adm1n"), ("x/user", "y/user"), ("}", " }"), ("Grüße", "Gru\udcc3e")],
)
def test_a_changed_spec_is_damaged(found, instead):
    text = written(SPEC)
    assert found in text
    assert not is_intact(text.replace(found, instead, 1))


def test_a_changed_checksum_is_damage():
    text = written(SPEC)
    assert not is_intact(text[:-3] + "g" + text[-2:])


@pytest.mark.parametrize(("text", "intact"), [('{"options":{}}', True), ("{", False), ("", False)])
def test_a_spec_of_an_earlier_version_has_no_seal(text, intact):
    assert is_intact(text) == intact
