"""When a ticket is taken, by the clock of whoever is shown it; a refusal names the difference."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.jws import SigningKey
from hivemesh_sdk.trust.tickets import TicketReader, TicketRefusedError
from msgspec.structs import replace

HOLDER = SpiffeId.worker("mesh.test", "sample", "i1")
LIFE_S = 360


def shown_by(off_s):
    """Show a ticket that is made now to somebody whose clock is off by so much."""
    clock = ManualClock()
    clock.jump(timedelta(microseconds=-clock.now().microsecond))
    made = ThrowawayTickets(
        SigningKey(Ed25519PrivateKey.generate()), "spiffe://mesh.test/platform/p1"
    )
    now = int(clock.now().timestamp())
    ticket = replace(made.claims(HOLDER, "r.s.1", "a.call@1", 1), iat=now, exp=now + LIFE_S)
    clock.jump(timedelta(seconds=off_s))
    return TicketReader(dict, clock).timely(ticket)


@pytest.mark.parametrize("off_s", [-60, -55, 0, 55, LIFE_S - 1])
def test_a_minute_between_the_clocks_is_not_seen(off_s):
    assert shown_by(off_s).jti


@pytest.mark.parametrize(
    ("off_s", "slug", "said"),
    [
        (-600, "ticket-not-yet-valid", "it begins in 600 s by the clock here"),
        (-61, "ticket-not-yet-valid", "it begins in 61 s by the clock here"),
        (600, "ticket-expired", "it ended 240 s ago by the clock here"),
        (LIFE_S, "ticket-expired", "it ended 0 s ago by the clock here"),
    ],
)
def test_a_refusal_names_the_difference(off_s, slug, said):
    with pytest.raises(TicketRefusedError) as refused:
        shown_by(off_s)
    assert (refused.value.slug, refused.value.detail) == (slug, said)
