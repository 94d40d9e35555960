"""Removes what has ended and is older than the settings keep it: rows first, then bytes.

Everything goes in small transactions with a pause behind each, so that those who work wait for
none of them. Bytes go in two steps: a sweep forgets what nothing names, and the next one, which
looks anew at what is named, removes it unless it was stored again meanwhile.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.api import RetentionView

from hivemesh_platform.artifacts.kept import KeptDigests
from hivemesh_platform.artifacts.service import ArtifactService
from hivemesh_platform.execution.ledger import retention_sql as sql
from hivemesh_platform.execution.ledger.attempt_sql import due_groups, remove_groups
from hivemesh_platform.execution.ledger.port import milliseconds
from hivemesh_platform.execution.runs.engine import RunEngine
from hivemesh_platform.settings import RetentionSettings
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.errors import PASSING
from hivemesh_platform.storage.transaction import Transaction

DAY_MS = 86_400_000
GROUP = 50  # runs of one transaction
ROWS = 500  # or so many rows of a run, or jobs, of which each is one
IN_COMMON = 10  # or so many rows that jobs have in common, each of hundreds
READ_GROUP = 500
PAUSE_S = 0.02
UNREFERENCED_S = 86_400.0  # longer than any step: what it has stored is named by its answer

_log = structlog.get_logger("hivemesh.retention")
_Due = Callable[[Transaction, str, int, int], list[str]]
_Remove = Callable[[Transaction, Sequence[str], int], int]
_Check = Callable[[], None]
_NAMING = (  # letters before what is made of them: one that is retried meanwhile names nothing more
    (sql.named_by_letters, 500),
    (sql.named_by_runs, 50),
    (sql.named_by_batches, 5000),
    (sql.named_by_jobs, 500),
)


def _no_check() -> None:
    """Let a sweep go on."""


class _NotOursError(Exception):
    """Another replica leads now: its sweep goes on where this one ends."""


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
        engine: RunEngine,
        settings: RetentionSettings,
        clock: Clock,
        leads: Callable[[], bool],
    ) -> None:
        self._database = database
        self._files = files
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._leads = leads
        self._sweeping = asyncio.Lock()
        self.removed = Removed()

    async def run(self) -> None:
        """Sweep regularly, where and while this replica leads, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.every_s)
            await self.sweep_as_leader()

    async def sweep_as_leader(self) -> None:
        """Sweep, unless another replica leads; end where another one begins to."""
        try:
            self._check_leads()
            await self.sweep(self._check_leads)
        except _NotOursError:
            _log.info("sweep_left_to_leader")
        except PASSING as error:  # the next sweep goes on
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

    async def sweep(self, check: _Check = _no_check) -> dict[str, int]:
        """Remove all that is due; returns how much of each kind.

        Everything is looked at again in the transaction that removes it, so two sweeps at once, at
        two replicas, remove nothing that one alone would not. `check` ends it by an error.
        """
        async with self._sweeping:
            started = self._clock.monotonic()
            counts = {
                "runs": await self._expire_runs(check),
                "jobs": await self._remove_jobs(check),
                "events": await self._in_groups(
                    sql.runs_with_events,
                    sql.remove_events,
                    sql.RUNS,
                    self._before(self._settings.events_days),
                    check,
                ),
            }
            await self._remove_rows(check)
            jobs_before = self._before(self._settings.jobs_days)
            await self._in_groups(due_groups, remove_groups, "", jobs_before, check, IN_COMMON)
            counts |= await self._remove_files(await self._kept(check), check)
            for name, count in counts.items():
                self.removed.counts[name] = self.removed.counts.get(name, 0) + count
            self.removed.at = datetime.fromtimestamp(self._clock.now().timestamp(), UTC)
            seconds = round(self._clock.monotonic() - started, 3)
            _log.info("swept", seconds=seconds, **counts)
            return counts

    async def _remove_files(self, kept: KeptDigests, check: _Check) -> dict[str, int]:
        if kept.unknown:  # what they hold is needed once they were stored again
            _log.error("artifacts_left", damaged_folders=sorted(kept.unknown))
            return {"artifacts": 0, "entries": 0}
        artifacts = await self._files.collect(UNREFERENCED_S, kept, check)
        before = self._before(self._settings.artifacts_days)
        entries = 0 if before is None else await self._files.expire(before, kept, check)
        return {"artifacts": artifacts, "entries": entries}

    async def _due(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, prefix, days, due in (
            ("runs", sql.RUNS, self._settings.runs_days, sql.due_runs),
            ("jobs", sql.JOBS, self._settings.jobs_days, sql.due_jobs),
            ("events", sql.RUNS, self._settings.events_days, sql.runs_with_events),
        ):
            found[name] = await self._count(due, prefix, self._before(days))
        before = self._before(self._settings.artifacts_days)
        kept = await self._kept()
        found["artifacts"] = await self._files.count_unreferenced(UNREFERENCED_S, kept)
        found["entries"] = 0
        if before is not None:
            async for group in self._files.expiring(before, kept):
                found["entries"] += len(group)
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

    async def _expire_runs(self, check: _Check) -> int:
        before = self._before(self._settings.runs_days)
        now = milliseconds(self._clock)

        def expire(tx: Transaction, runs: Sequence[str], before: int) -> int:
            return sum(sql.expire_run(tx, run, before, now) for run in runs)

        return await self._in_groups(sql.due_runs, expire, sql.RUNS, before, check)

    async def _remove_jobs(self, check: _Check) -> int:
        before = self._before(self._settings.jobs_days)
        total = 0
        for _ in range(2):  # the first job of a batch goes behind all others of it
            total += await self._in_groups(
                sql.due_jobs, sql.remove_jobs, sql.JOBS, before, check, ROWS
            )
        return total

    async def _in_groups(
        self,
        due: _Due,
        remove: _Remove,
        after: str,
        before: int | None,
        check: _Check,
        size: int = GROUP,
    ) -> int:
        total = 0
        while before is not None:
            group = await self._read(due, after, before, size)
            if not group:
                break
            check()
            total += await self._write(remove, group, before)
            after = group[-1]
        return total

    async def _remove_rows(self, check: _Check) -> None:
        """Finish the runs that this sweep or an interrupted one has begun to remove."""
        while runs := await self._database.read(sql.expired):
            check()
            await self._engine.forget(runs)
            for run in runs:
                await self._remove_rows_of(run, check)

    async def _remove_rows_of(self, run: str, check: _Check) -> None:
        while True:
            check()
            if await self._database.write(lambda tx: sql.remove_rows(tx, run, ROWS)):
                return
            await asyncio.sleep(PAUSE_S)

    async def _kept(self, check: _Check = _no_check) -> KeptDigests:
        """The digests that something which is kept names, and what lies in folders of them."""
        kept = KeptDigests()
        await self._files.keep(await self._database.read(sql.named_by_pipelines), kept)
        for names, limit in _NAMING:
            after = sql.JOBS if names is sql.named_by_jobs else ""
            while True:
                check()
                after, some = await self._database.read(partial(names, after=after, limit=limit))
                await self._files.keep(some, kept)
                if not after:
                    break
        return kept

    async def _read(self, due: _Due, after: str, before: int, limit: int) -> list[str]:
        return await self._database.read(lambda tx: due(tx, after, before, limit))

    async def _write(self, remove: _Remove, group: Sequence[str], before: int) -> int:
        count = await self._database.write(lambda tx: remove(tx, group, before))
        await asyncio.sleep(PAUSE_S)
        return count

    def _check_leads(self) -> None:
        if not self._leads():
            raise _NotOursError

    def _before(self, days: float) -> int | None:
        return None if not days else milliseconds(self._clock) - round(days * DAY_MS)
