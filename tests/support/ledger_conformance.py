"""What every ledger keeps, whatever it is made of: inherit it and give a `ledger` and a `write`."""

import pytest
from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.ledger.port import (
    Failure,
    Finished,
    NewJob,
    NewNode,
    NewRun,
    Placed,
    Recorded,
    RowEnd,
    StaleAttemptError,
    StaleReaderError,
    Unclaimed,
)
from hivemesh_platform.execution.model import (
    AttemptOutcome,
    Fence,
    RejectedRecord,
    RetryPolicy,
    WorkKey,
)
from hivemesh_platform.replicas import store as replicas
from hivemesh_platform.replicas.model import StaleReplicaError
from hivemesh_platform.replicas.standing import Standing
from hivemesh_sdk.contracts.problems import problem

NOW = 1_000_000
READ, DOUBLE, SUM = "test.read@1", "test.double@1", "test.sum@1"
BROKEN = problem("step-failed", "broken", retryable=True)
LOST = problem("worker-lost")


def batch(number, count=10):
    return BatchRef(f"{number:064x}", count, 100)


def node(name, capability, kind, upstream="", *, options="{}", **fields):
    return NewNode(
        **{
            "name": name,
            "position": 0,
            "capability": capability,
            "kind": kind,
            "upstream": upstream,
            "options": options,
            "labels": "{}",
            "policy": RetryPolicy(),
            "deadline_ms": 0,
            "idle_timeout_ms": 0,
            "dataset": "",
            "dataset_version": 0,
            **fields,
        }
    )


NODES = (
    node("read", READ, "source"),
    node("double", DOUBLE, "map", "read", dataset="d", dataset_version=1),
    node("sum", SUM, "reduce", "double"),
)


def new_run(name="run_1", nodes=NODES, submitter="a"):
    return NewRun(
        id=name,
        pipeline="p",
        version=1,
        document="{}",
        parameters="{}",
        labels="{}",
        submitter=submitter,
        priority=0,
        nodes=nodes,
    )


def new_job(name, *, submitter="a", priority=0):
    return NewJob(id=name, capability=DOUBLE, submitter=submitter, priority=priority, spec="{}")


def recorded(*batches, after=1, checkpoint="1", **fields):
    return Recorded(execution="e1", after=after, checkpoint=checkpoint, batches=batches, **fields)


def refused(count):
    return tuple(RejectedRecord(reason="bad", detail="", position=str(n)) for n in range(count))


PLACED = Placed(instance="w1", identity="i", worker="w 1", explanation="{}", endpoint='{"x":1}')


async def joined(write, *names):
    for name in names:
        await write(
            lambda tx, name=name: replicas.join(
                tx, name, folder=name, shared="s", version="1", now=NOW
            )
        )


