"""Builds every TLS context of the mesh, by one function, equally strict.

A listener keeps one *front* context for its whole life. It has no certificate and no trust roots;
for each handshake its SNI callback swaps in the current context, so leaves, issuers and roots
change without a restart. OpenSSL takes verify mode, version and tickets from the front, names
and trust store from the swapped one, and a callback that fails refuses the peer.
"""

import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from hivemesh_sdk.trust.bundle import Bundle
from hivemesh_sdk.trust.chains import presented_chain, times_of
from hivemesh_sdk.trust.keys import Svid, load_into
from hivemesh_sdk.trust.refusals import Reason, Refusals, handshake_reason

Current = Callable[[], ssl.SSLContext]
Report = Callable[[ssl.SSLError], None]


def server_context(svid: Svid, bundle: Bundle) -> ssl.SSLContext:
    """What the front swaps in: our certificate and the roots that clients must chain to."""
    context = _strict(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    load_into(context, svid)
    bundle.trusted_by(context)
    return context


def client_context(svid: Svid, bundle: Bundle) -> ssl.SSLContext:
    """For calls to others: our certificate, and the roots that servers must chain to."""
    context = _strict(ssl.PROTOCOL_TLS_CLIENT)
    load_into(context, svid)
    bundle.trusted_by(context)
    return context


def anonymous_context(bundle: Bundle) -> ssl.SSLContext:
    """For enrolment: no certificate of our own yet; without roots it refuses every server."""
    context = _strict(ssl.PROTOCOL_TLS_CLIENT)
    bundle.trusted_by(context)
    return context


def enrolment_context(svid: Svid, bundle: Bundle) -> ssl.SSLContext:
    """For the enrolment listener: asks for no client certificate and shows the roots as well.

    A newcomer knows only the fingerprint of the root, so the chain has to include it.
    """
    context = _strict(ssl.PROTOCOL_TLS_SERVER)
    load_into(context, svid, extra=bundle.roots)
    return context


def front_context(current: Current, refusals: Refusals) -> ssl.SSLContext:
    """The context of a mesh listener."""
    context = _front(current, refusals.handshake)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def enrolment_front_context(current: Current, refusals: Refusals) -> ssl.SSLContext:
    """The context of an enrolment listener, which asks for no client certificate."""

    def report(error: ssl.SSLError) -> None:
        # The first handshake of each newcomer ends so: it only looks at the chain.
        if handshake_reason(error) is not Reason.PEER_GAVE_UP:
            refusals.handshake(error)

    return _front(current, report)


def _front(current: Current, report: Report) -> ssl.SSLContext:
    context = _strict(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _reporting(report)

    def swap(tls: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _front: ssl.SSLContext) -> None:
        tls.context = current()

    context.sni_callback = swap
    return context


def _strict(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.sslobject_class = _TimedTls
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        # A ticket would let a client in again after its certificate expired or its root was removed.
        context.num_tickets = 0
    return context


class _TimedTls(ssl.SSLObject):
    """Says by how much a certificate is early or late: most often one of the two clocks is wrong."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            if handshake_reason(error) in {Reason.NOT_YET_VALID, Reason.EXPIRED}:
                error.verify_message += f": {_untimely(presented_chain(self))}"
            raise


def _untimely(chain: Sequence[bytes]) -> str:
    """What is known of the time: OpenSSL gives a server no certificates that it has refused."""
    now = time.time()
    found = next(filter(None, (times_of(der, now) for der in chain)), "so")
    return f"{found} by the clock here, {datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _reporting(report: Report) -> type[ssl.SSLObject]:
    class ReportingTls(_TimedTls):
        """asyncio and uvloop swallow failed handshakes; this is where their reason is seen."""

        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                report(error)
                raise

    return ReportingTls
