"""Workload identity: SPIFFE IDs, keys, certificates, TLS contexts, enrolment and renewal."""

from hivemesh_sdk.trust.identity import Peer, PeerIdentityError, SpiffeId, peer_identity
from hivemesh_sdk.trust.keys import PrivateKey, Svid
from hivemesh_sdk.trust.source import IdentitySource

__all__ = [
    "IdentitySource",
    "Peer",
    "PeerIdentityError",
    "PrivateKey",
    "SpiffeId",
    "Svid",
    "peer_identity",
]
