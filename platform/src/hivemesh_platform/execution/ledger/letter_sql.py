"""Dead letters: inputs that were given up, kept until somebody retries or discards them."""

from dataclasses import dataclass

import msgspec
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.problems import Problem

from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.model import (
    JOB_NODE,
    cause_of,
    fails_every_row,
    is_letter,
)
from hivemesh_platform.execution.plans.spec import JobSpec, is_intact
from hivemesh_platform.ids import new_letter_id
from hivemesh_platform.storage.transaction import Row, Transaction, Value

_KEEP = """
INSERT INTO dead_letter (id, run, node, seq, kind, capability, pipeline, submitter, input, first, last,
       records, spec, options, labels, behalf, problem, cause, position, attempts, data_class,
       output_class, created_at, tenant)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_LETTERS = """
SELECT dead_letter.*,
       coalesce((SELECT limit_key FROM work WHERE work.run = dead_letter.run
                    AND work.node = dead_letter.node AND work.seq = dead_letter.seq), '') AS limit_key,
       (SELECT priority FROM work WHERE work.run = dead_letter.run
           AND work.node = dead_letter.node AND work.seq = dead_letter.seq) AS priority
  FROM dead_letter
"""
BECAME = """
WITH RECURSIVE became (letter, job) AS (
    SELECT id, replayed_as FROM dead_letter
     WHERE run = ? AND state = 'retried' AND replayed_as != run
     UNION
    SELECT became.letter, later.replayed_as FROM became
      JOIN dead_letter AS later ON later.run = became.job AND later.state = 'retried'
                               AND later.replayed_as != later.run
)
"""  # the jobs of a run's letters: of one that failed the letter may have become another
_REPLAYED = (
    BECAME
    + """