class LedgerConformance:
    """Rows are claimed once, results count once, and what follows is created with them."""

    @pytest.fixture
    async def ledger(self):
        raise NotImplementedError

    @pytest.fixture
    async def write(self):
        """Run a function in a transaction."""
        raise NotImplementedError

    @pytest.fixture
    async def parts(self):
        """The parts that datasets were given: (name, version, seq, digest)."""
        raise NotImplementedError

    @pytest.fixture
    async def run(self, ledger, write):
        """A run whose source is claimed; returns the claim."""
        await write(lambda tx: ledger.add_run(tx, new_run(), NOW))
        await write(lambda tx: ledger.activate(tx, "run_1", "read", "{}", NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, READ, 10, NOW))
        await write(lambda tx: ledger.placed(tx, claim.key, claim.fence, PLACED, NOW))
        return claim

    async def test_nothing_is_queued_before_a_node_is_activated(self, ledger, write):
        await write(lambda tx: ledger.add_run(tx, new_run(), NOW))
        assert await write(lambda tx: ledger.claim(tx, READ, 10, NOW)) == []

    async def test_a_row_is_claimed_once(self, ledger, write, run):
        assert run.key == WorkKey("run_1", "read", 0)
        assert run.fence == Fence(1, 1)
        assert await write(lambda tx: ledger.claim(tx, READ, 10, NOW)) == []

    async def test_activating_twice_queues_once(self, ledger, write, run):
        await write(lambda tx: ledger.activate(tx, "run_1", "read", "{}", NOW))
        assert await write(lambda tx: ledger.claim(tx, READ, 10, NOW)) == []

    async def test_a_recorded_batch_is_a_row_of_the_map_with_its_seq(self, ledger, write, run):
        page = recorded(batch(1), batch(2))
        effects = await write(lambda tx: ledger.record(tx, run.key, run.fence, page, NOW))
        assert effects.queued
        claims = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        assert [(one.key.seq, one.inputs) for one in claims] == [
            (1, (batch(1),)),
            (2, (batch(2),)),
        ]

    async def test_what_has_rows_that_are_due_can_be_claimed(self, ledger, write, run):
        names = (READ, DOUBLE, SUM)
        assert await write(lambda tx: ledger.claimable(tx, names, NOW)) == frozenset()
        await write(lambda tx: ledger.record(tx, run.key, run.fence, recorded(batch(1)), NOW))
        assert await write(lambda tx: ledger.claimable(tx, names, NOW)) == {DOUBLE}
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        await write(lambda tx: ledger.release(tx, claim.key, claim.fence, "", NOW + 5))
        assert await write(lambda tx: ledger.claimable(tx, names, NOW + 4)) == frozenset()
        assert await write(lambda tx: ledger.claimable(tx, names, NOW + 5)) == {DOUBLE}
        assert await write(lambda tx: ledger.claimable(tx, (), NOW)) == frozenset()

    async def test_the_next_page_continues_the_numbers(self, ledger, write, run):
        for page in (recorded(batch(1)), recorded(batch(2), after=2, checkpoint="2")):
            await write(lambda tx, page=page: ledger.record(tx, run.key, run.fence, page, NOW))
        claims = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        assert [one.key.seq for one in claims] == [1, 2]

    @pytest.mark.parametrize("fence", [Fence(2, 1), Fence(1, 2), Fence(0, 0)])
    async def test_only_the_present_attempt_and_epoch_count(self, ledger, write, run, fence):
        page = recorded(batch(1))
        for work in (
            lambda tx: ledger.record(tx, run.key, fence, page, NOW),
            lambda tx: ledger.finish(tx, run.key, fence, Finished(), NOW),
            lambda tx: ledger.fail(tx, run.key, fence, BROKEN, NOW),
            lambda tx: ledger.retry(
                tx, run.key, fence, Failure(BROKEN, AttemptOutcome.FAILED, 0), NOW
            ),
        ):
            with pytest.raises(StaleAttemptError):
                await write(work)
        assert await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW)) == []

    async def test_a_second_end_of_a_row_does_not_count(self, ledger, write, run, parts):
        page = recorded(batch(1))
        await write(lambda tx: ledger.record(tx, run.key, run.fence, page, NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        end = Finished(batch=batch(11))
        await write(lambda tx: ledger.finish(tx, claim.key, claim.fence, end, NOW))
        with pytest.raises(StaleAttemptError):
            await write(lambda tx: ledger.finish(tx, claim.key, claim.fence, end, NOW))
        assert parts == [("d", 1, 1, batch(11).sha256)]

    async def test_a_long_page_is_grouped_as_many_short_ones_are(self, ledger, write):
        nodes = (node("read", READ, "source"), node("sum", SUM, "reduce", "read"))
        inputs = []
        for name, sizes in (("run_a", [40]), ("run_b", [1] * 40), ("run_c", [15, 1, 24])):
            await write(lambda tx, one=name: ledger.add_run(tx, new_run(one, nodes), NOW))
            for step in ("read", "sum"):
                await write(lambda tx, one=name, it=step: ledger.activate(tx, one, it, "{}", NOW))
            [source] = await write(lambda tx: ledger.claim(tx, READ, 1, NOW))
            numbers = iter(range(40))
            for size in sizes:
                page = recorded(*[batch(next(numbers)) for _ in range(size)])
                await write(
                    lambda tx, key=source.key, fence=source.fence, page=page: ledger.record(
                        tx, key, fence, page, NOW
                    )
                )
            await write(
                lambda tx, one=source: ledger.finish(tx, one.key, one.fence, Finished(), NOW)
            )
            adds = await write(lambda tx: ledger.claim(tx, SUM, 10, NOW))
            inputs.append([one.inputs for one in sorted(adds, key=lambda one: one.key.seq)])
            await write(lambda tx, one=name: ledger.cancel(tx, one, NOW))
        assert [len(one) for one in inputs[0]] == [16, 16, 8]
        assert inputs == [inputs[0]] * 3

    async def test_an_end_tells_where_its_attempt_ran_unless_that_was_written(
        self, ledger, write, run
    ):
        page = recorded(batch(1), batch(2))
        await write(lambda tx: ledger.record(tx, run.key, run.fence, page, NOW))
        soon, late = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        await write(lambda tx: ledger.placed(tx, late.key, late.fence, PLACED, NOW))
        end = Finished(batch=batch(11), placed=PLACED, began=NOW)
        for claim in (soon, late):
            await write(lambda tx, one=claim: ledger.finish(tx, one.key, one.fence, end, NOW + 5))
        query = """SELECT attempt.*, work.instance AS work_instance FROM attempt
                     JOIN work ON work.run = attempt.run AND work.node = attempt.node
                      AND work.seq = attempt.seq WHERE work.node = 'double'"""
        rows = await write(lambda tx: [dict(zip(row.keys(), row)) for row in tx.all(query)])  # noqa: B905 - as long
        names = ("attempt", "instance", "worker", "started_at", "ended_at", "outcome")
        expected = (1, "w1", PLACED.worker, NOW, NOW + 5, "completed")
        assert [tuple(row[name] for name in names) for row in rows] == [expected] * 2
        assert {row["work_instance"] for row in rows} == {"w1"}

    async def test_ends_that_are_written_together_count_as_those_written_one_by_one(
        self, ledger, write, parts
    ):
        """Batches, empty ones and rejected records, an end that came before, and a stale one."""
        nodes = """SELECT name, state, batches_known, batches_done, records_in, records_out,
                          rejected, attempts, adds FROM node WHERE run = ? ORDER BY name"""
        rows = """SELECT seq, state, instance, ended_at FROM work
                   WHERE run = ? AND node = 'double' ORDER BY seq"""
        attempts = """SELECT seq, attempt, instance, outcome, started_at, ended_at FROM attempt
                       WHERE run = ? AND node = 'double' ORDER BY seq"""
        page = recorded(*[batch(number) for number in range(5)])
        found = []
        for name, together in (("run_a", 1), ("run_b", 4), ("run_c", 6)):
            await write(lambda tx, one=name: ledger.add_run(tx, new_run(one), NOW))
            for step in ("read", "double", "sum"):
                await write(lambda tx, one=name, it=step: ledger.activate(tx, one, it, "{}", NOW))
            [source] = await write(lambda tx: ledger.claim(tx, READ, 1, NOW))
            await write(lambda tx, one=source: ledger.record(tx, one.key, one.fence, page, NOW))
            await write(
                lambda tx, one=source: ledger.finish(tx, one.key, one.fence, Finished(), NOW)
            )
            claims = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
            late = claims[1]
            await write(lambda tx, one=late: ledger.placed(tx, one.key, one.fence, PLACED, NOW))
            given = [
                Finished(batch=batch(11, 9), placed=PLACED, began=NOW),
                Finished(batch=batch(12, 8)),
                Finished(batch=batch(0, 0), placed=PLACED, began=NOW),
                Finished(batch=batch(14, 7), rejected=refused(3), placed=PLACED, began=NOW),
                Finished(batch=batch(15, 10), placed=PLACED, began=NOW),
            ]
            ends = [RowEnd(one.key, one.fence, end) for one, end in zip(claims, given, strict=True)]
            stale = claims[0]
            ends.insert(2, RowEnd(stale.key, Fence(stale.fence.attempt, 0), given[0]))
            told = []
            for first in range(0, 6, together):
                some = ends[first : first + together]
                told += await write(lambda tx, some=some: ledger.finish_rows(tx, some, NOW + 5))
            refusals = [isinstance(one, StaleAttemptError) for one in told]
            assert refusals == [False, False, True, False, False, False]
            ended = [one for one in told if not isinstance(one, StaleAttemptError)]
            assert sum(len(one.ended_nodes) for one in ended) == 1
            assert any(one.queued for one in ended)
            kept = await write(
                lambda tx, one=name: [
                    [tuple(row) for row in tx.all(query, (one,))]
                    for query in (nodes, rows, attempts)
                ]
            )
            found.append((kept, sorted(parts)))
            parts.clear()
            await write(lambda tx, one=name: ledger.cancel(tx, one, NOW))
        assert [row[:2] for row in found[0][0][0]] == [
            ("double", "partial"),
            ("read", "completed"),
            ("sum", "queued"),
        ]
        assert found == [found[0]] * 3

    async def test_a_cancelled_attempt_may_be_told_of_later(self, ledger, write, run):
        page = recorded(batch(1))
        await write(lambda tx: ledger.record(tx, run.key, run.fence, page, NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        await write(lambda tx: ledger.cancel(tx, run.key.run, NOW + 3))
        await write(lambda tx: ledger.placed(tx, claim.key, claim.fence, PLACED, NOW))
        query = "SELECT ended_at, outcome FROM attempt WHERE node = 'double'"
        assert tuple(await write(lambda tx: tuple(tx.one(query)))) == (NOW + 3, "cancelled")

    async def test_a_retried_row_is_claimed_again_when_its_time_has_come(self, ledger, write, run):
        failure = Failure(BROKEN, AttemptOutcome.FAILED, NOW + 500)
        await write(lambda tx: ledger.retry(tx, run.key, run.fence, failure, NOW))
        assert await write(lambda tx: ledger.claim(tx, READ, 10, NOW + 499)) == []
        assert await write(lambda tx: ledger.next_time(tx, NOW)) == NOW + 500
        [claim] = await write(lambda tx: ledger.claim(tx, READ, 10, NOW + 500))
        assert (claim.fence.attempt, claim.retries, claim.losses) == (2, 1, 0)
        assert claim.last_instance == "w1"

    async def test_a_lost_attempt_is_counted_as_a_loss(self, ledger, write, run):
        failure = Failure(LOST, AttemptOutcome.LOST, NOW)
        await write(lambda tx: ledger.retry(tx, run.key, run.fence, failure, NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, READ, 10, NOW))
        assert (claim.retries, claim.losses) == (0, 1)

    async def test_a_new_attempt_of_a_source_starts_at_the_recorded_checkpoint(
        self, ledger, write, run
    ):
        page = recorded(batch(1), checkpoint='{"offset": 7}')
        await write(lambda tx: ledger.record(tx, run.key, run.fence, page, NOW))
        failure = Failure(LOST, AttemptOutcome.LOST, NOW)
        await write(lambda tx: ledger.retry(tx, run.key, run.fence, failure, NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, READ, 10, NOW))
        assert (claim.checkpoint, claim.execution, claim.after) == ('{"offset": 7}', "", 0)

    async def test_a_released_row_is_claimed_again_without_a_retry(self, ledger, write, run):
        await write(lambda tx: ledger.release(tx, run.key, run.fence, "busy", NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, READ, 10, NOW))
        assert (claim.retries, claim.losses) == (0, 0)
        assert claim.fence.attempt > run.fence.attempt

    async def test_a_row_that_nobody_was_asked_to_take_is_as_if_it_had_not_been_claimed(
        self, ledger, write, run
    ):
        await write(lambda tx: ledger.cancel(tx, run.key.run, NOW))
        await write(lambda tx: ledger.add_run(tx, new_run("run_2"), NOW))
        await write(lambda tx: ledger.activate(tx, "run_2", "read", "{}", NOW))
        [run] = await write(lambda tx: ledger.claim(tx, READ, 10, NOW))
        back = [Unclaimed(run.key, run.fence, "no gpu", NOW + 500)]
        await write(lambda tx: ledger.unclaim(tx, back))
        await write(lambda tx: ledger.unclaim(tx, back))
        query = """SELECT work.attempt, work.started_at, node.attempts, node.reason
                     FROM work JOIN node ON node.run = work.run AND node.name = work.node
                    WHERE work.run = ? AND work.node = ?"""
        row = await write(lambda tx: tx.one(query, (run.key.run, run.key.node)))
        assert tuple(row) == (0, None, 0, "no gpu")
        assert await write(lambda tx: ledger.claim(tx, READ, 10, NOW + 499)) == []
        [claim] = await write(lambda tx: ledger.claim(tx, READ, 10, NOW + 500))
        assert claim.fence == Fence(run.fence.attempt, run.fence.epoch + 1)
        await write(lambda tx: ledger.unclaim(tx, back))
        with pytest.raises(StaleReaderError):
            await write(lambda tx: ledger.finish(tx, run.key, run.fence, Finished(), NOW))
        await write(lambda tx: ledger.finish(tx, claim.key, claim.fence, Finished(), NOW))

    async def test_rows_that_were_put_off_are_brought_forward_the_next_ones_first(
        self, ledger, write, run
    ):
        page = recorded(batch(1), batch(2), batch(3))
        await write(lambda tx: ledger.record(tx, run.key, run.fence, page, NOW))
        claims = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        back = [Unclaimed(one.key, one.fence, "", NOW + 90 - one.key.seq) for one in claims]
        await write(lambda tx: ledger.unclaim(tx, back))
        await write(lambda tx: ledger.bring_forward(tx, SUM, 2, NOW))
        assert await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW)) == []
        await write(lambda tx: ledger.bring_forward(tx, DOUBLE, 2, NOW))
        found = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        assert [one.key.seq for one in found] == [2, 3]

    async def test_the_gap_before_a_retry_is_kept(self, ledger, write, run):
        later = Failure(BROKEN, AttemptOutcome.FAILED, NOW + 500)
        await write(lambda tx: ledger.retry(tx, run.key, run.fence, later, NOW))
        await write(lambda tx: ledger.bring_forward(tx, READ, 10, NOW))
        assert await write(lambda tx: ledger.claim(tx, READ, 10, NOW)) == []

    async def test_the_run_ends_with_its_last_row(self, ledger, write, run):
        await write(lambda tx: ledger.record(tx, run.key, run.fence, recorded(batch(1)), NOW))
        await write(lambda tx: ledger.finish(tx, run.key, run.fence, Finished(), NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        end = Finished(batch=batch(11))
        await write(lambda tx: ledger.finish(tx, claim.key, claim.fence, end, NOW))
        state = Finished(output='{"artifact":{"sha256":"%s"}}' % ("0" * 64))
        [add] = await write(lambda tx: ledger.claim(tx, SUM, 10, NOW))
        assert (add.kind, add.inputs) == ("add", (batch(11),))
        await write(lambda tx: ledger.finish(tx, add.key, add.fence, state, NOW))
        [result] = await write(lambda tx: ledger.claim(tx, SUM, 10, NOW))
        assert result.kind == "result"
        answer = Finished(output='{"value":7}')
        effects = await write(lambda tx: ledger.finish(tx, result.key, result.fence, answer, NOW))
        assert effects.ended_runs == ("run_1",)

    async def test_a_cancelled_run_has_no_rows_left_and_takes_no_results(self, ledger, write, run):
        await write(lambda tx: ledger.record(tx, run.key, run.fence, recorded(batch(1)), NOW))
        await write(lambda tx: ledger.cancel(tx, "run_1", NOW))
        assert await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW)) == []
        with pytest.raises(StaleAttemptError):
            await write(lambda tx: ledger.finish(tx, run.key, run.fence, Finished(), NOW))

    async def test_recovery_goes_on_with_a_source_that_had_begun(self, ledger, write, run):
        page = recorded(batch(1), after=3, checkpoint="9")
        await write(lambda tx: ledger.record(tx, run.key, run.fence, page, NOW))
        [claim] = await write(lambda tx: ledger.recover(tx, NOW))
        assert (claim.execution, claim.after, claim.endpoint) == ("e1", 3, '{"x":1}')
        assert claim.fence == Fence(run.fence.attempt, run.fence.epoch + 1)
        with pytest.raises(StaleAttemptError):
            await write(lambda tx: ledger.record(tx, run.key, run.fence, page, NOW))

    async def test_recovery_queues_what_else_was_held(self, ledger, write, run):
        assert await write(lambda tx: ledger.recover(tx, NOW)) == []
        [claim] = await write(lambda tx: ledger.claim(tx, READ, 10, NOW))
        assert claim.fence.attempt == 2

    async def test_only_the_rows_of_a_dead_replica_are_taken_over(self, ledger, write):
        await joined(write, "a", "b")
        for name in ("job_1", "job_2"):
            await write(lambda tx, name=name: ledger.add_job(tx, new_job(name), NOW))
        mine = type(ledger)(ledger._datasets, Standing("a", 1))
        his = type(ledger)(ledger._datasets, Standing("b", 1))
        [first] = await write(lambda tx: mine.claim(tx, DOUBLE, 1, NOW))
        [second] = await write(lambda tx: his.claim(tx, DOUBLE, 1, NOW))
        assert await write(lambda tx: his.recover(tx, NOW, "a")) == []
        await write(lambda tx: his.finish(tx, second.key, second.fence, Finished(), NOW))
        [again] = await write(lambda tx: his.claim(tx, DOUBLE, 9, NOW))
        assert (again.key, again.losses, again.retries) == (first.key, 0, 0)
        with pytest.raises(StaleAttemptError):
            await write(lambda tx: mine.finish(tx, first.key, first.fence, Finished(), NOW))

    async def test_a_source_that_was_taken_over_is_not_ended_at_its_worker(self, ledger, write):
        await joined(write, "a", "b")
        mine = type(ledger)(ledger._datasets, Standing("a", 1))
        his = type(ledger)(ledger._datasets, Standing("b", 1))
        await write(lambda tx: mine.add_run(tx, new_run(), NOW))
        await write(lambda tx: mine.activate(tx, "run_1", "read", "{}", NOW))
        [claim] = await write(lambda tx: mine.claim(tx, READ, 1, NOW))
        page = recorded(batch(1))
        await write(lambda tx: mine.record(tx, claim.key, claim.fence, page, NOW))
        [taken] = await write(lambda tx: his.recover(tx, NOW, "a"))
        assert taken.execution == "e1"
        with pytest.raises(StaleReaderError):
            await write(lambda tx: mine.record(tx, claim.key, claim.fence, page, NOW))
        await write(lambda tx: his.record(tx, taken.key, taken.fence, page, NOW))

    async def test_a_dead_replica_neither_commits_nor_claims(self, ledger, write):
        await joined(write, "a")
        for name in ("job_1", "job_2"):
            await write(lambda tx, name=name: ledger.add_job(tx, new_job(name), NOW))
        mine = type(ledger)(ledger._datasets, Standing("a", 1))
        [claim] = await write(lambda tx: mine.claim(tx, DOUBLE, 1, NOW))
        await write(lambda tx: tx.execute("UPDATE replica SET epoch = 2, state = 'dead'"))
        for work in (
            lambda tx: mine.finish(tx, claim.key, claim.fence, Finished(), NOW),
            lambda tx: mine.claim(tx, DOUBLE, 1, NOW),
            lambda tx: mine.recover(tx, NOW, "a"),
        ):
            with pytest.raises(StaleReplicaError):
                await write(work)

    async def test_rejected_records_behind_the_checkpoint_are_forgotten(self, ledger, write, run):
        page = recorded(batch(1), rejected=refused(5), settled=2)
        await write(lambda tx: ledger.record(tx, run.key, run.fence, page, NOW))
        failure = Failure(LOST, AttemptOutcome.LOST, NOW)
        await write(lambda tx: ledger.retry(tx, run.key, run.fence, failure, NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, READ, 10, NOW))
        again = recorded(batch(2), rejected=refused(3), settled=3, checkpoint="2")
        await write(lambda tx: ledger.record(tx, claim.key, claim.fence, again, NOW))
        rows = await write(lambda tx: tx.all("SELECT rejected FROM node WHERE name = 'read'"))
        assert rows[0]["rejected"] == 5

    async def test_who_submits_much_waits_behind_his_own_rows(self, ledger, write):
        for number in range(5):
            await write(lambda tx, n=number: ledger.add_job(tx, new_job(f"job_a{n}"), NOW))
        await write(lambda tx: ledger.add_job(tx, new_job("job_b", submitter="b"), NOW))
        claims = await write(lambda tx: ledger.claim(tx, DOUBLE, 2, NOW))
        assert {one.key.run for one in claims} == {"job_a0", "job_b"}

    async def test_who_was_idle_gains_nothing_by_it(self, ledger, write):
        for number in range(3):
            await write(lambda tx, n=number: ledger.add_job(tx, new_job(f"job_a{n}"), NOW))
        await write(lambda tx: ledger.claim(tx, DOUBLE, 3, NOW))
        for number in range(3, 5):
            await write(lambda tx, n=number: ledger.add_job(tx, new_job(f"job_a{n}"), NOW))
        for number in range(3):
            job = new_job(f"job_b{number}", submitter="b")
            await write(lambda tx, job=job: ledger.add_job(tx, job, NOW))
        claims = await write(lambda tx: ledger.claim(tx, DOUBLE, 4, NOW))
        assert {one.key.run for one in claims} == {"job_a3", "job_a4", "job_b0", "job_b1"}

    async def test_a_higher_priority_gets_a_larger_share(self, ledger, write):
        for number in range(8):
            for who, priority in (("low", 0), ("high", 2)):
                job = new_job(f"job_{who}{number}", submitter=who, priority=priority)
                await write(lambda tx, job=job: ledger.add_job(tx, job, NOW))
        claims = await write(lambda tx: ledger.claim(tx, DOUBLE, 5, NOW))
        assert sum(one.key.run.startswith("job_high") for one in claims) == 4

    async def test_no_more_is_claimed_than_asked_for(self, ledger, write):
        for number in range(5):
            await write(lambda tx, n=number: ledger.add_job(tx, new_job(f"job_{n}"), NOW))
        assert len(await write(lambda tx: ledger.claim(tx, DOUBLE, 3, NOW))) == 3
        assert await write(lambda tx: ledger.waiting(tx, NOW)) == {DOUBLE: 2}

    async def test_rows_of_a_node_without_options_wait_until_it_has_them(self, ledger, write):
        nodes = (NODES[0], node("double", DOUBLE, "map", "read", options=None))
        await write(lambda tx: ledger.add_run(tx, new_run(nodes=nodes), NOW))
        await write(lambda tx: ledger.activate(tx, "run_1", "read", "{}", NOW))
        [run] = await write(lambda tx: ledger.claim(tx, READ, 1, NOW))
        await write(lambda tx: ledger.record(tx, run.key, run.fence, recorded(batch(1)), NOW))
        assert await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW)) == []
        await write(lambda tx: ledger.activate(tx, "run_1", "double", '{"a":1}', NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        assert claim.options == '{"a":1}'
