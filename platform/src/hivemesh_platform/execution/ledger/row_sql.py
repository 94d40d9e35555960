"""The ledger's statements: accept, record, finish, fail, cancel.

What follows from a row's end (rows of later nodes, ends of nodes and runs) is in `graph_sql`.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import msgspec
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.contracts.problems import Problem

from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.ledger import (
    again_sql,
    claim_sql,
    group_sql,
    letter_sql,
    limit_sql,
    part_sql,
)
from hivemesh_platform.execution.ledger.event_sql import log_event
from hivemesh_platform.execution.ledger.graph_sql import (
    Change,
    DatasetParts,
    after_map,
    count_attempt,
    count_on,
    lock_run,
)
from hivemesh_platform.execution.ledger.mended import Mended
from hivemesh_platform.execution.ledger.port import (
    Claim,
    Effects,
    Failure,
    Finished,
    JobEnd,
    NewJob,
    NewJobs,
    NewNode,
    NewRun,
    Placed,
    Recorded,
    RowEnd,
    StaleAttemptError,
    StaleReaderError,
    Travel,
    Turn,
    Unclaimed,
)
from hivemesh_platform.execution.ledger.queue_sql import (
    NewRow,
    enqueue,
    enqueue_all,
    enqueue_batch,
    row_of_node,
)
from hivemesh_platform.execution.ledger.rejected_sql import (
    count_progress,
    keep_rejected,
)
from hivemesh_platform.execution.model import (
    JOB_NODE,
    AttemptOutcome,
    Fence,
    Output,
    WorkKey,
    fails_every_row,
    is_crash,
    is_lost_worker,
)
from hivemesh_platform.execution.plans.graph import Edge
from hivemesh_platform.execution.plans.spec import told
from hivemesh_platform.replicas.model import StaleReplicaError
from hivemesh_platform.replicas.standing import Standing
from hivemesh_platform.storage.transaction import Parameters, Row, Transaction, listed

_NODE_OF_ROW = "SELECT * FROM node WHERE run = ? AND name = ?"
_HOLD = """
SELECT * FROM work WHERE run = ? AND node = ? AND seq = ? AND attempt = ? AND epoch = ?
   AND state = 'running'
   AND (replica = '' OR EXISTS (SELECT 1 FROM replica
                                 WHERE id = work.replica AND epoch = work.replica_epoch))
"""
_HOLD_ROWS = """
SELECT * FROM work WHERE run = ? AND node = ? AND seq IN ({marks}) AND state = 'running'
   AND (replica = '' OR EXISTS (SELECT 1 FROM replica
                                 WHERE id = work.replica AND epoch = work.replica_epoch))
"""
_ATTEMPT_RUNS = """
SELECT epoch FROM work WHERE run = ? AND node = ? AND seq = ? AND attempt = ? AND state = 'running'
"""
_PLACED = """
INSERT INTO attempt (run, node, seq, attempt, instance, identity, worker, explanation, started_at,
                     ended_at, outcome)
SELECT run, node, seq, attempt, ?, ?, ?, ?, ?, ended_at,
       CASE WHEN state = 'cancelled' THEN state ELSE '' END
  FROM work
 WHERE run = ? AND node = ? AND seq = ? AND attempt = ? AND epoch = ?
   AND state IN ('running', 'cancelled')
    ON CONFLICT DO NOTHING
"""
_PLACED_AT = """
UPDATE work SET instance = ?
 WHERE run = ? AND node = ? AND seq = ? AND attempt = ? AND epoch = ? AND state = 'running'
"""
_REACHED_AT = """
UPDATE source SET endpoint = ? WHERE run = ? AND node = ?
   AND EXISTS (SELECT 1 FROM work WHERE run = ? AND node = ? AND seq = ? AND attempt = ?
                  AND epoch = ? AND state = 'running')
"""
_LABEL = "INSERT INTO run_label (name, value, run, tenant) VALUES (?, ?, ?, ?)"
_ATTEMPTED = """
INSERT INTO attempt (run, node, seq, attempt, instance, identity, worker, explanation, started_at,
                     ended_at, outcome)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'completed')
    ON CONFLICT (run, node, seq, attempt, tenant) DO UPDATE SET
       ended_at = excluded.ended_at, outcome = excluded.outcome
"""
_BEHIND = """
WITH RECURSIVE behind (name) AS (
     SELECT name FROM node WHERE run = :run AND upstream = :node
      UNION
     SELECT node.name FROM node JOIN behind ON node.upstream = behind.name WHERE node.run = :run)
