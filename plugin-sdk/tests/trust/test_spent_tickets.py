"""A ticket begins each step once, for as long as it can be shown."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemesh_sdk.contracts.tickets import MAX_LIFETIME_S
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.trust import tickets
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.jws import SigningKey
from hivemesh_sdk.trust.tickets import SPAN_S, Spent
from msgspec.structs import replace

HOLDER = SpiffeId.worker("mesh.test", "sample", "i1")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def spent(clock):
    return Spent(clock)


def claims(clock, *, jti="j1", life_s=60):
    made = ThrowawayTickets(
        SigningKey(Ed25519PrivateKey.generate()), "spiffe://mesh.test/platform/p1"
    )
    ticket = made.claims(HOLDER, "r.s.1", "a.call@1", 1)
    return replace(ticket, jti=jti, exp=int(clock.now().timestamp()) + life_s)


def test_only_the_step_that_it_has_begun_counts(spent, clock):
    ticket = claims(clock)
    assert spent.add(ticket, "r.s.1")
    assert not spent.add(ticket, "r.s.1")
    assert spent.add(ticket, "r.s.2")
    assert spent.add(claims(clock, jti="j2"), "r.s.1")


def test_a_step_that_had_not_begun_after_all_may_begin(spent, clock):
    ticket = claims(clock)
    spent.add(ticket, "r.s.1")
    spent.discard(ticket, "r.s.1")
    spent.discard(ticket, "r.s.1")
    assert len(spent) == 0
    assert spent.add(ticket, "r.s.1")


def test_it_is_remembered_until_its_end_and_no_longer_than_a_span_after_it(spent, clock):
    for _ in range(100):
        ticket = claims(clock, life_s=MAX_LIFETIME_S)
        assert spent.add(ticket, "r.s.1")
        clock.advance(SPAN_S)
        assert not spent.add(ticket, "r.s.1")
        assert len(spent) <= MAX_LIFETIME_S // SPAN_S + 2


def test_a_flood_drops_those_that_end_first(spent, clock, monkeypatch):
    monkeypatch.setattr(tickets, "SPENT", 10)
    first = claims(clock, life_s=SPAN_S)
    spent.add(first, "r.s.0")
    later = claims(clock, life_s=3 * SPAN_S)
    for number in range(1, 11):
        spent.add(later, f"r.s.{number}")
    assert not spent.add(later, "r.s.10")
    assert len(spent) == 10
    assert spent.add(first, "r.s.0")


def test_a_flood_of_one_end_is_bounded_too(spent, clock, monkeypatch):
    monkeypatch.setattr(tickets, "SPENT", 10)
    ticket = claims(clock)
    for number in range(100):
        spent.add(ticket, f"r.s.{number}")
        assert not spent.add(ticket, f"r.s.{number}")
        assert len(spent) <= 10
