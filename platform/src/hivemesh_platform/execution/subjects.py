"""What a run or job is to those who decide about it: whose it is, and by which name rights ask."""

from dataclasses import dataclass
from typing import Literal

from hivemesh_sdk.errors import NotFoundError

from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.model import JOB_NODE
from hivemesh_platform.storage.transaction import Row, Transaction, Value

SCANNED = 500  # rows read at once while a page is filled


@dataclass(frozen=True, slots=True)
class RunSubject:
    """A run or a job; `name` is its pipeline or capability."""

    id: str
    kind: Literal["pipeline", "capability"]
    name: str
    submitter: str
    tenant: str

    def seen_by(self, principal: Principal) -> bool:
        """Say whether the principal may see it: by a right, or as its submitter who may run it."""
        return self.tenant == principal.tenant and (
            principal.rights.allows("read", "run", self.name) or self.owned_by(principal)
        )

    def changed_by(self, principal: Principal) -> bool:
        """Say whether the principal may cancel it."""
        return self.tenant == principal.tenant and (
            principal.rights.allows("write", "run", self.name) or self.owned_by(principal)
        )

    def owned_by(self, principal: Principal) -> bool:
        """Say whether the principal has submitted it, and still may run such a thing."""
        mine = self.submitter == principal.id and self.tenant == principal.tenant
        return mine and principal.rights.allows("run", self.kind, self.name)


def no_run(run: str) -> NotFoundError:
    """What is answered where there is no such run or job, or none that the caller may see."""
    return NotFoundError(f"there is no run or job {run!r}")


def find(tx: Transaction, run: str) -> RunSubject | None:
    """Return what a run or job is, or None where there is none."""
    row = tx.one(
        "SELECT id, 'pipeline' AS kind, pipeline AS name, submitter, tenant FROM run WHERE id = ?",
        (run,),
    ) or tx.one(
        """SELECT run AS id, 'capability' AS kind, capability AS name, submitter, tenant
             FROM work WHERE run = ? AND node = ? AND seq = 0""",
        (run, JOB_NODE),
    )
    return None if row is None else _subject(row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which runs and jobs are meant; what is empty does not matter."""

    kind: Literal["", "pipeline", "capability"] = ""
    state: str = ""
    name: str = ""  # of the pipeline or capability
    since: int = 0
    label: str = ""
    label_value: str = ""
    submitter: str = ""  # its id, or the user's name at the end of it


ALL = Filters()


def newest(
    tx: Transaction, principal: Principal, before: str, limit: int, filters: Filters = ALL
) -> list[str]:
    """Return ids of runs and jobs that the principal may see, newest first, older than `before`.

    An id is a prefix of four characters and a UUIDv7, so its order is that of time.
    """
    found: list[str] = []
    place = before
    while len(found) < limit:
        group = _group(tx, principal, place, filters)
        found += [one.id for one in group if one.seen_by(principal)]
        if len(group) < SCANNED:
            break
        place = group[-1].id
    return found[:limit]


_RUNS = """
SELECT id, 'pipeline' AS kind, pipeline AS name, submitter, tenant FROM run
 WHERE tenant = :tenant AND id < :before AND id >= :first
"""
_JOBS = """
SELECT run AS id, 'capability' AS kind, capability AS name, submitter, tenant FROM work
 WHERE run < :before AND run >= :first AND node = 'job' AND tenant = :tenant
"""
_OPEN = frozenset({"queued", "running", "waiting"})
_RUNS_ONLY = frozenset({"partial", "blocked", "skipped"})
_WAITING_RUN = """ AND state IN ('queued', 'running', 'waiting')
 AND (state = 'waiting' OR EXISTS (SELECT 1 FROM node WHERE node.run = run.id
                                      AND node.ended_at IS NULL AND node.reason != ''))"""
_WAITING_JOB = " AND (state = 'waiting' OR (state = 'queued' AND reason != ''))"
_LABEL = """ AND EXISTS (SELECT 1 FROM run_label WHERE run_label.run = run.id
                           AND run_label.name = :label AND run_label.value = :value)"""


def _group(tx: Transaction, own: Principal, before: str, filters: Filters) -> list[RunSubject]:
    """Each filter is a condition only where it is asked for, so that an index may answer it."""
    place = before[4:] or "~"
    names: dict[str, Value] = {"tenant": own.tenant, "limit": SCANNED}
    shared = _shared(names, own, filters)
    found: list[Row] = []
    if filters.kind != "capability":
        sql = _RUNS + shared + (" AND pipeline = :name" if filters.name else "")
        sql += _WAITING_RUN if filters.state == "waiting" else ""
        sql += _LABEL if filters.label else ""
        labels = {"label": filters.label, "value": filters.label_value} if filters.label else {}
        span = {"before": f"run_{place}", "first": f"run_{filters.since:012x}"}
        found += tx.all(sql + " ORDER BY id DESC LIMIT :limit", {**names, **labels, **span})
    if filters.kind != "pipeline" and not filters.label and filters.state not in _RUNS_ONLY:
        sql = _JOBS + shared + (" AND capability = :name" if filters.name else "")
        sql += _WAITING_JOB if filters.state == "waiting" else ""
        span = {"before": f"job_{place}", "first": f"job_{filters.since:012x}"}
        found += tx.all(sql + " ORDER BY run DESC LIMIT :limit", {**names, **span})
    both = [_subject(row) for row in found]
    return sorted(both, key=lambda one: one.id[4:], reverse=True)[:SCANNED]


def _shared(names: dict[str, Value], own: Principal, filters: Filters) -> str:
    """The conditions that runs and jobs have in common; their values go into `names`."""
    sql = ""
    if filters.since:
        sql += " AND created_at >= :since"
        names["since"] = filters.since
    if filters.name:
        names["name"] = filters.name
    if filters.submitter:
        domain, user, _ = own.id.rpartition("/user/")
        if user:
            sql += " AND submitter IN (:submitter, :user)"
            names["user"] = f"{domain}/user/{filters.submitter}"
        else:
            sql += " AND (submitter = :submitter OR submitter LIKE :user)"
            names["user"] = f"%/user/{_plain(filters.submitter)}"
        names["submitter"] = filters.submitter
    if not own.rights.any("read", "run"):  # of others none is seen anyway
        sql += " AND submitter = :own"
        names["own"] = own.id
    if filters.state in _OPEN:
        sql += " AND ended_at IS NULL"
    if filters.state == "failed":  # written out, as the index of failed jobs is found by it
        sql += " AND state = 'failed'"
    elif filters.state and filters.state != "waiting":
        sql += " AND state = :state"
        names["state"] = filters.state
    return sql


def _plain(name: str) -> str:
    """A name without the signs that mean something to LIKE."""
    return name.replace("%", "").replace("_", "")


def _subject(row: Row) -> RunSubject:
    return RunSubject(row["id"], row["kind"], row["name"], row["submitter"], row["tenant"])