SELECT {what} FROM work
 WHERE run = :run AND ended_at IS NULL AND state != 'blocked'
   AND node IN (SELECT name FROM behind)
"""  # other sources of the run may wait too: they must not wait for each other
_OPEN_BEHIND = _BEHIND.format(what="count(*) AS n")
_KINDS_BEHIND = (
    _BEHIND.format(what="DISTINCT capability, limit_key, state") + "   AND not_before <= :now"
)
_ATTEMPT_ENDED = """
UPDATE attempt SET ended_at = ?, outcome = ?, problem = ?
 WHERE run = ? AND node = ? AND seq = ? AND attempt = ?
"""


class SqlLedger:
    """Rows of work in the database; every method runs in the transaction it is given."""

    def __init__(self, datasets: DatasetParts, standing: Standing | None = None) -> None:
        self._datasets = datasets
        self._standing = standing or Standing()

    def add_run(self, tx: Transaction, run: NewRun, now: int) -> None:
        """Accept a run: its nodes wait, and nothing is queued until they are activated."""
        tx.send(
            """INSERT INTO run (id, pipeline, version, document, parameters, labels, submitter,
                                state, created_at, behalf, data_class, tenant)
               VALUES (?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?)""",
            (
                run.id,
                run.pipeline,
                run.version,
                run.document,
                run.parameters,
                run.labels,
                run.submitter,
                now,
                msgspec.json.encode(run.behalf).decode(),
                run.data_class.value,
                run.behalf.tenant,
            ),
        )
        parent, step, depth = run.parent
        if depth:
            tx.execute(
                "UPDATE run SET parent = ?, parent_node = ?, depth = ? WHERE id = ?",
                (parent, step, depth, run.id),
            )
        if run.backfill_of:
            tx.execute("UPDATE run SET backfill_of = ? WHERE id = ?", (run.backfill_of, run.id))
        labels = msgspec.json.decode(run.labels, type=dict[str, str])
        tx.execute_many(
            _LABEL,
            [(name, value, run.id, run.behalf.tenant) for name, value in labels.items()],
        )
        for node in run.nodes:
            _add_node(tx, run, node)
        log_event(tx, run.id, "run_accepted", now)

    def add_job(self, tx: Transaction, job: NewJob, now: int) -> None:
        """Accept a job: one row, queued."""
        self.add_jobs(tx, (job,), now)

    def add_jobs(self, tx: Transaction, jobs: Sequence[NewJob], now: int) -> None:
        """Accept jobs: a row each, queued."""
        enqueue_all(tx, [_row_of_job(job) for job in jobs], now)
        for job in jobs:
            _tag(tx, [job.id], job)

    def add_batch(self, tx: Transaction, jobs: NewJobs, now: int) -> None:
        """Accept jobs that differ in their specs alone: a row each, queued."""
        row = replace(_row_of_job(jobs.job), together=jobs.together)
        _tag(tx, enqueue_batch(tx, row, jobs.stem, jobs.specs, now), jobs.job)

    def activate(self, tx: Transaction, run: str, node: str, options: str, now: int) -> Effects:
        """Give a node its options; rows that waited for them are queued. Idempotent."""
        lock_run(tx, run)
        row = tx.one("SELECT * FROM node WHERE run = ? AND name = ?", (run, node))
        if row is None or row["ended_at"] is not None:
            return Effects()
        tx.send(
            """UPDATE node SET options = ?, state = 'queued'
                WHERE run = ? AND name = ? AND options IS NULL""",
            (options, run, node),
        )
        if row["kind"] in {"call", "source"}:
            _add_first_row(tx, row, now)
        tx.send(
            """UPDATE work SET state = 'queued' WHERE run = ? AND node = ? AND state = 'blocked'
                  AND ended_at IS NULL""",
            (run, node),
        )
        change = Change(tx, self._datasets, now)
        change.node_activated(row)
        return change.effects()

    def decide(self, tx: Transaction, run: str, node: str, *, holds: bool, now: int) -> Effects:
        """Keep what a node's condition was found to be, once; a false one skips the node."""
        lock_run(tx, run)
        row = tx.one(_NODE_OF_ROW, (run, node))
        if row is None or row["ended_at"] is not None or row["decided"]:
            return Effects()
        tx.send(
            "UPDATE node SET decided = ? WHERE run = ? AND name = ?",
            (1 if holds else -1, run, node),
        )
        reason = f"{row['condition']} is {'true' if holds else 'false'}"
        log_event(tx, run, "condition_decided", now, node=node, data={"condition": reason})
        change = Change(tx, self._datasets, now)
        if not holds:
            change.node_skipped(row, f"condition is false: {row['condition']}")
        return change.effects()

    def left_out(self, tx: Transaction, run: str, node: str, reason: str, now: int) -> Effects:
        """Go on without an optional node that nobody can serve."""
        lock_run(tx, run)
        row = tx.one(_NODE_OF_ROW, (run, node))
        if row is None or row["ended_at"] is not None or not row["optional"]:
            return Effects()
        change = Change(tx, self._datasets, now)
        change.gone_without(row, reason)
        return change.effects()

    def claim(
        self, tx: Transaction, capability: str, limit: int, now: int, size: int = 1
    ) -> list[Claim]:
        """Take up to `limit` queued rows of a capability in order of rank; each is a new attempt."""
        self._standing.check(tx)
        return claim_sql.claim(tx, capability, limit, now, self._standing, size)

    def claimable(self, tx: Transaction, capabilities: Sequence[str], now: int) -> frozenset[str]:
        """Those of the capabilities of which a claim may find rows."""
        return claim_sql.claimable(tx, capabilities, now)

    def finish_jobs(
        self, tx: Transaction, ends: Sequence[JobEnd], placed: Placed, began: int, now: int
    ) -> None:
        """End jobs well that travelled together; those that are not held any more stay as they are."""
        self._standing.check(tx)
        group_sql.finish(tx, ends, placed, began, now)

    def release_jobs(
        self,
        tx: Transaction,
        held: Sequence[tuple[WorkKey, Fence]],
        reason: str,
        not_before: int,
        *,
        apart: bool = False,
    ) -> None:
        """Put jobs back that travelled together and have not ended; costs no retry."""
        group_sql.release(tx, held, reason, not_before, apart=apart)

    def depart(self, tx: Transaction, travel: Travel) -> None:
        """Keep with which request jobs go to a worker."""
        self._standing.check(tx)
        group_sql.depart(tx, travel, self._standing)

    def arrive(self, tx: Transaction, key: str, epoch: int) -> bool:
        """Forget a request; False where another reader goes on with it."""
        return group_sql.arrive(tx, key, epoch)

    def placed(self, tx: Transaction, key: WorkKey, fence: Fence, placed: Placed, now: int) -> None:
        """Keep where the attempt runs and why, if it is still the one that runs, or was cancelled."""
        held = (key.run, key.node, key.seq, fence.attempt, fence.epoch)
        where = (placed.instance, placed.identity, placed.worker, placed.explanation)
        tx.send(
            _PLACED_AT, (placed.instance, *held)
        )  # first: who cancels the row waits, or has done
        written = tx.execute(_PLACED, (*where, now, *held))
        if placed.endpoint:
            tx.send(_REACHED_AT, (placed.endpoint, key.run, key.node, *held))
        if written and key.node != JOB_NODE:
            count_attempt(tx, key.run, key.node)

    def release(
        self,
        tx: Transaction,
        key: WorkKey,
        fence: Fence,
        reason: str,
        not_before: int,
        *,
        advanced_at: int | None = None,
    ) -> None:
        """Put a claimed row back, because nobody can take it; costs no retry."""
        held = tx.execute(
            """UPDATE work SET state = 'queued', reason = ?, not_before = ?
                WHERE run = ? AND node = ? AND seq = ? AND attempt = ? AND epoch = ?
                  AND state = 'running'""",
            (reason, not_before, key.run, key.node, key.seq, fence.attempt, fence.epoch),
        )
        if not held:  # the attempt is that of another reader by now, and stays known
            return
        tx.send(
            "UPDATE node SET reason = ? WHERE run = ? AND name = ?", (reason, key.run, key.node)
        )
        attempt = (key.run, key.node, key.seq, fence.attempt)
        if advanced_at is None:
            tx.send(
                "DELETE FROM attempt WHERE run = ? AND node = ? AND seq = ? AND attempt = ?",
                attempt,
            )
        else:
            tx.send(
                """UPDATE attempt SET ended_at = ?, outcome = ?
                    WHERE run = ? AND node = ? AND seq = ? AND attempt = ?""",
                (advanced_at, AttemptOutcome.INTERRUPTED, *attempt),
            )

    def unclaim(self, tx: Transaction, rows: Sequence[Unclaimed]) -> None:
        """Put rows back that nobody was asked to take: as if they had not been claimed."""
        claim_sql.unclaim(tx, rows)

    def bring_forward(self, tx: Transaction, capability: str, count: int, now: int) -> None:
        """Let so many rows be claimed that were put off and have not failed, the next ones first."""
        claim_sql.bring_forward(tx, capability, count, now)

    def record(
        self, tx: Transaction, key: WorkKey, fence: Fence, page: Recorded, now: int
    ) -> Effects:
        """Record a page of a source and create the rows that map or reduce its batches."""
        _, node = _hold_in_run(tx, key, fence)
        place = tx.one(
            "SELECT next_seq FROM source WHERE run = ? AND node = ?", (key.run, key.node)
        )
        first = 1 if place is None else int(place["next_seq"])
        change = Change(tx, self._datasets, now)
        if page.batches:
            change.batches_ended(node, list(enumerate(page.batches, first)))
        tx.send(
            """UPDATE source SET execution = ?, after = ?, checkpoint = ?, next_seq = ?
                WHERE run = ? AND node = ?""",
            (
                page.execution,
                page.after,
                page.checkpoint,
                first + len(page.batches),
                key.run,
                key.node,
            ),
        )
        if page.batches:
            tx.send(
                """UPDATE work SET crashes = 0, retries = 0, suspect = 0
                    WHERE run = ? AND node = ? AND seq = ?""",
                (key.run, key.node, key.seq),
            )
            tx.send(
                "UPDATE source SET rejected = ? WHERE run = ? AND node = ?",
                (node["rejected"] + page.settled, key.run, key.node),
            )
        keep_rejected(tx, node, key.seq, page.rejected)
        count_progress(tx, key, page.progress)
        return change.effects()

    def finish(
        self, tx: Transaction, key: WorkKey, fence: Fence, end: Finished, now: int
    ) -> Effects:
        """End a row well, add its part to the dataset, and create what follows from it."""
        if key.node == JOB_NODE:
            row, node = _hold(tx, key, fence), None
        else:
            row, node = _hold_in_run(tx, key, fence)
        if key.node == JOB_NODE and end.batch is not None:  # that of a dead letter
            kept = msgspec.json.encode(Output(artifact=end.batch)).decode()
            end = replace(end, output=kept)
        if row["halved"]:
            part_sql.forget(tx, key)
        _complete(tx, row, RowEnd(key, fence, end), now)
        if node is None:
            return Effects(ended_runs=(key.run,))
        keep_rejected(tx, node, key.seq, end.rejected)
        change = Change(tx, self._datasets, now)
        change.row_completed(node, row, end)
        return change.effects()

    def finish_rows(
        self, tx: Transaction, ends: Sequence[RowEnd], now: int
    ) -> list[Effects | StaleAttemptError]:
        """End rows of one run well, as `finish` does; returns for each what it would say of it.

        What they have set free or ended together is told of one of them.
        """
        mapped = sorted((one for one in ends if one.end.batch is not None), key=_node_of_end)
        told: dict[RowEnd, Effects | StaleAttemptError] = {}
        for node, some in groupby(mapped, key=_node_of_end):
            if node != JOB_NODE:
                told |= self._finish_mapped(tx, list(some), now)
        for one in ends:
            if one not in told:
                told[one] = self._finished(tx, one, now)
        return [told[one] for one in ends]

    def _finish_mapped(
        self, tx: Transaction, ends: Sequence[RowEnd], now: int
    ) -> dict[RowEnd, Effects]:
        """End those rows of a map of which nothing is to be written but their batches."""
        run, name = ends[0].key.run, ends[0].key.node
        lock_run(tx, run)
        found, nodes, children, closed = tx.each(
            _hold_rows(tx, ends), (_NODE_OF_ROW, (run, name)), *after_map(run, name)
        )
        rows = {row["seq"]: row for row in found}
        plain = [(rows[one.key.seq], one) for one in ends if _is_plain(rows.get(one.key.seq), one)]
        if not (nodes and nodes[0]["kind"] == "map" and plain):
            return {}
        for row, one in plain:
            _complete(tx, row, one, now)
        change = Change(tx, self._datasets, now)
        ended = [(row, one.end) for row, one in plain]
        change.rows_mapped(nodes[0], ended, children, closed=bool(closed))
        told = dict.fromkeys([one for _, one in plain], Effects())
        told[plain[-1][1]] = change.effects()
        return told

    def _finished(self, tx: Transaction, one: RowEnd, now: int) -> Effects | StaleAttemptError:
        try:
            return self.finish(tx, one.key, one.fence, one.end, now)
        except StaleAttemptError as error:
            return error

    def retry(
        self, tx: Transaction, key: WorkKey, fence: Fence, failure: Failure, now: int
    ) -> None:
        """End the attempt and queue the row for another one."""
        _hold(tx, key, fence)
        problem, crashed = failure.problem, is_crash(failure.problem)
        document = msgspec.json.encode(problem).decode()
        tx.send(
            """UPDATE work SET state = 'queued', not_before = ?, problem = ?, reason = ?,
                      retries = retries + ?, crashes = crashes + ?, suspect = ?
                WHERE run = ? AND node = ? AND seq = ?""",
            (
                failure.not_before,
                document,
                problem.detail or problem.title,
                int(failure.outcome is AttemptOutcome.FAILED and not crashed),
                int(crashed),
                int(is_lost_worker(problem)),
                key.run,
                key.node,
                key.seq,
            ),
        )
        _end_attempt(tx, key, fence, failure.outcome, document, now)
        if key.node != JOB_NODE:
            kind = "attempt_lost" if crashed else "attempt_failed"
            data = {"seq": key.seq, "attempt": fence.attempt, "detail": problem.detail}
            log_event(tx, key.run, kind, now, node=key.node, data=data)

    def fail(
        self, tx: Transaction, key: WorkKey, fence: Fence, problem: Problem, now: int
    ) -> Effects:
        """End a row with its problem."""
        row = _hold(tx, key, fence)
        document = msgspec.json.encode(problem).decode()
        tx.send(
            """UPDATE work SET state = 'failed', ended_at = ?, problem = ?
                WHERE run = ? AND node = ? AND seq = ?""",
            (now, document, key.run, key.node, key.seq),
        )
        _end_attempt(tx, key, fence, _outcome(problem), document, now)
        if key.node == JOB_NODE:
            letter_sql.keep(tx, row, None, problem, None, now)
            return Effects(ended_runs=(key.run,))
        node = _node(tx, key)
        if row["halved"]:  # its part is a letter already
            part_sql.forget(tx, key)
        else:
            letter_sql.keep(tx, row, node, problem, None, now)
        change = Change(tx, self._datasets, now)
        change.row_failed(node, row, document, every=fails_every_row(problem))
        return change.effects()

    def split(
        self, tx: Transaction, key: WorkKey, fence: Fence, failure: Failure, now: int
    ) -> None:
        """End an attempt that killed its worker, and try halves of what it was given."""
        row = _hold(tx, key, fence)
        problem = failure.problem
        document = msgspec.json.encode(problem).decode()
        if not row["halved"]:
            part_sql.forget(tx, key)  # of an earlier turn of the run
        lines = part_sql.next_open(tx, row) if row["halved"] else (0, _count(row))
        if lines is not None:
            part_sql.halve(tx, key, lines)
        tx.send(
            """UPDATE work SET state = 'queued', not_before = ?, problem = ?, reason = ?,
                      halved = 1, crashes = crashes + 1, suspect = ?
                WHERE run = ? AND node = ? AND seq = ?""",
            (
                failure.not_before,
                document,
                problem.detail or problem.title,
                int(is_lost_worker(problem)),
                key.run,
                key.node,
                key.seq,
            ),
        )
        _end_attempt(tx, key, fence, failure.outcome, document, now)
        halved: dict[str, object] = {"seq": key.seq, "attempt": fence.attempt, "lines": lines}
        log_event(tx, key.run, "batch_halved", now, node=key.node, data=halved)

    def end_part(
        self, tx: Transaction, key: WorkKey, fence: Fence, end: Finished, now: int
    ) -> bool:
        """End a part well; True where it was the last one, and the row is still held."""
        row = _hold(tx, key, fence)
        lines = part_sql.next_open(tx, row)
        if lines is None:
            return True
        keep_rejected(tx, _node(tx, key), key.seq, end.rejected)
        batch = None if end.batch is None else msgspec.json.encode(end.batch).decode()
        last = part_sql.end(tx, key, lines, state="done", batch=batch, output=end.output)
        if not last:
            _end_attempt(tx, key, fence, AttemptOutcome.COMPLETED, None, now)
            _queue_again(tx, key)
        return last

    def drop_part(
        self, tx: Transaction, key: WorkKey, fence: Fence, problem: Problem, now: int
    ) -> tuple[Effects, bool]:
        """Give a part up: its lines go to the dead letters. True as for `end_part`."""
        row = _hold(tx, key, fence)
        node = _node(tx, key)
        lines = part_sql.next_open(tx, row)
        if lines is None:
            return Effects(), True
        letter_sql.keep(tx, row, node, problem, lines, now)
        if node["kind"] != "map" and node["on_error"] != "dead_letter":
            return self.fail(tx, key, fence, problem, now), False
        document = msgspec.json.encode(problem).decode()
        tx.send(
            """UPDATE node SET batches_failed = batches_failed + 1,
                      problem = coalesce(problem, ?) WHERE run = ? AND name = ?""",
            (document, key.run, key.node),
        )
        dropped: dict[str, object] = {"seq": key.seq, "lines": lines}
        log_event(tx, key.run, "row_failed", now, node=key.node, data=dropped)
        last = part_sql.end(tx, key, lines, state="dead")
        if not last:
            _end_attempt(tx, key, fence, _outcome(problem), document, now)
            _queue_again(tx, key)
        return Effects(queued=not last), last

    def run_again(
        self, tx: Transaction, run: str, first: str, by: Behalf, now: int
    ) -> tuple[list[Turn], Effects]:
        """Set a run going again; returns what of it and of its steps is to be set going, and effects."""
        return again_sql.retry(tx, self._datasets, run, first, by, now)

    def job_again(self, tx: Transaction, job: str, by: Behalf, now: int) -> bool:
        """Queue a job that has ended badly once more; False where it has not."""
        return again_sql.retry_job(tx, job, by, now)

    def take_over(
        self, tx: Transaction, old: str, new: str, now: int, *, mended: Sequence[Mended] = ()
    ) -> Effects:
        """Give an accepted run what another one has recorded, but for what that went without."""
        return again_sql.take_over(tx, self._datasets, old, new, now, mended=mended)

    def answer_node(
        self, tx: Transaction, run: str, node: str, output: str, state: RunState, now: int
    ) -> Effects:
        """End a node well whose answer comes from elsewhere."""
        lock_run(tx, run)
        row = tx.one(_NODE_OF_ROW, (run, node))
        if row is None or row["ended_at"] is not None:
            return Effects()
        change = Change(tx, self._datasets, now)
        change.node_answered(row, output, state)
        return change.effects()

    def hurry_job(self, tx: Transaction, job: str) -> None:
        """Let a queued job wait for nothing but a slot."""
        again_sql.hurry_job(tx, job)

    def fail_node(
        self, tx: Transaction, run: str, node: str, problem: Problem, now: int
    ) -> Effects:
        """End a node that cannot even be set going."""
        lock_run(tx, run)
        row = tx.one(_NODE_OF_ROW, (run, node))
        if row is None or row["ended_at"] is not None:
            return Effects()
        change = Change(tx, self._datasets, now)
        change.node_failed(row, msgspec.json.encode(problem).decode())
        return change.effects()

    def cancel(self, tx: Transaction, run: str, now: int) -> Effects:
        """Cancel what has not ended of a run or job."""
        change = Change(tx, self._datasets, now)
        change.cancel(run)
        return change.effects()

    def recover(self, tx: Transaction, now: int, of: str | None = None) -> list[Claim]:
        """Queue the rows that a replica held, and return the sources to go on with."""
        self._standing.check(tx)
        return claim_sql.recover(tx, now, self._standing, of)

    def recover_travels(
        self, tx: Transaction, now: int, of: str | None = None
    ) -> tuple[list[Claim], list[Travel]]:
        """As `recover`; what travels together is not queued, and returned to go on with."""
        found = group_sql.travelling(tx, of)
        sources = self.recover(tx, now, of)
        return sources, group_sql.go_on(tx, found, self._standing)

    def open_rows(self, tx: Transaction, run: str, node: str) -> int:
        """Count the rows behind a source that have not ended."""
        row = tx.one(_OPEN_BEHIND, {"run": run, "node": node})
        return 0 if row is None else int(row["n"])

    def held_up(self, tx: Transaction, run: str, node: str, now: int) -> frozenset[str]:
        """The capabilities of rows that wait for a limit which the source before them fills."""
        source = tx.one(
            "SELECT capability, limit_key FROM work WHERE run = ? AND node = ? AND seq = 0",
            (run, node),
        )
        rows = tx.all(_KINDS_BEHIND, {"run": run, "node": node, "now": now})
        if source is None or any(row["state"] == "running" for row in rows):
            return frozenset()
        capability, key = source["capability"], source["limit_key"]
        return frozenset(
            row["capability"]
            for one in limit_sql.full(tx, capability, key)
            for row in rows
            if (row["limit_key"] == key if one.scope == "key" else one.scope == "all")
        )

    def waiting(self, tx: Transaction, now: int) -> dict[str, int]:
        """Count the queued rows per capability whose time has come."""
        rows = tx.all(
            """SELECT capability, count(*) AS n FROM work
                WHERE state = 'queued' AND not_before <= ? GROUP BY capability""",
            (now,),
        )
        return {row["capability"]: int(row["n"]) for row in rows}

    def next_time(self, tx: Transaction, now: int) -> int | None:
        """Return when the next delayed row may be claimed."""
        row = tx.one(
            """SELECT min(not_before) AS at FROM work
                WHERE state = 'queued' AND not_before > 0 AND not_before > ?""",
            (now,),
        )
        times = [limit_sql.next_start(tx, now), None if row is None else row["at"]]
        return min((int(at) for at in times if at is not None), default=None)

    def explain_waiting(self, tx: Transaction, capability: str, reason: str) -> None:
        """Show people why the rows of a capability wait; "" takes the reason away."""
        tx.send(
            """UPDATE node SET reason = ? WHERE capability = ? AND ended_at IS NULL
                  AND reason != ? AND (run, name) IN (
                      SELECT run, node FROM work WHERE state = 'queued' AND capability = ?)""",
            (reason, capability, reason, capability),
        )
        tx.send(
            """UPDATE work SET reason = ? WHERE state = 'queued' AND capability = ?
                  AND node = 'job' AND reason != ?""",
            (reason, capability, reason),
        )


