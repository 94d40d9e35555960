"""Lends secrets to steps: to the worker that holds the step, until the step ends.

What is lent is masked in the platform's own log while the lease lasts. Every answer, given or
refused, is written down before it leaves; of refusals, five a minute of one identity. Its further ones
are noted, many as one, so that nobody fills the trail or keeps its disk busy by being refused.
"""

import asyncio
import os
from collections.abc import Callable

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.secrets import SecretLease
from hivemesh_sdk.contracts.tickets import Ticket
from hivemesh_sdk.errors import HivemeshError, RetryableError
from hivemesh_sdk.redaction import REDACTOR

from hivemesh_platform.audit.model import Actor, AuditEvent, Decision
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.credentials import store as leases
from hivemesh_platform.credentials.errors import (
    LeaseEndedError,
    SecretDeniedError,
    SecretMissingError,
    SecretsSealedError,
)
from hivemesh_platform.credentials.model import Lease, StepSecrets, StoredSecret
from hivemesh_platform.credentials.ports import SecretStore, StepHolders
from hivemesh_platform.credentials.rules import refusal, scoped
from hivemesh_platform.storage.database import Database
from hivemesh_platform.trust.failures import FailureLimit

KEEP_S = 30 * 86_400.0  # rows of ended leases; the audit trail keeps who had what

_log = structlog.get_logger("hivemesh.secrets")


class Lending:
    """The leases of this process's steps."""

    def __init__(
        self,
        store: SecretStore,
        database: Database,
        audit: AuditTrail,
        clock: Clock,
        *,
        lease_s: float,
        found_sealed: Callable[[str], None],
    ) -> None:
        self._store = store
        self._database = database
        self._audit = audit
        self._clock = clock
        self._lease_s = lease_s
        self._found_sealed = found_sealed
        self._lent: dict[tuple[str, int], list[str]] = {}  # values by step and attempt, to mask
        self._ending: set[asyncio.Task[None]] = set()
        self._refusals = FailureLimit(clock, what="refused secrets")

    async def resolve(
        self, path: str, ticket: Ticket, actor: Actor, holders: StepHolders
    ) -> SecretLease:
        """Lend a secret to the holder of a checked ticket.

        Raises:
            SecretMissingError: there is no such secret.
            SecretDeniedError: the step may not use it.
            SecretsSealedError: the store cannot be read at the moment.
            LeaseEndedError: the step has ended meanwhile.
        """
        step = _running(ticket, holders)
        rule, why = refusal(step, path)
        if why:
            await self._refused(step, actor, path, why, rule)
            raise SecretDeniedError(why)
        try:
            found = await self._store.read(
                scoped(step.tenant, path), holder=f"{step.key}#{step.attempt}"
            )
        except SecretsSealedError as error:
            self._found_sealed(error.detail)
            raise
        except (SecretMissingError, SecretDeniedError) as error:
            await self._refused(step, actor, path, error.detail, "store")
            raise
        lease = self._lease(step, path, found)
        await self._audit.record(_event(step, actor, path, version=found.version))
        REDACTOR.add(found.value)
        self._lent.setdefault((step.key, step.attempt), []).append(found.value)
        await self._database.write(lambda tx: leases.insert(tx, lease))
        if holders.secrets_of(ticket) is None:
            self.step_ended(step.key, step.attempt)
        _running(ticket, holders)
        return SecretLease(
            id=lease.id,
            path=path,
            version=found.version,
            value=found.value,
            expires_in_s=(lease.expires_at - lease.created_at) / 1000,
        )

    def step_ended(self, key: str, attempt: int) -> None:
        """End the leases of a step, if it has any; nobody waits for it."""
        lent = self._lent.pop((key, attempt), None)
        if lent is None:
            return
        task = asyncio.create_task(self._end(key, attempt, lent), name=f"leases of {key}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Wait for the leases that are being ended."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=5.0)

    def _lease(self, step: StepSecrets, path: str, found: StoredSecret) -> Lease:
        seconds = self._lease_s
        if found.lease_s is not None:
            seconds = min(seconds, found.lease_s)
        if step.ends_at is not None:
            seconds = min(seconds, max(0.0, step.ends_at - self._clock.monotonic()))
        now = self._now()
        return Lease(
            id=f"lease_{os.urandom(16).hex()}",
            path=path,
            version=found.version,
            run=step.run,
            step=step.key,
            attempt=step.attempt,
            identity=step.identity,
            created_at=now,
            expires_at=now + round(seconds * 1000),
            store_lease=found.lease,
            tenant=step.tenant,
        )

    async def _refused(
        self, step: StepSecrets, actor: Actor, path: str, why: str, rule: str
    ) -> None:
        event = _event(step, actor, path, "deny", why, rule)
        try:
            self._refusals.add(actor.id)
        except RetryableError:
            self._audit.note(event)
        else:
            await self._audit.record(event)

    async def _end(self, key: str, attempt: int, lent: list[str]) -> None:
        now = self._now()
        try:
            given = await self._database.write(
                lambda tx: leases.revoke_of_step(tx, key, attempt, now)
            )
            await self._give_back(given)
        except HivemeshError as error:
            _log.error("leases_not_ended", step=key, detail=error.detail)
        finally:
            for value in lent:
                REDACTOR.remove(value)

    async def follow(self, *, leads: bool) -> None:
        """End the leases of steps that have ended at other replicas; one replica gives them back."""
        now, lent = self._now(), await self._database.read(leases.open_steps)
        if leads and lent:
            await self._give_back(
                await self._database.write(lambda tx: leases.revoke_ended(tx, now))
            )
        if self._lent:
            open_steps = await self._database.read(leases.open_steps)
            for step in [step for step in self._lent if step not in open_steps]:
                for value in self._lent.pop(step):
                    REDACTOR.remove(value)

    async def forget_former(self, *, alone: bool = True) -> None:
        """Whoever held a lease of a former process has no step of this one, if this one is alone."""
        now = self._now()
        revoke = leases.revoke_all if alone else leases.revoke_ended
        given = await self._database.write(lambda tx: revoke(tx, now))
        await self._database.write(lambda tx: leases.forget_before(tx, now - round(KEEP_S * 1000)))
        await self._give_back(given)

    async def _give_back(self, store_leases: list[str]) -> None:
        for lease in dict.fromkeys(store_leases):  # several values may be of one
            try:
                await self._store.revoke(lease)
            except HivemeshError as error:  # it expires there by itself
                _log.warning("lease_not_revoked", detail=error.detail)

    def _now(self) -> int:
        return round(self._clock.now().timestamp() * 1000)


def _running(ticket: Ticket, holders: StepHolders) -> StepSecrets:
    step = holders.secrets_of(ticket)
    if step is None:
        message = f"attempt {ticket.attempt} of {ticket.step!r} has ended"
        raise LeaseEndedError(message)
    return step


def _event(  # noqa: PLR0913 - the members of the record
    step: StepSecrets,
    actor: Actor,
    path: str,
    decision: Decision = "allow",
    why: str = "",
    rule: str = "",
    *,
    version: int = 0,
) -> AuditEvent:
    return AuditEvent(
        actor=actor.id,
        action="secrets:resolve",
        target=path,
        decision=decision,
        reason=why or f"for step {step.key}, attempt {step.attempt}",
        rule=rule,
        on_behalf_of=step.on_behalf_of,
        run=step.run,
        serial=actor.serial,
        address=actor.address,
        tenant=step.tenant,
        parameters={"version": version, "step": step.key} if version else {"step": step.key},
    )
