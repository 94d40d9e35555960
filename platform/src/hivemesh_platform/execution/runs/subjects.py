"""What a run or job is to those who decide about it: whose it is, and by which name rights ask."""

from dataclasses import dataclass, replace
from typing import Literal

from hivemesh_sdk.errors import NotFoundError

from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.model import JOB_NODE
from hivemesh_platform.storage.transaction import Row, Transaction, Value

SCANNED = 500  # rows read at once while a page is filled
_BATCHES_READ = 16  # at once: a page has jobs of one batch, or of hundreds


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
    batch: tuple[str, str] = ("", "")  # jobs between these two ids alone
    batches: bool = False  # of each batch its first job alone


ALL = Filters()


def newest(
    tx: Transaction, principal: Principal, before: str, limit: int, filters: Filters = ALL
) -> list[str]:
    """Return ids of runs and jobs that the principal may see, newest first, older than `before`.

    An id is a prefix of four characters and a UUIDv7, so its order is that of time.
    """
    found: list[str] = []
    place, size = before, limit  # most see all that is found; only who does not has more read
    while len(found) < limit:
        group = _group(tx, principal, place, filters, size)
        found += [one.id for one in group if one.seen_by(principal)]
        if len(group) < size:
            break
        place, size = group[-1].id, SCANNED
    return found[:limit]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How runs, or jobs, are found."""

    prefix: str
    columns: str
    table: str
    id: str
    name: str
    begin: str = ""  # a table of the ids to begin with
    rows: str = ""  # what tells them from other rows of the table, as their indexes have it
    state: str = "{0}"  # where the condition on the state stands


_RUNS = _Kind(
    "run", "id, 'pipeline' AS kind, pipeline AS name, submitter, {0}.tenant", "run", "id",
    "pipeline",
)  # fmt: skip
_JOBS = _Kind(
    "job", "{0}.run AS id, 'capability' AS kind, capability AS name, submitter, {0}.tenant", "work",
    "work.run", "capability", rows=" AND spec IS NOT NULL",
)  # fmt: skip
_LONE_JOBS = replace(_JOBS, rows=f"{_JOBS.rows} AND substr(work.run, 37) = ''")
_ORPHANS = replace(_JOBS, begin="orphan_job")  # of batches whose first job went before the others
_FIRST_JOBS = replace(_JOBS, rows=f"{_JOBS.rows} AND substr(work.run, 37) = '-000001'")
_BATCHES = replace(
    _FIRST_JOBS,
    state=""" AND (SELECT 1 FROM work AS job
                    WHERE job.run >= work.run AND job.run < substr(work.run, 1, 36) || '.'
                      AND job.run || '' < :before AND job.spec IS NOT NULL {0}
                    ORDER BY job.run DESC LIMIT 1) IS NOT NULL""",
)  # of which a job is in the state: looked up for each; by EXISTS PostgreSQL joins all of the two
_OPEN = frozenset({"queued", "running", "waiting"})
_RUNS_ONLY = frozenset({"partial", "blocked", "skipped"})
_BAD = frozenset({"failed", "cancelled"})
_WAITING_RUN = """ AND state IN ('queued', 'running', 'waiting')
 AND (state = 'waiting' OR EXISTS (SELECT 1 FROM node WHERE node.run = run.id
                                      AND node.ended_at IS NULL AND node.reason != ''))"""
_WAITING_JOB = " AND (state = 'waiting' OR (state = 'queued' AND reason != ''))"
_QUEUED_JOB = " AND state = 'queued' AND reason = ''"


@dataclass(frozen=True, slots=True)
class _Submitter:
    """A way in which the submitter that is asked for may be written."""

    sql: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a group is asked for."""

    own: Principal
    before: str
    filters: Filters
    submitter: _Submitter
    size: int

    @property
    def sees_own_alone(self) -> bool:
        """Whether nothing of others would be seen anyway."""
        return not self.own.rights.any("read", "run")


def _group(
    tx: Transaction, own: Principal, before: str, filters: Filters, size: int
) -> list[RunSubject]:
    """Up to `size` newest ones; each filter is a condition only where it is asked for."""
    found: list[Row] = []
    for submitter in _submitters(own, filters):
        asked = _Asked(own, before, filters, submitter, size)
        if filters.kind != "capability" and not filters.batches and not filters.batch[0]:
            found += tx.all(*_statement(_RUNS, asked))
        if filters.kind != "pipeline" and filters.state not in _RUNS_ONLY:
            found += _jobs(tx, asked)
    both = [_subject(row) for row in found]
    return sorted(both, key=lambda one: one.id[4:], reverse=True)[:size]


