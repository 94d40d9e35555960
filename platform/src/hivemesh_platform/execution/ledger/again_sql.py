"""A run that has ended is set going again: what failed, or everything from one step on.

What is recorded is kept: batches, answers and parts of datasets are neither asked for nor added a
second time. Rows that are made anew count their attempts on, so a superseded one stays refused.
"""

from collections.abc import Iterable, Sequence

import msgspec
from hivemesh_sdk.errors import ConflictError, NotFoundError

from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.behalf import Behalf, effective
from hivemesh_platform.execution.ledger import letter_sql
from hivemesh_platform.execution.ledger.event_sql import log_event
from hivemesh_platform.execution.ledger.graph_sql import Change, DatasetParts, lock_run
from hivemesh_platform.execution.ledger.group_rules import together_of
from hivemesh_platform.execution.ledger.mended import Mended
from hivemesh_platform.execution.ledger.mended import found as letters_mended
from hivemesh_platform.execution.ledger.mended import left as letters_left
from hivemesh_platform.execution.ledger.port import Effects, Turn
from hivemesh_platform.execution.model import JOB_NODE
from hivemesh_platform.execution.plans.spec import JobSpec, is_intact, written
from hivemesh_platform.storage.transaction import Row, Transaction

_ENDED_BADLY = """
SELECT spec, capability, together, state FROM work
 WHERE run = ? AND node = 'job' AND seq = 0 AND state IN ('failed', 'cancelled')
"""


_ENDED_WELL = frozenset({"completed", "partial"})


class NothingToRetryError(ConflictError):
    """No step of the run has failed, was blocked or cancelled."""

    slug = "nothing-to-retry"


class InputReplayedError(ConflictError):
    """An input of a step that has failed is done by a job of its own."""

    slug = "dead-letter-settled"


def retry(
    tx: Transaction,
    datasets: DatasetParts,
    run: str,
    first: str,
    by: Behalf,
    now: int,
) -> tuple[list[Turn], Effects]:
    """Set a run going again, and the runs that are its steps; returns their turns, and effects.

    With `first` that step and all behind it are done afresh, whatever they gave. The rights are
    those of who submitted the run, less what `by` may not.

    Raises:
        NothingToRetryError: nothing has failed.
        InputReplayedError: of what has failed something was run as a job, and has not failed there.
        NotFoundError: there is no such step.
    """
    lock_run(tx, run)
    nodes = tx.all("SELECT * FROM node WHERE run = ? ORDER BY position", (run,))
    fresh = _behind(tx, run, first, nodes) if first else set()
    chosen = [node for node in nodes if node["name"] in fresh or _has_failed(node)]
    if not chosen:
        message = f"no step of {run} has failed; name one to start from"
        raise NothingToRetryError(message)
    _refuse_replayed(tx, run, [str(one["name"]) for one in chosen if one["name"] not in fresh])
    change = Change(tx, datasets, now)
    turns: list[Turn] = []
    names = [str(node["name"]) for node in chosen]
    for node in chosen:
        _open_run_again(tx, datasets, node, now, afresh=node["name"] in fresh)
        _narrow(tx, node, by)
        letter_sql.settle_step(tx, run, node["name"], by.sub, now)
        if node["name"] in fresh:
            change.cancel_child(node)  # another one is started in its place
            _set_childless(tx, node)
        else:
            turns += _retry_child(tx, datasets, node, by, now)
    turn = _begin_turn(tx, run, by, now, names)
    for name in names:
        change.go_on(run, name)
    return [Turn(run, turn, names), *turns], change.effects()


def _refuse_replayed(tx: Transaction, run: str, names: list[str]) -> None:
    """What a job does under its own key is not done a second time unless somebody asks for it."""
    for name in names:
        found = letter_sql.replayed(tx, run, name)
        if found is not None:
            message = f"an input of {name} is done by {found['job']}, made from {found['letter']}; "
            message += f"`hivemesh run retry {run} --from {name}` does all of the step once more"
            raise InputReplayedError(message)


def _retry_child(
    tx: Transaction, datasets: DatasetParts, node: Row, by: Behalf, now: int
) -> list[Turn]:
    """Set the run of a step going again; one that cannot be is started anew.

    Where somebody has retried it alone, its step waits for it, or takes what it has given.
    """
    if not node["child"]:
        return []
    try:
        turns, _ = retry(tx, datasets, node["child"], "", by, now)
    except NothingToRetryError:
        child = tx.one("SELECT state, ended_at FROM run WHERE id = ?", (node["child"],))
        if child is not None and (child["ended_at"] is None or child["state"] in _ENDED_WELL):
            return []
        _set_childless(tx, node)
        return []
    return turns


