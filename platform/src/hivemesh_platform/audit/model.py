"""What is written down of one decision, and who made it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Decision = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts, as the trail names it."""

    id: str  # SPIFFE ID, `token:<id>` or `address:<ip>`
    serial: str = ""  # of the certificate, hexadecimal
    on_behalf_of: str = ""
    address: str = ""
    tenant: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One decision: who, on whose behalf, what, to which target, with which result and why.

    `parameters` are never stored: the trail keeps an HMAC of each value, so that a known value
    can be compared and an unknown one cannot be read.
    """

    actor: str  # SPIFFE ID, `token:<id>` or `address:<ip>`
    action: str  # `<resource>:<verb>` of access/policy.py
    target: str = ""  # what it was done to; `object` in the record
    decision: Decision = "allow"
    reason: str = ""
    rule: str = ""  # id of the rule that decided
    on_behalf_of: str = ""
    run: str = ""
    serial: str = ""  # of the actor's certificate, hexadecimal
    address: str = ""  # where the request came from
    policy_version: int = 0
    request_id: str = ""  # empty: the one that the log is bound to
    trace_id: str = ""
    tenant: str = "default"
    parameters: Mapping[str, object] = field(default_factory=dict)
    count: int = 1  # how often, of what is noted; who reports it has counted

    @staticmethod
    def of(
        actor: Actor,
        action: str,
        target: str = "",
        *,
        decision: Decision = "allow",
        reason: str = "",
        parameters: Mapping[str, object] | None = None,
    ) -> "AuditEvent":
        """The event of an actor."""
        return AuditEvent(
            actor=actor.id,
            action=action,
            target=target,
            decision=decision,
            reason=reason,
            on_behalf_of=actor.on_behalf_of,
            serial=actor.serial,
            address=actor.address,
            tenant=actor.tenant,
            parameters=parameters or {},
        )