def _jobs(tx: Transaction, asked: _Asked) -> list[Row]:
    """Jobs; an index of those of a capability or submitter has of each batch the first one alone."""
    filters = asked.filters
    if filters.batches:
        return tx.all(*_statement(_FIRST_JOBS, asked))
    indexed = filters.name or asked.submitter.sql or asked.sees_own_alone
    if filters.label or filters.batch[0] or not indexed:
        return tx.all(*_statement(_JOBS, asked))
    lone, orphans = tx.each(*(_statement(kind, asked) for kind in (_LONE_JOBS, _ORPHANS)))
    return lone + orphans + _of_batches(tx, asked)


def _of_batches(tx: Transaction, asked: _Asked) -> list[Row]:
    """Jobs of batches: all of one have their submitter, capability and time in common."""
    batches = [row["id"] for row in tx.all(*_statement(_BATCHES, asked))]
    found: list[Row] = []
    while batches and len(found) < asked.size:
        some, batches = batches[:_BATCHES_READ], batches[_BATCHES_READ:]
        for rows in tx.each(*(_statement(_JOBS, _inside(asked, first)) for first in some)):
            found += rows
    return found


def _inside(asked: _Asked, first: str) -> _Asked:
    """The same of the jobs of a batch, which is one that was looked for."""
    stem = first[:36]
    filters = Filters(state=asked.filters.state, batch=(f"{stem}-", f"{stem}."))
    return replace(asked, filters=filters, submitter=_Submitter())


def _statement(kind: _Kind, asked: _Asked) -> tuple[str, dict[str, Value]]:
    own, filters, submitter = asked.own, asked.filters, asked.submitter
    first, before = (
        f"{kind.prefix}_{filters.since:012x}",
        f"{kind.prefix}_{asked.before[4:] or '~'}",
    )
    if filters.batch[0]:  # one bound at each end, which an index is read from
        first, before = max(first, filters.batch[0]), min(before, filters.batch[1])
    names: dict[str, Value] = {
        "tenant": own.tenant,
        "before": before,
        "first": first,
        "limit": asked.size,
    }
    begin = "run_label" if filters.label else kind.begin
    id_ = f"{begin}.run" if begin else kind.id
    sql = f"SELECT {kind.columns.format(kind.table)} FROM "  # noqa: S608 - of `_Kind` alone
    if begin:  # CROSS says that its rows are the ones to begin with
        sql += f"{begin} CROSS JOIN {kind.table} WHERE {kind.id} = {begin}.run"
    else:
        sql += f"{kind.table} WHERE true"
    if filters.label:
        sql += " AND run_label.name = :label AND run_label.value = :value"
        names |= {"label": filters.label, "value": filters.label_value}
    sql += f" AND {id_} < :before AND {id_} >= :first{kind.rows}"
    sql += f" AND {kind.table}.tenant = :tenant"
    if filters.since:
        sql += " AND created_at >= :since"
        names["since"] = filters.since
    if filters.name:
        sql += f" AND {kind.name} = :name"
        names["name"] = filters.name
    if submitter.sql:
        sql += f" AND submitter {submitter.sql} :submitter"
        names["submitter"] = submitter.id
    if asked.sees_own_alone:
        sql += " AND submitter = :own"
        names["own"] = own.id
    if state := _state(filters.state, kind, names):
        sql += kind.state.format(state)
    return f"{sql} ORDER BY {id_} DESC LIMIT :limit", names


def _state(state: str, kind: _Kind, names: dict[str, Value]) -> str:
    """The condition on the state, as the index of such rows has it."""
    sql = " AND ended_at IS NULL" if state in _OPEN else ""
    if state == "waiting":
        return sql + (_WAITING_RUN if kind is _RUNS else _WAITING_JOB)
    if state == "queued" and kind is not _RUNS:
        return sql + _QUEUED_JOB
    if state:
        names["state"] = state
        sql += " AND state = :state"
    if state in _BAD and kind is not _RUNS:
        sql += " AND state IN ('failed', 'cancelled')"
    return sql


def _submitters(own: Principal, filters: Filters) -> list[_Submitter]:
    """Each is looked for alone: an index has the rows of one in order, not those of two."""
    name = filters.submitter
    if not name:
        return [_Submitter()]
    domain, user, _ = own.id.rpartition("/user/")
    if "/" in name:
        return [_Submitter("=", name)]
    if user:
        return [_Submitter("=", name), _Submitter("=", f"{domain}/user/{name}")]
    return [_Submitter("=", name), _Submitter("LIKE", f"%/user/{_plain(name)}")]


def _plain(name: str) -> str:
    """A name without the signs that mean something to LIKE."""
    return name.replace("%", "").replace("_", "")


def _subject(row: Row) -> RunSubject:
    return RunSubject(row["id"], row["kind"], row["name"], row["submitter"], row["tenant"])
