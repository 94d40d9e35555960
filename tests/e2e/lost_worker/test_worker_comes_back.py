"""A worker that nobody supervises stops for a while: what people see of it, and what runs do without it."""

import json
import signal
from pathlib import Path

import pytest
from hivemesh_platform.registry.model import UNHEALTHY_AFTER_S
from hivemesh_sdk.contracts.api import InstanceView, RunState
from hivemesh_sdk.contracts.instances import LEASE_S
from hivemesh_sdk.safeio.yaml import parse_yaml
from joined_worker import joined
from mail import put, write_mbox
from whole_platform import ROOT, Installation, Shared, group_of, installed, signal_all, until

pytestmark = pytest.mark.e2e

CLASSIFIER = ROOT / "workers" / "email-classifier"
AWAY = 'workers.instances={"email-classifier": 0}'
MESSAGES = 300
SILENT_S = {
    "live": (0, UNHEALTHY_AFTER_S),
    "unhealthy": (UNHEALTHY_AFTER_S, LEASE_S),
    "offline": (LEASE_S, float("inf")),
}
ROUNDED_S = 0.01


def start(installation: Installation, mbox: Path) -> str:
    """Start the shipped pipeline as it is where labels may be missing."""
    document = parse_yaml((ROOT / "pipelines" / "email-insights.yaml").read_text())
    document["steps"]["classify"]["optional"] = True
    with installation.client() as client, mbox.open("rb") as file:
        return client.start_run(document, put(client, file)).id


def labelled(installation: Installation, run: str) -> dict[str, bool]:
    """The messages by id, and which of them have labels."""
    with installation.client() as client:
        lines = b"".join(client.output(run, "messages")).splitlines()
    return {one["id"]: "labels" in one for one in map(json.loads, lines)}


def seen(installation: Installation) -> InstanceView:
    """The classifier's instance, in the state that its silence makes."""
    with installation.client() as client:
        [one] = client.worker("email-classifier").instances
    at_least, at_most = SILENT_S[one.state]
    assert at_least - ROUNDED_S <= one.heartbeat_age_s <= at_most + ROUNDED_S
    return one


def test_a_stopped_worker_is_offline_and_left_out_and_goes_on_where_it_was(
    tmp_path: Path, shared: Shared
) -> None:
    mbox = write_mbox(tmp_path / "mail.mbox", MESSAGES)
    soon = "execution.optional_wait_s=3"
    with installed(tmp_path / "i", shared, AWAY, soon) as running:
        running.start()
        with joined(running, shared, CLASSIFIER) as process:
            before = seen(running)
            processes = group_of(process.pid)
            signal_all(processes, signal.SIGSTOP)
            try:
                until(lambda: seen(running).state != "live", 60, "it is missed")
                run = start(running, mbox)
                left_out = running.until_ended(run)
                until(lambda: seen(running).state == "offline", 60, "its lease has run out")
                told = running.run_command("worker", "show", "email-classifier", "-o", "json")
                [shown] = json.loads(told.stdout)["instances"]
                assert (shown["state"], shown["status"]) == ("offline", "offline")
            finally:
                signal_all(processes, signal.SIGCONT)
            assert (left_out.state, left_out.missing) == (RunState.PARTIAL, ["labels"]), left_out
            without = labelled(running, run)
            assert set(without.values()) == {False}
            until(lambda: seen(running).state == "live", 60, "it is back")
            after = seen(running)
            assert (after.id, after.pid) == (before.id, before.pid) == (before.id, process.pid)
            told = running.run_command("run", "backfill", run, "--wait", "-o", "json")
            made_up = json.loads(told.stdout)
            assert (made_up["state"], made_up["missing"]) == ("completed", []), made_up
            assert labelled(running, made_up["id"]) == dict.fromkeys(without, True)
            with running.client() as client:
                tried = [one.key.rpartition(".")[0] for one in client.attempts_at(after.id)]
            assert f"{made_up['id']}.classify" in tried
