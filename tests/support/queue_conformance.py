"""What every queue keeps: order, fair shares, limits. Inherit it and give a `ledger` and a `write`."""

import pytest
from hivemesh_platform.execution.ledger import limit_sql, queue_sql
from hivemesh_platform.execution.ledger.limit_rules import Limit, Rate
from hivemesh_platform.execution.ledger.port import Finished, NewJob
from hivemesh_platform.execution.model import JOB_NODE

NOW = 1_000_000
WORK, OTHER = "test.work@1", "test.other@1"


def jobs(prefix, count, *, submitter="a", priority=5, capability=WORK, key="", together=""):  # noqa: PLR0913 - what a job may have
    return [
        NewJob(
            id=f"job_{prefix}{number:05d}",
            capability=capability,
            submitter=submitter,
            priority=priority,
            spec="{}",
            limit_key=key,
            together=together,
        )
        for number in range(count)
    ]


class Statements:
    """A transaction that counts what it is asked for."""

    def __init__(self, tx):
        self._tx = tx
        self.count = 0

    def __getattr__(self, name):
        self.count += name in {"all", "one", "execute", "send"}
        return getattr(self._tx, name)


class QueueConformance:
    """Who starts when, and who has to wait."""

    @pytest.fixture
    async def ledger(self):
        raise NotImplementedError

    @pytest.fixture
    async def write(self):
        """Run a function in a transaction."""
        raise NotImplementedError

    @pytest.fixture
    async def submit(self, ledger, write):
        async def submit(*args, **options):
            await write(lambda tx: ledger.add_jobs(tx, jobs(*args, **options), NOW))

        return submit

    @pytest.fixture
    async def claim(self, ledger, write):
        async def claim(limit=1, capability=WORK, now=NOW, size=1):
            return await write(lambda tx: ledger.claim(tx, capability, limit, now, size))

        return claim

    @pytest.fixture
    async def started(self, claim):
        """The names of the next jobs that start, one slot at a time."""

        async def started(count):
            names = []
            for _ in range(count):
                names += [one.key.run for one in await claim()]
            return names

        return started

    @pytest.fixture
    async def finish(self, ledger, write):
        async def finish(one):
            end = Finished(output="null")
            await write(lambda tx: ledger.finish(tx, one.key, one.fence, end, NOW))

        return finish

    @pytest.fixture
    async def limit(self, write):
        async def limit(scope, name="", running=None, rate=None):
            new = Limit(scope, name, running, None if rate is None else Rate.parse(rate), "a")
            await write(lambda tx: limit_sql.put(tx, new, NOW))

        return limit

    @pytest.fixture
    async def state(self, write):
        async def state(name):
            query = "SELECT state, reason FROM work WHERE run = ? AND node = ?"
            row = await write(lambda tx: tx.one(query, (f"job_{name}", JOB_NODE)))
            return row["state"], row["reason"]

        return state

    @pytest.mark.parametrize(
        ("first", "second", "taken"),
        [("a", "a", 8), ("a", "b", 7), ("", "", 2), ("a", "", 4), ("", "a", 2)],
    )
    async def test_so_many_that_may_travel_together_take_one_slot(
        self, submit, claim, first, second, taken
    ):
        await submit("a", 3, together=first)
        await submit("b", 9, together=second)
        order = [*(f"job_a{n:05d}" for n in range(3)), *(f"job_b{n:05d}" for n in range(9))]
        claims = await claim(2, size=4)
        assert [one.key.run for one in claims] == order[:taken]
        assert (await claim(1))[0].key.run == order[taken]

    async def test_one_high_among_a_thousand_queued_starts_next(self, submit, claim, started):
        await submit("background", 1000)
        await claim(10)
        await submit("high", 1, priority=10)
        assert await started(1) == ["job_high00000"]

    async def test_twenty_beside_a_thousand_of_another_submitter_are_among_the_first_forty(
        self, submit, claim, started
    ):
        await submit("many", 1000, submitter="a")
        await claim(10)
        await submit("few", 20, submitter="b")
        assert sum("few" in name for name in await started(40)) == 20

    async def test_jobs_of_one_submitter_and_priority_start_in_the_order_they_came(
        self, submit, started
    ):
        await submit("x", 30)
        assert await started(30) == [f"job_x{number:05d}" for number in range(30)]

    async def test_a_higher_priority_of_the_same_submitter_starts_first(self, submit, started):
        await submit("low", 5, priority=0)
        await submit("high", 5, priority=10)
        assert all("high" in name for name in await started(5))

    @pytest.mark.parametrize(("high", "bound"), [(10, 1024), (7, 128), (1, 2)])
    async def test_a_low_one_waits_for_no_more_than_its_bound_of_higher_ones(
        self, submit, claim, high, bound
    ):
        await submit("low", 1, priority=0)
        await submit("high", bound + 50, priority=high)
        names = [one.key.run for one in await claim(bound + 51)]
        assert names.index("job_low00000") <= bound

    async def test_who_was_idle_has_saved_nothing(self, submit, claim, started):
        await submit("a", 500, submitter="a")
        await claim(400)
        await submit("b", 100, submitter="b")
        assert 9 <= sum("job_b" in name for name in await started(20)) <= 11

    async def test_a_queue_that_nobody_serves_costs_its_submitter_nothing_elsewhere(
        self, submit, started
    ):
        await submit("dead", 1000, capability=OTHER, submitter="a")
        await submit("b", 100, submitter="b")
        await submit("a", 1, submitter="a")
        assert "job_a00000" in await started(3)

    async def test_order_and_shares_survive_the_ranks_beginning_anew(
        self, submit, claim, write, started, monkeypatch
    ):
        monkeypatch.setattr(queue_sql, "REBASE_AT", 1.0)
        await submit("a", 100, priority=0, submitter="a")
        await submit("b", 100, priority=0, submitter="b")
        await claim(20)
        clock = await write(lambda tx: tx.one("SELECT v FROM queue_clock"))
        assert clock["v"] == 0
        await submit("c", 10, priority=0, submitter="c")
        found = await started(30)
        assert {9, 10, 11} >= {sum(f"job_{who}" in name for name in found) for who in "abc"}

    async def test_ranks_stay_exact_at_the_end_of_their_range(self, submit, write, started):
        await write(lambda tx: queue_sql.claimed(tx, WORK, queue_sql.REBASE_AT - 1))
        await submit("x", 50, priority=10)
        assert await started(50) == [f"job_x{number:05d}" for number in range(50)]

    async def test_shares_of_those_with_nothing_queued_are_forgotten(self, submit, claim, write):
        await submit("a", 3, submitter="a")
        await submit("b", 3, submitter="b")
        while await claim():
            pass
        await submit("c", 3, submitter="c")
        await write(queue_sql.forget_shares)
        left = await write(lambda tx: tx.all("SELECT submitter FROM queue_share"))
        assert [row["submitter"] for row in left] == ["c"]

    async def test_no_more_run_than_the_limit_of_all(self, submit, claim, finish, limit):
        await limit("all", running=3)
        await submit("x", 5)
        await submit("y", 5, capability=OTHER)
        first = await claim(2)
        assert len(await claim(5, OTHER)) == 1
        assert await claim(5) == []
        await finish(first[0])
        assert len(await claim(5)) == 1

    async def test_no_more_run_than_the_limit_of_the_capability(self, submit, claim, limit):
        await limit("capability", WORK, running=2)
        await submit("x", 5)
        await submit("y", 5, capability=OTHER)
        assert len(await claim(5)) == 2
        assert len(await claim(5, OTHER)) == 5

    async def test_no_more_run_than_the_limit_of_the_key_and_others_pass(
        self, submit, claim, finish, limit
    ):
        await limit("key", "default/customer-7", running=2)
        await submit("seven", 100, key="default/customer-7")
        await submit("eight", 3, key="default/customer-8")
        await submit("none", 3)
        names = [one.key.run for one in await claim(50)]
        assert sum("seven" in name for name in names) == 2
        assert sum("eight" in name or "none" in name for name in names) == 6

    async def test_a_waiting_row_says_which_limit_it_waits_for(self, submit, claim, limit, state):
        await limit("key", "default/customer-7", running=2)
        await submit("seven", 4, key="default/customer-7")
        await claim(10)
        assert await state("seven00003") == ("waiting", "limit customer-7: 2 of 2 running")

    async def test_rows_of_a_key_go_on_as_others_end_in_their_order(
        self, submit, claim, finish, limit
    ):
        await limit("key", "default/k", running=1)
        await submit("x", 5, key="default/k")
        seen = []
        for _ in range(5):
            [one] = await claim(3)
            seen.append(one.key.run)
            assert await claim(3) == []
            await finish(one)
        assert seen == [f"job_x{number:05d}" for number in range(5)]

    async def test_a_limit_with_a_star_holds_for_each_key_alone(self, submit, claim, limit):
        await limit("key", "default/customer-*", running=2)
        for customer in ("a", "b", "c"):
            await submit(customer, 10, key=f"default/customer-{customer}")
        assert len(await claim(30)) == 6

    async def test_a_key_of_another_tenant_is_another_key(self, submit, claim, limit):
        await limit("key", "default/k", running=1)
        await submit("ours", 3, key="default/k")
        await submit("theirs", 3, key="other/k")
        assert len(await claim(10)) == 4

    async def test_what_waits_goes_on_when_its_limit_is_taken_away(
        self, submit, claim, limit, write
    ):
        await limit("key", "default/k", running=1)
        await submit("x", 5, key="default/k")
        await claim(5)
        await write(lambda tx: limit_sql.remove(tx, "key", "default/k"))
        assert len(await claim(5)) == 4

    async def test_a_rate_lets_so_many_start_and_says_when_the_next_may(
        self, submit, claim, limit, ledger, write
    ):
        await limit("capability", WORK, rate="10/s burst 3")
        await submit("x", 20)
        assert len(await claim(10)) == 3
        assert await claim(10) == []
        due = await write(lambda tx: ledger.next_time(tx, NOW))
        assert due == NOW + 100
        assert len(await claim(10, now=due)) == 1
        assert len(await claim(10, now=NOW + 10_000)) == 3

    async def test_a_rate_of_a_key_holds_back_that_key_alone(self, submit, claim, limit, state):
        await limit("key", "default/k*", rate="60/m")
        await submit("x", 3, key="default/k1")
        await submit("y", 3, key="default/k2")
        await submit("z", 3)
        assert len(await claim(20)) == 5
        assert await state("x00002") == ("waiting", "limit k1: 60/m")
        assert len(await claim(20, now=NOW + 1000)) == 2

    async def test_what_runs_under_a_limit_of_many_keys_is_counted(
        self, submit, claim, limit, write
    ):
        await limit("key", "default/k*", running=1)
        await limit("key", "default/k2", running=2)
        await submit("x", 2, key="default/k1")
        await submit("y", 3, key="default/k2")
        await submit("z", 2, key="default/k3")
        await claim(20)
        limits = {one.name: one for one in await write(limit_sql.all_limits)}
        counted = {
            name: await write(
                lambda tx, one=one: (limit_sql.running(tx, one), limit_sql.waiting(tx, one))
            )
            for name, one in limits.items()
        }
        assert counted == {"default/k*": (2, 2), "default/k2": (2, 1)}

    async def test_why_a_whole_capability_waits_is_known(self, submit, claim, limit, write):
        await limit("capability", WORK, running=1)
        await submit("x", 3)
        await claim(3)
        reasons = await write(lambda tx: limit_sql.reasons(tx, [WORK, OTHER], NOW))
        assert reasons == {WORK: f"limit {WORK}: 1 of 1 running"}

    async def test_parked_rows_are_looked_at_once_and_not_by_every_claim(
        self, submit, claim, limit, write
    ):
        await limit("key", "default/k", running=1)
        await submit("x", 300, key="default/k")
        await submit("y", 3)
        await claim(4)
        queued = await write(
            lambda tx: tx.one("SELECT count(*) AS n FROM work WHERE state = 'queued'")
        )
        assert queued["n"] == 0

    @pytest.mark.parametrize("rate", [None, "1/h"])
    async def test_a_claim_asks_nothing_of_each_key_that_is_full(
        self, ledger, submit, claim, limit, write, rate
    ):
        def asked(tx):
            counted = Statements(tx)
            assert ledger.claim(counted, WORK, 9, NOW) == []
            return counted.count

        await limit("key", "default/*", running=None if rate else 1, rate=rate)
        counts = []
        for keys in (range(1), range(1, 20)):
            for key in keys:
                await submit(f"x{key:02}_", 2, key=f"default/k{key}")
            while await claim(9):
                pass
            counts.append(await write(asked))
        assert counts[0] == counts[1]

    @pytest.mark.parametrize("rate", [None, "1/h"])
    async def test_a_claim_looks_at_no_key_that_cannot_have_room(
        self, submit, claim, finish, limit, write, rate
    ):
        await limit("key", "default/*", running=None if rate else 1, rate=rate)
        for key in range(20):
            await submit(f"x{key:02}_", 3, key=f"default/k{key}")
        started = []
        while some := await claim(9):
            started += some
        assert len(started) == 20
        for one in started:
            await finish(one)
        assert len(await claim(2)) == (0 if rate else 2)
        found = await write(
            lambda tx: tx.one("SELECT count(*) AS n FROM limit_parked WHERE look_at <= ?", (NOW,))
        )
        assert found["n"] == (0 if rate else 2)

    async def test_a_key_goes_on_whose_queued_row_was_cancelled(
        self, ledger, submit, claim, finish, limit, write
    ):
        await limit("key", "default/k", running=1)
        await submit("x", 4, key="default/k")
        [first] = await claim(4)
        await finish(first)
        assert await claim(0) == []
        await submit("z", 1, priority=10)  # claimed instead, after the next row of the key is free
        assert [one.key.run for one in await claim(1)] == ["job_z00000"]
        await claim(0)
        await write(lambda tx: ledger.cancel(tx, "job_x00001", NOW))
        assert [one.key.run for one in await claim(1)] == ["job_x00002"]

    async def test_a_key_of_which_a_cancel_was_missed_goes_on_after_some_seconds(
        self, submit, claim, finish, limit, write
    ):
        await limit("key", "default/k", running=1)
        await submit("x", 4, key="default/k")
        [first] = await claim(4)
        await finish(first)
        await submit("z", 1, priority=10)
        await claim(1)
        await write(
            lambda tx: tx.execute(
                "UPDATE work SET state = 'cancelled', ended_at = 1 WHERE run = 'job_x00001'"
            )
        )
        later = NOW + limit_sql.LOOK_AGAIN_MS
        assert [one.key.run for one in await claim(1, now=later)] == ["job_x00002"]

    async def test_of_many_keys_those_go_on_that_have_room(
        self, submit, claim, finish, limit, started
    ):
        await limit("key", "default/*", running=1)
        await limit("key", "default/k0", running=2)
        for key in range(5):
            await submit(f"x{key}_", 4, key=f"default/k{key}")
        running = {}
        while found := await claim(9):
            running |= {one.key.run: one for one in found}
        assert sorted(name[:6] for name in running) == [
            "job_x0",
            "job_x0",
            "job_x1",
            "job_x2",
            "job_x3",
            "job_x4",
        ]
        await finish(running["job_x3_00000"])
        await finish(running["job_x0_00000"])
        assert sorted(await started(4)) == ["job_x0_00002", "job_x3_00001"]
