"""Counting and logging refused peers."""

import ssl

from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.trust.chains import presented_chain, verified_chain
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.identity import peer_identity
from hivemesh_sdk.trust.refusals import (
    Reason,
    Refusals,
    handshake_detail,
    handshake_reason,
    is_certificate_alert,
)
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
    refusals.subscribe(lambda *one: seen.append(one))
    refusals.add(Reason.SLOW, "")
    refusals.add(Reason.SLOW, "", peer="spiffe://a/worker/b/c")
    assert seen == [(Reason.SLOW, ""), (Reason.SLOW, "spiffe://a/worker/b/c")]


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


class Alert(ssl.SSLError):
    reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"


class OtherAlert(ssl.SSLError):
    reason = "SSLV3_ALERT_BAD_RECORD_MAC"


def test_alert_of_the_peer_is_its_refusal():
    assert handshake_reason(Alert()) is Reason.PEER_GAVE_UP
    assert is_certificate_alert(Alert())
    assert not is_certificate_alert(OtherAlert())
    assert not is_certificate_alert(ssl.SSLError())


class Tls313:
    """As an SSLObject of Python 3.13: chains are public."""

    def get_verified_chain(self):
        return [b"leaf", b"root"]

    def get_unverified_chain(self):
        return []


class TlsBefore313:
    class _sslobj:  # noqa: N801 - CPython's name
        @staticmethod
        def get_verified_chain():
            return None

        @staticmethod
        def get_unverified_chain():
            return None


def test_chains_are_read_on_every_supported_python():
    assert verified_chain(Tls313())[-1] == b"root"
    assert list(presented_chain(Tls313())) == []
    assert not verified_chain(TlsBefore313())
    assert list(presented_chain(TlsBefore313())) == []
    assert not verified_chain(object())
