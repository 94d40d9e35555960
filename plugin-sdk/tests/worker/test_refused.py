"""What a worker refuses reaches its platform: counted, once a minute at most, nothing lost."""

import pytest
from hivemesh_sdk.contracts.instances import MAX_REFUSALS, Refusal
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.worker.refused import TELL_EVERY_S, Refused

PEER = "spiffe://test/worker/caller/c1"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def refused(clock):
    return Refused(clock)


def of(count, peer=PEER, reason="other-audience"):
    return Refusal(peer=peer, reason=reason, count=count)


def test_equal_refusals_are_one_with_their_number(refused):
    for _ in range(3):
        refused.step(PEER, "other-audience", "")
    assert refused.due() == [of(3)]
    assert refused.counts == {"other-audience": 3}


def test_peers_without_an_identity_are_one_nobody(refused):
    for port in range(2 * MAX_REFUSALS):
        refused.add(f"10.0.0.1:{port}", "identity-invalid")
    refused.add(PEER, "other-audience")
    assert refused.due() == [of(2 * MAX_REFUSALS, "", "identity-invalid"), of(1)]


def test_what_was_not_heard_is_told_again(refused):
    refused.add(PEER, "other-audience")
    refused.due()
    refused.add(PEER, "other-audience")
    assert refused.due() == [of(2)]


def test_what_comes_while_it_is_told_is_not_lost(refused, clock):
    refused.add(PEER, "other-audience")
    told = refused.due()
    refused.add(PEER, "other-audience")
    refused.heard(told)
    clock.advance(TELL_EVERY_S)
    assert refused.due() == [of(1)]


def test_a_peer_that_goes_on_is_told_of_once_a_minute(refused, clock):
    refused.add(PEER, "other-audience")
    refused.heard(refused.due())
    refused.add(PEER, "other-audience")
    assert refused.due() == []
    clock.advance(TELL_EVERY_S)
    assert refused.due() == [of(1)]


def test_at_the_end_everything_is_told(refused):
    refused.add(PEER, "other-audience")
    refused.heard(refused.due())
    refused.add(PEER, "other-audience")
    assert refused.due(everything=True) == [of(1)]


def test_a_flood_of_peers_is_bounded_and_counted(refused):
    for number in range(10 * MAX_REFUSALS):
        refused.add(f"{PEER}{number}", "other-audience")
    told = refused.due()
    assert len(told) == MAX_REFUSALS
    assert sum(one.count for one in told) == 10 * MAX_REFUSALS
    assert told[-1].reason == "others"


def test_old_peers_make_room_for_new_ones(refused, clock):
    for number in range(2 * MAX_REFUSALS):
        refused.add(f"{PEER}{number}", "other-audience")
    refused.heard(refused.due())
    clock.advance(TELL_EVERY_S)
    refused.add(PEER, "other-audience")
    assert refused.due() == [of(1)]
