"""A run and a worker can be read on 80 columns, and say what is wrong where."""

import json

import pytest
from hivemesh_platform.cli import details, failures, output
from hivemesh_platform.cli.lifecycle import _say_ready, worker_lines
from hivemesh_platform.cli.main import build
from hivemesh_sdk.contracts.api import (
    InstanceView,
    NodeView,
    RunState,
    RunView,
    SystemStatus,
    WorkerView,
)

STARTED, ENDED = "2026-01-02T10:00:00+00:00", "2026-01-02T10:00:01.500000+00:00"


def a_run(**changes):
    node = NodeView(
        name="classify",
        use="email.classify@1",
        kind="map",
        state="completed",
        records_in=123_456,
        records_out=123_450,
        rejected=6,
        attempts=250,
        started_at=STARTED,
        ended_at=ENDED,
    ).model_copy(update=changes)
    return RunView(
        id="run_01a200b512b77a32aff29e0d86521eb4",
        pipeline="email-insights",
        version=1,
        state="completed",
        created_at=STARTED,
        parameters={"archive": {"sha256": "e" * 64, "size": 2048, "name": "mail.mbox"}},
        outputs={"messages": {"kind": "dataset", "name": "email.messages", "records": 7}},
        nodes=[node],
    )


def a_worker(*, live=1, **changes):
    instance = InstanceView(
        id="wi-474234943f",
        worker="word-counter",
        version="0.1.0",
        state="live",
        status="idle",
        address="127.0.0.1:39355",
        identity="spiffe://3d7f396b.hivemesh.internal/worker/word-counter/wi-474234943f",
        heartbeat_age_s=0.7,
        started_at=STARTED,
        certificate_expires_at=ENDED,
        slots={},
        active={},
        cpu=0.1,
        memory=0.1,
        load_score=0.1,
        load_parts={},
        pid=4_194_304,
    ).model_copy(update=changes)
    return WorkerView(
        name="word-counter",
        version="0.1.0",
        publisher="",
        description="Counts words.",
        kinds=["map"],
        capabilities=["text.count@1"],
        permissions={"egress": [], "scratch_mb": 64},
        wanted=1,
        live=live,
        state="live" if live else "building",
        instances=[instance],
        manifest_digest="9" * 64,
    )


def test_run_fits_80_columns_and_shows_its_artifact_by_name(capsys):
    details.show_run(a_run(), "table")
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "archive: mail.mbox, 2.0 KiB" in out
    assert "1.5s" in out


def test_run_names_the_step_that_failed_and_why(capsys):
    problem = {"code": "HM-1301", "title": "the step failed", "detail": "disk full"}
    details.show_run(a_run(problem=problem), "table")
    assert "classify: HM-1301: the step failed: disk full" in capsys.readouterr().out


def test_worker_fits_80_columns_and_shows_only_what_it_asks_for(capsys):
    details.show_worker(a_worker(), "table")
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "permissions: scratch_mb 64" in out


def test_json_of_a_run_keeps_every_field(capsys):
    details.show_run(a_run(), "json")
    assert json.loads(capsys.readouterr().out)["nodes"][0]["attempts"] == 250


def test_field_without_value_is_not_shown_to_people(capsys):
    output.show_one(a_worker(), "table", name="name")
    assert "publisher" not in capsys.readouterr().out


def test_up_says_which_workers_are_not_live_yet():
    assert any("word-counter (building)" in one for one in worker_lines([a_worker(live=0)], "ok"))
    assert len(worker_lines([a_worker()], "ok")) == 1


def test_up_says_how_to_name_workers_where_there_are_none():
    assert any("--set workers.folders=" in one for one in worker_lines([], "ok"))


def test_up_says_what_it_did_and_how_to_undo_it(capsys):
    seen = SystemStatus(
        version="0.1.0",
        api_version=1,
        replica="p1",
        trust_domain="test.example",
        mode="local",
        started_at=STARTED,
        ready=True,
        live_instances=0,
        wanted_instances=0,
        runs_active=0,
        mesh_url="https://127.0.0.1:8443",
        state_folder="/s",
        pid=7,
        issuer_expires_at=ENDED,
    )
    _say_ready(seen, [])
    told = capsys.readouterr().err
    assert "https://127.0.0.1:8443 (mutual TLS), pid 7" in told
    assert "state in /s (undo: hivemesh down --purge)" in told
    assert "next: hivemesh demo email" in told


@pytest.mark.parametrize("words", [("-o", "json"), ("--output=json",)])
def test_misuse_is_json_too_where_json_was_asked_for(monkeypatch, capsys, words):
    arguments = ["worker", "lst", *words]
    monkeypatch.setattr("sys.argv", ["hivemesh", *arguments])
    app = build(arguments)
    code = failures.run_guarded(lambda: app(arguments, prog_name="hivemesh", standalone_mode=False))
    assert code == failures.USAGE
    assert "lst" in json.loads(capsys.readouterr().out)["detail"]


def test_a_failed_run_tells_its_problem_once_and_what_to_do(capsys):
    problem = {"code": "HM-1215", "title": "it does not fit", "detail": "no mail", "remedy": "look"}
    run = a_run(problem=problem).model_copy(update={"problem": problem})
    details.show_run(run, "table")
    out = capsys.readouterr().out
    assert out.count("HM-1215") == 1
    assert "classify: HM-1215: it does not fit: no mail" in out
    assert out.endswith("fix: look\n")
    details.show_run(a_run().model_copy(update={"problem": problem}), "table")
    assert "\nHM-1215: it does not fit: no mail\nfix: look\n" in capsys.readouterr().out


def test_lists_tell_why_a_run_or_job_has_not_ended_well():
    problem = {"code": "HM-1215", "title": "it does not fit", "detail": "no mail"}
    completed, failed = a_run(), a_run(problem=problem)
    failed = failed.model_copy(update={"state": RunState.FAILED})
    assert details.why(completed.model_copy(update={"state": RunState.COMPLETED})) == "-"
    assert details.why(failed) == "HM-1215: no mail"
    waiting = failed.model_copy(
        update={"state": RunState.WAITING, "reason": "no instance", "nodes": []}
    )
    assert details.why(waiting) == "no instance"
    long = failed.model_copy(update={"reason": "x" * 500})
    assert len(details.why(long)) <= details.LONGEST + 1