def _set_childless(tx: Transaction, node: Row) -> None:
    tx.send("UPDATE node SET child = '' WHERE run = ? AND name = ?", (node["run"], node["name"]))


def retry_job(tx: Transaction, job: str, by: Behalf, now: int) -> bool:
    """Queue the row of a job that has ended badly; False where it has not."""
    row = tx.one(
        _ENDED_BADLY + tx.for_update,  # of two who retry it at once one finds it queued
        (job,),
    )
    if row is None:
        return False
    text, together = str(row["spec"]), ""
    if is_intact(text):  # what is damaged fails once more, and is not sealed anew
        spec = msgspec.json.decode(text, type=JobSpec)
        spec = msgspec.structs.replace(spec, behalf=effective(spec.behalf, by))
        text = written(spec)
        together = together_of(row["capability"], spec) if row["together"] else ""
    letter_sql.set_going_again(tx, job, text, state=row["state"], together=together)
    letter_sql.settle_step(tx, job, JOB_NODE, by.sub, now)
    return True


def goes_without(tx: Transaction, run: str) -> bool:
    """Whether a run has ended and lacks something; nobody changes that while `tx` is open."""
    lock_run(tx, run)
    row = tx.one("SELECT ended_at, missing FROM run WHERE id = ?", (run,))
    if row is None or row["ended_at"] is None:
        return False
    return row["missing"] != "[]" or bool(letters_mended(tx, run))


def take_over(
    tx: Transaction,
    datasets: DatasetParts,
    old: str,
    new: str,
    now: int,
    *,
    mended: Sequence[Mended] = (),
) -> Effects:
    """Give an accepted run what another one has recorded, but for what that went without.

    What jobs have given for its dead letters is added to their steps; those behind are done again.
    """
    lock_run(tx, old)
    nodes = tx.all("SELECT * FROM node WHERE run = ? ORDER BY position", (old,))
    again: set[str] = set()
    for node in nodes:
        if node["missing"]:
            again |= _behind(tx, old, node["name"], nodes)
    for name in {one.node for one in mended} - again:
        again |= _behind(tx, old, name, nodes) - {name}
    for node in nodes:
        if node["name"] not in again:
            _copy(tx, datasets, node, new)
            added = [one for one in mended if one.node == node["name"]]
            if added:
                _add(tx, datasets, node, new, now, added)
    log_event(tx, new, "run_backfills", now, data={"run": old, "steps": sorted(again)})
    change = Change(tx, datasets, now)
    for node in nodes:
        if node["name"] in again:
            change.go_on(new, node["name"])
    change.end_if_done(new)
    return change.effects()


def _add(
    tx: Transaction,
    datasets: DatasetParts,
    node: Row,
    new: str,
    now: int,
    mended: Sequence[Mended],
) -> None:
    """Put the records of letters behind those that the step has given."""
    where = (new, node["name"])
    copy = tx.one(
        """SELECT dataset, dataset_version, rejected,
                  (SELECT coalesce(max(seq), 0) FROM batch WHERE run = node.run
                      AND node = node.name) AS last
             FROM node WHERE run = ? AND name = ?""",
        where,
    )
    if copy is None:
        return
    numbered = list(enumerate(mended, int(copy["last"]) + 1))
    for seq, one in numbered:
        ref = one.batch
        tx.send(
            """INSERT INTO batch (run, node, seq, sha256, count, bytes, encoding)
               VALUES (?, ?, ?, ?, ?, ?, ?)""",
            (*where, seq, ref.sha256, ref.count, ref.bytes, ref.encoding),
        )
        source: dict[str, object] = {"letter": one.letter, "job": one.job, "batch": seq}
        log_event(tx, new, "letter_added", now, node=node["name"], data=source)
    if copy["dataset"]:
        added = [(seq, one.batch) for seq, one in numbered]
        datasets.add_parts(tx, copy["dataset"], copy["dataset_version"], added, node["tenant"])
    left = letters_left(tx, node["run"], node["name"], mended)
    tx.send(
        """UPDATE node SET state = ?, problem = CASE WHEN ? = 0 THEN NULL ELSE problem END,
                  batches_failed = ?, batches_done = batches_done + ?, records_out = records_out + ?
            WHERE run = ? AND name = ?""",
        (
            "partial" if left or copy["rejected"] else "completed",
            left,
            left,
            len(mended),
            sum(one.batch.count for one in mended),
            *where,
        ),
    )


