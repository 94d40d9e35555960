"""The rules of execution, as tables."""

import pytest
from hivemesh_platform.execution.model import (
    FAN_IN,
    LEVEL,
    RESULT_SEQ,
    Again,
    GiveUp,
    RetryPolicy,
    Split,
    after_failure,
    cause_of,
    is_crash,
    is_letter,
    is_no_fault,
    next_tree_rows,
    node_state,
)
from hivemesh_sdk.contracts.problems import problem
from hypothesis import given, settings
from hypothesis import strategies as st

RETRYABLE = problem("step-failed", retryable=True)
FATAL = problem("step-fatal")
LOST = problem("worker-lost")


@pytest.mark.parametrize(("retries", "delay"), [(0, 1.0), (1, 2.0), (2, 4.0)])
def test_retries_come_after_one_two_and_four_seconds(retries, delay):
    decision = after_failure(RETRYABLE, RetryPolicy(), retries=retries, crashes=0, jitter=0.5)
    assert decision == Again(pytest.approx(delay))


def test_the_gap_is_spread_by_half_to_each_side():
    gaps = [
        after_failure(RETRYABLE, RetryPolicy(), retries=0, crashes=0, jitter=jitter).delay_s
        for jitter in (0.0, 1.0)
    ]
    assert gaps == [pytest.approx(0.5), pytest.approx(1.5)]


def test_the_gap_grows_no_further_than_its_bound():
    policy = RetryPolicy(max_retries=100, max_s=30)
    for retries in (5, 20, 99):
        decision = after_failure(RETRYABLE, policy, retries=retries, crashes=0, jitter=0.5)
        assert decision == Again(pytest.approx(30))


def test_a_longer_wait_that_the_worker_asks_for_is_respected():
    asked = problem("step-failed", retryable=True, retry_after_s=30)
    assert after_failure(asked, RetryPolicy(), retries=0, crashes=0, jitter=0.5) == Again(30)


def test_the_fourth_failure_is_the_last():
    assert after_failure(RETRYABLE, RetryPolicy(), retries=3, crashes=0, jitter=0) == GiveUp()


def test_a_fatal_problem_is_never_repeated():
    assert after_failure(FATAL, RetryPolicy(), retries=0, crashes=0, jitter=0) == GiveUp()


LOSSES = ("worker-lost", "worker-unreachable", "execution-unknown")


@pytest.mark.parametrize("slug", LOSSES)
def test_a_lost_worker_costs_no_retry_and_no_gap(slug):
    decision = after_failure(problem(slug), RetryPolicy(), retries=3, crashes=0, jitter=0)
    assert decision == Again(0.0)


@pytest.mark.parametrize(("crashes", "delay"), [(0, 1.0), (1, 2.0)])
def test_an_executor_that_dies_costs_no_retry_and_a_gap(crashes, delay):
    dead = problem("executor-crashed")
    decision = after_failure(dead, RetryPolicy(), retries=3, crashes=crashes, jitter=0.5)
    assert decision == Again(pytest.approx(delay))


@pytest.mark.parametrize("slug", [*LOSSES, "executor-crashed"])
@pytest.mark.parametrize(
    ("crashes", "records", "halved", "decision"),
    [
        (1, 500, False, Again),
        (2, 1, False, GiveUp),  # the third crash
        (2, 500, False, Split),
        (0, 250, True, Split),  # its batch has crashed often enough
        (5, 2, True, Split),
        (5, 1, True, GiveUp),
    ],
)
def test_the_third_crash_is_the_last_of_an_input(slug, crashes, records, halved, decision):
    found = after_failure(
        problem(slug),
        RetryPolicy(),
        retries=0,
        crashes=crashes,
        jitter=0,
        records=records,
        halved=halved,
    )
    assert isinstance(found, decision)


def test_a_drained_worker_costs_neither_a_retry_nor_a_crash():
    drained = problem("draining")
    assert is_no_fault(drained)
    assert not is_crash(drained)
    found = after_failure(drained, RetryPolicy(0), retries=9, crashes=9, jitter=0, halved=True)
    assert found == Again(0.0)


@pytest.mark.parametrize(
    ("slug", "retryable", "cause"),
    [
        ("executor-crashed", True, "crashes"),
        ("step-failed", True, "retries"),
        ("step-fatal", False, "refused"),
    ],
)
def test_the_cause_of_a_dead_letter(slug, retryable, cause):
    assert cause_of(problem(slug, retryable=retryable)) == cause


def test_what_had_nothing_to_do_is_no_dead_letter():
    assert not is_letter(problem("skipped"))


def test_what_a_worker_cancels_by_itself_is_repeated():
    unasked = problem("cancelled")
    assert isinstance(after_failure(unasked, RetryPolicy(), retries=0, crashes=0, jitter=0), Again)
    assert after_failure(unasked, RetryPolicy(), retries=3, crashes=0, jitter=0) == GiveUp()


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
