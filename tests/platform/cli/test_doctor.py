"""What `hivemesh doctor` says of workers."""

import pytest
from hivemesh_platform.cli.doctor import _conclusion, _text, _worker
from hivemesh_sdk.contracts.api import WorkerView


def finding(state, reason="", live=0):
    worker = WorkerView.model_construct(
        name="echo", wanted=1, live=live, state=state, reason=reason
    )
    return _worker(worker)


@pytest.mark.parametrize(
    ("worker", "verdict"),
    [
        (finding("live", live=1), "ok"),
        (finding("building", "its environment is being built, 45 s so far"), "pending"),
        (finding("starting"), "pending"),
        (finding("starting", "it ended by itself with exit code 1; see its log"), "warning"),
        (finding("crash-loop", "it ended by itself"), "failure"),
        (finding("incompatible", "it needs platform 2", live=1), "failure"),
        (finding("invalid", "kind: 'Walker' is none of Worker", live=1), "failure"),
    ],
)
def test_what_is_built_or_starts_is_well_so_far(worker, verdict) -> None:
    assert worker.verdict == verdict
    assert bool(worker.fix) == (verdict in {"warning", "failure"})


def test_a_worker_that_is_being_built_is_told_with_the_time_and_counts_for_nothing() -> None:
    reason = "its environment is being built, 45 s so far"
    assert _text([finding("building", reason)]).splitlines() == [
        "workers",
        f"  … echo: 0 of 1 instances live: {reason}",
        "all is well, 1 not ready yet",
    ]


def test_what_is_wrong_is_counted_whatever_else_is_built() -> None:
    found = [
        finding("building"),
        finding("starting", "it ended"),
        finding("crash-loop", "it ended"),
    ]
    assert _conclusion(found) == "1 failures, 1 warnings"
