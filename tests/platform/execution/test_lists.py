"""Lists of very many runs and jobs: each filter is answered by an index, and newest come first."""

from collections import Counter

import pytest
from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.ledger import batch_sql
from hivemesh_platform.execution.ledger.batch_sql import Counts, Ends
from hivemesh_platform.execution.ledger.retention_sql import remove_jobs
from hivemesh_platform.execution.ledger.store import pending, totals
from hivemesh_platform.execution.runs import history, subjects
from hivemesh_platform.execution.runs.history import History
from hivemesh_platform.execution.runs.subjects import Filters
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.contracts.names import DEFAULT_PRIORITY
from hivemesh_sdk.errors import InvalidError

RUN = """INSERT INTO run (id, pipeline, version, document, parameters, labels, submitter, state,
         created_at, ended_at) VALUES (?, ?, 1, '{}', '{}', '{}', ?, ?, ?, ?)"""
JOB = """INSERT INTO work (run, node, seq, kind, capability, submitter, rank, state, created_at,
         ended_at, spec) VALUES (?, 'job', 0, 'call', ?, ?, 1, ?, ?, ?, '{}')"""
ATTEMPT = """INSERT INTO attempt (run, node, seq, attempt, started_at) VALUES (?, 'job', 0, 1, 1)"""
DONE = """INSERT INTO attempt (run, node, seq, attempt, instance, worker, started_at, ended_at,
          outcome) VALUES (?, 'job', 0, 1, ?, 'w', ?, ?, 'completed')"""
ANNA = "spiffe://test.hivemesh.internal/user/anna"
BEN = "spiffe://test.hivemesh.internal/user/ben"
STATES = ("completed", "failed", "queued", "cancelled")


def id_of(prefix, number):
    return f"{prefix}_{1_700_000_000_000 + number:012x}{number:020x}"


def principal(*grants, name=ANNA):
    return Principal(id=name, grants=grants)


ALL = principal("admin:*")


@pytest.fixture
async def filled(database):
    """Forty of each kind; number n has state n % 4, and every third is Ben's."""

    def values(prefix, n):
        state = STATES[n % 4]
        ended = None if state == "queued" else 1
        who = BEN if n % 3 == 0 else ANNA
        name = f"{'p' if prefix == 'run' else 'c'}{n % 5}"
        return (id_of(prefix, n), name, who, state, 1_700_000_000_000 + n, ended)

    def fill(tx):
        tx.execute_many(RUN, [values("run", 2 * n) for n in range(40)])
        tx.execute_many(JOB, [values("job", 2 * n + 1) for n in range(40)])

    await database.write(fill)
    return database


async def newest(database, filters, who=ALL, before="", limit=500):
    return await database.read(lambda tx: subjects.newest(tx, who, before, limit, filters))


async def test_pages_follow_one_another_newest_first(filled):
    every = await newest(filled, Filters())
    assert [one[4:] for one in every] == sorted((one[4:] for one in every), reverse=True)
    pages, before = [], ""
    while page := await newest(filled, Filters(), before=before, limit=7):
        pages += page
        before = page[-1]
    assert pages == every
    assert len(every) == 80


@pytest.mark.parametrize("state", STATES)
async def test_a_state_is_that_of_all_that_are_listed(filled, state):
    place = STATES.index(state)
    runs = {id_of("run", 2 * n) for n in range(40) if 2 * n % 4 == place}
    jobs = {id_of("job", 2 * n + 1) for n in range(40) if (2 * n + 1) % 4 == place}
    assert set(await newest(filled, Filters(state=state))) == runs | jobs


async def test_the_figures_of_the_queue_add_up_to_the_jobs_that_are_kept(filled):
    ended = {"failed": 20, "cancelled": 20}
    states = ("queued", "queued", "queued", "queued", "waiting", "waiting", "running")
    rows = [(id_of("job", 100 + n), "c", ANNA, state, 1, None) for n, state in enumerate(states)]
    of_a_run = (id_of("run", 0), "c", ANNA, "queued", 1, None)

    def fill(tx):
        tx.execute_many(JOB, rows)
        tx.execute(JOB.replace("'job'", "'step'"), of_a_run)
        rise = "UPDATE work SET priority = ? WHERE run = ?"
        tx.execute_many(rise, [(DEFAULT_PRIORITY + 1, row[0]) for row in rows[3:5]])

    await filled.write(fill)
    found, waits = await filled.read(lambda tx: ([tuple(row) for row in totals(tx)], pending(tx)))
    jobs = {state: number for kind, state, number in found if kind == "job"}
    assert jobs == ended | Counter(states)
    count = "SELECT COUNT(*) AS number FROM work WHERE node = 'job'"
    assert sum(jobs.values()) == (await filled.read(lambda tx: tx.one(count)))["number"]
    assert waits == {"high": 2, "background": 4}
    assert sum(waits.values()) == jobs["queued"] + jobs["waiting"]


