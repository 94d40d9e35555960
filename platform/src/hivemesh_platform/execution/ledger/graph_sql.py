"""What follows from a row's end: rows of later nodes, ends of nodes, the end of the run.

Everything happens in the transaction that ends the row, so a restart finds nothing half done.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
from hivemesh_sdk.contracts.api import RunState

from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.ledger.event_sql import log_event
from hivemesh_platform.execution.ledger.limit_sql import look_again
from hivemesh_platform.execution.ledger.port import Effects, Finished
from hivemesh_platform.execution.ledger.queue_sql import NewRow, enqueue_all, row_of_node
from hivemesh_platform.execution.model import (
    FAN_IN,
    LEVEL,
    Output,
    WorkKey,
    next_tree_rows,
    node_state,
)
from hivemesh_platform.execution.plans.graph import Edge, Fate, NodeEnd, fate, run_state
from hivemesh_platform.storage.transaction import Parameters, Row, Transaction

Numbered = tuple[int, BatchRef]

ADD_BYTES = 4 * 1024 * 1024  # in one `add`: with TLS and pages in flight, what memory is bounded by

_INSERT_BATCH = """
INSERT INTO batch (run, node, seq, sha256, count, bytes, encoding) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_TAKERS = "SELECT * FROM node WHERE run = ? AND upstream = ? AND ended_at IS NULL"
_MAP_WITHOUT_MORE = """
SELECT node.* FROM node JOIN node AS upstream
    ON upstream.run = node.run AND upstream.name = node.upstream
 WHERE node.run = ? AND node.name = ? AND node.ended_at IS NULL AND node.options IS NOT NULL
   AND upstream.ended_at IS NOT NULL
"""


class DatasetParts(Protocol):
    """What the graph needs of the datasets, inside its own transaction."""

    def add_parts(
        self, tx: Transaction, name: str, version: int, parts: Sequence[Numbered], tenant: str
    ) -> None:
        """Add parts to a version that is being written, each with its number."""
        ...

    def close(
        self, tx: Transaction, name: str, version: int, state: str, tenant: str
    ) -> tuple[int, int]:
        """End the writing of a version; returns its records and bytes."""
        ...

    def clear(self, tx: Transaction, name: str, version: int, tenant: str) -> None:
        """Take the parts of a version away."""
        ...


def lock_run(tx: Transaction, run: str) -> None:
    """Have nobody else change a run until the transaction ends: first, before reading of it.

    Who needs several locks the parent before the runs that are its steps.
    """
    if tx.for_update:
        tx.send("SELECT 1 FROM run WHERE id = ?" + tx.for_update, (run,))  # noqa: S608 - the dialect's own words


def after_map(run: str, name: str) -> tuple[tuple[str, Parameters], tuple[str, Parameters]]:
    """The questions whose answers `Change.rows_mapped` needs."""
    return (_TAKERS, (run, name)), (_MAP_WITHOUT_MORE, (run, name))


