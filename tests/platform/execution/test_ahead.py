"""Which rows are claimed before there is a slot for them, and what becomes of them."""

import pytest
from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.ahead import MOST, QUICK_S, SURE, WAITS_S, Ahead
from hivemesh_platform.execution.ledger.port import Claim
from hivemesh_platform.execution.model import Fence, RetryPolicy, WorkKey

PARSE = "email.parse@1"


def row(seq, run="run_1", node="parse", **fields):
    return Claim(
        **{
            "key": WorkKey(run, node, seq),
            "fence": Fence(1, 1),
            "kind": "map",
            "capability": PARSE,
            "inputs": (BatchRef("a" * 64, 1, 1),),
            "spec": None,
            "options": "{}",
            "labels": "{}",
            "policy": RetryPolicy(),
            "deadline_ms": 0,
            "idle_timeout_ms": 0,
            "retries": 0,
            "losses": 0,
            "last_instance": "",
            **fields,
        }
    )


@pytest.fixture
def ahead():
    """Of a capability whose steps are quick."""
    found = Ahead()
    for seq in range(SURE):
        found.learn(row(seq), QUICK_S / 2)
    return found


def test_rows_are_claimed_ahead_as_soon_as_steps_are_known_to_be_quick():
    ahead = Ahead()
    for seq in range(SURE):
        assert ahead.more(PARSE) == 0
        ahead.learn(row(seq), QUICK_S / 2)
    assert ahead.more(PARSE) == MOST
    ahead.learn(row(9), QUICK_S * 2)
    assert ahead.more(PARSE) == 0


def test_no_more_is_claimed_while_rows_wait(ahead):
    assert ahead.put([row(1), row(2)], 0.0) == []
    assert ahead.more(PARSE) == 0
    assert [one.key.seq for one in ahead.take(PARSE, 1)] == [1]
    assert ahead.more(PARSE) == 0
    assert [one.key.seq for one in ahead.take(PARSE, 9)] == [2]
    assert ahead.more(PARSE) == MOST
    assert ahead.take("email.other@1", 1) == []


@pytest.mark.parametrize(
    "fields",
    [{"retries": 1}, {"losses": 1}, {"suspect": True}, {"halved": True}, {"limited": True}],
)
def test_a_row_with_a_past_or_a_limit_does_not_wait(ahead, fields):
    other = row(1, **fields)
    assert ahead.put([other], 0.0) == [other]
    assert ahead.more(PARSE) == 0


def test_neither_a_job_nor_another_kind_waits(ahead):
    others = [row(0, "job_1", "job"), row(0, kind="source"), row(1, kind="add")]
    assert ahead.put(others, 0.0) == others


def test_a_row_that_finds_no_slot_is_given_back(ahead):
    ahead.put([row(1)], 0.0)
    ahead.put([row(2)], WAITS_S)
    assert ahead.late(WAITS_S) == []
    assert [one.key.seq for one in ahead.late(WAITS_S + 0.5)] == [1]
    assert [one.key.seq for one in ahead.take(PARSE, 9)] == [2]
    assert ahead.more(PARSE) == 0


def test_rows_of_what_has_ended_are_forgotten(ahead):
    ahead.put([row(1), row(2, node="tidy"), row(3, "run_2"), row(4, "run_3")], 0.0)
    ahead.forget("run_1", {"tidy"})
    ahead.forget("run_2", None)
    assert ahead.holds("run_1.parse.1", 1)
    assert not ahead.holds("run_1.parse.1", 2)
    assert not ahead.holds("run_1.tidy.2", 1)
    assert [one.key.seq for one in ahead.take(PARSE, 9)] == [1, 4]
