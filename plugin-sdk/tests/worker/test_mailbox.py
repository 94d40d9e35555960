"""Calls between two loops arrive in their order, and none waits for a wake-up that never comes."""

import asyncio
from contextlib import contextmanager

import pytest
from hivemesh_sdk.worker.mailbox import Mailbox

WAIT_S = 30.0


@contextmanager
def two_ways():
    """Both directions; one loop is either side."""
    loop = asyncio.get_running_loop()
    answers = Mailbox(loop, loop)
    questions = Mailbox(loop, loop, answers)
    try:
        yield questions, answers
    finally:
        questions.close()
        answers.close()


def post(mailbox: Mailbox) -> asyncio.Future[None]:
    """Post a call that is noted."""
    arrived = asyncio.get_running_loop().create_future()
    mailbox.post(lambda: arrived.set_result(None))
    return arrived


async def until(arrived: asyncio.Future[None]) -> None:
    async with asyncio.timeout(WAIT_S):
        await arrived


async def test_calls_are_made_in_the_order_in_which_they_were_posted():
    made = []
    with two_ways() as (questions, _):
        for number in range(5):
            questions.post(lambda number=number: made.append(number))
        await until(post(questions))
    assert made == [0, 1, 2, 3, 4]


async def test_a_call_that_fails_keeps_back_none_behind_it():
    with two_ways() as (questions, _):
        questions.post(lambda: 1 / 0)
        await until(post(questions))


@pytest.mark.parametrize("turns", range(5))
async def test_answer_wakes_up_however_late_it_is_posted(turns):
    with two_ways() as (questions, answers):
        for _ in range(3):
            await until(post(questions))
            for _ in range(turns):
                await asyncio.sleep(0)
            await until(post(answers))


async def test_answer_that_a_call_posts_wakes_up():
    with two_ways() as (questions, answers):
        arrived = asyncio.get_running_loop().create_future()
        questions.post(lambda: answers.post(lambda: arrived.set_result(None)))
        await until(arrived)


async def test_answer_of_another_thread_wakes_up():
    with two_ways() as (questions, answers):
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()
        await until(post(questions))
        await asyncio.to_thread(answers.post_from_anywhere, lambda: arrived.set_result(None))
        await until(arrived)
