"""What bans say of the processes of one worker."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hivemesh_platform.supervisor.service import refusal_of
from hivemesh_platform.trust.model import Denial, DenialKind

DIGEST = "a" * 64
INSTALLED = SimpleNamespace(type=SimpleNamespace(name="echo", digest=DIGEST))


def denial(rule, kind=DenialKind.BAN):
    return Denial(rule=rule, reason="why", at=datetime(2030, 1, 1, tzinfo=UTC), kind=kind)


@pytest.mark.parametrize(
    ("rules", "everything"),
    [
        ([], False),
        (["spiffe://a.b/worker/echo/*"], True),
        (["spiffe://a.b/worker/*"], True),
        ([f"package:{DIGEST}"], True),
        ([f"package:{'b' * 64}"], False),
        (["spiffe://a.b/worker/other/*", "spiffe://a.b/user/eve"], False),
        (["spiffe://a.b/worker/echoes/i1", "serial:1f"], False),
    ],
)
def test_bans_keep_processes_from_being_started(rules, everything) -> None:
    found = refusal_of(INSTALLED, [denial(rule) for rule in rules])
    assert bool(found.all) == everything


@pytest.mark.parametrize("kind", list(DenialKind))
def test_an_instance_that_is_refused_by_its_name_is_replaced(kind) -> None:
    """Its name does not come back: less would run for as long as the ban holds, for nothing."""
    rules = ["spiffe://a.b/worker/echo/i1", "spiffe://a.b/worker/echo/i2"]
    assert refusal_of(INSTALLED, [denial(rule, kind) for rule in rules]).all == ""
