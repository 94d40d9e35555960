"""What a run or job is to those who decide about it: whose it is, and by which name rights ask."""

from dataclasses import dataclass
from typing import Literal

from hivemesh_sdk.errors import NotFoundError

from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.model import JOB_NODE
from hivemesh_platform.storage.transaction import Row, Transaction

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
        group = _group(tx, principal.tenant, place, filters)
        found += [one.id for one in group if one.seen_by(principal)]
        if len(group) < SCANNED:
            break
        place = group[-1].id
    return found[:limit]


_RUNS = """
SELECT id, 'pipeline' AS kind, pipeline AS name, submitter, tenant FROM run
 WHERE tenant = :tenant AND id < :run AND created_at >= :since
   AND (:name = '' OR pipeline = :name)
   AND (:submitter = '' OR submitter = :submitter OR submitter LIKE :user)
   AND (:state = '' OR state = :state OR (:state = 'waiting' AND state IN ('queued', 'running')
        AND EXISTS (SELECT 1 FROM node WHERE node.run = run.id AND node.ended_at IS NULL
                       AND node.reason != '')))
   AND (:label = '' OR EXISTS (SELECT 1 FROM run_label WHERE run_label.run = run.id
                                  AND run_label.name = :label AND run_label.value = :value))
 ORDER BY id DESC LIMIT :limit
"""
_JOBS = """
SELECT run AS id, 'capability' AS kind, capability AS name, submitter, tenant FROM work
 WHERE run >= 'job_' AND run < :job AND node = 'job' AND tenant = :tenant AND created_at >= :since
   AND (:name = '' OR capability = :name)
   AND (:submitter = '' OR submitter = :submitter OR submitter LIKE :user)
   AND (:state = '' OR state = :state
        OR (:state = 'waiting' AND state = 'queued' AND reason != ''))
 ORDER BY run DESC LIMIT :limit
"""


def _group(tx: Transaction, tenant: str, before: str, filters: Filters) -> list[RunSubject]:
    place = before[4:] or "~"
    names: dict[str, str | int] = {
        "tenant": tenant,
        "since": filters.since,
        "name": filters.name,
        "submitter": filters.submitter,
        "user": f"%/user/{_plain(filters.submitter)}",
        "state": filters.state,
        "limit": SCANNED,
    }
    found: list[Row] = []
    if filters.kind != "capability":
        labels = {"label": filters.label, "value": filters.label_value}
        found += tx.all(_RUNS, {**names, **labels, "run": f"run_{place}"})
    if filters.kind != "pipeline" and not filters.label:
        found += tx.all(_JOBS, {**names, "job": f"job_{place}"})
    both = [_subject(row) for row in found]
    return sorted(both, key=lambda one: one.id[4:], reverse=True)[:SCANNED]


def _plain(name: str) -> str:
    """A name without the signs that mean something to LIKE."""
    return name.replace("%", "").replace("_", "")


def _subject(row: Row) -> RunSubject:
    return RunSubject(row["id"], row["kind"], row["name"], row["submitter"], row["tenant"])
