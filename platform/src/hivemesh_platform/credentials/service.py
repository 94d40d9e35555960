"""Secrets for people: stored, listed, shown on demand, and every one of these written down.

Knows too whether the store can be read at the moment. Steps are served by `lending`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog
from hivemesh_sdk.errors import HivemeshError, InvalidError

from hivemesh_platform.audit.model import Actor, AuditEvent
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.credentials.errors import (
    SecretDeniedError,
    SecretsSealedError,
)
from hivemesh_platform.credentials.model import SecretInfo, StoredSecret
from hivemesh_platform.credentials.ports import SecretStore
from hivemesh_platform.credentials.rules import (
    DEFAULT_TENANT,
    TENANTS,
    check_path,
    check_value,
    is_kept,
    scoped,
)

_log = structlog.get_logger("hivemesh.secrets")


class SecretService:
    """What the API offers on secrets, and what a plan asks of them."""

    def __init__(self, store: SecretStore, audit: AuditTrail, *, check_s: float) -> None:
        self._store = store
        self._audit = audit
        self._check_s = check_s
        self._reason = ""

    @property
    def sealed(self) -> str:
        """Why the store cannot be read, as it was when last asked; "" where it can."""
        return self._reason

    async def check(self) -> str:
        """Ask the store whether it can be read."""
        try:
            reason = await self._store.sealed()
        except Exception as error:  # noqa: BLE001 - a store is another system, or a plug-in's code
            reason = f"the store cannot be asked: {error}"
        if reason != self._reason:
            self._tell(reason)
        return reason

    def found_sealed(self, reason: str) -> None:
        """Note what somebody who read from the store has met."""
        self._tell(reason)

    async def watch(self, opened: Callable[[], None]) -> None:
        """Ask again and again, and tell when the store has been unsealed, until cancelled."""
        while True:
            before = self._reason
            if not await self.check() and before:
                opened()
            await asyncio.sleep(self._check_s)

    # -- people -----------------------------------------------------------------------------

    async def entries(self, actor: Actor, prefix: str = "") -> list[SecretInfo]:
        """What is told of all secrets, or of those below a path."""
        if prefix:
            check_path(prefix)
        found = await self._store.entries(scoped(actor.tenant, prefix))
        shown = [_shown(actor.tenant, one) for one in found]
        return [one for one in shown if one is not None]

    async def describe(self, actor: Actor, path: str) -> SecretInfo:
        """What is told of one secret.

        Raises:
            SecretMissingError: nothing was ever stored under the path.
        """
        check_path(path)
        info = await self._store.describe(scoped(actor.tenant, path))
        return replace(info, path=path)

    async def set(self, actor: Actor, path: str, value: str) -> SecretInfo:
        """Store a value as a new version."""
        check_value(value)
        return await self._act(
            actor, "secrets:set", path, lambda place: self._store.write(place, value)
        )

    async def rotate(self, actor: Actor, path: str, value: str) -> SecretInfo:
        """Store a value in place of the present one, which must exist and differ.

        Raises:
            SecretMissingError: there is none.
            InvalidError: it is the present one.
        """
        check_value(value)

        async def write(place: str) -> SecretInfo:
            present = await self._store.read(place)
            if present.value == value:
                message = f"that is the present value of {path!r}; give a new one"
                raise InvalidError(message)
            return await self._store.write(place, value)

        return await self._act(actor, "secrets:rotate", path, write)

    async def delete(self, actor: Actor, path: str) -> SecretInfo:
        """Withdraw a secret."""
        return await self._act(actor, "secrets:delete", path, self._store.delete)

    async def restore(self, actor: Actor, path: str) -> SecretInfo:
        """Bring a withdrawn secret back."""
        return await self._act(actor, "secrets:restore", path, self._store.restore)

    async def reveal(self, actor: Actor, path: str, version: int | None = None) -> StoredSecret:
        """Show a person a value; written down before he has it.

        Raises:
            SecretMissingError: there is none.
        """
        check_path(path)
        found = await self._store.read(scoped(actor.tenant, path), version)
        parameters = {"version": found.version}
        await self._audit.record(
            AuditEvent.of(actor, "secrets:reveal", path, parameters=parameters)
        )
        return replace(found, path=path)

    async def unknown(self, paths: frozenset[str], tenant: str = DEFAULT_TENANT) -> frozenset[str]:
        """Those of the paths under which nothing is stored; none while that cannot be said.

        For nobody is there anything under the paths below which the secrets of tenants lie.
        """
        missing = set(filter(is_kept, paths))
        try:
            for path in sorted(paths - missing):
                if not await self._exists(scoped(tenant, path)):
                    missing.add(path)
        except SecretsSealedError as error:
            self._tell(error.detail)
        return frozenset(missing)

    def _tell(self, reason: str) -> None:
        if reason == self._reason:
            return
        self._reason = reason
        if reason:
            _log.warning("secrets_sealed", reason=reason)
        else:
            _log.info("secrets_unsealed")

    async def _exists(self, place: str) -> bool:
        try:
            return await self._store.exists(place)
        except SecretDeniedError:  # it says so again, and is written down, when it is used
            return True

    async def _act(
        self,
        actor: Actor,
        action: str,
        path: str,
        work: Callable[[str], Awaitable[SecretInfo]],
    ) -> SecretInfo:
        """Write a change down, then make it."""
        check_path(path)
        await self._audit.record(AuditEvent.of(actor, action, path))
        try:
            return replace(await work(scoped(actor.tenant, path)), path=path)
        except HivemeshError as error:
            failed = AuditEvent.of(actor, action, path, decision="deny", reason=error.detail)
            await self._audit.record(failed)
            raise


def _shown(tenant: str, info: SecretInfo) -> SecretInfo | None:
    """A secret as its tenant names it; those of others are nobody else's business."""
    if tenant == DEFAULT_TENANT:
        return None if info.path.startswith(f"{TENANTS}.") else info
    return replace(info, path=info.path.removeprefix(f"{TENANTS}.{tenant}."))