@pytest.mark.parametrize("who", ["ben", BEN])
async def test_a_submitter_is_named_short_or_in_full(filled, who):
    found = await newest(filled, Filters(submitter=who))
    assert set(found) == {
        id_of(prefix, n)
        for prefix, n in [(("run", "job")[n % 2], n) for n in range(80)]
        if n % 3 == 0
    }


async def test_since_is_a_time(filled):
    found = await newest(filled, Filters(since=1_700_000_000_070))
    assert len(found) == 10


async def test_who_may_read_no_runs_sees_his_own(filled):
    found = await newest(filled, Filters(), principal("run:pipeline/p1", name=BEN))
    assert found == [id_of("run", n) for n in range(78, -1, -6) if n % 5 == 1]


@pytest.mark.parametrize(
    "filters",
    [
        Filters(kind="pipeline", name="p1"),
        Filters(kind="pipeline", state="failed"),
        Filters(kind="pipeline", submitter="ben"),
        Filters(kind="capability", state="failed"),
        Filters(kind="capability", state="queued"),
        Filters(kind="capability", submitter="ben"),
        Filters(kind="capability", name="c1"),
        Filters(kind="capability", state="cancelled"),
        Filters(kind="capability", label="team", label_value="a"),
        Filters(kind="pipeline", label="team", label_value="a"),
        Filters(state="waiting"),
        Filters(since=1),
        Filters(),
    ],
)
async def test_no_list_reads_a_whole_table(filled, filters):
    assert [plan for plan in await plans_of(filled, filters) if plan.startswith("SCAN ")] == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("filters", "column"),
    [(Filters(name="c1", kind="capability"), "capability"), (Filters(submitter=BEN), "submitter")],
)
async def test_lone_jobs_and_batches_are_found_by_an_index_of_each(filled, filters, column):
    plans = " ".join(await plans_of(filled, filters))
    assert f"work_jobs_by_{column} " in plans
    assert f"work_batches_by_{column} " in plans


async def plans_of(database, filters):
    plans = []

    class Explaining:
        def __init__(self, tx):
            self._tx = tx

        def all(self, sql, parameters=()):
            if self._tx.dialect == "sqlite":
                plans.extend(
                    row["detail"] for row in self._tx.all("EXPLAIN QUERY PLAN " + sql, parameters)
                )
            return self._tx.all(sql, parameters)

        def each(self, *questions):
            return [self.all(*one) for one in questions]

    await database.read(lambda tx: subjects.newest(Explaining(tx), ALL, "", 50, filters))
    return plans


async def test_a_batch_is_the_jobs_between_two_ids(database):
    stems = [id_of("", n)[1:] for n in (1, 2)]
    ends = [Ends(f"job_{stem}-", f"job_{stem}.") for stem in stems]
    rows = [
        (f"{one.first}{n:06d}", "c", ANNA, "queued" if n < 3 else "failed", 1, None if n < 3 else 2)
        for one in ends
        for n in range(1, 5)
    ]
    await database.write(lambda tx: tx.execute_many(JOB, rows))
    first, second = ends

    def change(tx):
        assert batch_sql.states(tx, first) == Counts({"queued": 2, "failed": 2}, None)
        assert batch_sql.open_jobs(tx, first) == 2
        assert batch_sql.newest_job(tx, first) == f"{first.first}000004"
        assert batch_sql.cancel(tx, first, 1, 7) == [f"{first.first}000001"]
        assert batch_sql.cancel(tx, first, 9, 7) == [f"{first.first}000002"]
        assert batch_sql.cancel(tx, first, 9, 7) == []
        both = {"failed", "cancelled"}
        assert len(batch_sql.ended_badly(tx, first, "", both, 9)) == 4
        place = f"{first.first}000003"
        assert batch_sql.ended_badly(tx, first, place, {"failed"}, 9) == [f"{first.first}000004"]
        assert batch_sql.states(tx, first) == Counts({"cancelled": 2, "failed": 2}, 7)
        assert batch_sql.open_jobs(tx, second) == 2

    await database.write(change)
    found = await newest(database, Filters(kind="capability", batches=True))
    assert found == [f"{one.first}000001" for one in reversed(ends)]
    inside = Filters(kind="capability", batch=(first.first, first.last), state="cancelled")
    assert await newest(database, inside) == [f"{first.first}{n:06d}" for n in (2, 1)]


