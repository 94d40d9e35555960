"""What instances report of whom they have refused, as events; of a report nothing is trusted.

The instance is the actor and the peer the object: who reports wrongly uses up his own room in the
trail, and nobody else's name stands for what he says.
"""

import re
from collections.abc import Sequence

from hivemesh_sdk.contracts.instances import MAX_REFUSALS, Refusal
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.identity import SpiffeId

from hivemesh_platform.audit.model import AuditEvent

ACTION = "access:refused"
MAX_COUNT = 1_000_000_000
_REASON = re.compile(r"[a-z][a-z-]{0,39}")


def events(reporter: str, serial: str, refusals: Sequence[Refusal]) -> list[AuditEvent]:
    """The events of one heartbeat; those that say no number are left out."""
    return [
        AuditEvent(
            actor=reporter,
            action=ACTION,
            target=_peer(one.peer),
            decision="deny",
            reason=one.reason if _REASON.fullmatch(one.reason) else "other",
            serial=serial,
            count=min(one.count, MAX_COUNT),
        )
        for one in refusals[:MAX_REFUSALS]
        if one.count > 0
    ]


def _peer(text: str) -> str:
    """The SPIFFE ID of the peer; `nobody` where the connection had none, or it is no such ID."""
    try:
        return str(SpiffeId.parse(text))
    except ConfigurationError:
        return "nobody"