def _copy(tx: Transaction, datasets: DatasetParts, node: Row, new: str) -> None:
    """What a node has given belongs to another run too, by reference."""
    run, name = node["run"], node["name"]
    tx.execute(
        f"UPDATE node SET {', '.join(f'{one} = ?' for one in _COPIED)} WHERE run = ? AND name = ?",  # noqa: S608 - our own names
        (*(node[one] for one in _COPIED), new, name),
    )
    tx.execute(
        """INSERT INTO batch (run, node, seq, sha256, count, bytes, encoding)
           SELECT ?, node, seq, sha256, count, bytes, encoding FROM batch
            WHERE run = ? AND node = ?""",
        (new, run, name),
    )
    copy = tx.one(
        "SELECT dataset, dataset_version FROM node WHERE run = ? AND name = ?", (new, name)
    )
    if copy is None or not copy["dataset"]:
        return
    rows = tx.all(
        "SELECT * FROM batch WHERE run = ? AND node = ? AND count > 0 ORDER BY seq", (new, name)
    )
    parts = [
        (int(row["seq"]), BatchRef(row["sha256"], row["count"], row["bytes"], row["encoding"]))
        for row in rows
    ]
    datasets.add_parts(tx, copy["dataset"], copy["dataset_version"], parts, node["tenant"])


_COPIED = (
    "state",
    "reason",
    "problem",
    "output",
    "options",
    "decided",
    "batches_known",
    "batches_done",
    "batches_failed",
    "records_in",
    "records_out",
    "rejected",
    "done",
    "total",
    "unit",
    "started_at",
    "ended_at",
)


def hurry_job(tx: Transaction, job: str) -> None:
    """Let a queued job wait for nothing but a slot, before all others of its capability."""
    tx.execute(
        """UPDATE work SET not_before = 0, rank = (
                  SELECT coalesce(min(other.rank), 0) - 1 FROM work AS other
                   WHERE other.capability = work.capability AND other.state = 'queued')
            WHERE run = ? AND node = 'job' AND seq = 0 AND state = 'queued'""",
        (job,),
    )


def _has_failed(node: Row) -> bool:
    """A step that its condition has left out has not failed, one that something optional has not."""
    if node["ended_at"] is None or node["missing"]:
        return False
    if node["state"] == "skipped":
        return int(node["decided"]) >= 0
    return node["state"] in {"failed", "blocked", "cancelled"}


def _behind(tx: Transaction, run: str, first: str, nodes: Iterable[Row]) -> set[str]:
    known = {node["name"] for node in nodes}
    if first not in known:
        message = f"{run} has no step {first!r}; it has: {', '.join(sorted(known))}"
        raise NotFoundError(message)
    edges = tx.all("SELECT node, upstream FROM edge WHERE run = ?", (run,))
    found = {first}
    while more := {e["node"] for e in edges if e["upstream"] in found} - found:
        found |= more
    return found


def _open_run_again(
    tx: Transaction, datasets: DatasetParts, node: Row, now: int, *, afresh: bool
) -> None:
    run, name = where = node["run"], node["name"]
    if afresh or node["kind"] == "reduce":
        _forget(tx, node, now)
    else:
        tx.send(
            """DELETE FROM work_part WHERE run = ? AND node = ? AND seq IN (
                  SELECT seq FROM work WHERE run = ? AND node = ?
                     AND state IN ('failed', 'cancelled'))""",
            (*where, *where),
        )
        tx.send(
            """UPDATE work SET state = ?, ended_at = NULL, problem = NULL, output = NULL,
                      reason = '', not_before = 0, retries = 0, crashes = 0, suspect = 0,
                      halved = 0, epoch = epoch + 1
                WHERE run = ? AND node = ? AND state IN ('failed', 'cancelled')""",
            ("blocked" if node["options"] is None else "queued", *where),
        )
    if node["kind"] == "map":
        tx.send(
            """DELETE FROM batch WHERE run = ? AND node = ? AND seq NOT IN (
                  SELECT seq FROM work WHERE run = ? AND node = ? AND state = 'completed')""",
            (*where, *where),
        )
    if node["dataset"]:
        if afresh:
            datasets.clear(tx, node["dataset"], node["dataset_version"], node["tenant"])
        datasets.close(tx, node["dataset"], node["dataset_version"], "writing", node["tenant"])
    _reset_node(tx, node, afresh=afresh)
    tx.send(
        """UPDATE node SET
              batches_done = (SELECT count(*) FROM work WHERE run = node.run
                                 AND node = node.name AND state = 'completed'
                                 AND kind IN ('map', 'add')),
              batches_known = (SELECT count(*) FROM work WHERE run = node.run
                                  AND node = node.name AND kind = 'map'),
              records_out = (SELECT coalesce(sum(count), 0) FROM batch
                              WHERE run = node.run AND node = node.name)
            WHERE run = ? AND name = ? AND kind IN ('map', 'reduce')""",
        (run, name),
    )


