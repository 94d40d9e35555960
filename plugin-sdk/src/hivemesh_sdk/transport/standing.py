"""Whether the peer of a connection may go on: read in the handshake, judged at each read of requests."""

import ssl
from collections.abc import Sequence

from hivemesh_sdk.transport.limits import Guard
from hivemesh_sdk.trust.chains import verified_chain
from hivemesh_sdk.trust.identity import Peer, PeerIdentityError, peer_identity
from hivemesh_sdk.trust.refusals import Reason

Objection = tuple[str, Reason, str]  # slug of the problem, reason for the counter, words


class Standing:
    """The peer of one connection; without `identify` there is none, and every request is refused."""

    __slots__ = ("_chain", "_checked", "_ends", "_guard", "_problem", "peer")

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.peer: Peer | None = None
        self._ends = 0.0
        self._problem = ""
        self._chain: Sequence[bytes] = ()
        self._checked = -1  # epoch of the deny list that was looked at

    def identify(self, tls: ssl.SSLObject | None) -> None:
        """Read who the handshake has shown."""
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        if tls is None or der is None:
            return
        try:
            self.peer = peer_identity(der, self._guard.trust_domain())
            self._ends = self.peer.not_after.timestamp()
        except PeerIdentityError as error:
            self._problem = error.reason
        self._chain = verified_chain(tls)

    def objection(self) -> Objection | None:
        """Say why the peer may not go on, if so."""
        peer, guard = self.peer, self._guard
        if peer is None:
            return self._nobody()
        if guard.clock.timestamp() >= self._ends:
            return ("peer-certificate-expired", Reason.EXPIRED, "expired on an open connection")
        if self._checked == guard.denials.epoch:
            return None
        if guard.denials.refuses(peer):
            return ("peer-revoked", Reason.REVOKED, "on the deny list")
        if not guard.trusted(self._chain):
            return (
                "peer-identity-invalid",
                Reason.UNTRUSTED,
                "its root or issuer is no longer trusted",
            )
        self._checked = guard.denials.epoch
        return None

    def _nobody(self) -> Objection:
        if self._problem:
            return ("peer-identity-invalid", Reason.IDENTITY, self._problem)
        return ("no-peer-identity", Reason.NO_IDENTITY, "no client certificate")
