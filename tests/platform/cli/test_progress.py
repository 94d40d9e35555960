"""What people see of a run that they follow, where no terminal shows a moving line."""

from itertools import repeat
from types import SimpleNamespace

import pytest
from hivemesh_platform.cli.progress import follow
from hivemesh_sdk.contracts.api import NodeView, RunState, RunView


def node(state, records=0, name="parse"):
    return NodeView.model_construct(name=name, state=RunState(state), records_out=records)


def seen(state, *nodes):
    return RunView.model_construct(id="r1", state=RunState(state), nodes=list(nodes))


def told(capsys, *views):
    follow(SimpleNamespace(watch=lambda _, wait_s: iter(views), run=lambda _: views[-1]), "r1")
    return capsys.readouterr().err.splitlines()


def test_a_step_that_is_soon_over_gets_the_line_of_its_end_alone(capsys):
    views = [
        seen("queued", node("queued")),
        seen("running", node("running")),
        seen("completed", node("completed", 307)),
    ]
    assert told(capsys, *views) == ["parse: completed, 307 records"]


def test_a_step_that_goes_on_is_told_once_and_its_end_last(capsys):
    views = [
        seen("running", node("running")),
        seen("running", node("running", 40), node("running", name="sum")),
        seen("running", node("running", 90), node("running", 1, "sum")),
        seen("running", node("completed", 99), node("running", 2, "sum")),
        seen("completed", node("completed", 99), node("completed", 3, "sum")),
    ]
    assert told(capsys, *views) == [
        "parse: running, 40 records",
        "sum: running, 1 records",
        "parse: completed, 99 records",
        "sum: completed, 3 records",
    ]


def test_what_the_end_of_the_run_leaves_blocked_is_told(capsys):
    views = [
        seen("running", node("running")),
        seen("failed", node("failed"), node("blocked", name="sum")),
    ]
    assert told(capsys, *views) == ["parse: failed, 0 records", "sum: blocked, 0 records"]


def test_a_step_that_waits_for_those_before_it_is_not_told(capsys):
    before, after = node("running"), node("waiting", name="sum")
    views = [seen("running", before, after)] * 3
    end = seen("completed", node("completed", 9), node("completed", 1, "sum"))
    assert told(capsys, *views, end)[0] == "parse: running, 0 records"
    assert not [one for one in told(capsys, *views, end) if "waiting" in one]


def job(state, reason=""):
    node = NodeView.model_construct(name="call", state=RunState(state), reason=reason)
    return RunView.model_construct(id="job_1", state=RunState(state), nodes=[node])


def test_a_job_that_waits_says_why_and_its_end(capsys):
    views = [
        job("queued"),
        job("waiting", "no live instance serves it"),
        job("waiting", "no live instance serves it"),
        job("completed"),
    ]
    assert told(capsys, *views) == [
        "job_1: waiting: no live instance serves it",
        "job_1: completed",
    ]


@pytest.mark.parametrize(
    ("found", "kind"), [(job("waiting", "x"), "job"), (seen("running"), "run")]
)
def test_who_stops_waiting_is_told_how_it_goes_on_and_ends(capsys, found, kind):
    def interrupted(_, wait_s):
        yield found
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(SimpleNamespace(watch=interrupted), found.id)
    err = capsys.readouterr().err
    assert f"the {kind} goes on: hivemesh {kind} watch {found.id}" in err
    assert f"to end it: hivemesh {kind} cancel {found.id}" in err


def test_who_waits_no_longer_than_he_said_is_told_too(capsys):
    found = job("waiting", "no live instance serves it")
    client = SimpleNamespace(watch=lambda _, wait_s: repeat(found), run=lambda _: found)
    assert follow(client, "job_1", for_s=0) is found
    assert "the job goes on: hivemesh job watch job_1" in capsys.readouterr().err