SELECT became.job, dead_letter.id AS letter FROM became
  JOIN dead_letter ON dead_letter.id = became.letter
  JOIN work ON work.run = dead_letter.run AND work.node = dead_letter.node
           AND work.seq = dead_letter.seq AND work.state IN ('failed', 'cancelled')
  LEFT JOIN work AS made ON made.run = became.job AND made.node = ? AND made.seq = 0
 WHERE dead_letter.node = ? AND coalesce(made.state, 'completed') NOT IN ('failed', 'cancelled')
 ORDER BY dead_letter.id LIMIT 1
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which letters are listed."""

    state: str = "open"  # "" for all of them
    run: str = ""
    capability: str = ""


def keep(
    tx: Transaction,
    row: Row,
    node: Row | None,
    problem: Problem,
    lines: tuple[int, int] | None,
    now: int,
) -> None:
    """Keep the input of a row that ended badly, or some lines of it.

    What ended for the step's configuration is no fault of its input and not kept, jobs excepted:
    their options come with them.
    """
    if not is_letter(problem) or (node is not None and fails_every_row(problem)):
        return
    inputs = msgspec.json.decode(row["input"], type=list[BatchRef])
    lines = lines or (_spec_of(row).lines if node is None else None)  # of an earlier letter
    first, last = lines or (0, 0)
    records = last - first if lines else sum(one.count for one in inputs) or 1
    fixed: tuple[Value, ...] = (
        new_letter_id(),
        row["run"],
        row["node"],
        row["seq"],
        row["kind"],
        row["capability"],
        _pipeline(tx, row),
        row["submitter"],
        row["input"],
        first,
        last,
        records,
        row["spec"],
    )
    rest: tuple[Value, ...] = (
        msgspec.json.encode(problem).decode(),
        cause_of(problem),
        _position(tx, row),
        row["attempt"],
    )
    tx.send(_KEEP, (*fixed, *_right(row, node), *rest, *_classes(row, node), now, row["tenant"]))


def find(tx: Transaction, letter: str) -> Row | None:
    """Return a letter, with the limit key and the priority of its row while that is kept."""
    return tx.one(_LETTERS + " WHERE id = ?", (letter,))


def newest(
    tx: Transaction, tenant: str, wanted: LetterFilter, before: str, limit: int
) -> list[Row]:
    """Return letters, newest first, that are older than `before`."""
    names: dict[str, Value] = {"tenant": tenant, "before": before or "dl_~", "limit": limit}
    sql = _LETTERS + " WHERE tenant = :tenant AND id < :before"
    for column in ("state", "run", "capability"):
        if value := getattr(wanted, column):
            sql += f" AND {column} = :{column}"
            names[column] = value
    return tx.all(sql + " ORDER BY id DESC LIMIT :limit", names)


def settle(tx: Transaction, letter: str, state: str, who: str, now: int, became: str = "") -> bool:
    """End an open letter; False where somebody was faster."""
    changed = tx.execute(
        """UPDATE dead_letter SET state = ?, settled_by = ?, settled_at = ?, replayed_as = ?
            WHERE id = ? AND state = 'open'""",
        (state, who, now, became, letter),
    )
    return changed == 1


def settle_step(tx: Transaction, run: str, node: str, who: str, now: int) -> int:
    """Settle the open letters of a step that is tried again in its run; returns how many."""
    return tx.execute(
        """UPDATE dead_letter SET state = 'retried', settled_by = ?, settled_at = ?,
                  replayed_as = run WHERE run = ? AND node = ? AND state = 'open'""",
        (who, now, run, node),
    )


def reopen(tx: Transaction, letter: str) -> bool:
    """Take a discard back; False where the letter is not discarded."""
    changed = tx.execute(
        """UPDATE dead_letter SET state = 'open', settled_by = '', settled_at = NULL
            WHERE id = ? AND state = 'discarded'""",
        (letter,),
    )
    return changed == 1


def set_going_again(
    tx: Transaction, job: str, spec: str, *, state: str = "failed", together: str = ""
) -> bool:
    """Queue a job once more that has ended in `state`, as if new; False where it has not.

    Unless it may travel `together` with others it goes alone: its right may be less than theirs.
    """
    changed = tx.execute(
        """UPDATE work SET state = 'queued', ended_at = NULL, problem = NULL, reason = '',
                  not_before = 0, retries = 0, crashes = 0, suspect = 0, epoch = epoch + 1,
                  spec = ?, together = ?
            WHERE run = ? AND node = ? AND seq = 0 AND state = ?""",
        (spec, together, job, JOB_NODE, state),
    )
    return changed == 1


def replayed(tx: Transaction, run: str, node: str) -> Row | None:
    """A job that does an input of a failed row of a step: job, letter; those that failed excepted."""
    return tx.one(_REPLAYED, (run, JOB_NODE, node))


def state_of_job(tx: Transaction, job: str) -> str:
    """The state of a job; "" where its row is gone."""
    found = tx.one("SELECT state FROM work WHERE run = ? AND node = ? AND seq = 0", (job, JOB_NODE))
    return "" if found is None else str(found["state"])


def counts(tx: Transaction) -> list[Row]:
    """Return how many letters are in each state: state, number. For the metrics."""
    return tx.all("SELECT state, count(*) AS number FROM dead_letter GROUP BY state")


def _pipeline(tx: Transaction, row: Row) -> str:
    if row["node"] == JOB_NODE:
        return ""
    found = tx.one("SELECT pipeline FROM run WHERE id = ?", (row["run"],))
    return "" if found is None else str(found["pipeline"])


def _position(tx: Transaction, row: Row) -> str:
    """Where a source would go on: what is before it is recorded."""
    if row["kind"] != "source":
        return "null"
    found = tx.one(
        "SELECT checkpoint FROM source WHERE run = ? AND node = ?", (row["run"], row["node"])
    )
    return "null" if found is None else str(found["checkpoint"])


def _right(row: Row, node: Row | None) -> tuple[Value, Value, Value]:
    if node is not None:
        return node["options"] or "{}", node["labels"], node["behalf"]
    spec = _spec_of(row)
    encode = msgspec.json.encode
    return encode(spec.options).decode(), encode(spec.labels).decode(), encode(spec.behalf).decode()


def _classes(row: Row, node: Row | None) -> tuple[Value, Value]:
    if node is not None:
        return node["data_class"], node["output_class"]
    spec = _spec_of(row)
    return spec.data_class.value, spec.output_class.value


def _spec_of(row: Row) -> JobSpec:
    """The request of a job; one that is damaged says nothing of it."""
    if not is_intact(row["spec"]):
        return JobSpec(data_class=DataClass.PERSONAL, output_class=DataClass.PERSONAL)
    return msgspec.json.decode(row["spec"], type=JobSpec)
