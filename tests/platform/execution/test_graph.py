"""What becomes of a node when those it depends on have ended, as a table."""

import pytest
from hivemesh_platform.execution.plans.graph import Edge, NodeEnd, fate, run_state
from hivemesh_sdk.contracts.api import RunState

COMPLETED, PARTIAL = NodeEnd(RunState.COMPLETED), NodeEnd(RunState.PARTIAL)
FAILED, BLOCKED = NodeEnd(RunState.FAILED), NodeEnd(RunState.BLOCKED)
SKIPPED = NodeEnd(RunState.SKIPPED)
TOLERATED = NodeEnd(RunState.FAILED, tolerated=True)
MISSING = NodeEnd(RunState.SKIPPED, missing=True)
GOES, WAITS, SKIPS, BLOCKS = "goes", "waits", "skipped", "blocked"


def what(*edges):
    found = fate((Edge(f"u{n}", kind), end) for n, (kind, end) in enumerate(edges))
    return found.state.value if found.state else WAITS if found.waits else GOES


@pytest.mark.parametrize(
    ("end", "stream", "value", "order", "any_", "look"),
    [
        (None, GOES, WAITS, WAITS, WAITS, WAITS),
        (COMPLETED, GOES, GOES, GOES, GOES, GOES),
        (PARTIAL, GOES, GOES, GOES, GOES, GOES),
        (FAILED, BLOCKS, BLOCKS, BLOCKS, BLOCKS, GOES),
        (BLOCKED, BLOCKS, BLOCKS, BLOCKS, BLOCKS, GOES),
        (TOLERATED, SKIPS, SKIPS, GOES, SKIPS, GOES),
        (SKIPPED, SKIPS, SKIPS, SKIPS, SKIPS, GOES),
        (MISSING, SKIPS, SKIPS, GOES, SKIPS, GOES),
    ],
)
def test_by_one_upstream(end, stream, value, order, any_, look):
    kinds = ("stream", "value", "order", "any", "look")
    assert tuple(what((kind, end)) for kind in kinds) == (stream, value, order, any_, look)


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ([("any", COMPLETED), ("any", None)], WAITS),
        ([("any", COMPLETED), ("any", FAILED)], GOES),
        ([("any", SKIPPED), ("any", PARTIAL)], GOES),
        ([("any", SKIPPED), ("any", FAILED)], BLOCKS),
        ([("order", SKIPPED), ("order", FAILED)], BLOCKS),
        ([("order", FAILED), ("order", None)], BLOCKS),
        ([("order", COMPLETED), ("value", None)], WAITS),
        ([("any", COMPLETED), ("order", SKIPPED)], SKIPS),
    ],
)
def test_by_several(edges, expected):
    assert what(*edges) == expected


def test_what_is_left_out_for_want_of_something_optional_is_missing_too():
    assert fate([(Edge("u", "value"), MISSING)]).missing
    assert not fate([(Edge("u", "value"), SKIPPED)]).missing


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        ([COMPLETED, COMPLETED], "completed"),
        ([COMPLETED, PARTIAL], "partial"),
        ([COMPLETED, SKIPPED], "completed"),
        ([COMPLETED, MISSING], "partial"),
        ([COMPLETED, TOLERATED, SKIPPED], "partial"),
        ([FAILED, BLOCKED, PARTIAL], "failed"),
        ([NodeEnd(RunState.CANCELLED), COMPLETED], "cancelled"),
        ([NodeEnd(RunState.CANCELLED), FAILED], "failed"),
    ],
)
def test_state_of_a_run(ends, state):
    assert run_state(ends) == state
