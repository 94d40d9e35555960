"""What every ledger keeps of failures: what counts as a crash, parts of a batch, dead letters."""

import pytest
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.ledger import letter_sql, part_sql
from hivemesh_platform.execution.ledger.letter_sql import LetterFilter
from hivemesh_platform.execution.ledger.port import Failure, Finished, StaleAttemptError
from hivemesh_platform.execution.model import AttemptOutcome, Fence
from hivemesh_sdk.contracts.problems import problem
from ledger_conformance import (
    BROKEN,
    DOUBLE,
    LOST,
    NOW,
    PLACED,
    READ,
    batch,
    new_job,
    recorded,
)

CRASHED = problem("executor-crashed")
DRAINED = problem("draining")
BY = Behalf(sub="a", roles=("admin",), grants=("admin:*",))


def failure(document, outcome=AttemptOutcome.FAILED):
    return Failure(document, outcome, NOW)


class FailureConformance:
    """Inherit it beside `LedgerConformance`, which has the fixtures."""

    @pytest.fixture
    async def mapped(self, ledger, write, run):
        """The claim of a map over a batch of ten records."""
        await write(lambda tx: ledger.record(tx, run.key, run.fence, recorded(batch(1)), NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        return claim

    async def again(self, ledger, write, claim, document, outcome=AttemptOutcome.FAILED):
        """The claim of the next attempt after a failure."""
        end = failure(document, outcome)
        await write(lambda tx: ledger.retry(tx, claim.key, claim.fence, end, NOW))
        [found] = await write(lambda tx: ledger.claim(tx, claim.capability, 10, NOW))
        return found

    @pytest.mark.parametrize(
        ("document", "outcome", "retries", "crashes", "suspect"),
        [
            (BROKEN, AttemptOutcome.FAILED, 1, 0, False),
            (CRASHED, AttemptOutcome.FAILED, 0, 1, False),
            (LOST, AttemptOutcome.LOST, 0, 1, True),
            (DRAINED, AttemptOutcome.INTERRUPTED, 0, 0, False),
        ],
    )
    async def test_what_counts_as_what(  # noqa: PLR0913, PLR0917 - a table
        self, ledger, write, mapped, document, outcome, retries, crashes, suspect
    ):
        found = await self.again(ledger, write, mapped, document, outcome)
        assert (found.retries, found.losses, found.suspect) == (retries, crashes, suspect)

    async def test_neither_a_restart_nor_a_full_worker_counts(self, ledger, write, mapped):
        await write(lambda tx: ledger.recover(tx, NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        await write(lambda tx: ledger.release(tx, claim.key, claim.fence, "full", NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        assert (claim.retries, claim.losses, claim.suspect) == (0, 0, False)

    async def attempts(self, write, key):
        found = await write(
            lambda tx: tx.all(
                "SELECT attempt FROM attempt WHERE run = ? AND node = ? AND seq = ? ORDER BY attempt",
                (key.run, key.node, key.seq),
            )
        )
        return [row["attempt"] for row in found]

    async def test_who_holds_a_row_no_more_deletes_no_attempt_of_it(self, ledger, write, mapped):
        await write(lambda tx: ledger.placed(tx, mapped.key, mapped.fence, PLACED, NOW))
        stale = Fence(mapped.fence.attempt, mapped.fence.epoch - 1)
        await write(lambda tx: ledger.release(tx, mapped.key, stale, "full", NOW))
        assert await self.attempts(write, mapped.key) == [mapped.fence.attempt]

    async def test_a_number_of_an_attempt_is_used_once_also_if_it_was_put_back(
        self, ledger, write, mapped
    ):
        await write(lambda tx: ledger.release(tx, mapped.key, mapped.fence, "full", NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        await write(lambda tx: ledger.release(tx, claim.key, claim.fence, "full", NOW))
        assert await self.attempts(write, claim.key) == []
        await write(lambda tx: ledger.run_again(tx, "run_1", "double", BY, NOW))
        [again] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        assert again.key == claim.key
        assert again.fence.attempt == claim.fence.attempt + 1

    async def test_what_a_source_records_forgets_its_crashes(self, ledger, write, run):
        claim = await self.again(ledger, write, run, LOST, AttemptOutcome.LOST)
        await write(lambda tx: ledger.record(tx, claim.key, claim.fence, recorded(batch(1)), NOW))
        claim = await self.again(ledger, write, claim, LOST, AttemptOutcome.LOST)
        assert claim.losses == 1

    async def split(self, ledger, write, claim):
        await write(lambda tx: ledger.split(tx, claim.key, claim.fence, failure(CRASHED), NOW))
        [found] = await write(lambda tx: ledger.claim(tx, claim.capability, 10, NOW))
        return found

    async def test_a_batch_that_kills_is_tried_in_halves_of_the_same_input(
        self, ledger, write, mapped
    ):
        half = await self.split(ledger, write, mapped)
        assert (half.key, half.inputs, half.lines) == (mapped.key, mapped.inputs, (0, 5))
        assert half.halved
        assert half.fence.attempt == mapped.fence.attempt + 1
        quarter = await self.split(ledger, write, half)
        assert quarter.lines == (0, 2)

    async def test_parts_are_tried_in_order_and_the_last_one_keeps_the_row(
        self, ledger, write, mapped, parts
    ):
        half = await self.split(ledger, write, mapped)
        first = Finished(batch=batch(21, 5))
        assert not await write(lambda tx: ledger.end_part(tx, half.key, half.fence, first, NOW))
        [other] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        assert other.lines == (5, 10)
        second = Finished(batch=batch(22, 5))
        assert await write(lambda tx: ledger.end_part(tx, other.key, other.fence, second, NOW))
        done = await write(lambda tx: part_sql.done(tx, other.key))
        assert [(one.first, one.last) for one in done] == [(0, 5), (5, 10)]
        assert parts == []
        whole = Finished(batch=batch(23))
        await write(lambda tx: ledger.finish(tx, other.key, other.fence, whole, NOW))
        assert parts == [("d", 1, 1, batch(23).sha256)]
        assert await write(lambda tx: part_sql.done(tx, other.key)) == []

    async def test_a_restart_before_the_join_finds_nothing_left_to_try(self, ledger, write, mapped):
        claim = await self.split(ledger, write, mapped)
        end = Finished(batch=batch(21, 5))
        for _ in range(2):
            await write(lambda tx, c=claim: ledger.end_part(tx, c.key, c.fence, end, NOW))
            found = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
            claim = found[0] if found else claim
        await write(lambda tx: ledger.recover(tx, NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        assert (claim.halved, claim.lines) == (True, None)

    async def test_a_part_that_is_given_up_is_a_letter_and_the_others_go_on(
        self, ledger, write, mapped
    ):
        half = await self.split(ledger, write, mapped)
        _, last = await write(lambda tx: ledger.drop_part(tx, half.key, half.fence, CRASHED, NOW))
        assert not last
        [other] = await write(lambda tx: ledger.claim(tx, DOUBLE, 10, NOW))
        assert other.lines == (5, 10)
        [letter] = await write(
            lambda tx: letter_sql.newest(tx, "default", LetterFilter(run="run_1"), "", 10)
        )
        assert (letter["first"], letter["last"], letter["records"]) == (0, 5, 5)
        assert (letter["cause"], letter["pipeline"], letter["state"]) == ("crashes", "p", "open")

    @pytest.mark.parametrize("fence", [Fence(9, 1), Fence(1, 9)])
    async def test_only_the_present_attempt_splits_ends_and_drops(
        self, ledger, write, mapped, fence
    ):
        key, end = mapped.key, Finished()
        for work in (
            lambda tx: ledger.split(tx, key, fence, failure(CRASHED), NOW),
            lambda tx: ledger.end_part(tx, key, fence, end, NOW),
            lambda tx: ledger.drop_part(tx, key, fence, CRASHED, NOW),
        ):
            with pytest.raises(StaleAttemptError):
                await write(work)

    async def test_a_job_that_is_given_up_is_a_letter(self, ledger, write):
        await write(lambda tx: ledger.add_job(tx, new_job("job_1"), NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 1, NOW))
        await write(lambda tx: ledger.placed(tx, claim.key, claim.fence, PLACED, NOW))
        await write(lambda tx: ledger.fail(tx, claim.key, claim.fence, BROKEN, NOW))
        [letter] = await write(lambda tx: letter_sql.newest(tx, "default", LetterFilter(), "", 10))
        assert (letter["run"], letter["cause"], letter["attempts"]) == ("job_1", "retries", 1)

    async def test_a_letter_is_settled_once(self, ledger, write):
        await write(lambda tx: ledger.add_job(tx, new_job("job_1"), NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 1, NOW))
        await write(lambda tx: ledger.fail(tx, claim.key, claim.fence, BROKEN, NOW))
        [letter] = await write(lambda tx: letter_sql.newest(tx, "default", LetterFilter(), "", 10))
        settle = lambda tx: letter_sql.settle(tx, letter["id"], "retried", "a", NOW, "job_1")  # noqa: E731 - said twice
        assert [await write(settle), await write(settle)] == [True, False]

    async def test_a_job_that_is_set_going_again_keeps_its_key_and_begins_anew(self, ledger, write):
        await write(lambda tx: ledger.add_job(tx, new_job("job_1"), NOW))
        [claim] = await write(lambda tx: ledger.claim(tx, DOUBLE, 1, NOW))
        claim = await self.again(ledger, write, claim, LOST, AttemptOutcome.LOST)
        await write(lambda tx: ledger.fail(tx, claim.key, claim.fence, LOST, NOW))
        assert await write(lambda tx: letter_sql.set_going_again(tx, "job_1", "{}"))
        [again] = await write(lambda tx: ledger.claim(tx, DOUBLE, 1, NOW))
        assert (again.key, again.retries, again.losses) == (claim.key, 0, 0)
        assert again.fence.attempt == claim.fence.attempt + 1
        assert not await write(lambda tx: letter_sql.set_going_again(tx, "job_1", "{}"))

    async def test_what_is_cancelled_is_no_letter(self, ledger, write, mapped):
        await write(lambda tx: ledger.cancel(tx, "run_1", NOW))
        assert await write(lambda tx: letter_sql.newest(tx, "default", LetterFilter(), "", 9)) == []

    async def test_a_repeated_step_settles_its_letters(self, ledger, write, mapped):
        await write(lambda tx: ledger.fail(tx, mapped.key, mapped.fence, BROKEN, NOW))
        assert await write(lambda tx: letter_sql.settle_step(tx, "run_1", "double", "a", NOW)) == 1

    async def test_a_source_keeps_its_place(self, ledger, write, run):
        page = recorded(batch(1), checkpoint='{"offset": 7}')
        await write(lambda tx: ledger.record(tx, run.key, run.fence, page, NOW))
        await write(lambda tx: ledger.fail(tx, run.key, run.fence, CRASHED, NOW))
        [letter] = await write(lambda tx: letter_sql.newest(tx, "default", LetterFilter(), "", 9))
        assert (letter["position"], letter["capability"]) == ('{"offset": 7}', READ)
