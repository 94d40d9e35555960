"""Rows are claimed, and taken over from a process that is gone."""

from collections import Counter
from collections.abc import Sequence

import msgspec
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.steps import StepKind
from msgspec.structs import replace

from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.ledger import part_sql
from hivemesh_platform.execution.ledger.event_sql import log_event
from hivemesh_platform.execution.ledger.limit_sql import Gate
from hivemesh_platform.execution.ledger.port import Claim, Unclaimed
from hivemesh_platform.execution.ledger.queue_sql import claimed
from hivemesh_platform.execution.ledger.rejected_sql import start_over
from hivemesh_platform.execution.model import JOB_NODE, Fence, RetryPolicy, WorkKey
from hivemesh_platform.execution.plans.spec import is_intact
from hivemesh_platform.replicas.standing import Standing
from hivemesh_platform.storage.transaction import Row, Transaction, Value

_decode_inputs = msgspec.json.Decoder(tuple[BatchRef, ...]).decode

_decode_behalf = msgspec.json.Decoder(Behalf).decode


class _Right(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a job's spec, or of a node, that its ticket and its limits are made of."""

    behalf: Behalf = Behalf()
    data_class: DataClass = DataClass.INTERNAL
    output_class: DataClass = DataClass.INTERNAL
    deadline_ms: int = 0
    idle_timeout_ms: int = 0
    max_retries: int = 3
    retry_base_s: float = 1.0
    retry_max_s: float = 300.0
    lines: tuple[int, int] | None = None


_decode_right = msgspec.json.Decoder(_Right).decode

_NEXT = """
SELECT together, retries, crashes FROM work
 WHERE state = 'queued' AND capability = :capability AND not_before <= :now
 ORDER BY rank LIMIT :limit {skip_locked}
"""
_CLAIM = """
WITH chosen AS MATERIALIZED (
     SELECT run, node, seq, together, retries, crashes FROM work
      WHERE state = 'queued' AND capability = :capability AND not_before <= :now
      ORDER BY rank LIMIT :limit {skip_locked})
UPDATE work SET state = 'running', attempt = attempt + 1, epoch = epoch + 1, reason = '',
       replica = :replica, replica_epoch = :replica_epoch,
       started_at = coalesce(started_at, :now)
 WHERE (run, node, seq) IN (SELECT run, node, seq FROM chosen)
RETURNING run, node, seq, kind, capability, attempt, epoch, rank, spec, retries, crashes, instance,
          suspect, halved, input, together, limit_key
"""
_ALIKE = """
   AND (SELECT min(together) = max(together) AND min(together) != ''
           AND max(retries) = 0 AND max(crashes) = 0 FROM chosen)
"""  # all that are chosen may travel together
_CLAIM_ALIKE = _CLAIM.replace("RETURNING", f"{_ALIKE}RETURNING")
_READY = """
SELECT ? AS capability
 WHERE (SELECT 1 FROM work WHERE state = 'queued' AND capability = ? AND not_before <= ?
         ORDER BY rank LIMIT 1) IS NOT NULL
    OR EXISTS (SELECT 1 FROM limit_parked WHERE capability = ?)
"""  # in order of rank, which is an index: where many are queued EXISTS reads the table from its start
_ASKED = 100  # capabilities in one statement
_NODE_OF_CLAIM = """
SELECT node.*, run.state AS state_of_run FROM node JOIN run ON run.id = node.run
 WHERE node.run = ? AND node.name = ?
"""
_STARTED_NODE = """
UPDATE node SET state = 'running', reason = '', started_at = coalesce(started_at, :now)
 WHERE run = :run AND name = :node
"""
_STARTED_RUN = """
UPDATE run SET state = 'running', reason = '', started_at = :now WHERE id = :run AND state = 'queued'
"""
_UNCLAIM = """
UPDATE work SET state = 'queued', attempt = attempt - 1, reason = :reason, not_before = :not_before,
       started_at = CASE WHEN attempt = 1 THEN NULL ELSE started_at END
 WHERE run = :run AND node = :node AND seq = :seq AND attempt = :attempt AND epoch = :epoch
   AND state = 'running'
"""
_UNCLAIM_NODE = "UPDATE node SET reason = ? WHERE run = ? AND name = ?"
_BRING_FORWARD = """
UPDATE work SET not_before = 0
 WHERE (run, node, seq) IN (
       SELECT run, node, seq FROM work
        WHERE state = 'queued' AND not_before > 0 AND not_before > :now
          AND capability || '' = :capability AND retries = 0 AND crashes = 0
        ORDER BY not_before LIMIT :limit {skip_locked})
"""  # `|| ''`: by the index of what is put off, not by that of all queued rows
_NODE_OF_ROW = "SELECT * FROM node WHERE run = ? AND name = ?"
_INTERRUPT = """
UPDATE attempt SET ended_at = :now, outcome = 'interrupted'
 WHERE ended_at IS NULL
   AND (run, node, seq) IN (SELECT run, node, seq FROM work
                             WHERE state = 'running' AND (:all = 1 OR replica = :of))
   AND NOT EXISTS (SELECT 1 FROM source
                    WHERE source.run = attempt.run AND source.node = attempt.node
                      AND source.execution != '')
"""
_QUEUE_AGAIN = """
UPDATE work SET state = 'queued', epoch = epoch + 1, replica = '', replica_epoch = 0
 WHERE state = 'running' AND (:all = 1 OR replica = :of)
   AND NOT EXISTS (SELECT 1 FROM source
                    WHERE source.run = work.run AND source.node = work.node
                      AND source.execution != '')
"""
_GO_ON = """
UPDATE work SET epoch = epoch + 1, replica = :replica, replica_epoch = :epoch
 WHERE state = 'running' AND ended_at IS NULL AND (:all = 1 OR replica = :of) RETURNING *
"""


def claimable(tx: Transaction, capabilities: Sequence[str], now: int) -> frozenset[str]:
    """Those of the capabilities of which a claim may find rows."""
    found: set[str] = set()
    for first in range(0, len(capabilities), _ASKED):
        some = capabilities[first : first + _ASKED]
        names = [value for one in some for value in (one, one, now, one)]
        found.update(row[0] for row in tx.all(" UNION ALL ".join([_READY] * len(some)), names))
    return frozenset(found)


def claim(
    tx: Transaction,
    capability: str,
    limit: int,
    now: int,
    standing: Standing,
    size: int = 1,
) -> list[Claim]:
    """Take up to `limit` queued rows of a capability in order of rank; each is a new attempt.

    `size` jobs that may travel together count as one. Fewer where limits say so.
    """
    gate = Gate(tx, capability, now)
    most = gate.admit(limit * size)
    following: dict[str, Value] = {"capability": capability, "now": now}
    rows = _take(tx, following, standing, most, limit, size) if most > 0 else []
    if not rows:
        return []
    gate.claimed(rows)
    rows.sort(key=lambda row: row["rank"])
    claimed(tx, capability, rows[-1]["rank"])
    known: dict[str, Claim] = {}
    claims = [
        _job_of(row, known)
        if row["spec"] is not None and not row["halved"]
        else _claimed(tx, row, now)
        for row in rows
    ]
    return gate.marked(claims, rows)


def unclaim(tx: Transaction, rows: Sequence[Unclaimed]) -> None:
    """Queue rows again as if they had not been claimed; the epoch alone tells that they were."""
    for key, fence, reason, not_before in rows:
        held = tx.execute(
            _UNCLAIM,
            {
                "run": key.run,
                "node": key.node,
                "seq": key.seq,
                "attempt": fence.attempt,
                "epoch": fence.epoch,
                "reason": reason,
                "not_before": not_before,
            },
        )
        if held and key.node != JOB_NODE:
            tx.send(_UNCLAIM_NODE, (reason, key.run, key.node))


def bring_forward(tx: Transaction, capability: str, count: int, now: int) -> None:
    """Let so many of the next rows be claimed that were put off and have not failed."""
    names: dict[str, Value] = {"capability": capability, "now": now, "limit": count}
    tx.send(_BRING_FORWARD.format(skip_locked=tx.skip_locked), names)


def _job_of(row: Row, known: dict[str, Claim]) -> Claim:
    """Make the claim of a job; those that may travel together have all but their inputs in common."""
    (run, node, seq, kind, capability, attempt, epoch, _, spec, retries, crashes, instance,
     suspect, _, inputs, together, _) = row  # fmt: skip
    damaged = not is_intact(spec)
    if damaged:
        spec = "{}"
    like = known.get(together)
    if like is None or damaged:
        like = _like(kind, capability, together, spec)
    if together and not damaged:
        known[together] = like
    return replace(
        like,
        key=WorkKey(run, node, seq),
        fence=Fence(attempt, epoch),
        inputs=() if inputs == "[]" else _decode_inputs(inputs),
        spec=spec,
        damaged=damaged,
        retries=retries,
        losses=crashes,
        last_instance=instance,
        suspect=bool(suspect),
    )


def _like(kind: StepKind, capability: str, together: str, spec: str) -> Claim:
    """What the claims of jobs with such a spec have in common."""
    right = _decode_right(spec)
    return Claim(
        key=WorkKey("", JOB_NODE, 0),
        fence=Fence(0, 0),
        kind=kind,
        capability=capability,
        inputs=(),
        spec=spec,
        options="{}",
        labels="{}",
        policy=RetryPolicy(right.max_retries, right.retry_base_s, right.retry_max_s),
        deadline_ms=right.deadline_ms,
        idle_timeout_ms=right.idle_timeout_ms,
        retries=0,
        losses=0,
        last_instance="",
        lines=right.lines,
        behalf=right.behalf,
        data_class=right.data_class,
        output_class=right.output_class,
        together=together,
    )


def _take(
    tx: Transaction,
    following: dict[str, Value],
    standing: Standing,
    most: int,
    slots: int,
    size: int,
) -> list[Row]:
    """Hold rows; where all that follow may travel together, one statement finds that as well."""
    held: dict[str, Value] = {"replica": standing.replica, "replica_epoch": standing.epoch}
    if most > slots:
        names = following | {"limit": most}
        rows = tx.all(_CLAIM_ALIKE.format(skip_locked=tx.skip_locked), names | held)
        if rows:
            return rows
        most = _fitting(tx, names, slots, size)
    if not most:
        return []
    return tx.all(_CLAIM.format(skip_locked=tx.skip_locked), following | held | {"limit": most})


def _fitting(tx: Transaction, names: dict[str, Value], slots: int, size: int) -> int:
    """How many of the next rows fit into so many requests of `size` small jobs each."""
    open_: Counter[str] = Counter()
    fitting = 0
    for row in tx.all(_NEXT.format(skip_locked=tx.skip_locked), names):
        together = "" if row["retries"] or row["crashes"] else row["together"]
        if not together or open_[together] % size == 0:
            if not slots:
                break
            slots -= 1
        open_[together] += 1
        fitting += 1
    return fitting


def recover(tx: Transaction, now: int, standing: Standing, of: str | None = None) -> list[Claim]:
    """Queue the rows that a replica held (None: whoever held them), and go on with its sources.

    No loss is counted: what was interrupted is the platform's part of the attempt.
    """
    which: dict[str, Value] = {"all": int(of is None), "of": of or ""}
    tx.send(_INTERRUPT, {**which, "now": now})
    tx.send(_QUEUE_AGAIN, which)
    rows = tx.all(_GO_ON, {**which, "replica": standing.replica, "epoch": standing.epoch})
    return [claim_of(tx, row) for row in rows]


def _claimed(tx: Transaction, row: Row, now: int) -> Claim:
    node = None
    if row["node"] != JOB_NODE:
        node = tx.one(_NODE_OF_CLAIM, (row["run"], row["node"]))
    if node is not None:
        _start(tx, node, now)
    if row["kind"] == "source":
        start_over(tx, WorkKey(row["run"], row["node"], row["seq"]))
    return _claim_of(tx, row, node)


def _start(tx: Transaction, node: Row, now: int) -> None:
    """A row of a node is claimed. Of a node that runs nothing is written: its batches end now."""
    names: dict[str, Value] = {"run": node["run"], "node": node["name"], "now": now}
    if node["state"] != "running" or node["reason"]:
        tx.send(_STARTED_NODE, names)
    if node["state_of_run"] == "queued" and tx.execute(
        _STARTED_RUN, {"run": node["run"], "now": now}
    ):
        log_event(tx, node["run"], "run_started", now)


def claim_of(tx: Transaction, row: Row) -> Claim:
    """Make the claim of a row that is held, with everything that its step needs."""
    node = None
    if row["node"] != JOB_NODE:
        node = tx.one(_NODE_OF_ROW, (row["run"], row["node"]))
    return _claim_of(tx, row, node)


def _claim_of(tx: Transaction, row: Row, node: Row | None) -> Claim:
    source = None
    spec, damaged = row["spec"], False
    right = _Right()
    if node is not None:
        right = _Right(
            behalf=_decode_behalf(node["behalf"]),
            data_class=DataClass(node["data_class"]),
            output_class=DataClass(node["output_class"]),
            deadline_ms=node["deadline_ms"],
            idle_timeout_ms=node["idle_timeout_ms"],
            max_retries=node["max_retries"],
            retry_base_s=node["retry_base_s"],
            retry_max_s=node["retry_max_s"],
        )
    elif row["spec"] is not None and is_intact(row["spec"]):
        right = _decode_right(row["spec"])
    elif row["spec"] is not None:
        spec, damaged = "{}", True
    if row["kind"] == "source":
        source = tx.one(
            "SELECT * FROM source WHERE run = ? AND node = ?", (row["run"], row["node"])
        )
    return Claim(
        key=WorkKey(row["run"], row["node"], row["seq"]),
        fence=Fence(row["attempt"], row["epoch"]),
        kind=row["kind"],
        capability=row["capability"],
        inputs=_decode_inputs(row["input"]),
        spec=spec,
        damaged=damaged,
        options="{}" if node is None else node["options"] or "{}",
        labels="{}" if node is None else node["labels"],
        policy=RetryPolicy(right.max_retries, right.retry_base_s, right.retry_max_s),
        deadline_ms=right.deadline_ms,
        idle_timeout_ms=right.idle_timeout_ms,
        retries=row["retries"],
        losses=row["crashes"],
        last_instance=row["instance"],
        suspect=bool(row["suspect"]),
        lines=part_sql.next_open(tx, row) if row["halved"] else right.lines,
        halved=bool(row["halved"]),
        behalf=right.behalf,
        data_class=right.data_class,
        output_class=right.output_class,
        execution="" if source is None else source["execution"],
        after=0 if source is None else source["after"],
        checkpoint="null" if source is None else source["checkpoint"],
        endpoint="" if source is None else source["endpoint"],
        together=row["together"],
    )