_ROWS = "SELECT 1 FROM work WHERE run = ? AND node = ? ORDER BY seq"
_KEEP_NUMBERS = """
INSERT INTO attempt (run, node, seq, attempt, instance, started_at, ended_at, outcome)
SELECT run, node, seq, attempt, instance, coalesce(started_at, created_at),
       coalesce(ended_at, started_at, created_at), 'interrupted' FROM work
 WHERE run = ? AND node = ? AND attempt > 0
    ON CONFLICT DO NOTHING
"""  # of attempts that were put back nothing is kept, but their numbers are used up


def _forget(tx: Transaction, node: Row, now: int) -> None:
    """Drop the rows and batches of a node; their attempts are kept and counted on."""
    where = (node["run"], node["name"])
    if tx.for_update:  # a row is locked before its attempts, as by who places one
        tx.send(_ROWS + tx.for_update, where)
    tx.send(_KEEP_NUMBERS, where)
    tx.send("DELETE FROM work WHERE run = ? AND node = ?", where)
    tx.send(
        """UPDATE attempt SET ended_at = ?, outcome = 'cancelled'
            WHERE run = ? AND node = ? AND ended_at IS NULL""",
        (now, *where),
    )
    tx.send("DELETE FROM batch WHERE run = ? AND node = ?", where)
    tx.send("DELETE FROM work_part WHERE run = ? AND node = ?", where)
    tx.send("DELETE FROM source WHERE run = ? AND node = ?", where)
    tx.send("DELETE FROM rejected WHERE run = ? AND node = ?", where)
    tx.send(
        """UPDATE node SET fresh = fresh + 1, grouped = 0, adds = 0, rejected = 0, records_in = 0,
                  records_out = 0, batches_known = 0, batches_done = 0, done = 0, output = NULL
            WHERE run = ? AND name = ?""",
        where,
    )


def _reset_node(tx: Transaction, node: Row, *, afresh: bool) -> None:
    where = (node["run"], node["name"])
    waits = node["condition"] or tx.one(
        "SELECT 1 FROM edge WHERE run = ? AND node = ? AND kind != 'stream'", where
    )
    if afresh and waits:
        tx.send("UPDATE node SET options = NULL, decided = 0 WHERE run = ? AND name = ?", where)
    tx.send(
        """UPDATE node SET state = CASE WHEN options IS NULL THEN 'blocked' ELSE 'queued' END,
                  reason = '', problem = NULL, ended_at = NULL, missing = 0, passing = 0,
                  batches_failed = 0
            WHERE run = ? AND name = ?""",
        where,
    )


def _narrow(tx: Transaction, node: Row, by: Behalf) -> None:
    behalf = effective(msgspec.json.decode(node["behalf"], type=Behalf), by)
    tx.send(
        "UPDATE node SET behalf = ? WHERE run = ? AND name = ?",
        (msgspec.json.encode(behalf).decode(), node["run"], node["name"]),
    )


def _begin_turn(tx: Transaction, run: str, by: Behalf, now: int, names: list[str]) -> int:
    row = tx.one(
        """UPDATE run SET turn = turn + 1, problem = NULL, missing = '[]', reason = '',
                  state = CASE WHEN ended_at IS NULL THEN state ELSE 'queued' END, ended_at = NULL
            WHERE id = ? RETURNING turn""",
        (run,),
    )
    log_event(tx, run, "run_retried", now, data={"steps": names, "by": by.sub})
    return 0 if row is None else int(row["turn"])
