"""The statements of retention: which runs and jobs are due, how their rows go, what is still named."""

import re
from collections.abc import Sequence

import msgspec

from hivemesh_platform.execution.ledger.graph_sql import lock_run
from hivemesh_platform.storage.transaction import Row, Transaction, Value, listed

RUNS, JOBS = "run_", "job_"
_DIGEST = re.compile("[0-9a-f]{64}")

_RUN_DUE = """
SELECT id, labels FROM run
 WHERE id > :after AND id < :bound AND ended_at < :before
   AND NOT EXISTS (SELECT 1 FROM dead_letter AS letter
                    WHERE letter.run = run.id
                      AND (letter.state = 'open' OR letter.settled_at >= :before))
   AND NOT EXISTS (SELECT 1 FROM run AS above WHERE above.id = run.parent)
   AND NOT EXISTS (SELECT 1 FROM run AS child WHERE child.parent = run.id
                      AND child.parent != '' AND child.ended_at IS NULL)
   AND NOT EXISTS (SELECT 1 FROM run AS later WHERE later.backfill_of = run.id
                      AND later.backfill_of != '' AND later.ended_at IS NULL)
"""
_HAS_LETTER = """
EXISTS (SELECT 1 FROM dead_letter AS letter
         WHERE letter.run = {job}.run AND (letter.state = 'open' OR letter.settled_at >= :before))
"""
_IS_LAST = """
   AND (substr(run, 37) != '-000001' OR NOT EXISTS (
        SELECT 1 FROM work AS other
         WHERE other.run > work.run AND other.run < substr(work.run, 1, 36) || '.'{kept}))
"""  # a batch is found by its first job
_OTHER_KEPT = f"""
           AND (other.ended_at IS NULL OR other.ended_at >= :before
                OR {_HAS_LETTER.format(job="other")})"""
_JOB_DUE = f"""
SELECT run AS id FROM work
 WHERE run > :after AND run < :bound AND node = 'job' AND seq = 0 AND ended_at < :before
   AND NOT {_HAS_LETTER.format(job="work")}{_IS_LAST.format(kept=_OTHER_KEPT)}
"""  # noqa: S608 - as written above
_OF_JOBS = (
    "work",
    "attempt",
    "run_event",
    "run_label",
    "work_part",
    "rejected",
    "step_artifact",
    "dead_letter",
    "orphan_job",
)
_OF_RUNS = ("work", "attempt", "batch", "rejected", "work_part")  # by run, node, seq


def bound(prefix: str, before: int) -> str:
    """The id below which lie those that were accepted before a time: ids are sorted by time."""
    return f"{prefix}{max(0, before):012x}"


def due_runs(tx: Transaction, after: str, before: int, limit: int) -> list[str]:
    """Return runs that ended before a time and that nothing needs any more, in order of their ids."""
    names: dict[str, Value] = {
        "after": after,
        "bound": bound(RUNS, before),
        "before": before,
        "limit": limit,
    }
    return [row["id"] for row in tx.all(_RUN_DUE + " ORDER BY id LIMIT :limit", names)]


def due_jobs(tx: Transaction, after: str, before: int, limit: int) -> list[str]:
    """The same of jobs."""
    names: dict[str, Value] = {
        "after": after,
        "bound": bound(JOBS, before),
        "before": before,
        "limit": limit,
    }
    return [row["id"] for row in tx.all(_JOB_DUE + " ORDER BY run LIMIT :limit", names)]


def expire_run(tx: Transaction, run: str, before: int, now: int) -> bool:
    """Take a run out of all lists; its rows go afterwards. False where it is not due after all."""
    lock_run(tx, run)
    names: dict[str, Value] = {
        "after": RUNS,
        "bound": bound(RUNS, before),
        "before": before,
        "run": run,
    }
    row = tx.one(_RUN_DUE + " AND id = :run", names)
    if row is None:
        return False
    for name, value in msgspec.json.decode(row["labels"], type=dict[str, str]).items():
        tx.send(
            "DELETE FROM run_label WHERE name = ? AND value = ? AND run = ?", (name, value, run)
        )
    for statement in (
        "DELETE FROM node WHERE run = ?",
        "DELETE FROM edge WHERE run = ?",
        "DELETE FROM source WHERE run = ?",
        "DELETE FROM run WHERE id = ?",
    ):
        tx.send(statement, (run,))
    tx.send(
        "INSERT INTO expired_run (id, at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING", (run, now)
    )
    return True


def expired(tx: Transaction) -> list[str]:
    """Return the runs of which rows may be left."""
    return [row["id"] for row in tx.all("SELECT id FROM expired_run ORDER BY id LIMIT 100")]


def remove_rows(tx: Transaction, run: str, limit: int) -> bool:
    """Remove up to `limit` rows of an expired run; says whether none is left."""
    for table in _OF_RUNS:
        last = tx.one(
            f"""SELECT node, seq FROM {table} WHERE run = ?
                 ORDER BY node, seq LIMIT 1 OFFSET {limit - 1}""",  # noqa: S608 - names of tables
            (run,),
        )
        if last is not None:
            tx.send(
                f"""DELETE FROM {table} WHERE run = ?
                       AND (node < ? OR (node = ? AND seq <= ?))""",  # noqa: S608 - as above
                (run, last["node"], last["node"], last["seq"]),
            )
            return False
        if tx.execute(f"DELETE FROM {table} WHERE run = ?", (run,)):  # noqa: S608 - as above
            return False
    tx.send("DELETE FROM run_event WHERE run = ?", (run,))
    tx.send("DELETE FROM dead_letter WHERE run = ? AND state != 'open'", (run,))
    tx.send(
        """DELETE FROM step_artifact WHERE run = ?
              AND NOT EXISTS (SELECT 1 FROM dataset WHERE dataset.run = step_artifact.run)""",
        (run,),
    )
    tx.send("DELETE FROM expired_run WHERE id = ?", (run,))
    return True


