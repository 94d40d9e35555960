"""What jobs have given for the dead letters of a run, on its way into a new version of its datasets."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from hivemesh_sdk.contracts.artifacts import DataClass

from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.ledger.letter_sql import BECAME
from hivemesh_platform.execution.plans.spec import JobSpec, is_intact
from hivemesh_platform.storage.transaction import Row, Transaction

_FOUND = (
    BECAME
    + """
SELECT letter.id, letter.node, job.run AS job, job.output, job.spec, node.output_class
  FROM became
  JOIN dead_letter AS letter ON letter.id = became.letter
  JOIN node ON node.run = letter.run AND node.name = letter.node
  JOIN work AS origin ON origin.run = letter.run AND origin.node = letter.node
                     AND origin.seq = letter.seq AND origin.created_at <= letter.created_at
  JOIN work AS job ON job.run = became.job AND job.node = 'job' AND job.seq = 0
                  AND job.state = 'completed'
 WHERE letter.kind = 'map'
 ORDER BY letter.node, letter.seq, letter.first, letter.id, job.run
"""
)  # of a row that was made anew since (`run retry --from`) the letter is of no more concern
_LEFT = """
SELECT letter.id FROM dead_letter AS letter
  JOIN work AS origin ON origin.run = letter.run AND origin.node = letter.node
                     AND origin.seq = letter.seq AND origin.created_at <= letter.created_at
 WHERE letter.run = ? AND letter.node = ? AND letter.replayed_as != letter.run
"""


@dataclass(frozen=True, slots=True)
class Mended:
    """The records that a dead letter of a map has become, and the job that gave them."""

    letter: str
    node: str
    job: str
    batch: BatchRef


@dataclass(frozen=True, slots=True)
class Answered:
    """A letter whose job has ended well, with the answer as it is kept."""

    letter: str
    node: str
    job: str
    output: str


def found(tx: Transaction, run: str) -> list[Answered]:
    """Return the letters of a run that were mended; what is of a higher class stays a job's."""
    last = {row["id"]: row for row in tx.all(_FOUND, (run,))}  # one answer for each
    return [
        Answered(row["id"], row["node"], row["job"], row["output"])
        for row in last.values()
        if _fits(row)
    ]


def left(tx: Transaction, run: str, node: str, mended: Sequence[Mended]) -> int:
    """How many letters of a step nobody has mended."""
    done = {one.letter for one in mended}
    return sum(row["id"] not in done for row in tx.all(_LEFT, (run, node)))


def _fits(row: Row) -> bool:
    if row["output"] is None or not is_intact(row["spec"]):
        return False
    spec = msgspec.json.decode(row["spec"], type=JobSpec)
    return not spec.output_class.exceeds(DataClass(row["output_class"]))
