"""Counting and logging refused peers."""

import ssl

from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.identity import peer_identity
from hivemesh_sdk.trust.refusals import Reason, Refusals, handshake_detail, handshake_reason
from structlog.testing import capture_logs


def test_each_reason_is_logged_once_in_ten_seconds():
    clock = ManualClock()
    refusals = Refusals(clock)
    with capture_logs() as lines:
        for _ in range(3):
            refusals.add(Reason.EXPIRED, "certificate has expired")
        refusals.add(Reason.PLAIN_HTTP, "http request")
        clock.advance(11)
        refusals.add(Reason.EXPIRED, "certificate has expired")
    assert [(line["reason"], line["not_logged"]) for line in lines] == [
        ("expired", 0),
        ("plain-http", 0),
        ("expired", 2),
    ]
    assert refusals.counts == {Reason.EXPIRED: 4, Reason.PLAIN_HTTP: 1}


def test_subscriber_sees_every_refusal():
    seen = []
    refusals = Refusals(ManualClock())
    refusals.subscribe(seen.append)
    refusals.add(Reason.SLOW, "")
    refusals.add(Reason.SLOW, "")
    assert seen == [Reason.SLOW, Reason.SLOW]


def test_unknown_failure_has_a_reason_of_its_own():
    error = ssl.SSLError(1, "[SSL: SOMETHING_NEW] something new")
    assert handshake_reason(error) is Reason.HANDSHAKE
    assert handshake_detail(error) == "handshake failed"


def test_deny_list_is_replaced_as_a_whole(ca):
    denials = Denials()
    svid = ca.svid(ca.worker())
    peer = peer_identity(svid.chain[0], ca.trust_domain)
    before = denials.epoch
    denials.replace(serials=[svid.serial])
    assert denials.refuses(peer)
    denials.replace(identities=[ca.worker("other").prefix])
    assert not denials.refuses(peer)
    assert denials.epoch > before
