"""The rules of execution, as tables."""

import pytest
from hivemesh_platform.execution.model import (
    FAN_IN,
    LEVEL,
    RESULT_SEQ,
    Again,
    GiveUp,
    RetryPolicy,
    after_failure,
    is_legal,
    next_tree_rows,
    node_state,
)
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.contracts.problems import problem
from hypothesis import given, settings
from hypothesis import strategies as st

RETRYABLE = problem("step-failed", retryable=True)
FATAL = problem("step-fatal")
LOST = problem("worker-lost")


@pytest.mark.parametrize(
    ("before", "after", "legal"),
    [
        ("queued", "running", True),
        ("running", "queued", True),
        ("running", "completed", True),
        ("blocked", "queued", True),
        ("waiting", "running", True),
        ("completed", "running", False),
        ("failed", "queued", False),
        ("cancelled", "running", False),
        ("blocked", "running", False),
        ("queued", "completed", False),
    ],
)
def test_transitions(before, after, legal):
    assert is_legal(RunState(before), RunState(after)) is legal


def test_no_transition_leaves_an_ended_state():
    for state in RunState:
        if state.ended:
            assert not any(is_legal(state, after) for after in RunState)


@pytest.mark.parametrize(("retries", "delay"), [(0, 1.0), (1, 2.0), (2, 4.0)])
def test_retries_come_after_one_two_and_four_seconds(retries, delay):
    decision = after_failure(RETRYABLE, RetryPolicy(), retries=retries, losses=0, jitter=0.5)
    assert decision == Again(pytest.approx(delay))


def test_the_delay_is_spread_by_a_fifth_to_each_side():
    delays = [
        after_failure(RETRYABLE, RetryPolicy(), retries=0, losses=0, jitter=jitter).delay_s
        for jitter in (0.0, 1.0)
    ]
    assert delays == [pytest.approx(0.8), pytest.approx(1.2)]


def test_a_longer_wait_that_the_worker_asks_for_is_respected():
    asked = problem("step-failed", retryable=True, retry_after_s=30)
    assert after_failure(asked, RetryPolicy(), retries=0, losses=0, jitter=0.5) == Again(30)


def test_the_fourth_failure_is_the_last():
    assert after_failure(RETRYABLE, RetryPolicy(), retries=3, losses=0, jitter=0) == GiveUp()


def test_a_fatal_problem_is_never_repeated():
    assert after_failure(FATAL, RetryPolicy(), retries=0, losses=0, jitter=0) == GiveUp()


def test_a_lost_worker_costs_no_retry_and_no_delay():
    assert after_failure(LOST, RetryPolicy(), retries=3, losses=0, jitter=0) == Again(0.0)


def test_a_row_that_loses_worker_after_worker_is_given_up():
    assert after_failure(LOST, RetryPolicy(), retries=0, losses=20, jitter=0) == GiveUp()


@pytest.mark.parametrize(
    ("completed", "failed", "rejected", "state"),
    [
        (3, 0, 0, "completed"),
        (0, 0, 0, "completed"),
        (3, 1, 0, "partial"),
        (3, 0, 2, "partial"),
        (0, 2, 0, "failed"),
    ],
)
def test_state_of_a_node(completed, failed, rejected, state):
    assert node_state(completed=completed, failed=failed, rejected=rejected) == state


def grow(total, order):
    """Complete the rows of a tree in any order; returns all rows that were ever created."""
    known, completed, rows = set(range(1, total + 1)), set(), {}
    open_rows = list(known)
    closed = False
    while open_rows:
        done = open_rows.pop(order(len(open_rows)))
        completed.add(done)
        closed = closed or order(2) == 1 or not open_rows
        for row in next_tree_rows(
            frozenset(completed), frozenset(known), total if closed else None
        ):
            assert row.seq not in known
            known.add(row.seq)
            rows[row.seq] = row
            open_rows.append(row.seq)
    return rows


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.randoms(use_true_random=True))
def test_a_tree_takes_every_add_once_in_any_order(total, random):
    rows = grow(total, random.randrange)
    leaves = []
    waiting = [rows[RESULT_SEQ]]
    while waiting:
        for child in waiting.pop().children:
            if child in rows:
                waiting.append(rows[child])
            else:
                leaves.append(child)
    assert sorted(leaves) == list(range(1, total + 1))
    assert all(len(row.children) <= FAN_IN for row in rows.values())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.randoms(use_true_random=True))
def test_the_tree_does_not_depend_on_the_order(total, random):
    assert grow(total, random.randrange) == grow(total, lambda _: 0)


def test_a_single_add_goes_into_the_result():
    rows = next_tree_rows(frozenset({1}), frozenset({1}), 1)
    assert [(row.seq, row.kind, row.children) for row in rows] == [(0, "result", (1,))]


def test_a_full_group_is_merged_before_the_number_of_adds_is_known():
    adds = frozenset(range(1, 17))
    rows = next_tree_rows(adds, adds, None)
    assert [(row.seq, row.kind) for row in rows] == [(LEVEL + 1, "merge")]
