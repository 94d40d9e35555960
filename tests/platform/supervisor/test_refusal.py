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
    ("rules", "everything", "instances"),
    [
        ([], False, 0),
        (["spiffe://a.b/worker/echo/*"], True, 0),
        (["spiffe://a.b/worker/*"], True, 0),
        ([f"package:{DIGEST}"], True, 0),
        ([f"package:{'b' * 64}"], False, 0),
        (["spiffe://a.b/worker/other/*", "spiffe://a.b/user/eve"], False, 0),
        (["spiffe://a.b/worker/echo/i1", "spiffe://a.b/worker/echo/i2"], False, 2),
        (["spiffe://a.b/worker/echoes/i1", "serial:1f"], False, 0),
    ],
)
def test_bans_keep_processes_from_being_started(rules, everything, instances) -> None:
    found = refusal_of(INSTALLED, [denial(rule) for rule in rules])
    assert (bool(found.all), found.instances) == (everything, instances)


@pytest.mark.parametrize("kind", [DenialKind.EVICTION, DenialKind.QUARANTINE])
def test_what_is_no_ban_is_replaced(kind) -> None:
    found = refusal_of(INSTALLED, [denial("spiffe://a.b/worker/echo/i1", kind)])
    assert (found.all, found.instances) == ("", 0)
