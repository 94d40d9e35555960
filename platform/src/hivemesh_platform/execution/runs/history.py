"""What happened to steps: every attempt, what one instance ran, and whose worker went away."""

import re
from heapq import merge
from itertools import count, islice
from operator import itemgetter
from typing import Any

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.dead_letter_api import (
    AttemptView,
    InstanceAttemptView,
    LostStepView,
)
from hivemesh_sdk.contracts.names import parse_step_key, step_key
from hivemesh_sdk.errors import InvalidError

from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.ledger.attempt_sql import (
    Place,
    attempts_of,
    in_common_at,
    place_of,
)
from hivemesh_platform.execution.ledger.port import milliseconds
from hivemesh_platform.execution.runs import subjects
from hivemesh_platform.execution.runs.views import iso, json_of
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Row, Transaction, Value

_ATTEMPTS = """
SELECT * FROM {attempts}
 WHERE run = :run AND (:node = '' OR node = :node) AND (:seq < 0 OR seq = :seq)
 ORDER BY node, seq, attempt LIMIT :limit OFFSET :after
"""
_LOST = """
SELECT attempt.run, attempt.node, attempt.seq, attempt.attempt, attempt.instance,
       attempt.started_at, attempt.ended_at, attempt.problem, work.capability, work.state,
       work.attempt AS now_attempt, work.instance AS now_instance, work.ended_at AS work_ended_at
  FROM attempt JOIN work ON work.run = attempt.run AND work.node = attempt.node
                        AND work.seq = attempt.seq
 WHERE attempt.outcome = 'lost' AND attempt.started_at > :since AND work.tenant = :tenant
   AND (:all = 1 OR work.ended_at IS NULL)
 ORDER BY attempt.started_at DESC, attempt.run, attempt.node, attempt.seq, attempt.attempt
 LIMIT :limit OFFSET :offset
"""
_AT_INSTANCE = """
SELECT attempt.*, work.capability
  FROM attempt JOIN work ON work.run = attempt.run AND work.node = attempt.node
                        AND work.seq = attempt.seq
 WHERE attempt.instance = :instance AND attempt.started_at <= :at AND work.tenant = :tenant
   AND (attempt.started_at, attempt.run, attempt.node, attempt.seq, attempt.attempt)
       < (:at, :run, :node, :seq, :attempt)
 ORDER BY attempt.started_at DESC, attempt.run DESC, attempt.node DESC, attempt.seq DESC,
          attempt.attempt DESC
 LIMIT :limit
"""
SCANNED = 500  # rows read at once until enough of them may be seen
MOST_SCANNED = 2000  # for one page: a page may be empty and name a next one


_PLACE_TEXT = re.compile("([0-9]{1,18}):([0-9]{1,9}):(.+)")
_NEWEST = Place(1 << 62)


def _place(text: str) -> Place:
    """Raise InvalidError where it is none."""
    if not text:
        return _NEWEST
    parts = _PLACE_TEXT.fullmatch(text)
    try:
        if parts is not None:
            return Place(int(parts[1]), *parse_step_key(parts[3]), int(parts[2]))
    except ValueError:
        pass
    message = f"{text!r} is no place in a history; take `next` of the page before"
    raise InvalidError(message)


