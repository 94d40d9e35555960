"""The retry budget: a failing callee meets a fifth more than its load, and a few a second."""

import pytest
from hivemesh_platform.execution.steps.budget import BURST_S, RetryBudget


def test_a_few_retries_are_free():
    budget = RetryBudget(0.2, 10)
    assert [budget.take("a@1", 0.0) for _ in range(10)] == [0.0] * 10


def test_beyond_the_budget_each_retry_waits_for_its_turn():
    budget = RetryBudget(0.2, 10)
    waits = [budget.take("a@1", 0.0) for _ in range(30)]
    assert waits[10:] == [pytest.approx(0.1 * n) for n in range(1, 21)]


def test_five_first_attempts_earn_one_retry():
    budget = RetryBudget(0.2, 10)
    for _ in range(10):
        budget.take("a@1", 0.0)
    for _ in range(5):
        budget.began("a@1", 0.0)
    assert budget.take("a@1", 0.0) == pytest.approx(0.0)
    assert budget.take("a@1", 0.0) == pytest.approx(0.1)


def test_what_is_not_used_is_kept_for_a_while_only():
    budget = RetryBudget(0.2, 10)
    budget.take("a@1", 0.0)
    free = sum(budget.take("a@1", 1e6) == 0.0 for _ in range(1000))
    assert free == 10 * BURST_S


def test_capabilities_have_budgets_of_their_own():
    budget = RetryBudget(0.2, 10)
    for _ in range(50):
        budget.take("a@1", 0.0)
    assert budget.take("b@1", 0.0) == 0.0


@pytest.mark.parametrize("per_s", [1.0, 10.0])
def test_in_a_total_outage_the_load_is_the_budgets_and_no_more(per_s):
    """A thousand rows that always fail, for a minute: what arrives at the callee is counted."""
    budget, due, arrivals = RetryBudget(0.2, per_s), [0.0] * 1000, 0
    for _ in due:
        budget.began("a@1", 0.0)
    for second in range(60):
        now = float(second)
        for row, at in enumerate(due):
            if at <= now:
                arrivals += 1
                due[row] = now + max(1.0, budget.take("a@1", now))
    assert arrivals <= 1000 * 1.2 + per_s * 61 + 1
