"""Limits are kept when rows are claimed: what may not start now does not, and says why.

Rows of a key that is at its limit are parked (state `waiting`), so that those behind them are found
at once; each claim sets as many free as there is room for. What runs is counted, never kept in a
counter, so nothing drifts.

A claim looks only at the parked keys that may have room. A key of which a row is queued has none:
it is looked at again when that row is claimed or cancelled.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from hivemesh_platform.execution.ledger.limit_rules import Limit, Rate, Scope, limit_of_key
from hivemesh_platform.execution.ledger.port import Claim
from hivemesh_platform.storage.transaction import Row, Transaction, Value

_CANDIDATES = """
SELECT run, node, seq, limit_key FROM work
 WHERE state = 'queued' AND capability = :capability AND not_before <= :now
 ORDER BY rank LIMIT :limit {skip_locked}
"""
_PARK = """
UPDATE work SET state = 'waiting', reason = :reason
 WHERE state = 'queued' AND capability = :capability AND limit_key = :key AND not_before <= :now
   AND (run, node, seq) NOT IN (
       SELECT run, node, seq FROM work
        WHERE state = 'queued' AND capability = :capability AND limit_key = :key
          AND limit_key != '' AND not_before <= :now
        ORDER BY rank LIMIT :room)
   AND limit_key != ''
"""
_REASON_OF_NODES = """
UPDATE node SET reason = :reason
 WHERE ended_at IS NULL AND (run, name) IN (
       SELECT run, node FROM work
        WHERE state = 'waiting' AND capability = :capability AND limit_key = :key)
"""
_SET_FREE = """
UPDATE work SET state = 'queued', reason = ''
 WHERE (run, node, seq) IN (
       SELECT run, node, seq FROM work
        WHERE state = 'waiting' AND capability = :capability AND limit_key = :key
        ORDER BY rank LIMIT :room)
"""
_WAITING_BY_KEY = """
SELECT limit_key, count(*) AS n FROM work WHERE state = 'waiting' GROUP BY limit_key
"""
_RUNNING_BY_KEY = """
SELECT limit_key, count(*) AS n FROM work
 WHERE state = 'running' AND limit_key != '' GROUP BY limit_key
"""
_ALL = "SELECT * FROM work_limit ORDER BY scope, name"
_WITH_ROOM = """
SELECT p.limit_key, coalesce(rate.full_at, 0) AS full_at, coalesce(rate.due_at, 0) AS due_at,
       (SELECT count(*) FROM work
         WHERE work.state = 'queued' AND work.capability = p.capability
           AND work.limit_key = p.limit_key AND work.limit_key != ''
           AND work.not_before <= :now) AS queued
  FROM limit_parked AS p
  LEFT JOIN limit_rate AS rate ON rate.scope = 'key' AND rate.name = p.limit_key
 WHERE p.capability = :capability AND p.look_at <= :now
   AND (SELECT count(*) FROM work
         WHERE work.state = 'running' AND work.limit_key = p.limit_key AND work.limit_key != '')
     + (SELECT count(*) FROM work
         WHERE work.state = 'queued' AND work.capability = p.capability
           AND work.limit_key = p.limit_key AND work.limit_key != ''
           AND work.not_before <= :now) < :most
"""  # keys that are full are left out here: submitters choose how many there are
_LOOK_LATER = """
UPDATE limit_parked SET look_at = :later
 WHERE capability = :capability AND look_at <= :now
   AND EXISTS (SELECT 1 FROM work
                WHERE work.state = 'queued' AND work.capability = limit_parked.capability
                  AND work.limit_key = limit_parked.limit_key AND work.limit_key != ''
                  AND work.not_before <= :now)
