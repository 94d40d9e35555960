"""The index of the trail: which record is where, by actor, action, object, run and time.

It follows the files and is made from them again where it does not fit; nothing is read from it but
places.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from hivemesh_sdk.errors import InvalidError

from hivemesh_platform.audit import records
from hivemesh_platform.audit.records import Record
from hivemesh_platform.audit.segments import Line, Segment, lines, segments
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Transaction, Value

AT_ONCE = 2000  # rows in one transaction
MAX_STARS = 3  # a pattern with many of them takes long to compare
_INSERT = """
INSERT INTO audit_index
(chain, seq, tenant, at, actor, on_behalf_of, action, object, decision, run, segment, place)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (chain, seq) DO UPDATE SET tenant = excluded.tenant, at = excluded.at,
       actor = excluded.actor, on_behalf_of = excluded.on_behalf_of, action = excluded.action,
       object = excluded.object, decision = excluded.decision, run = excluded.run,
       segment = excluded.segment, place = excluded.place
"""


@dataclass(frozen=True, slots=True)
class Behind:
    """Where a list of several chains goes on: time, number and chain of a record."""

    at: int
    seq: int
    chain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to look for; a text may hold `*` for any characters. The newest records come first."""

    actor: str = ""
    action: str = ""
    object: str = ""
    decision: str = ""
    run: str = ""
    tenant: str = ""
    since: datetime | None = None
    until: datetime | None = None
    before: int = 0  # only records with a lower number; 0 = all
    behind: Behind | None = None  # only records behind this one, where chains are merged
    merged: bool = False  # by time; one chain alone keeps the order of its numbers
    limit: int = 100


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the index goes on: a segment and a byte of its file."""

    segment: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """What comes next: rows, and where to go on behind them."""

    rows: list[tuple[Value, ...]]
    place: _Place
    more: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A record, whose chain it is of, and where the list goes on behind it."""

    record: Record
    chain: str
    behind: Behind