@pytest.fixture
async def mixed(database):
    """Lone jobs among batches of one to seventy: (id, capability, submitter, state, at, ended)."""
    rows = []
    for n in range(60):
        stem, size = id_of("job", n), (0, 1, 3, 0, 5, 70)[n % 6]
        name, who, at = f"c{n % 2}", (ANNA, BEN)[n % 3 == 0], 1_700_000_000_000 + n
        for number in range(1, size + 1) if size else (0,):
            state = STATES[(n + number // 2) % 4]
            job = f"{stem}-{number:06d}" if number else stem
            rows.append((job, name, who, state, at, None if state == "queued" else at))
    await database.write(lambda tx: tx.execute_many(JOB, rows))
    return database, rows


async def pages_of(database, filters, who, limit):
    found = []
    while page := await newest(database, filters, who, found[-1] if found else "", limit):
        found += page
        assert len(page) <= limit
    return found


@pytest.mark.parametrize("limit", [1, 7, 50, 500])
@pytest.mark.parametrize("state", ["", *STATES])
async def test_jobs_of_batches_stand_among_lone_ones_in_every_list(mixed, state, limit):
    database, rows = mixed
    for name, who in (("c1", ""), ("", BEN), ("c0", ANNA), ("none", ""), ("", "none")):
        filters = Filters(kind="capability", name=name, submitter=who, state=state)
        expected = [
            row[0]
            for row in sorted(rows, reverse=True)
            if (row[1] == name or not name)
            and (row[2] == who or not who)
            and (row[3] == state or not state)
        ]
        if limit > 1 or len(expected) < 99:
            assert await pages_of(database, filters, ALL, limit) == expected


@pytest.mark.parametrize("state", ["", "failed"])
async def test_who_sees_his_own_jobs_alone_sees_those_of_batches(mixed, state):
    database, rows = mixed
    own = [row for row in sorted(rows, reverse=True) if row[2] == BEN and row[1] == "c1"]
    found = await pages_of(
        database, Filters(state=state), principal("run:capability/c1", name=BEN), 30
    )
    assert found == [row[0] for row in own if row[3] == state or not state]


async def test_a_list_goes_on_inside_of_a_batch(mixed):
    database, rows = mixed
    stem = id_of("job", 47)
    place = f"{stem}-000004"
    found = await newest(database, Filters(name="c1", state="failed"), before=place, limit=2)
    before = [row[0] for row in sorted(rows, reverse=True) if row[0] < place]
    failed = {row[0] for row in rows if row[1] == "c1" and row[3] == "failed"}
    assert found == [one for one in before if one in failed][:2]
    assert await newest(database, Filters(name="c1"), before=f"{stem}-000001", limit=1) == [
        next(row[0] for row in sorted(rows, reverse=True) if row[0] < stem and row[1] == "c1")
    ]


async def test_since_is_a_time_of_batches_too(mixed):
    database, rows = mixed
    since = Filters(name="c1", since=1_700_000_000_050)
    found = await pages_of(database, since, ALL, 20)
    assert found == [
        row[0] for row in sorted(rows, reverse=True) if row[1] == "c1" and row[4] >= since.since
    ]


async def test_batches_of_a_capability_or_submitter_are_listed_by_their_first_jobs(mixed):
    database, rows = mixed
    firsts = [row for row in sorted(rows, reverse=True) if row[0].endswith("-000001")]
    by_name = Filters(kind="capability", batches=True, name="c1")
    assert await pages_of(database, by_name, ALL, 4) == [r[0] for r in firsts if r[1] == "c1"]
    by_submitter = Filters(kind="capability", batches=True, submitter="ben")
    assert await pages_of(database, by_submitter, ALL, 4) == [r[0] for r in firsts if r[2] == BEN]


@pytest.mark.parametrize("who", [ALL, principal("run:capability/*", name=BEN)])
async def test_jobs_whose_batch_lost_its_first_one_before_stand_in_every_list(mixed, who):
    database, rows = mixed
    orphans = [(f"{id_of('job', 24)}-{n:06d}", "c1", BEN, "failed", 1, 1) for n in (2, 5)]
    await database.write(lambda tx: tx.execute_many(JOB, orphans))
    named = [(row[0],) for row in orphans]
    sql = "INSERT INTO orphan_job (run) VALUES (?)"
    await database.write(lambda tx: tx.execute_many(sql, named))
    expected = [
        row[0]
        for row in sorted([*rows, *orphans], reverse=True)
        if row[1] == "c1" and row[2] == BEN
    ]
    for state in ("", "failed"):
        filters = Filters(kind="capability", name="c1", submitter=BEN, state=state)
        states = {row[0]: row[3] for row in [*rows, *orphans]}
        assert await pages_of(database, filters, who, 7) == [
            one for one in expected if not state or states[one] == state
        ]
    await database.write(lambda tx: remove_jobs(tx, [row[0] for row in orphans], 2))
    assert await database.read(lambda tx: tx.all("SELECT run FROM orphan_job")) == []


@pytest.mark.parametrize("kind", ["pipeline", "capability"])
async def test_a_label_finds_runs_and_jobs(filled, kind):
    prefix = {"pipeline": "run", "capability": "job"}[kind]
    chosen = [id_of(prefix, 2 * n + (prefix == "job")) for n in (3, 30)]
    sql = "INSERT INTO run_label (name, value, run) VALUES (?, ?, ?)"
    labelled = [("team", "a", one) for one in chosen]
    await filled.write(lambda tx: tx.execute_many(sql, labelled))
    wanted = Filters(label="team", label_value="a")
    assert await newest(filled, wanted) == chosen[::-1]
    assert await newest(filled, wanted, before=chosen[1]) == chosen[:1]
    assert await newest(filled, Filters(kind=kind, label="team", label_value="b")) == []


class RetriedMeanwhile:
    """A transaction between whose statements another one sets a failed job going again."""

    def __init__(self, tx, job):
        self._tx, self._job, self.send = tx, job, tx.send

    def all(self, statement, names):
        found = self._tx.all(statement, names)
        self._tx.execute(
            "UPDATE work SET state = 'running', ended_at = NULL WHERE run = ?", self._job
        )
        return found


async def test_what_is_retried_while_its_batch_is_cancelled_goes_on(database):
    jobs = [(f"job_{'0' * 32}-{n:09}",) for n in range(3)]

    def cancelled(tx):
        states = zip(jobs, ("queued", "failed", "queued"), (None, 1, None), strict=True)
        tx.execute_many(JOB, [(*job, "a.do@1", ANNA, state, 1, end) for job, state, end in states])
        tx.execute_many(ATTEMPT, jobs)
        ended = batch_sql.cancel(RetriedMeanwhile(tx, jobs[1]), Ends("job_", "job~"), 10, 2)
        open_ones = tx.all("SELECT run FROM attempt WHERE ended_at IS NULL")
        return ended, [(row["run"],) for row in open_ones]

    ended, open_ones = await database.write(cancelled)
    assert ended == [jobs[0][0], jobs[2][0]]
    assert open_ones == [jobs[1]]


@pytest.fixture
async def placed(filled):
    """Attempts of the forty jobs, four of which start at once; every fifth is at another instance."""
    rows = [
        (id_of("job", 2 * n + 1), "wi-2" if n % 5 == 0 else "wi-1", 1000 + n // 4, 2000 + n)
        for n in range(40)
    ]
    await filled.write(lambda tx: tx.execute_many(DONE, rows))
    return History(filled, SystemClock())


async def at_instance(kept, instance, who=ALL, limit=7):
    found, after, pages = [], "", 0
    while after is not None:
        items, after = await kept.at_instance(who, instance, after, limit)
        found, pages = found + items, pages + 1
        assert len(items) <= limit
    return found, pages


async def test_the_history_of_an_instance_has_what_ran_there_newest_first(placed):
    found, pages = await at_instance(placed, "wi-1")
    order = [(one.started_at, one.key) for one in found]
    assert (len(set(order)), pages) == (32, 5)
    assert order == sorted(order, reverse=True)
    assert {(one.instance, one.outcome) for one in found} == {("wi-1", "completed")}
    assert found[0].capability == "c4"
    assert found[0].elapsed_s == pytest.approx(1.030)


async def test_the_history_of_an_instance_has_what_the_caller_may_see_alone(placed):
    own = principal("run:capability/c3")
    found, _ = await at_instance(placed, "wi-1", own, limit=2)
    expected = [k for k in range(1, 80, 2) if k % 5 == 3 and k % 3 != 0]
    assert [one.key for one in found] == [f"{id_of('job', k)}.job.0" for k in expected[::-1]]
    assert await at_instance(placed, "wi-3") == ([], 1)


async def test_a_page_of_a_history_is_cut_where_much_was_looked_at_for_it(placed, monkeypatch):
    monkeypatch.setattr(history, "SCANNED", 4)
    monkeypatch.setattr(history, "MOST_SCANNED", 8)
    found, pages = await at_instance(placed, "wi-1", principal("run:capability/none"), limit=2)
    assert (found, pages > 2) == ([], True)
    own = principal("run:capability/c3")
    monkeypatch.undo()
    whole, _ = await at_instance(placed, "wi-1", own, limit=2)
    monkeypatch.setattr(history, "SCANNED", 4)
    monkeypatch.setattr(history, "MOST_SCANNED", 8)
    assert (await at_instance(placed, "wi-1", own, limit=2))[0] == whole


@pytest.mark.parametrize(
    "after", ["nowhere", "1:2:3", "1::run.a.0", ":1:run_1.a.0", f"{9**30}:1:run_1.a.0"]
)
async def test_a_place_in_a_history_is_one_that_a_page_named(placed, after):
    with pytest.raises(InvalidError, match="take `next`"):
        await placed.at_instance(ALL, "wi-1", after, 5)