"""
_LOOK_WHEN_DUE = "UPDATE limit_parked SET look_at = ? WHERE capability = ? AND limit_key = ?"
_LOOK_AT_KEY = "UPDATE limit_parked SET look_at = 0 WHERE limit_key = ? AND look_at > 0"
_LOOK_AT_KEYS = """
UPDATE limit_parked SET look_at = 0
 WHERE look_at > 0 AND limit_key IN (
       SELECT limit_key FROM node WHERE run = :first
       UNION SELECT limit_key FROM work
              WHERE run >= :first AND run <= :last AND node = 'job' AND seq = 0)
"""
LOOK_AGAIN_MS = 5_000  # at the latest: a queued row may be cancelled while a claim looks at its key
_UNLIMITED = 1_000_000_000


class Gate:
    """The limits as one claim finds them. With none of them it costs one short read."""

    def __init__(self, tx: Transaction, capability: str, now: int) -> None:
        self._tx = tx
        self._capability = capability
        self._now = now
        self._limits = _held(tx)
        self._full_at: dict[tuple[Scope, str], int] = {}

    def admit(self, limit: int) -> int:
        """Park and set free rows by their keys, and return how many may be claimed."""
        if not self._limits:
            return limit
        for one in self._whole():
            limit = min(limit, self._room(one, one.name, self._running(one)))
        if limit > 0 and any(one.scope == "key" for one in self._limits):
            running = self._running_by_key()
            self._set_free(running)
            self._park(running, limit)
        return limit

    def claimed(self, rows: Sequence[Row]) -> None:
        """Count the rows against the rates."""
        if not self._limits or not rows:
            return
        for one in self._whole():
            self._count(one, one.name, len(rows))
        for key, count in Counter(row["limit_key"] for row in rows if row["limit_key"]).items():
            found = limit_of_key(self._limits, key)
            if found is not None:
                self._count(found, key, count)
                self._tx.send(_LOOK_AT_KEY, (key,))

    def marked(self, claims: list[Claim], rows: Sequence[Row]) -> list[Claim]:
        """Mark the claims that a limit counts."""
        if not self._limits:
            return claims
        whole = bool(self._whole())
        counted = [
            whole or bool(key and limit_of_key(self._limits, key))
            for key in (row["limit_key"] for row in rows)
        ]
        return [replace(one, limited=some) for one, some in zip(claims, counted, strict=True)]

    def _whole(self) -> list[Limit]:
        return [one for one in self._limits if applies(one, self._capability)]

    def _running(self, limit: Limit) -> int:
        return 0 if limit.running is None else running(self._tx, limit)

    def _room(self, limit: Limit, name: str, running: int) -> int:
        rooms = []
        if limit.running is not None:
            rooms.append(limit.running - running)
        if limit.rate is not None:
            rooms.append(limit.rate.free(self._used(limit.scope, name), self._now))
        return max(0, min(rooms))

    def _used(self, scope: Scope, name: str) -> int:
        known = self._full_at.get((scope, name))
        if known is not None:
            return known
        row = self._tx.one(
            "SELECT full_at FROM limit_rate WHERE scope = ? AND name = ?", (scope, name)
        )
        found = 0 if row is None else int(row["full_at"])
        self._full_at[scope, name] = found
        return found

    def _count(self, limit: Limit, name: str, count: int) -> None:
        if limit.rate is None:
            return
        after, due_at = limit.rate.taken(self._used(limit.scope, name), self._now, count)
        self._tx.send(
            """INSERT INTO limit_rate (scope, name, full_at, due_at) VALUES (?, ?, ?, ?)
               ON CONFLICT (scope, name)
               DO UPDATE SET full_at = excluded.full_at, due_at = excluded.due_at""",
            (limit.scope, name, after, due_at),
        )

    def _running_by_key(self) -> dict[str, int]:
        return {row["limit_key"]: int(row["n"]) for row in self._tx.all(_RUNNING_BY_KEY)}

    def _set_free(self, running: dict[str, int]) -> None:
        """Queue as many parked rows of each key as may start and are not queued yet."""
        limits = [one for one in self._limits if one.scope == "key"]
        most = max(_UNLIMITED if one.running is None else one.running for one in limits)
        names: dict[str, Value] = {"capability": self._capability, "now": self._now}
        for row in self._tx.all(_WITH_ROOM, {**names, "most": most}):
            key = row["limit_key"]
            limit = limit_of_key(self._limits, key)
            room = _UNLIMITED
            if limit is not None:
                self._full_at[limit.scope, key] = row["full_at"]
                room = self._room(limit, key, running.get(key, 0)) - row["queued"]
            said: dict[str, Value] = {"capability": self._capability, "key": key}
            if room > 0 and self._tx.execute(_SET_FREE, {**said, "room": room}) < room:
                self._tx.send(
                    "DELETE FROM limit_parked WHERE capability = ? AND limit_key = ?",
                    (self._capability, key),
                )
            elif limit is not None and limit.rate is not None and row["due_at"] > self._now:
                self._tx.send(_LOOK_WHEN_DUE, (row["due_at"], self._capability, key))
        self._tx.send(_LOOK_LATER, {**names, "later": self._now + LOOK_AGAIN_MS})

    def _park(self, running: dict[str, int], limit: int) -> None:
        """Park the rows of keys that have no room, until all that would be claimed may start."""
        names: dict[str, Value] = {"capability": self._capability, "now": self._now}
        while True:
            found = self._tx.all(
                _CANDIDATES.format(skip_locked=self._tx.skip_locked), {**names, "limit": limit}
            )
            over = self._over(Counter(row["limit_key"] for row in found), running)
            if not over:
                return
            for key, (room, reason) in over.items():
                said: dict[str, Value] = {"key": key, "reason": reason}
                self._tx.send(_PARK, {**names, **said, "room": room})
                self._tx.send(_REASON_OF_NODES, {"capability": self._capability, **said})
                # perhaps none of it is queued now, whose claim would have it looked at again
                self._tx.send(
                    """INSERT INTO limit_parked (capability, limit_key) VALUES (?, ?)
                       ON CONFLICT (capability, limit_key) DO UPDATE SET look_at = 0""",
                    (self._capability, key),
                )

    def _over(self, wanted: Counter[str], running: dict[str, int]) -> dict[str, tuple[int, str]]:
        """The keys of which more would start than may: how many may, and why no more."""
        over: dict[str, tuple[int, str]] = {}
        for key, count in wanted.items():
            limit = limit_of_key(self._limits, key) if key else None
            if limit is None:
                continue
            room = self._room(limit, key, running.get(key, 0))
            if room < count:
                full = limit.running is not None and running.get(key, 0) + room >= limit.running
                over[key] = room, limit.reason(key) if full else limit.rate_reason(key)
        return over


def applies(limit: Limit, capability: str) -> bool:
    """Whether it is a limit of all rows of the capability."""
    return limit.scope == "all" or (limit.scope == "capability" and limit.name == capability)


def running(tx: Transaction, limit: Limit) -> int:
    """How many rows run that the limit counts."""
    match limit.scope:
        case "all":
            row = tx.one("SELECT count(*) AS n FROM work WHERE state = 'running'")
        case "capability":
            row = tx.one(
                "SELECT count(*) AS n FROM work WHERE state = 'running' AND capability = ?",
                (limit.name,),
            )
        case _:
            return _of_its_keys(tx, limit, _RUNNING_BY_KEY)
    return 0 if row is None else int(row["n"])


def full(tx: Transaction, capability: str, key: str) -> list[Limit]:
    """The limits that count a row of the capability and key, and have no room for another one."""
    limits = all_limits(tx)
    closest = limit_of_key(limits, key)
    return [
        one
        for one in limits
        if one.running is not None
        and (applies(one, capability) or one is closest)
        and (_of_key(tx, key) if one is closest else running(tx, one)) >= one.running
    ]


def _of_key(tx: Transaction, key: str) -> int:
    row = tx.one("SELECT count(*) AS n FROM work WHERE state = 'running' AND limit_key = ?", (key,))
    return 0 if row is None else int(row["n"])


def waiting(tx: Transaction, limit: Limit) -> int:
    """How many rows wait for the limit; those of a key alone are told apart."""
    return _of_its_keys(tx, limit, _WAITING_BY_KEY) if limit.scope == "key" else 0


def _of_its_keys(tx: Transaction, limit: Limit, counted: str) -> int:
    """The rows of the keys that it limits; of one with `*` these are those without a closer one."""
    limits = all_limits(tx)
    found = 0
    for row in tx.all(counted):
        closest = limit_of_key(limits, row["limit_key"])
        if closest is not None and closest.name == limit.name:
            found += int(row["n"])
    return found


def all_limits(tx: Transaction) -> list[Limit]:
    """Every limit, in order of name."""
    return [_limit(row) for row in tx.all(_ALL)]


def _held(tx: Transaction) -> list[Limit]:
    """The same, held until the transaction ends: two claims must not count the same room."""
    return [_limit(row) for row in tx.all(f"{_ALL} {tx.for_update}")]


def reasons(tx: Transaction, capabilities: Iterable[str], now: int) -> dict[str, str]:
    """Why no row of a capability may start, of those that a limit of all of its rows holds back."""
    limits = all_limits(tx)
    found: dict[str, str] = {}
    for capability in capabilities if limits else ():
        for one in limits:
            if not applies(one, capability):
                continue
            if one.running is not None and running(tx, one) >= one.running:
                found[capability] = one.reason()
            elif one.rate is not None and not one.rate.free(_used_up(tx, one), now):
                found[capability] = one.rate_reason()
    return found


def next_start(tx: Transaction, now: int) -> int | None:
    """When the next rate lets something start again."""
    row = tx.one("SELECT min(due_at) AS at FROM limit_rate WHERE due_at > ?", (now,))
    return None if row is None or row["at"] is None else int(row["at"])


def put(tx: Transaction, limit: Limit, now: int) -> None:
    """Set a limit; what waits for it is looked at anew by the next claim."""
    rate = limit.rate
    tx.send(
        """INSERT INTO work_limit (scope, name, running, starts, per_ms, burst, origin, changed_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (scope, name) DO UPDATE SET
                  running = excluded.running, starts = excluded.starts, per_ms = excluded.per_ms,
                  burst = excluded.burst, origin = excluded.origin,
                  changed_at = excluded.changed_at""",
        (
            limit.scope,
            limit.name,
            limit.running,
            None if rate is None else rate.starts,
            0 if rate is None else rate.per_ms,
            0 if rate is None else rate.burst,
            limit.origin,
            now,
        ),
    )
    tx.send("DELETE FROM limit_rate WHERE scope = ? AND name = ?", (limit.scope, limit.name))
    _release_parked(tx)


def remove(tx: Transaction, scope: Scope, name: str) -> None:
    """Take a limit away."""
    tx.send("DELETE FROM work_limit WHERE scope = ? AND name = ?", (scope, name))
    _release_parked(tx)


def look_again(tx: Transaction, first: str, last: str) -> None:
    """Rows of a run, or of jobs, wait no longer: others of their keys may have room."""
    tx.send(_LOOK_AT_KEYS, {"first": first, "last": last})


def _release_parked(tx: Transaction) -> None:
    tx.send("UPDATE work SET state = 'queued', reason = '' WHERE state = 'waiting'")
    tx.send("DELETE FROM limit_parked WHERE limit_key != ''")


def _used_up(tx: Transaction, limit: Limit) -> int:
    row = tx.one(
        "SELECT full_at FROM limit_rate WHERE scope = ? AND name = ?", (limit.scope, limit.name)
    )
    return 0 if row is None else int(row["full_at"])


def _limit(row: Row) -> Limit:
    rate = None
    if row["starts"] is not None:
        rate = Rate(int(row["starts"]), int(row["per_ms"]), int(row["burst"]))
    return Limit(row["scope"], row["name"], row["running"], rate, row["origin"])