class History:
    """Reads the attempts that the ledger has kept."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def attempts(
        self, run: str, node: str, seq: int, after: int, limit: int
    ) -> list[AttemptView]:
        """Return the attempts of a run or job, of one step or batch where it is named."""
        names: dict[str, Value] = {"run": run, "node": node, "seq": seq, "limit": limit + 1}
        first = max(0, after - 1)  # the one before is needed for the gap
        names["after"] = first
        sql = _ATTEMPTS.format(attempts=attempts_of(run))
        rows = await self._database.read(lambda tx: tx.all(sql, names))
        now = milliseconds(self._clock)
        befores = [None, *rows]
        views = [_attempt(row, before, now) for row, before in zip(rows, befores, strict=False)]
        return views[after - first :][:limit]

    async def at_instance(
        self, principal: Principal, instance: str, after: str, limit: int
    ) -> tuple[list[InstanceAttemptView], str | None]:
        """Return what ran at an instance, newest first, and where the next page begins."""
        start = _place(after)

        def read(tx: Transaction) -> tuple[list[InstanceAttemptView], str | None]:
            found: list[InstanceAttemptView] = []
            place, size = start, limit  # most may see all of it
            now, seen, looked = milliseconds(self._clock), dict[str, bool](), 0
            while True:
                rows = _at(tx, instance, principal.tenant, place, size + 1)
                for here, row in rows[:size]:
                    if len(found) == limit:
                        return found, str(place)
                    place = here
                    if row is None:
                        continue
                    if row["run"] not in seen:
                        seen[row["run"]] = _is_seen(tx, row, principal)
                    if seen[row["run"]]:
                        found.append(_at_instance(row, now))
                if len(rows) <= size:
                    return found, None
                looked += size
                if len(found) == limit or looked >= MOST_SCANNED:
                    return found, str(place)
                size = SCANNED

        return await self._database.read(read)

    async def lost(
        self, principal: Principal, *, since: int, ended: bool, limit: int
    ) -> list[LostStepView]:
        """Return the steps whose worker went away, newest first; with `ended` the settled ones too."""

        def read(tx: Transaction) -> list[LostStepView]:
            names: dict[str, Value] = {
                "since": since,
                "tenant": principal.tenant,
                "all": int(ended),
                "limit": SCANNED,
            }
            found: list[LostStepView] = []
            for offset in count(step=SCANNED):
                rows = tx.all(_LOST, {**names, "offset": offset})
                found += [_lost(row) for row in rows if _is_seen(tx, row, principal)]
                if len(found) >= limit or len(rows) < SCANNED:
                    break
            return found[:limit]

        return await self._database.read(read)


def _at(
    tx: Transaction, instance: str, tenant: str, place: Place, limit: int
) -> list[tuple[Place, Row | None]]:
    """The next attempts at an instance behind a place, newest first; None where one has gone."""
    names: dict[str, Value] = {"instance": instance, "tenant": tenant, "limit": limit}
    rows = tx.all(_AT_INSTANCE, {**names, **place._asdict()})
    alone = ((place_of(row), row) for row in rows)
    in_common = in_common_at(tx, instance, tenant, place)
    return list(islice(merge(alone, in_common, key=itemgetter(0), reverse=True), limit))


def _is_seen(tx: Transaction, row: Row, principal: Principal) -> bool:
    subject = subjects.find(tx, row["run"])
    return subject is not None and subject.seen_by(principal)


def _attempt(row: Row, before: Row | None, now: int) -> AttemptView:
    same = before is not None and (before["node"], before["seq"]) == (row["node"], row["seq"])
    gap = None
    if before is not None and same and before["ended_at"] is not None:
        gap = (row["started_at"] - before["ended_at"]) / 1000
    return AttemptView(**_common(row, now), gap_s=gap)


def _at_instance(row: Row, now: int) -> InstanceAttemptView:
    return InstanceAttemptView(**_common(row, now), capability=row["capability"])


def _common(row: Row, now: int) -> dict[str, Any]:
    """What every view of an attempt tells."""
    ended = row["ended_at"]
    return {
        "key": step_key(row["run"], row["node"], row["seq"]),
        "attempt": row["attempt"],
        "instance": row["instance"],
        "worker": row["worker"],
        "started_at": iso(row["started_at"]) or "",
        "ended_at": iso(ended),
        "outcome": row["outcome"],
        "elapsed_s": ((now if ended is None else ended) - row["started_at"]) / 1000,
        "problem": json_of(row["problem"]),
    }


def _lost(row: Row) -> LostStepView:
    return LostStepView(
        key=step_key(row["run"], row["node"], row["seq"]),
        attempt=row["attempt"],
        instance=row["instance"],
        capability=row["capability"],
        started_at=iso(row["started_at"]) or "",
        lost_at=iso(row["ended_at"]) or "",
        elapsed_s=(row["ended_at"] - row["started_at"]) / 1000,
        state=row["state"],
        now_attempt=row["now_attempt"],
        now_instance=row["now_instance"] if row["state"] == "running" else "",
        problem=json_of(row["problem"]),
    )
