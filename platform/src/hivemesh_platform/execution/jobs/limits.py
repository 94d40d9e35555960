"""Limits as people see and set them; those of the settings stand until another one is set."""

from collections.abc import Mapping
from dataclasses import replace

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.api import LimitRequest, LimitView
from hivemesh_sdk.errors import ConflictError, InvalidError, NotFoundError

from hivemesh_platform.execution.ledger import limit_sql
from hivemesh_platform.execution.ledger.limit_rules import (
    Limit,
    Rate,
    Scope,
    scope_and_name,
    target_of,
)
from hivemesh_platform.execution.ledger.port import milliseconds
from hivemesh_platform.execution.ledger.signals import Signal
from hivemesh_platform.settings import ExecutionSettings
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Transaction

SETTINGS = "settings"
TENANT = "default"  # whose keys the settings mean


class FromSettingsError(ConflictError):
    """The limit stands in the settings."""

    slug = "limit-from-settings"


class LimitService:
    """What the API offers on limits."""

    def __init__(
        self, database: Database, settings: ExecutionSettings, clock: Clock, work: Signal
    ) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._work = work

    async def apply_settings(self) -> None:
        """Once, at the start: what the settings say, except where somebody has set another one.

        Raises:
            InvalidError: a target or rate is none.
        """
        wanted = written(self._settings.limits, self._settings.rates)
        now = milliseconds(self._clock)

        def apply(tx: Transaction) -> None:
            present = {(one.scope, one.name): one for one in limit_sql.all_limits(tx)}
            for key, one in wanted.items():
                if key not in present or present[key].origin == SETTINGS:
                    limit_sql.put(tx, one, now)
            for key, one in present.items():
                if one.origin == SETTINGS and key not in wanted:
                    limit_sql.remove(tx, one.scope, one.name)

        await self._database.write(apply)

    async def all(self, tenant: str) -> list[LimitView]:
        """Return the limits that a tenant may see, and how far each is used."""

        def read(tx: Transaction) -> list[LimitView]:
            return [_view(tx, one) for one in limit_sql.all_limits(tx) if _belongs(one, tenant)]

        return await self._database.read(read)

    async def set(self, target: str, request: LimitRequest, tenant: str, who: str) -> LimitView:
        """Set a limit in place of the one that there was.

        Raises:
            InvalidError: the target or the rate is none, or nothing is limited.
        """
        scope, name = scope_and_name(target, tenant)
        if request.running is None and request.rate is None:
            message = "give `running`, `rate`, or both"
            raise InvalidError(message, slug="limit-invalid")
        rate = None if request.rate is None else Rate.parse(request.rate)
        limit = Limit(scope, name, request.running, rate, who)
        now = milliseconds(self._clock)

        def put(tx: Transaction) -> LimitView:
            limit_sql.put(tx, limit, now)
            return _view(tx, limit)

        view = await self._database.write(put)
        self._work.give()
        return view

    async def unset(self, target: str, tenant: str) -> None:
        """Take a limit away; one of the settings under it comes back.

        Raises:
            NotFoundError: there is none.
            FromSettingsError: it stands in the settings.
        """
        scope, name = scope_and_name(target, tenant)
        below = written(self._settings.limits, self._settings.rates).get((scope, name))
        now = milliseconds(self._clock)

        def remove(tx: Transaction) -> None:
            present = next(
                (one for one in limit_sql.all_limits(tx) if (one.scope, one.name) == (scope, name)),
                None,
            )
            if present is None:
                message = f"{target!r} has no limit; `hivemesh limit list`"
                raise NotFoundError(message)
            if present.origin == SETTINGS:
                message = f"the limit of {target!r} stands in the settings"
                raise FromSettingsError(message)
            limit_sql.remove(tx, scope, name)
            if below is not None:
                limit_sql.put(tx, below, now)

        await self._database.write(remove)
        self._work.give()


def written(limits: Mapping[str, int], rates: Mapping[str, str]) -> dict[tuple[Scope, str], Limit]:
    """The limits of the settings.

    Raises:
        InvalidError: a target or rate is none.
    """
    found: dict[tuple[Scope, str], Limit] = {}
    for target, running in limits.items():
        name = scope_and_name(target, TENANT)
        found[name] = Limit(*name, running, None, SETTINGS)
    for target, rate in rates.items():
        name = scope_and_name(target, TENANT)
        known = found.get(name, Limit(*name, None, None, SETTINGS))
        found[name] = replace(known, rate=Rate.parse(rate))
    return found


def _belongs(limit: Limit, tenant: str) -> bool:
    return limit.scope != "key" or limit.name.startswith(f"{tenant}/")


def _view(tx: Transaction, limit: Limit) -> LimitView:
    return LimitView(
        target=target_of(limit),
        running=limit.running,
        rate=None if limit.rate is None else limit.rate.text(),
        now_running=limit_sql.running(tx, limit),
        now_waiting=limit_sql.waiting(tx, limit),
        origin=limit.origin,
    )