class Change:
    """One change of the graph inside one transaction, and what it has set free."""

    def __init__(self, tx: Transaction, datasets: DatasetParts, now: int) -> None:
        self._tx = tx
        self._datasets = datasets
        self._now = now
        self._queued = False
        self._ended_runs: list[str] = []
        self._ended_nodes: list[tuple[str, str]] = []

    def effects(self) -> Effects:
        """What the caller has to wake."""
        return Effects(self._queued, tuple(self._ended_runs), tuple(self._ended_nodes))

    def batch_ended(self, node: Row, seq: int, batch: BatchRef | None) -> None:
        """A source or map has given batch `seq` (None: that row failed and gives nothing)."""
        self.batches_ended(node, [(seq, batch or BatchRef(""))])

    def batches_ended(self, node: Row, batches: Sequence[Numbered]) -> None:
        """A source or map has given batches, in order of their numbers."""
        read = len(batches) if node["kind"] == "source" else 0
        self._tx.send(
            """UPDATE node SET records_out = records_out + ?, batches_known = batches_known + ?,
                      batches_done = batches_done + ? WHERE run = ? AND name = ?""",
            (_records(batches), read, read, node["run"], node["name"]),
        )
        self._give(node, batches, self._children(node["run"], node["name"]))

    def _give(self, node: Row, batches: Sequence[Numbered], children: Sequence[Row]) -> None:
        run, name = node["run"], node["name"]
        self._tx.execute_many(
            _INSERT_BATCH,
            [
                (run, name, seq, one.sha256, one.count, one.bytes, one.encoding)
                for seq, one in batches
            ],
        )
        if node["dataset"]:
            full = [(seq, one) for seq, one in batches if one.count]
            self._datasets.add_parts(
                self._tx, node["dataset"], node["dataset_version"], full, node["tenant"]
            )
        for child in children:
            self._feed(child, batches)

    def row_completed(self, node: Row, row: Row, end: Finished) -> None:
        """A row has ended well."""
        run, name = node["run"], node["name"]
        if end.placed is not None and node["kind"] != "map":
            count_attempt(self._tx, run, name)
        match node["kind"]:
            case "map":
                children, closed = self._tx.each(*after_map(run, name))
                self.rows_mapped(node, [(row, end)], children, closed=bool(closed))
            case "reduce":
                self._reduced(node, row, end)
            case "source":
                self._end_node(node, node_state(completed=1, failed=0, rejected=self._count(node)))
            case _:
                self._tx.send(
                    "UPDATE node SET output = ?, records_out = 1 WHERE run = ? AND name = ?",
                    (end.output, run, name),
                )
                self._end_node(node, RunState.COMPLETED)

    def rows_mapped(
        self,
        node: Row,
        ended: Sequence[tuple[Row, Finished]],
        children: Sequence[Row],
        *,
        closed: bool,
    ) -> None:
        """Rows of a map have ended well; `after_map` asks for its children and whether it closes."""
        run, name = node["run"], node["name"]
        batches = [(int(row["seq"]), end.batch or BatchRef("")) for row, end in ended]
        self._give(node, batches, children)
        self._tx.send(
            """UPDATE node SET batches_done = batches_done + ?, records_in = records_in + ?,
                      records_out = records_out + ?, attempts = attempts + ?
                WHERE run = ? AND name = ?""",
            (
                len(batches),
                sum(_records_in(row) for row, _ in ended),
                _records(batches),
                sum(end.placed is not None for _, end in ended),
                run,
                name,
            ),
        )
        if closed:
            self._end_map_if_done(run, name)

    def row_failed(self, node: Row, row: Row, problem: str, *, every: bool) -> None:
        """A row has ended badly; `every` says that no other row of the node can do better."""
        run, name = node["run"], node["name"]
        self._tx.send(
            """UPDATE node SET batches_failed = batches_failed + 1,
                      problem = coalesce(problem, ?) WHERE run = ? AND name = ?""",
            (problem, run, name),
        )
        data = {"seq": row["seq"]}
        log_event(self._tx, run, "row_failed", self._now, node=name, data=data)
        if node["kind"] == "map" and node["optional"]:
            self._hand_on(node, row)
            self._end_map_if_done(run, name)
        elif node["kind"] == "map" and not (every and node["on_error"] != "dead_letter"):
            self.batch_ended(node, row["seq"], None)
            self._end_map_if_done(run, name)
        elif node["kind"] == "source" and node["on_error"] == "dead_letter":
            self._end_node(node, RunState.PARTIAL)
        else:
            self._end_node(node, RunState.FAILED)

    def node_failed(self, node: Row, problem: str) -> None:
        """A node cannot be set going, or what it ran elsewhere has failed."""
        self._tx.send(
            "UPDATE node SET problem = ? WHERE run = ? AND name = ?",
            (problem, node["run"], node["name"]),
        )
        self._end_node(node, RunState.FAILED)

    def node_cancelled(self, node: Row) -> None:
        """Somebody does not want a step any more; what does not need it goes on."""
        self._end_node(node, RunState.CANCELLED, Fate(reason="cancelled"))

    def row_cancelled(self, node: Row, row: Row, problem: str) -> None:
        """Somebody does not want a batch any more: the others go on without it."""
        self._tx.send(
            """UPDATE work SET state = 'cancelled', ended_at = ?, problem = ?
                WHERE run = ? AND node = ? AND seq = ?""",
            (self._now, problem, node["run"], node["name"], row["seq"]),
        )
        self._tx.send(
            """UPDATE attempt SET ended_at = ?, outcome = 'cancelled'
                WHERE run = ? AND node = ? AND seq = ? AND ended_at IS NULL""",
            (self._now, node["run"], node["name"], row["seq"]),
        )
        look_again(self._tx, node["run"], node["run"])
        self.row_failed(node, row, problem, every=False)

    def node_skipped(self, node: Row, reason: str) -> None:
        """The condition of a node is false."""
        self._end_node(node, RunState.SKIPPED, Fate(reason=reason))

    def node_answered(self, node: Row, output: str, state: RunState) -> None:
        """A node has its answer from elsewhere."""
        self._tx.send(
            "UPDATE node SET output = ?, records_out = 1 WHERE run = ? AND name = ?",
            (output, node["run"], node["name"]),
        )
        self._end_node(node, state)

    def node_activated(self, node: Row) -> None:
        """A node has its options: its rows may run, and it may have ended with its upstream."""
        self._queued = True
        if node["kind"] == "map":
            self._end_map_if_done(node["run"], node["name"])

    def gone_without(self, node: Row, reason: str) -> None:
        """Nobody serves an optional node: a map hands batches on as they are, others are skipped."""
        run, name = node["run"], node["name"]
        if node["kind"] != "map":
            self._end_node(node, RunState.SKIPPED, Fate(reason=reason, missing=True))
            return
        self._tx.send(
            "UPDATE node SET passing = 1, missing = 1, reason = ? WHERE run = ? AND name = ?",
            (reason, run, name),
        )
        log_event(self._tx, run, "node_left_out", self._now, node=name, data={"reason": reason})
        rows = self._tx.all(
            """UPDATE work SET state = 'skipped', ended_at = ? WHERE run = ? AND node = ?
                  AND state IN ('queued', 'blocked', 'waiting') AND ended_at IS NULL RETURNING *""",
            (self._now, run, name),
        )
        look_again(self._tx, run, run)
        for row in sorted(rows, key=lambda one: int(one["seq"])):
            self._hand_on(node, row)
        self._end_map_if_done(run, name)

    def cancel(self, run: str) -> None:
        """Cancel what has not ended, and the runs that are its steps: locked after their parent."""
        lock_run(self._tx, run)
        for child in self._tx.all(
            "SELECT id FROM run WHERE parent = ? AND ended_at IS NULL ORDER BY id", (run,)
        ):
            self.cancel(child["id"])
        self._close_rows(run)
        nodes = self._tx.all(
            """UPDATE node SET state = 'cancelled', ended_at = ?
                WHERE run = ? AND ended_at IS NULL RETURNING name""",
            (self._now, run),
        )
        self._ended_nodes += [(run, node["name"]) for node in nodes]
        if self._tx.one("SELECT 1 FROM run WHERE id = ? AND ended_at IS NULL", (run,)):
            self._end_run(run, RunState.CANCELLED)
        self._ended_runs.append(run)

    def go_on(self, run: str, name: str) -> None:
        """Give a node that was set going again what it has not had, or end it as its fate is."""
        node = self._node(run, name)
        found = fate(edges_of(self._tx, run, name))
        if found.state is not None:
            self._end_node(node, found.state, found)
            return
        self._queued = True
        if not node["upstream"]:
            return
        for row in self._tx.all(
            """SELECT * FROM batch AS given WHERE run = ? AND node = ?
                  AND NOT EXISTS (SELECT 1 FROM batch WHERE run = given.run AND node = ?
                                     AND seq = given.seq)
                  AND NOT EXISTS (SELECT 1 FROM work WHERE run = given.run AND node = ?
                                     AND seq = given.seq AND kind = 'map')
                ORDER BY seq""",
            (run, node["upstream"], name, name),
        ):
            self._feed(node, [(row["seq"], _ref(row))])
        if node["kind"] == "map":
            self._end_map_if_done(run, name)
        elif self._node(run, node["upstream"])["ended_at"] is not None:
            self._group(node, closed=True)

    def _node(self, run: str, name: str) -> Row:
        node = self._tx.one("SELECT * FROM node WHERE run = ? AND name = ?", (run, name))
        if node is None:
            message = f"{run} has no node {name!r}"
            raise AssertionError(message)
        return node

    def _enqueue(self, node: Row, *rows: NewRow) -> None:
        """Queue rows; one that is made anew counts its attempts on."""
        if not rows:
            return
        enqueue_all(self._tx, rows, self._now)
        self._queued = True
        for row in rows if node["fresh"] else ():
            count_on(self._tx, row.key)

    def _children(self, run: str, name: str) -> list[Row]:
        return self._tx.all(_TAKERS, (run, name))

    def _feed(self, child: Row, batches: Sequence[Numbered]) -> None:
        """Hand batches on to a node that maps or reduces them."""
        run, name = child["run"], child["name"]
        self._tx.send(
            "UPDATE node SET batches_known = batches_known + ? WHERE run = ? AND name = ?",
            (len(batches), run, name),
        )
        if child["kind"] == "reduce":
            self._group(child, closed=False, more=len(batches))
            return
        if child["passing"]:
            for seq, one in batches:
                self._passed(child, seq, one)
            return
        full = [row_of_node(child, seq, "map", (one,)) for seq, one in batches if one.count]
        self._enqueue(child, *full)
        empty = [(seq, one) for seq, one in batches if not one.count]
        if empty:
            self._tx.send(
                "UPDATE node SET batches_done = batches_done + ? WHERE run = ? AND name = ?",
                (len(empty), run, name),
            )
            self.batches_ended(child, empty)

    def _hand_on(self, node: Row, row: Row) -> None:
        """An optional map goes without: its batch goes on as it came."""
        inputs = msgspec.json.decode(row["input"], type=list[BatchRef])
        self._tx.send(
            "UPDATE node SET missing = 1 WHERE run = ? AND name = ?", (node["run"], node["name"])
        )
        self._passed(node, int(row["seq"]), inputs[0] if inputs else BatchRef(""))

    def _passed(self, node: Row, seq: int, batch: BatchRef) -> None:
        self._tx.send(
            """UPDATE node SET batches_done = batches_done + 1, records_in = records_in + ?
                WHERE run = ? AND name = ?""",
            (batch.count, node["run"], node["name"]),
        )
        self.batch_ended(node, seq, batch)

    def _group(self, node: Row, *, closed: bool, more: int = 1) -> None:
        """Cut the upstream's batches, in order of seq, into inputs of `add` rows.

        A group has at most 16 batches and 4 MiB (or one batch); it takes only batches before
        which no batch is missing, so its content does not depend on who finished first.
        """
        run, name = node["run"], node["name"]
        place = self._tx.one(
            "SELECT grouped, adds FROM node WHERE run = ? AND name = ?", (run, name)
        )
        grouped, adds = (0, 0) if place is None else (place["grouped"], place["adds"])
        batches = self._tx.all(
            "SELECT * FROM batch WHERE run = ? AND node = ? AND seq > ? ORDER BY seq LIMIT ?",
            (run, node["upstream"], grouped, LEVEL if closed else FAN_IN + more),
        )
        for group, last in _cut(batches, grouped, closed=closed):
            adds += 1
            grouped = last
            self._enqueue(node, row_of_node(node, adds, "add", group))
        if closed and not adds:
            adds = 1
            self._enqueue(node, row_of_node(node, 1, "add", ()))
        self._tx.send(
            "UPDATE node SET grouped = ?, adds = ? WHERE run = ? AND name = ?",
            (grouped, adds, run, name),
        )
        if closed:
            self._grow_tree(node, total=adds)

    def _reduced(self, node: Row, row: Row, end: Finished) -> None:
        run, name = node["run"], node["name"]
        if row["kind"] == "result":
            self._tx.send(
                """UPDATE node SET output = ?, records_out = 1, batches_done = batches_known
                    WHERE run = ? AND name = ?""",
                (end.output, run, name),
            )
            self._end_node(
                node,
                node_state(completed=1, failed=node["batches_failed"], rejected=self._count(node)),
            )
            return
        if row["kind"] == "add":
            inputs = msgspec.json.decode(row["input"], type=list[BatchRef])
            self._tx.send(
                """UPDATE node SET batches_done = batches_done + ?, records_in = records_in + ?
                    WHERE run = ? AND name = ?""",
                (len(inputs), sum(one.count for one in inputs), run, name),
            )
        upstream = self._tx.one(
            "SELECT ended_at FROM node WHERE run = ? AND name = ?", (run, node["upstream"])
        )
        closed = upstream is not None and upstream["ended_at"] is not None
        self._grow_tree(node, total=node["adds"] if closed else None)

    def _grow_tree(self, node: Row, total: int | None) -> None:
        run, name = node["run"], node["name"]
        rows = self._tx.all("SELECT seq, state FROM work WHERE run = ? AND node = ?", (run, name))
        known = frozenset(int(row["seq"]) for row in rows)
        done = frozenset(int(row["seq"]) for row in rows if row["state"] == "completed")
        for new in next_tree_rows(done, known, total):
            states = tuple(one for seq in new.children for one in self._states(run, name, seq))
            self._enqueue(node, row_of_node(node, new.seq, new.kind, states))

    def _states(self, run: str, name: str, seq: int) -> tuple[BatchRef, ...]:
        row = self._tx.one(
            "SELECT output FROM work WHERE run = ? AND node = ? AND seq = ?", (run, name, seq)
        )
        output = msgspec.json.decode("{}" if row is None else row["output"], type=Output)
        if output.artifact is None:
            message = f"the state of {run}.{name}.{seq} was not stored"
            raise AssertionError(message)
        return (output.artifact, *output.more)

    def _end_map_if_done(self, run: str, name: str) -> None:
        node = self._tx.one(_MAP_WITHOUT_MORE, (run, name))
        if node is None or self._has_open_rows(run, name):
            return
        state = node_state(
            completed=node["batches_done"],
            failed=node["batches_failed"],
            rejected=node["rejected"],
        )
        if node["missing"] or (state is RunState.FAILED and node["on_error"] == "dead_letter"):
            state = RunState.PARTIAL
        self._end_node(node, state)

    def _has_open_rows(self, run: str, name: str) -> bool:
        found = self._tx.one(
            "SELECT 1 FROM work WHERE run = ? AND node = ? AND ended_at IS NULL LIMIT 1",
            (run, name),
        )
        return found is not None

    def _count(self, node: Row) -> int:
        row = self._tx.one(
            "SELECT rejected FROM node WHERE run = ? AND name = ?", (node["run"], node["name"])
        )
        return 0 if row is None else int(row["rejected"])

    def _end_node(self, node: Row, state: RunState, why: Fate = Fate()) -> None:  # noqa: B008 - frozen
        run, name = node["run"], node["name"]
        missing = why.missing
        if state is RunState.FAILED and node["optional"]:
            state, missing = RunState.SKIPPED, True
        end = NodeEnd(state)
        if not end.well:
            self._close_rows(run, name)
            self.cancel_child(node)
        self._tx.send(
            """UPDATE node SET state = ?, reason = ?, ended_at = ?, missing = missing + ?,
                      started_at = coalesce(started_at, ?) WHERE run = ? AND name = ?""",
            (state.value, why.reason, self._now, int(missing), self._now, run, name),
        )
        data: dict[str, object] = {"reason": why.reason} if why.reason else {}
        log_event(self._tx, run, f"node_{state.value}", self._now, node=name, data=data)
        self._ended_nodes.append((run, name))
        if end.well:
            self._close_stream(run, name)
        self._settle(run, name)
        if not end.well:
            self._stop_unneeded(run, name)
        self._end_run_if_done(run)

    def cancel_child(self, node: Row) -> None:
        """Cancel the run that is a step, if it has not ended."""
        open_child = self._tx.one(
            "SELECT id FROM run WHERE id = ? AND ended_at IS NULL", (node["child"],)
        )
        if open_child is not None:
            self.cancel(open_child["id"])

    def _close_stream(self, run: str, name: str) -> None:
        """Those that take the node's batches get no more."""
        for child in self._children(run, name):
            if child["kind"] == "reduce":
                self._group(child, closed=True)
            else:
                self._end_map_if_done(run, child["name"])

    def _settle(self, run: str, ended: str) -> None:
        """End those nodes for which nothing good can come any more."""
        dependents = self._tx.all(
            """SELECT * FROM node WHERE run = ? AND ended_at IS NULL AND name IN (
                  SELECT node FROM edge WHERE run = ? AND upstream = ?) ORDER BY position""",
            (run, run, ended),
        )
        for node in dependents:
            found = fate(edges_of(self._tx, run, node["name"]))
            still = self._tx.one(
                "SELECT 1 FROM node WHERE run = ? AND name = ? AND ended_at IS NULL",
                (run, node["name"]),
            )
            if found.state is not None and still is not None:
                self._end_node(node, found.state, found)

    def _stop_unneeded(self, run: str, ended: str) -> None:
        """Stop sources and maps whose batches nobody takes any more: they have no other effect."""
        feeding = self._tx.all(
            """SELECT * FROM node WHERE run = ? AND ended_at IS NULL AND dataset = ''
                  AND kind IN ('source', 'map')
                  AND name IN (SELECT upstream FROM edge
                                WHERE run = ? AND node = ? AND kind = 'stream')
                  AND NOT EXISTS (SELECT 1 FROM edge JOIN node AS taker
                                      ON taker.run = edge.run AND taker.name = edge.node
                                   WHERE edge.run = node.run AND edge.upstream = node.name
                                     AND (taker.ended_at IS NULL OR edge.kind != 'stream'))""",
            (run, run, ended),
        )
        for node in feeding:
            self._end_node(node, RunState.SKIPPED, Fate(reason="nothing needs it any more"))

    def _close_rows(self, run: str, node: str = "") -> None:
        """End what is open of a node, or of the whole run."""
        names = (self._now, run, node, node)
        self._tx.send(
            """UPDATE work SET state = 'cancelled', ended_at = ?
                WHERE run = ? AND (? = '' OR node = ?) AND ended_at IS NULL""",
            names,
        )
        self._tx.send(
            """UPDATE attempt SET ended_at = ?, outcome = 'cancelled'
                WHERE run = ? AND (? = '' OR node = ?) AND ended_at IS NULL""",
            names,
        )
        look_again(self._tx, run, run)

    def end_if_done(self, run: str) -> None:
        """End a run of which nothing is open."""
        self._end_run_if_done(run)

    def _end_run_if_done(self, run: str) -> None:
        nodes = self._tx.all("SELECT * FROM node WHERE run = ? ORDER BY position", (run,))
        if any(node["ended_at"] is None for node in nodes):
            return
        if self._tx.one("SELECT 1 FROM run WHERE id = ? AND ended_at IS NULL", (run,)) is None:
            return
        state = run_state(_end_of(node) for node in nodes)
        decisive = [one for one in nodes if one["state"] == state.value] or nodes
        problem = next((one["problem"] for one in (*decisive, *nodes) if one["problem"]), None)
        self._end_run(run, state, problem)
        self._ended_runs.append(run)

    def _end_run(self, run: str, state: RunState, problem: str | None = None) -> None:
        nodes = self._tx.all("SELECT * FROM node WHERE run = ? ORDER BY position", (run,))
        missing = sorted({one for node in nodes for one in _missing_of(node)})
        self._tx.send(
            """UPDATE run SET state = ?, reason = '', problem = ?, ended_at = ?, missing = ?
                WHERE id = ?""",
            (state.value, problem, self._now, msgspec.json.encode(missing).decode(), run),
        )
        for node in nodes:
            if node["dataset"]:
                self._close_dataset(node, _dataset_state(state, node))
        log_event(self._tx, run, f"run_{state.value}", self._now)

    def _close_dataset(self, node: Row, state: str) -> None:
        name, version = node["dataset"], node["dataset_version"]
        records, bytes_ = self._datasets.close(self._tx, name, version, state, node["tenant"])
        data: dict[str, object] = {
            "dataset": name,
            "version": version,
            "state": state,
            "records": records,
            "bytes": bytes_,
        }
        log_event(self._tx, node["run"], "dataset_closed", self._now, node=node["name"], data=data)