def remove_jobs(tx: Transaction, jobs: Sequence[str], before: int) -> int:
    """Remove jobs with all of their rows, but not one that was set going or opened again.

    Nor the first one of a batch while there is another one of it.
    """
    marks, asked = listed(jobs)
    letters = tx.all(
        f"SELECT run, state FROM dead_letter WHERE run IN ({marks})" + tx.for_update,  # noqa: S608 - as below
        asked,
    )
    opened = {row["run"] for row in letters if row["state"] == "open"}
    rows = tx.all(
        f"""SELECT run FROM work WHERE run IN ({marks}) AND node = 'job' AND seq = 0
               AND ended_at < ?"""  # noqa: S608 - question marks only
        + _IS_LAST.format(kept="")
        + tx.for_update,
        (*asked, before),
    )
    found = [row["run"] for row in rows if row["run"] not in opened]
    marks, gone = listed(found)
    for table in _OF_JOBS if found else ():
        tx.send(f"DELETE FROM {table} WHERE run IN ({marks})", gone)  # noqa: S608 - as above
    return len(found)


def runs_with_events(tx: Transaction, after: str, before: int, limit: int) -> list[str]:
    """Return runs that ended before a time and whose log is still there."""
    rows = tx.all(
        """SELECT id FROM run WHERE id > ? AND id < ? AND ended_at < ?
              AND EXISTS (SELECT 1 FROM run_event WHERE run_event.run = run.id)
            ORDER BY id LIMIT ?""",
        (after, bound(RUNS, before), before, limit),
    )
    return [row["id"] for row in rows]


def remove_events(tx: Transaction, runs: Sequence[str], before: int) -> int:
    """Remove the logs of runs that ended before a time."""
    marks, asked = listed(runs)
    return tx.execute(
        f"""DELETE FROM run_event WHERE run IN (
                SELECT id FROM run WHERE id IN ({marks}) AND ended_at < ?)""",  # noqa: S608 - as above
        (*asked, before),
    )


def named_by_runs(tx: Transaction, after: str, limit: int) -> tuple[str, set[str]]:
    """Return the digests that the next runs name, and the last of these runs ("" at the end).

    Its batches come apart (`named_by_batches`). Of a run that may be gone on with (it has not ended,
    or not well) it is what its rows have made besides.
    """
    runs = tx.all(
        "SELECT id, state, document, parameters FROM run WHERE id > ? ORDER BY id LIMIT ?",
        (after, limit),
    )
    if not runs:
        return "", set()
    found = _named(runs, "document", "parameters")
    ids = [row["id"] for row in runs]
    marks, asked = listed(ids)
    nodes = tx.all(f"SELECT options, output FROM node WHERE run IN ({marks})", asked)  # noqa: S608 - as above
    found |= _named(nodes, "options", "output")
    for run in (row["id"] for row in runs if row["state"] != "completed"):
        work = tx.all("SELECT input, output FROM work WHERE run = ?", (run,))
        found |= _named(work, "input", "output")
    return ids[-1], found


def named_by_batches(tx: Transaction, after: str, limit: int) -> tuple[str, set[str]]:
    """The same of all batches: any run may be done again from any of its steps."""
    run, node, seq = after.split(" ") if after else ("", "", "0")
    rows = tx.all(
        """SELECT run, node, seq, sha256 FROM batch WHERE (run, node, seq) > (?, ?, ?)
            ORDER BY run, node, seq LIMIT ?""",
        (run, node, int(seq), limit),
    )
    last = f"{rows[-1]['run']} {rows[-1]['node']} {rows[-1]['seq']}" if rows else ""
    return last, {row["sha256"] for row in rows}


def named_by_jobs(tx: Transaction, after: str, limit: int) -> tuple[str, set[str]]:
    """The same of jobs."""
    jobs = tx.all(
        """SELECT run, spec, input, output FROM work
            WHERE run > ? AND run < 'job~' AND node = 'job' ORDER BY run LIMIT ?""",
        (after, limit),
    )
    return (jobs[-1]["run"] if jobs else ""), _named(jobs, "spec", "input", "output")


def named_by_letters(tx: Transaction, after: str, limit: int) -> tuple[str, set[str]]:
    """The same of dead letters that may be run again; those that are discarded may be reopened."""
    letters = tx.all(
        """SELECT id, input, spec, options, position FROM dead_letter
            WHERE state != 'retried' AND id > ? ORDER BY id LIMIT ?""",
        (after, limit),
    )
    found = _named(letters, "input", "spec", "options", "position")
    return (letters[-1]["id"] if letters else ""), found


def named_by_pipelines(tx: Transaction) -> set[str]:
    """Return the digests that stored pipelines name."""
    return _named(tx.all("SELECT document FROM pipeline"), "document")


def _named(rows: Sequence[Row], *columns: str) -> set[str]:
    return {
        digest
        for row in rows
        for column in columns
        for digest in _DIGEST.findall(row[column] or "")
    }
