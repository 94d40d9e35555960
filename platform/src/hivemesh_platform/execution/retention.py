"""Removes what has ended and is older than the settings keep it: rows first, then bytes.

Everything goes in small transactions with a pause behind each, so that those who work wait for
none of them. Bytes go in two steps: a sweep forgets what nothing names, and the next one, which
looks anew at what is named, removes it unless it was stored again meanwhile.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.api import RetentionView

from hivemesh_platform.artifacts.service import ArtifactService
from hivemesh_platform.execution import retention_sql as sql
from hivemesh_platform.execution.parts import milliseconds
from hivemesh_platform.settings import RetentionSettings
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.errors import StorageError
from hivemesh_platform.storage.transaction import Transaction

DAY_MS = 86_400_000
GROUP = 50  # runs or jobs, or rows of a run times ten, of one transaction
READ_GROUP = 500
PAUSE_S = 0.02
UNREFERENCED_S = 86_400.0  # longer than any step: what it has stored is named by its answer

_log = structlog.get_logger("hivemesh.retention")
_Due = Callable[[Transaction, str, int, int], list[str]]
_Remove = Callable[[Transaction, Sequence[str], int], int]
_Names = Callable[[Transaction, str, int], tuple[str, set[str]]]


@dataclass(slots=True)
class Removed:
    """What sweeps have removed since the start of this process."""

    counts: dict[str, int] = field(default_factory=dict)
    at: datetime | None = None


class Retention:
    """Sweeps when its time has come and when it is asked to; one sweep at a time."""

    def __init__(
        self,
        database: Database,
        files: ArtifactService,
        settings: RetentionSettings,
        clock: Clock,
        leads: Callable[[], bool],
    ) -> None:
        self._database = database
        self._files = files
        self._settings = settings
        self._clock = clock
        self._leads = leads
        self._sweeping = asyncio.Lock()
        self.removed = Removed()

    async def run(self) -> None:
        """Sweep regularly, where this replica leads, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.every_s)
            if not self._leads():
                continue
            try:
                await self.sweep()
            except StorageError as error:  # the next sweep goes on
                _log.warning("sweep_interrupted", detail=error.detail)

    async def show(self, *, count: bool = False) -> RetentionView:
        """How long things are kept, what was removed; with `count` also what is due now."""
        kept = self._settings
        return RetentionView(
            runs_days=kept.runs_days,
            jobs_days=kept.jobs_days,
            events_days=kept.events_days,
            artifacts_days=kept.artifacts_days,
            swept_at=None if self.removed.at is None else self.removed.at.isoformat(),
            removed=dict(self.removed.counts),
            due=await self._due() if count else {},
        )

    async def sweep(self) -> dict[str, int]:
        """Remove all that is due; returns how much of each kind."""
        async with self._sweeping:
            started = self._clock.monotonic()
            counts = {
                "runs": await self._expire_runs(),
                "jobs": await self._in_groups(
                    sql.due_jobs, sql.remove_jobs, sql.JOBS, self._before(self._settings.jobs_days)
                ),
                "events": await self._in_groups(
                    sql.runs_with_events,
                    sql.remove_events,
                    sql.RUNS,
                    self._before(self._settings.events_days),
                ),
            }
            await self._remove_rows()
            named = await self._named()
            counts["artifacts"] = await self._files.collect(UNREFERENCED_S, named)
            before = self._before(self._settings.artifacts_days)
            counts["entries"] = 0 if before is None else await self._files.expire(before, named)
            for name, count in counts.items():
                self.removed.counts[name] = self.removed.counts.get(name, 0) + count
            self.removed.at = datetime.fromtimestamp(self._clock.now().timestamp(), UTC)
            seconds = round(self._clock.monotonic() - started, 3)
            _log.info("swept", seconds=seconds, **counts)
            return counts

    async def _due(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, prefix, days, due in (
            ("runs", sql.RUNS, self._settings.runs_days, sql.due_runs),
            ("jobs", sql.JOBS, self._settings.jobs_days, sql.due_jobs),
            ("events", sql.RUNS, self._settings.events_days, sql.runs_with_events),
        ):
            found[name] = await self._count(due, prefix, self._before(days))
        before = self._before(self._settings.artifacts_days)
        named = await self._named()
        found["artifacts"] = len(await self._files.unreferenced(UNREFERENCED_S, named))
        found["entries"] = 0 if before is None else len(await self._files.expiring(before, named))
        return found

    async def _count(self, due: _Due, after: str, before: int | None) -> int:
        total = 0
        while before is not None:
            group = await self._read(due, after, before, READ_GROUP)
            total += len(group)
            if len(group) < READ_GROUP:
                break
            after = group[-1]
        return total

    async def _expire_runs(self) -> int:
        before = self._before(self._settings.runs_days)
        now = milliseconds(self._clock)

        def expire(tx: Transaction, runs: Sequence[str], before: int) -> int:
            return sum(sql.expire_run(tx, run, before, now) for run in runs)

        return await self._in_groups(sql.due_runs, expire, sql.RUNS, before)

    async def _in_groups(self, due: _Due, remove: _Remove, after: str, before: int | None) -> int:
        total = 0
        while before is not None:
            group = await self._read(due, after, before, GROUP)
            if not group:
                break
            total += await self._write(remove, group, before)
            after = group[-1]
        return total

    async def _remove_rows(self) -> None:
        """Finish the runs that this sweep or an interrupted one has begun to remove."""
        while runs := await self._database.read(sql.expired):
            for run in runs:
                await self._remove_rows_of(run)

    async def _remove_rows_of(self, run: str) -> None:
        while True:
            if await self._database.write(lambda tx: sql.remove_rows(tx, run, GROUP * 10)):
                return
            await asyncio.sleep(PAUSE_S)

    async def _named(self) -> set[str]:
        """The digests that something which is kept names, and what lies in folders of them."""
        found = await self._database.read(sql.named_by_pipelines)
        for names in (sql.named_by_runs, sql.named_by_jobs, sql.named_by_letters):
            found |= await self._all_named(names)
        return await self._files.with_entries(found)

    async def _all_named(self, names: _Names) -> set[str]:
        found: set[str] = set()
        after = sql.JOBS if names is sql.named_by_jobs else ""
        while True:
            place = after
            after, some = await self._database.read(lambda tx: names(tx, place, READ_GROUP))  # noqa: B023 - read at once
            found |= some
            if not after:
                return found

    async def _read(self, due: _Due, after: str, before: int, limit: int) -> list[str]:
        return await self._database.read(lambda tx: due(tx, after, before, limit))

    async def _write(self, remove: _Remove, group: Sequence[str], before: int) -> int:
        count = await self._database.write(lambda tx: remove(tx, group, before))
        await asyncio.sleep(PAUSE_S)
        return count

    def _before(self, days: float) -> int | None:
        return None if not days else milliseconds(self._clock) - round(days * DAY_MS)
