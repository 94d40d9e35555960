"""Puts the deny list into force in this process: connections, registry, supervised processes.

Workers get it inside the signed policy document. It also has every signature written down.
"""

import asyncio

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.identity import SpiffeId

from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.registry.service import RegistryService
from hivemesh_platform.supervisor.service import Supervisor
from hivemesh_platform.trust.authority import Authority, Issued
from hivemesh_platform.trust.model import DenyList
from hivemesh_platform.trust.revocation import Expulsion, Revocation
from hivemesh_platform.trust.service import EnrolmentService

EXPIRY_EVERY_S = 60.0  # denials end with the certificates that they name
FORGET_EVERY_S = 3600.0
SIGNER = "platform"
_log = structlog.get_logger("hivemesh.trust")


def enforce(
    revocation: Revocation,
    denials: Denials,
    registry: RegistryService,
    supervisor: Supervisor | None,
) -> None:
    """Have every later decision of `revocation` take effect here, at once."""

    def refuse(deny_list: DenyList) -> None:
        denials.replace(serials=deny_list.serials, identities=deny_list.identities)
        registry.ban(deny_list.packages)
        if supervisor is not None:
            supervisor.refuse(deny_list)

    async def expel(expulsion: Expulsion) -> None:
        instances = {identity.rpartition("/")[2] for identity in expulsion.identities}
        gone = await registry.expel(expulsion.identities)
        _log.warning("instances_expelled", instances=sorted(gone), reason=expulsion.reason)
        if supervisor is not None:
            supervisor.expel(instances, expulsion.reason)

    revocation.subscribe(refuse)
    revocation.on_expulsion(expel)


async def keep(revocation: Revocation, enrolment: EnrolmentService, clock: Clock) -> None:
    """Announce what was decided before the start; let ended denials go; forget old records."""
    forget_at = 0.0
    while True:
        await revocation.announce()
        if clock.monotonic() >= forget_at:
            forget_at = clock.monotonic() + FORGET_EVERY_S
            await enrolment.forget()
        await asyncio.sleep(EXPIRY_EVERY_S)


def note_signatures(authority: Authority, audit: AuditTrail) -> None:
    """Have every certificate that is signed from here on noted in the audit trail."""
    loop = asyncio.get_running_loop()  # signing happens in threads, notes on the loop

    def signed(identity: SpiffeId, issued: Issued) -> None:
        event = AuditEvent(
            actor=SIGNER,
            action="certificate:sign",
            target=str(identity),
            reason=f"serial {issued.serial:x} until {issued.not_after.isoformat()}",
        )
        loop.call_soon_threadsafe(audit.note, event)

    authority.on_signed(signed)
