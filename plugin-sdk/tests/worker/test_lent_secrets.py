"""Secrets in real executors: asked of the platform at use, and kept inside the step."""

import json

import pytest
from hivemesh_sdk.contracts.problems import slug_of

pytestmark = pytest.mark.integration

VALUE = "correct-horse-battery"
KEY = "{{ vault.mail.password }}"
SHOWN = "Key(key=Secret('mail.password', '***'), how='')"


@pytest.fixture
def lending(sample):
    sample.platform.secrets["mail.password"] = VALUE
    return sample


async def use(sample, capability="sample.lent@1", how="", **fields):
    parameters = {"key": KEY, "how": how} if how else {"key": KEY}
    return await sample.put(capability, parameters=parameters, **fields)


def ended(answer):
    return slug_of(answer.frames[-1].event.problem)


async def test_a_step_uses_what_it_is_lent(lending):
    answer = await use(lending)
    body = json.loads(answer.frames[-1].body)
    assert body == {"length": len(VALUE), "same": True, "shown": SHOWN}
    (asked,) = lending.platform.lent
    assert (asked.path, asked.attempt) == ("mail.password", 1)
    assert asked.step.startswith("run.step.")


async def test_an_inline_step_is_lent_what_its_options_name_before_it_begins(lending):
    answer = await use(lending, "sample.inline.lent@1")
    assert json.loads(answer.frames[-1].body)["length"] == len(VALUE)
    refused = await use(lending, "sample.inline.lent@1", "mail.other")
    assert ended(refused) == "secret-denied"


@pytest.mark.parametrize("how", ["answer", "artifact", "large artifact", "artifact across blocks"])
async def test_an_answer_with_the_secret_does_not_leave_the_executor(lending, how):
    answer = await use(lending, how=how)
    assert ended(answer) == "secret-in-answer"
    assert VALUE.encode() not in answer.body
    assert not [
        one for one in lending.platform.folder.iterdir() if VALUE.encode() in one.read_bytes()
    ]


async def test_an_inline_answer_with_the_secret_does_not_leave_the_worker(lending):
    answer = await use(lending, "sample.inline.lent@1", "answer")
    assert ended(answer) == "secret-in-answer"
    assert VALUE.encode() not in answer.body


async def test_records_with_the_secret_are_refused_and_rejections_masked(lending):
    line = [b'{"id":1}\n']
    answer = await use(lending, "sample.map.lent@1", "records", kind="map", inputs=line)
    assert ended(answer) == "secret-in-answer"
    masked = await use(lending, "sample.map.lent@1", "reject", kind="map", inputs=line)
    assert masked.kinds[0] == "rejected"
    assert masked.frames[0].event.position == {"position": "***"}
    assert VALUE.encode() not in answer.body + masked.body


@pytest.mark.parametrize("how", ["log", "raise"])
async def test_what_is_said_of_it_is_masked(lending, how):
    answer = await use(lending, how=how)
    assert b"***" in answer.body
    assert VALUE.encode() not in answer.body


async def test_what_the_platform_refuses_is_the_steps_problem(sample):
    answer = await use(sample)
    assert ended(answer) == "secret-missing"
    refused = await use(sample, "sample.inline.lent@1")
    assert ended(refused) == "secret-missing"


async def test_a_value_in_place_of_a_reference_is_refused_before_the_step(lending):
    answer = await lending.put("sample.lent@1", parameters={"key": VALUE})
    assert slug_of(answer.problem) == "options-invalid"
    assert VALUE.encode() not in answer.body
