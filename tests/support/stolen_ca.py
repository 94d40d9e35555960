"""An authority with an installation's own keys, and where its listeners are."""

import json
from datetime import timedelta
from pathlib import Path

from hivemesh_platform.trust.authority import open_authority
from hivemesh_platform.trust.keyring import KeyKind, KeyState
from hivemesh_platform.trust.profile import Lifetimes
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.testing.pki import ThrowawayCA
from whole_platform import Installation


class StolenCA(ThrowawayCA):
    """Issues with the keys of an installation, as whoever has stolen its state folder could."""

    def __init__(self, state: Path) -> None:
        hour = timedelta(hours=1)
        lifetimes = Lifetimes(root=hour, issuer=hour, svid=hour)
        authority = open_authority(state / "trust", SystemClock(), lifetimes)
        super().__init__(authority.trust_domain)
        self.root = authority.ring.active(KeyKind.ROOT).signer()
        self.issuer = authority.ring.active(KeyKind.ISSUER).signer()
        self.roots = [self.root.certificate]
        self.signing = authority.signing.one(KeyState.ACTIVE).private


def port_of(running: Installation, listener: str) -> int:
    if listener == "worker":
        return int(running.instances("email-parser")[0].address.rpartition(":")[2])
    return int(json.loads((running.state / "ports.json").read_text())[listener])


def name_of(trust_domain: str, listener: str) -> str:
    """The DNS name in the listener's certificate."""
    pool = "email-parser.worker" if listener == "worker" else "platform"
    return f"{pool}.{trust_domain}"