class AuditIndex:
    """Knows the places of the records of one folder, and reads those of other replicas' folders.

    `chains` gives the folder of each replica's records, this one's (`chain`) included; without it
    there is one chain.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        chain: str = "",
        chains: Callable[[str], Path] | None = None,
    ) -> None:
        self._database = database
        self._folder = folder
        self._chain = chain
        self._chains = chains
        self._place: _Place | None = None
        self._last = 0  # the record up to which it has followed
        self._one = asyncio.Lock()

    async def follow(self, last: int) -> None:
        """Take up what was written since the last time, up to the durable record `last`."""
        async with self._one:
            if self._place is None:
                self._place = await self._start()
            more = last != self._last
            while more:
                part = await asyncio.to_thread(self._read_on, self._place, last)
                if part.rows:
                    await self._database.write(partial(_add, rows=part.rows))
                self._place, more = part.place, part.more
            self._last = last

    async def find(self, query: Query) -> list[Record]:
        """The records of a query, the newest first.

        Raises:
            InvalidError: a pattern has too many stars.
        """
        return [one.record for one in await self.entries(query)]

    async def entries(self, query: Query) -> list[Found]:
        """The same, with the chain of each record and where the list goes on behind it.

        Raises:
            InvalidError: a pattern has too many stars.
        """

        def places(tx: Transaction) -> list[tuple[Value, ...]]:
            return [tuple(row) for row in tx.all(*_sql(query, tx))]

        found = await self._database.read(places)
        return await asyncio.to_thread(self._records, found)

    async def forget_up_to(self, seq: int) -> None:
        """Drop the rows of records that are gone."""
        await self._database.write(
            lambda tx: tx.execute(
                "DELETE FROM audit_index WHERE chain = ? AND seq <= ?", (self._chain, seq)
            )
        )

    async def _start(self) -> _Place:
        """Behind the newest row, if the files hold its record; else from the beginning."""
        sql = (
            "SELECT segment, place, seq FROM audit_index WHERE chain = ? ORDER BY seq DESC LIMIT 1"
        )
        row = await self._database.read(lambda tx: tx.one(sql, (self._chain,)))
        if row is None:
            return _Place()
        segment, place, seq = tuple(row)
        line = await asyncio.to_thread(_line, self._folder, segment, place)
        record = None if line is None else records.read(line.data)
        if line is not None and record is not None and record.seq == seq:
            return _Place(segment, line.offset + len(line.data) + 1)
        await self._database.write(
            lambda tx: tx.execute("DELETE FROM audit_index WHERE chain = ?", (self._chain,))
        )
        return _Place()

    def _records(self, found: list[tuple[Value, ...]]) -> list[Found]:
        answers: list[Found] = []
        for chain, segment, place, at, seq in found:
            behind = Behind(int(at or 0), int(seq or 0), str(chain))
            line = _line(self._folder_of(behind.chain), int(segment or 0), int(place or 0))
            record = None if line is None else records.read(line.data)
            if record is not None:
                answers.append(Found(record, behind.chain, behind))
        return answers

    def _folder_of(self, chain: str) -> Path:
        if chain == self._chain or self._chains is None:
            return self._folder
        return self._chains(chain)

    def _read_on(self, place: _Place, last: int) -> _Part:
        rows: list[tuple[Value, ...]] = []
        for segment in segments(self._folder):
            if segment.dropped or segment.first < place.segment:
                continue
            offset = place.offset if segment.first == place.segment else 0
            for line in lines(segment.path, offset):
                record = records.read(line.data)
                if not line.complete or (record is not None and record.seq > last):
                    return _Part(rows, place, more=False)
                place = _Place(segment.first, line.offset + len(line.data) + 1)
                if record is not None:
                    rows.append((self._chain, *_row(record, segment.first, line.offset)))
                if len(rows) == AT_ONCE:
                    return _Part(rows, place, more=True)
        return _Part(rows, place, more=False)


def _line(folder: Path, segment: int, place: int) -> Line | None:
    try:
        return next(lines(Segment(segment, folder).path, place), None)
    except OSError:
        return None


def _row(record: Record, segment: int, offset: int) -> tuple[Value, ...]:
    return (
        record.seq,
        record.tenant,
        _milliseconds(datetime.fromisoformat(record.ts)),
        record.actor,
        record.on_behalf_of,
        record.action,
        record.object,
        record.decision,
        record.run,
        segment,
        offset,
    )


def _add(tx: Transaction, rows: Sequence[tuple[Value, ...]]) -> None:
    tx.execute_many(_INSERT, rows)


def _sql(query: Query, tx: Transaction) -> tuple[str, list[Value]]:
    clauses: list[str] = []
    values: list[Value] = []

    def add(clause: str, *wanted: Value) -> None:
        clauses.append(clause)
        values.extend(wanted)

    for column in ("action", "object", "run", "decision", "tenant"):
        wanted = getattr(query, column)
        if wanted:
            add(*_matching(tx, column, wanted))
    if query.actor:
        clause, value = _matching(tx, "actor", query.actor)
        behalf, _ = _matching(tx, "on_behalf_of", query.actor)
        add(f"({clause} OR {behalf})", value, value)
    if query.since is not None:
        add("at >= ?", _milliseconds(query.since))
    if query.until is not None:
        add("at < ?", _milliseconds(query.until))
    if query.before:
        add("seq < ?", query.before)
    if query.behind is not None:
        at, seq, chain = query.behind.at, query.behind.seq, query.behind.chain
        add(
            "(at < ? OR (at = ? AND (seq < ? OR (seq = ? AND chain < ?))))", at, at, seq, seq, chain
        )
    order = "at DESC, seq DESC, chain DESC" if query.merged else "seq DESC"
    where = f"WHERE {' AND '.join(clauses)} " if clauses else ""
    sql = f"SELECT chain, segment, place, at, seq FROM audit_index {where}ORDER BY {order} LIMIT ?"  # noqa: S608 - columns are named here, values are parameters
    return sql, [*values, query.limit]


def _matching(tx: Transaction, column: str, wanted: str) -> tuple[str, str]:
    if "*" not in wanted:
        return f"{column} = ?", wanted
    if wanted.count("*") > MAX_STARS:
        message = f"{wanted!r} has more than {MAX_STARS} stars"
        raise InvalidError(message)
    return tx.matching(column, wanted)


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)
