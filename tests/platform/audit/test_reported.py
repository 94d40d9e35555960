"""What workers say of whom they refused stands under their own name, bounded, and nothing of it is trusted."""

import pytest
from hivemesh_platform.audit import reported
from hivemesh_platform.audit.notes import PER_ACTOR, Notes
from hivemesh_sdk.contracts.instances import MAX_REFUSALS, Refusal
from hivemesh_sdk.testing.clock import ManualClock

WORKER = "spiffe://test.hivemesh.internal/worker/echo/i1"
PEER = "spiffe://test.hivemesh.internal/worker/other/i2"


def events(*told):
    return reported.events(WORKER, "2a", [Refusal(**one) for one in told])


def test_a_refusal_names_worker_peer_reason_and_count():
    (event,) = events({"peer": PEER, "reason": "other-audience", "count": 7})
    assert (event.actor, event.serial) == (WORKER, "2a")
    assert (event.action, event.target, event.decision) == ("access:refused", PEER, "deny")
    assert (event.reason, event.count) == ("other-audience", 7)


@pytest.mark.parametrize("peer", ["", "anna", "spiffe://", "spiffe://x/\x1b[2J", "x" * 5000])
def test_a_peer_that_is_no_identity_is_nobody(peer):
    (event,) = events({"peer": peer, "reason": "expired", "count": 1})
    assert event.target == "nobody"


@pytest.mark.parametrize("reason", ["", "A", "a b", "a\nb", "x" * 41])
def test_a_reason_that_is_no_slug_is_other(reason):
    (event,) = events({"peer": PEER, "reason": reason, "count": 1})
    assert event.reason == "other"


@pytest.mark.parametrize("count", [0, -5])
def test_no_number_is_no_refusal(count):
    assert events({"peer": PEER, "reason": "expired", "count": count}) == []


def test_one_heartbeat_says_only_so_much():
    many = [{"peer": PEER, "reason": "expired", "count": 1}] * (3 * MAX_REFUSALS)
    assert len(events(*many)) == MAX_REFUSALS


def test_the_numbers_of_a_flood_add_up_within_the_room_of_one_actor():
    clock, notes = ManualClock(), Notes()
    for number in range(1000):
        for event in events({"peer": f"{PEER}{number}", "reason": "expired", "count": 2}):
            notes.add(event, clock.now())
    entries, lost = notes.take()
    assert len(entries) == PER_ACTOR
    assert sum(entry.count for entry in entries) + lost == 2000