def edges_of(tx: Transaction, run: str, name: str) -> list[tuple[Edge, NodeEnd | None]]:
    """Return what a node depends on, and how those nodes have ended."""
    rows = tx.all(
        """SELECT edge.upstream, edge.kind AS edge_kind, node.state, node.ended_at, node.on_error,
                  node.missing
             FROM edge JOIN node ON node.run = edge.run AND node.name = edge.upstream
            WHERE edge.run = ? AND edge.node = ? ORDER BY node.position, edge.kind""",
        (run, name),
    )
    return [
        (Edge(row["upstream"], row["edge_kind"]), None if row["ended_at"] is None else _end_of(row))
        for row in rows
    ]


def _end_of(node: Row) -> NodeEnd:
    state = RunState(node["state"])
    tolerated = state is RunState.FAILED and node["on_error"] != "fail"
    return NodeEnd(state, tolerated, bool(node["missing"]))


def _missing_of(node: Row) -> list[str]:
    """The fields, or the step, that a run went on without."""
    if not node["missing"]:
        return []
    names = msgspec.json.decode(node["gives"], type=list[str])
    return names or [node["name"]]


def _dataset_state(run: RunState, node: Row) -> str:
    """What has failed elsewhere makes a dataset partial, not worthless."""
    match run:
        case RunState.COMPLETED:
            return "complete"
        case RunState.PARTIAL:
            return "partial" if node["state"] != "failed" else "abandoned"
        case RunState.FAILED if node["state"] in {"completed", "partial"}:
            return "partial"
        case _:
            return "abandoned"


