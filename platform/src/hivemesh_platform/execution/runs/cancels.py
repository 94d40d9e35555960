"""Cancels a part of a run: one step, or one batch of it. Whole runs are cancelled by `service`."""

import msgspec
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.errors import NotFoundError

from hivemesh_platform.execution.held import Verdict
from hivemesh_platform.execution.ledger import store
from hivemesh_platform.execution.ledger.graph_sql import Change, lock_run
from hivemesh_platform.execution.ledger.port import Effects, milliseconds
from hivemesh_platform.execution.runs.service import RunEndedError, RunParts
from hivemesh_platform.storage.transaction import Row, Transaction

_OPEN_ROW = """
SELECT * FROM work WHERE run = ? AND node = ? AND seq = ? AND ended_at IS NULL
"""
_CANCELLED = msgspec.json.encode(problem("cancelled")).decode()


class Cancels:
    """What the API offers beside the cancel of a whole run."""

    def __init__(self, parts: RunParts) -> None:
        self._parts = parts

    async def cancel(self, run: str, step: str, seq: int | None) -> None:
        """Cancel a step, or one of its batches; the code that runs is told at once.

        Of a map a batch can be left out; of any other step it is all there is, and the step is
        cancelled with it.

        Raises:
            NotFoundError: there is no such step or batch.
            RunEndedError: it has ended already.
        """
        now, writer = milliseconds(self._parts.clock), self._parts.writer

        def write(tx: Transaction) -> Effects:
            lock_run(tx, run)
            node = _node(tx, run, step)
            change = Change(tx, writer, now)
            if seq is None or node["kind"] != "map":
                change.node_cancelled(node)
            else:
                change.row_cancelled(node, _row(tx, run, step, seq), _CANCELLED)
            return change.effects()

        effects = await self._parts.database.write(write)
        self._tell(run, step, seq, effects)

    def _tell(self, run: str, step: str, seq: int | None, effects: Effects) -> None:
        for held in self._parts.held.of_run(run):
            key = held.claim.key
            if key.node == step and seq in {None, key.seq}:
                held.end(Verdict.CANCELLED)
        self._parts.wakes.tell(run, effects)
        self._parts.work.give()


def _node(tx: Transaction, run: str, step: str) -> Row:
    node = store.node(tx, run, step)
    if node is None:
        message = f"{run} has no step {step!r}"
        raise NotFoundError(message)
    if node["ended_at"] is not None:
        message = f"{step} of {run} is {node['state']}"
        raise RunEndedError(message)
    return node


def _row(tx: Transaction, run: str, step: str, seq: int) -> Row:
    row = tx.one(_OPEN_ROW, (run, step, seq))
    if row is None:
        message = f"batch {seq} of {step} does not run and does not wait"
        raise RunEndedError(message)
    return row
