"""What people ask about runs and jobs: reads only. Changes go through the ledger."""

from itertools import groupby

from hivemesh_sdk.contracts.names import DEFAULT_PRIORITY

from hivemesh_platform.execution.ledger import attempt_sql
from hivemesh_platform.execution.model import JOB_NODE
from hivemesh_platform.storage.transaction import Row, Transaction


def run(tx: Transaction, run_id: str) -> Row | None:
    """Return a run."""
    return tx.one("SELECT * FROM run WHERE id = ?", (run_id,))


def job(tx: Transaction, job_id: str) -> Row | None:
    """Return a job's row of work."""
    return tx.one("SELECT * FROM work WHERE run = ? AND node = ? AND seq = 0", (job_id, JOB_NODE))


def totals(tx: Transaction) -> list[Row]:
    """Return how many runs and jobs are in each state: kind, state, number. For the metrics."""
    return tx.all(
        """SELECT 'run' AS kind, state, COUNT(*) AS number FROM run GROUP BY state
           UNION ALL
           SELECT 'job' AS kind, state, COUNT(*) AS number FROM work
            WHERE run >= 'job_' AND run < 'job_~' AND node = 'job' GROUP BY state"""
    )


def pending(tx: Transaction) -> dict[str, int]:
    """Return how many jobs have not started: with a priority above the default one, and the others."""
    rows = tx.all(
        """SELECT CASE WHEN priority > ? THEN 'high' ELSE 'background' END AS queue,
                  COUNT(*) AS number FROM work
            WHERE ended_at IS NULL AND node = 'job' AND state IN ('queued', 'waiting')
            GROUP BY 1""",
        (DEFAULT_PRIORITY,),
    )
    return {"high": 0, "background": 0} | {row["queue"]: int(row["number"]) for row in rows}


def queued(tx: Transaction, tenant: str) -> list[Row]:
    """Return what has not started, by capability: high, background, and when the oldest was made."""
    return tx.all(
        """SELECT capability, SUM(CASE WHEN priority > ? THEN 1 ELSE 0 END) AS high,
                  SUM(CASE WHEN priority > ? THEN 0 ELSE 1 END) AS background,
                  MIN(created_at) AS oldest FROM work
            WHERE ended_at IS NULL AND tenant = ? AND state IN ('queued', 'waiting')
            GROUP BY capability ORDER BY capability""",
        (DEFAULT_PRIORITY, DEFAULT_PRIORITY, tenant),
    )


def active_of(tx: Transaction, tenant: str) -> int:
    """Return how many runs of a tenant have not ended."""
    row = tx.one("SELECT COUNT(*) AS n FROM run WHERE ended_at IS NULL AND tenant = ?", (tenant,))
    return 0 if row is None else int(row["n"])


def nodes(tx: Transaction, run_id: str) -> list[Row]:
    """Return the nodes of a run in topological order."""
    return tx.all("SELECT * FROM node WHERE run = ? ORDER BY position", (run_id,))


def node(tx: Transaction, run_id: str, name: str) -> Row | None:
    """Return one node of a run."""
    return tx.one("SELECT * FROM node WHERE run = ? AND name = ?", (run_id, name))


def options_length(tx: Transaction, run_id: str) -> int:
    """Return how long the options of a run's nodes are, as far as they are known."""
    row = tx.one("SELECT coalesce(sum(length(options)), 0) AS n FROM node WHERE run = ?", (run_id,))
    return 0 if row is None else int(row["n"])


def unfinished(tx: Transaction) -> list[tuple[str, int, list[str]]]:
    """Return id, turn and node names (in order) of the runs that have not ended."""
    rows = tx.all(
        """SELECT run.id, run.turn, node.name FROM run JOIN node ON node.run = run.id
            WHERE run.ended_at IS NULL ORDER BY run.id, node.position"""
    )
    return [
        (run, turn, [row["name"] for row in group])
        for (run, turn), group in groupby(rows, key=lambda row: (str(row["id"]), int(row["turn"])))
    ]


def optional_waiting(tx: Transaction) -> list[Row]:
    """Return run, name and capability of the optional nodes that have queued rows."""
    return tx.all(
        """SELECT run, name, capability FROM node
            WHERE optional = 1 AND ended_at IS NULL
              AND EXISTS (SELECT 1 FROM work WHERE work.run = node.run
                             AND work.node = node.name AND work.state IN ('queued', 'waiting'))"""
    )


def rejected(tx: Transaction, run_id: str, after: int, limit: int) -> list[Row]:
    """Return rejected records behind an offset."""
    return tx.all(
        """SELECT rejected.*, node.data_class FROM rejected
             JOIN node ON node.run = rejected.run AND node.name = rejected.node
            WHERE rejected.run = ? ORDER BY rejected.node, seq, no LIMIT ? OFFSET ?""",
        (run_id, limit, after),
    )


def attempts(tx: Transaction, run_id: str, after: int, limit: int) -> list[Row]:
    """Return attempts in the order of their start, behind an offset."""
    return tx.all(
        f"""SELECT * FROM {attempt_sql.attempts_of(run_id)} WHERE run = :run
             ORDER BY started_at, node, seq, attempt LIMIT :limit OFFSET :after""",  # noqa: S608 - as written there
        {"run": run_id, "limit": limit, "after": after},
    )


def attempts_of(tx: Transaction, run_id: str) -> int:
    """Return how many attempts there were."""
    row = tx.one(
        f"SELECT count(*) AS n FROM {attempt_sql.attempts_of(run_id)} WHERE run = :run",  # noqa: S608 - as above
        {"run": run_id},
    )
    return 0 if row is None else int(row["n"])


def waiting(tx: Transaction, run_id: str, after: int, limit: int) -> list[Row]:
    """Return the rows that wait, each with its last attempt that was `placed`, behind an offset."""
    return tx.all(
        """SELECT work.*, (SELECT coalesce(max(attempt.attempt), 0) FROM attempt
                            WHERE attempt.run = work.run AND attempt.node = work.node
                              AND attempt.seq = work.seq) AS placed
             FROM work
            WHERE run = ? AND ended_at IS NULL AND state IN ('queued', 'waiting', 'blocked')
            ORDER BY node, seq LIMIT ? OFFSET ?""",
        (run_id, limit, after),
    )


def events(tx: Transaction, run_id: str, after: int, limit: int) -> list[Row]:
    """Return entries of the run's event log behind a number."""
    return tx.all(
        "SELECT * FROM run_event WHERE run = ? AND no > ? ORDER BY no LIMIT ?",
        (run_id, after, limit),
    )


def dataset_of(tx: Transaction, run_id: str, name: str) -> Row | None:
    """Return the dataset version that a node of the run writes."""
    return tx.one("SELECT * FROM dataset WHERE run = ? AND node = ?", (run_id, name))