def count_attempt(tx: Transaction, run: str, name: str) -> None:
    """An attempt of a node was written."""
    tx.send("UPDATE node SET attempts = attempts + 1 WHERE run = ? AND name = ?", (run, name))


def count_on(tx: Transaction, key: WorkKey) -> None:
    """Let the attempts of a row follow those that its key has had before."""
    where = (key.run, key.node, key.seq)
    tx.send(
        """UPDATE work SET attempt = (SELECT coalesce(max(attempt.attempt), 0) FROM attempt
                                       WHERE run = ? AND node = ? AND seq = ?)
            WHERE run = ? AND node = ? AND seq = ?""",
        (*where, *where),
    )


def _ref(row: Row) -> BatchRef:
    return BatchRef(row["sha256"], row["count"], row["bytes"], row["encoding"])


def _records(batches: Sequence[Numbered]) -> int:
    return sum(one.count for _, one in batches)


def _records_in(row: Row) -> int:
    return sum(one.count for one in msgspec.json.decode(row["input"], type=list[BatchRef]))


def _cut(
    batches: list[Row], grouped: int, *, closed: bool
) -> list[tuple[tuple[BatchRef, ...], int]]:
    """Cut batches without a gap into full groups; the last one need not be full when `closed`."""
    groups: list[tuple[tuple[BatchRef, ...], int]] = []
    group: list[BatchRef] = []
    size = taken = 0
    expected = grouped + 1
    for row in batches:
        if int(row["seq"]) != expected:
            break
        batch = _ref(row)
        if taken == FAN_IN or (group and size + batch.bytes > ADD_BYTES):
            groups.append((tuple(group), expected - 1))
            group, size, taken = [], 0, 0
        if batch.count:
            group.append(batch)
        size, taken, expected = size + batch.bytes, taken + 1, expected + 1
    if taken == FAN_IN or (closed and taken):
        groups.append((tuple(group), expected - 1))
    return groups