def _add_node(tx: Transaction, run: NewRun, node: NewNode) -> None:
    tx.send(
        """INSERT INTO node (run, name, position, capability, kind, upstream, options, labels,
                             submitter, priority, max_retries, retry_base_s, retry_max_s, deadline_ms,
                             idle_timeout_ms, dataset, dataset_version, state, behalf,
                             data_class, output_class, tenant, condition, on_error, optional,
                             gives, limit_key)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            run.id,
            node.name,
            node.position,
            node.capability,
            node.kind,
            node.upstream,
            node.options,
            node.labels,
            run.submitter,
            run.priority if node.priority is None else node.priority,
            node.policy.max_retries,
            node.policy.base_s,
            node.policy.max_s,
            node.deadline_ms,
            node.idle_timeout_ms,
            node.dataset,
            node.dataset_version,
            "blocked" if node.options is None else "queued",
            msgspec.json.encode(run.behalf).decode(),
            node.data_class.value,
            node.output_class.value,
            run.behalf.tenant,
            node.condition,
            node.on_error,
            int(node.optional),
            msgspec.json.encode(list(node.gives)).decode(),
            node.limit_key,
        ),
    )
    tx.execute_many(
        "INSERT INTO edge (run, node, upstream, kind, tenant) VALUES (?, ?, ?, ?, ?)",
        [
            (run.id, node.name, edge.upstream, edge.kind, run.behalf.tenant)
            for edge in node.edges or _upstream_edge(node)
        ],
    )


def _upstream_edge(node: NewNode) -> list[Edge]:
    return [Edge(node.upstream, "stream")] if node.upstream else []


def _tag(tx: Transaction, ids: Sequence[str], like: NewJob) -> None:
    """Let jobs be found by the labels that their spec has."""
    for name, value in told(like.spec).tags.items():
        tx.execute_many(_LABEL, [(name, value, job, like.tenant) for job in ids])


def _row_of_job(job: NewJob) -> NewRow:
    return NewRow(
        key=WorkKey(job.id, JOB_NODE, 0),
        kind=job.kind,
        inputs=job.inputs,
        capability=job.capability,
        submitter=job.submitter,
        priority=job.priority,
        spec=job.spec,
        tenant=job.tenant,
        limit_key=job.limit_key,
        together=job.together,
    )


def _add_first_row(tx: Transaction, node: Row, now: int) -> None:
    """A source or call is row 0 of its node."""
    key = WorkKey(node["run"], node["name"], 0)
    if tx.one("SELECT 1 FROM work WHERE run = ? AND node = ? AND seq = 0", (key.run, key.node)):
        return
    if node["kind"] == "source":
        tx.send("INSERT INTO source (run, node) VALUES (?, ?)", (key.run, key.node))
    enqueue(tx, row_of_node(node, 0, node["kind"], ()), now)
    if node["fresh"]:
        count_on(tx, key)


def _hold(tx: Transaction, key: WorkKey, fence: Fence) -> Row:
    """Return the row if the fence is still its own.

    Raises:
        StaleAttemptError: it is not.
        StaleReaderError: another replica goes on with the same attempt.
        StaleReplicaError: this replica was declared dead.
    """
    if key.node != JOB_NODE:
        lock_run(tx, key.run)
    held = (key.run, key.node, key.seq, fence.attempt, fence.epoch)
    row = tx.one(_HOLD + tx.for_update, held)
    if row is None:
        raise _not_held(tx, key, fence)
    return row


def _hold_rows(tx: Transaction, ends: Sequence[RowEnd]) -> tuple[str, Parameters]:
    """The question for those rows of a node that run; locked as `_hold` does."""
    marks, numbers = listed(sorted(one.key.seq for one in ends))
    sql = _HOLD_ROWS.format(marks=marks) + tx.for_update
    return sql, (ends[0].key.run, ends[0].key.node, *numbers)


def _is_plain(row: Row | None, one: RowEnd) -> bool:
    """Whether the fence is the row's, and its end brings a batch and nothing else."""
    return (
        row is not None
        and Fence(row["attempt"], row["epoch"]) == one.fence
        and not row["halved"]
        and not one.end.rejected
    )


def _complete(tx: Transaction, row: Row, one: RowEnd, now: int) -> None:
    """The row and its attempt have ended well."""
    key, fence, end = one
    placed = end.placed
    tx.send(
        """UPDATE work SET state = 'completed', ended_at = ?, output = ?, problem = NULL,
                  instance = ?
            WHERE run = ? AND node = ? AND seq = ?""",
        (
            now,
            end.output,
            row["instance"] if placed is None else placed.instance,
            key.run,
            key.node,
            key.seq,
        ),
    )
    if placed is None:
        _end_attempt(tx, key, fence, AttemptOutcome.COMPLETED, None, now)
    else:
        where = (placed.instance, placed.identity, placed.worker, placed.explanation)
        tx.send(_ATTEMPTED, (key.run, key.node, key.seq, fence.attempt, *where, end.began, now))


def _node_of_end(one: RowEnd) -> str:
    return one.key.node


def _hold_in_run(tx: Transaction, key: WorkKey, fence: Fence) -> tuple[Row, Row]:
    """Return the row of a run as `_hold` does, and its node."""
    lock_run(tx, key.run)
    held = (key.run, key.node, key.seq, fence.attempt, fence.epoch)
    rows, nodes = tx.each((_HOLD + tx.for_update, held), (_NODE_OF_ROW, (key.run, key.node)))
    if not rows:
        raise _not_held(tx, key, fence)
    if not nodes:
        raise _run_is_gone(key)
    return rows[0], nodes[0]


def _not_held(
    tx: Transaction, key: WorkKey, fence: Fence
) -> StaleAttemptError | StaleReaderError | StaleReplicaError:
    """Why the fence is not that of the row."""
    present = tx.one(_ATTEMPT_RUNS, (key.run, key.node, key.seq, fence.attempt))
    if present is None:
        message = f"attempt {fence.attempt} of {key} is over"
        return StaleAttemptError(message)
    if present["epoch"] == fence.epoch:
        message = f"the replica that held {key} was declared dead"
        return StaleReplicaError(message)
    message = f"another replica goes on with attempt {fence.attempt} of {key}"
    return StaleReaderError(message)


def _node(tx: Transaction, key: WorkKey) -> Row:
    row = tx.one(_NODE_OF_ROW, (key.run, key.node))
    if row is None:
        raise _run_is_gone(key)
    return row


def _run_is_gone(key: WorkKey) -> StaleAttemptError:
    return StaleAttemptError(f"attempt of {key}: its run is gone")


def _queue_again(tx: Transaction, key: WorkKey) -> None:
    """The next part of the row is tried at once; what it costs is not counted against it."""
    tx.send(
        """UPDATE work SET state = 'queued', not_before = 0, retries = 0, suspect = 0
            WHERE run = ? AND node = ? AND seq = ?""",
        (key.run, key.node, key.seq),
    )


def _count(row: Row) -> int:
    return sum(one.count for one in msgspec.json.decode(row["input"], type=list[BatchRef]))


def _outcome(problem: Problem) -> AttemptOutcome:
    return AttemptOutcome.LOST if is_lost_worker(problem) else AttemptOutcome.FAILED


def _end_attempt(
    tx: Transaction,
    key: WorkKey,
    fence: Fence,
    outcome: AttemptOutcome,
    problem: str | None,
    now: int,
) -> None:
    tx.send(
        _ATTEMPT_ENDED,
        (now, outcome.value, problem, key.run, key.node, key.seq, fence.attempt),
    )
