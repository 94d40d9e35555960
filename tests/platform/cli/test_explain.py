"""`job explain` and `run explain` show what was placed and what waits, with every candidate."""

import json

import pytest
from hivemesh_platform.cli import job, session
from hivemesh_sdk.contracts.api import ExplainView

CANDIDATE = {
    "instance": "i1",
    "score": 0.38,
    "parts": {"cpu": 0.2, "memory": 0.12, "active": 0.06},
    "unmet": "gpu=true",
}


def waits(*candidates, not_listed=0):
    return ExplainView(
        key="job_1.job.0",
        attempt=0,
        chosen=None,
        reason="no live instance satisfies gpu=true",
        candidates=list(candidates),
        not_listed=not_listed,
    )


@pytest.fixture
def explain(monkeypatch, capsys):
    """Print one explanation in a format, and give what was printed."""

    def run(found, fmt="table"):
        class Client:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                return None

            def explain(self, _id):
                return [found]

        monkeypatch.setattr(session, "client", lambda _state: Client())
        job.explain("job_1", fmt, None)
        return capsys.readouterr().out

    return run


def test_the_table_ends_with_the_candidates_and_what_they_do_not_meet(explain):
    lines = [line.split() for line in explain(waits(CANDIDATE, not_listed=3)).splitlines()]
    assert " ".join(lines[-3]) == "candidates of job_1.job.0 now (3 more):"
    assert lines[-2] == ["INSTANCE", "SCORE", "CPU", "MEMORY", "ACTIVE", "UNMET"]
    assert lines[-1] == ["i1", "0.3800", "0.2000", "0.1200", "0.0600", "gpu=true"]


def test_where_there_is_no_candidate_it_says_so(explain):
    assert explain(waits()).endswith("candidates of job_1.job.0 now: none\n")


def test_wide_lines_hold_the_candidates(explain):
    assert "i1 0.3800 = 0.2000 + 0.1200 + 0.0600, unmet: gpu=true" in explain(
        waits(CANDIDATE), "wide"
    )


def test_json_holds_all_of_it(explain):
    [found] = json.loads(explain(waits(CANDIDATE), "json"))
    assert (found["chosen"], found["candidates"]) == (None, [CANDIDATE])
