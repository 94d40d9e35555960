"""Ends of a run's rows are written together while others of the run are being written."""

import asyncio

import pytest
from hivemesh_platform.execution.ledger.port import Effects, Finished, RowEnd, StaleAttemptError
from hivemesh_platform.execution.model import Fence, WorkKey
from hivemesh_platform.execution.steps.ends import MOST, Ends
from hivemesh_platform.storage.errors import StorageFullError

BAD = 666


class FakeDatabase:
    """Writes when it is told to, and keeps what each transaction had."""

    def __init__(self):
        self.groups = []
        self._waiting = []

    def write(self, work):
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        return future

    def finish_rows(self, _tx, ends, _now):
        numbers = [one.key.seq for one in ends]
        self.groups.append(numbers)
        if BAD in numbers:
            raise StorageFullError("full")
        return [StaleAttemptError("stale") if one.fence.epoch == 0 else Effects() for one in ends]

    async def commit(self):
        """End the transactions that are open."""
        open_, self._waiting = self._waiting, []
        for work, future in open_:
            try:
                future.set_result(work(None))
            except StorageFullError as error:
                future.set_exception(error)
        await asyncio.sleep(0)


@pytest.fixture
def database():
    return FakeDatabase()


@pytest.fixture
def ends(database):
    return Ends(database, database, lambda: 1)


def end(seq, run="run_1", epoch=1):
    return RowEnd(WorkKey(run, "double", seq), Fence(1, epoch), Finished())


async def test_what_comes_while_others_are_written_goes_together_next(ends, database):
    told = [ends.finish(end(seq)) for seq in range(MOST + 3)]
    for _ in range(3):
        await database.commit()
    numbers = list(range(MOST + 3))
    assert database.groups == [numbers[:1], numbers[1 : MOST + 1], numbers[MOST + 1 :]]
    assert await asyncio.gather(*told) == [Effects()] * (MOST + 3)
    ends.finish(end(100))
    await database.commit()
    assert database.groups[-1] == [100]


async def test_runs_do_not_wait_for_each_other(ends, database):
    for run in ("run_1", "run_2"):
        ends.finish(end(1, run))
    await database.commit()
    assert database.groups == [[1], [1]]


async def test_what_cannot_be_written_together_is_written_alone(ends, database):
    told = [ends.finish(end(seq)) for seq in (1, 2, BAD, 3)]
    for _ in range(3):
        await database.commit()
    assert database.groups == [[1], [2, BAD, 3], [2], [BAD], [3]]
    found = await asyncio.gather(*told, return_exceptions=True)
    assert [isinstance(one, StorageFullError) for one in found] == [False, False, True, False]


async def test_a_stale_end_is_refused_and_the_others_count(ends, database):
    told = [ends.finish(end(1)), ends.finish(end(2, epoch=0)), ends.finish(end(3))]
    for _ in range(2):
        await database.commit()
    with pytest.raises(StaleAttemptError):
        await told[1]
    assert [await told[0], await told[2]] == [Effects(), Effects()]


async def test_who_waits_no_longer_is_left_alone(ends, database):
    told = [ends.finish(end(seq)) for seq in range(3)]
    told[0].cancel()
    told[2].cancel()
    for _ in range(2):
        await database.commit()
    assert await told[1] == Effects()
    assert database.groups == [[0], [1, 2]]
