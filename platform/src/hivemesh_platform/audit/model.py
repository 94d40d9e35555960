"""What is written down of one decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Decision = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One decision: who, on whose behalf, what, to which target, with which result and why.

    `parameters` are never stored: the trail keeps an HMAC of them, so that a known value can be
    compared and an unknown one cannot be read.
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
    policy_version: int = 0
    request_id: str = ""
    trace_id: str = ""
    tenant: str = "default"
    parameters: Mapping[str, object] = field(default_factory=dict)
