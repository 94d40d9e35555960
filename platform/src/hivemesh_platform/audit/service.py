"""What people ask of the audit trail: lists, verification, exports; and the dropping of old records."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import HivemeshError

from hivemesh_platform.audit import verification
from hivemesh_platform.audit.aside import forget, left
from hivemesh_platform.audit.checkpoints import Checkpoint, Sink, sink_of
from hivemesh_platform.audit.export import Span, export
from hivemesh_platform.audit.index import AuditIndex, Found, Query
from hivemesh_platform.audit.keys import open_keys
from hivemesh_platform.audit.records import Record, parameter_hmac
from hivemesh_platform.audit.trail import FOLDER, AuditLog, open_trail
from hivemesh_platform.audit.verification import Report
from hivemesh_platform.storage.database import Database

BLOCK = 64 * 1024
FOLLOW_EVERY_S = 5.0
DROP_EVERY_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """How the trail of a state folder is kept."""

    trust_domain: str
    checkpoint_file: str
    keep_days: int = 0
    chain: str = ""  # the replica whose trail it is; "" where there is one
    chains: Path | None = None  # folder with the homes of all replicas


class AuditService:
    """Reads the trail of a running platform. Made by `open_audit`."""

    def __init__(
        self, trail: AuditLog, index: AuditIndex, sink: Sink, clock: Clock, options: AuditOptions
    ) -> None:
        self.trail = trail
        self._index = index
        self._sink = sink
        self._clock = clock
        self._trust_domain = options.trust_domain
        self._keep = timedelta(days=options.keep_days)
        self._chain = options.chain
        self._chains = options.chains
        self._verifying = asyncio.Lock()
        self._log = structlog.get_logger("hivemesh.audit")

    async def find(self, query: Query) -> list[Record]:
        """The records of a query, the newest first; what was recorded before is among them.

        Raises:
            InvalidError: a pattern has too many stars.
        """
        return [one.record for one in await self.entries(query)]

    async def entries(self, query: Query) -> list[Found]:
        """The same, each with the replica whose chain it is of; those of all replicas.

        Raises:
            InvalidError: a pattern has too many stars.
        """
        await self._index.follow((await self.trail.end()).seq)
        return await self._index.entries(query)

    @property
    def several(self) -> bool:
        """Whether there are chains of several replicas."""
        return self._chains is not None

    async def verify(self) -> Report:
        """Verify this replica's chain with its end and its second place, one request at a time."""
        async with self._verifying:
            end = await self.trail.end()
            last = Checkpoint(seq=end.seq, hash=end.hash, ts="") if end.seq else None
            return await asyncio.to_thread(
                verification.verify,
                self.trail.folder,
                self._sink.path,
                told=self._sink.end,
                key=self.trail.keys.signing.public.id,
                end=last,
            )

    async def verify_others(self) -> dict[str, Report]:
        """Verify the chains of the other replicas, those that are gone too, by their replica.

        Their second places are at their machines, so nothing here shows that an end was cut off
        behind the last checkpoint.
        """
        async with self._verifying:
            names = await asyncio.to_thread(self._others)
            return {
                name: await asyncio.to_thread(verification.verify, self._home(name))
                for name in names
            }

    def _others(self) -> list[str]:
        if self._chains is None:
            return []
        found = (path.parent.name for path in self._chains.glob(f"*/{FOLDER}") if path.is_dir())
        return sorted(name for name in found if name != self._chain)

    def _home(self, chain: str) -> Path:
        if self._chains is None:
            return self.trail.folder
        return self._chains / chain / FOLDER

    @property
    def chain(self) -> str:
        """The replica whose chain this one writes; empty where there is one."""
        return self._chain

    async def export(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[bytes]:
        """The blocks of an export; see `audit.export`."""
        await self.trail.checkpoint()
        span = Span(
            trust_domain=self._trust_domain,
            now=self._clock.now(),
            last=(await self.trail.end()).seq,
            since=since,
            until=until,
        )
        lines = export(self.trail.folder, self.trail.keys, span)
        while block := await asyncio.to_thread(_block, lines):
            yield block

    def hash(self, name: str, value: object) -> str:
        """What records hold in place of a parameter's value."""
        return parameter_hmac(self.trail.keys.hmac, name, value)

    async def take_up(self) -> None:
        """Take what commands have left beside the chain into it.

        Raises:
            AuditUnavailableError: it cannot be written; the rest stays where it is.
        """
        for path, event, at in await asyncio.to_thread(lambda: list(left(self.trail.folder))):
            await self.trail.record(event, at)
            await asyncio.to_thread(forget, path)

    async def drop(self) -> None:
        """Drop sealed segments that are older than they have to be kept."""
        if not self._keep:
            return
        dropped = await self.trail.drop_before(self._keep)
        if dropped:
            await self._index.forget_up_to(dropped[-1].last)

    async def run(self) -> None:
        """Keep the index close to the trail, and the trail within its time."""
        drop_at = 0.0
        while True:
            due = self._clock.monotonic() >= drop_at
            if due:
                drop_at = self._clock.monotonic() + DROP_EVERY_S
            try:
                await self.take_up()
                await self._index.follow((await self.trail.end()).seq)
                if due:
                    await self.drop()
            except (HivemeshError, OSError) as error:  # a full disk: the files keep everything
                self._log.warning("audit_index_late", error=str(error))
            await asyncio.sleep(FOLLOW_EVERY_S)


@asynccontextmanager
async def open_audit(
    state_folder: Path, database: Database, clock: Clock, options: AuditOptions
) -> AsyncIterator[AuditService]:
    """Open the trail of a state folder, whose lock the caller holds.

    Of several replicas each has a chain of its own, in a folder that all can read.
    """
    home = state_folder if options.chains is None else options.chains / options.chain
    folder = home / FOLDER
    keys = open_keys(home / "trust", folder)
    sink = sink_of(options.checkpoint_file, state_folder)
    async with open_trail(folder, keys, sink, clock) as trail:
        index = AuditIndex(
            database,
            folder,
            chain=options.chain,
            chains=None if options.chains is None else _folders(options.chains),
        )
        yield AuditService(trail, index, sink, clock, options)


def _folders(chains: Path) -> Callable[[str], Path]:
    return lambda chain: chains / chain / FOLDER


def _block(lines: Iterator[bytes]) -> bytes:
    found: list[bytes] = []
    size = 0
    for line in lines:
        found.append(line)
        size += len(line)
        if size >= BLOCK:
            break
    return b"".join(found)
