"""An evicted worker is refused everywhere within seconds and replaced; a banned one is not."""

import json
import time

import pytest
from whole_platform import Installation, until

pytestmark = pytest.mark.e2e

WORKER = "email-classifier"


def instance(installation: Installation) -> str:
    return installation.instances(WORKER)[0].id


def denied(installation: Installation) -> list[dict[str, object]]:
    answer = installation.run_command("worker", "denied", "-o", "json")
    return json.loads(answer.stdout)


def test_an_evicted_instance_is_replaced_with_a_fresh_identity(install) -> None:
    installation = install()
    installation.start()
    installation.until_live()
    old = instance(installation)
    answer = installation.run_command("worker", "evict", old, "--reason", "drill")
    assert answer.returncode == 0, answer.stderr
    until(
        lambda: [one.id for one in installation.instances(WORKER) if one.id != old],
        30,
        "a replacement is live",
    )
    assert old not in [one.id for one in installation.instances(WORKER)]
    (denial,) = denied(installation)
    assert (denial["kind"], denial["reason"]) == ("eviction", "drill")
    assert str(denial["by"]).endswith("/user/operator")


def test_a_banned_worker_is_not_started_until_the_ban_is_lifted(install) -> None:
    installation = install()
    installation.start()
    installation.until_live()
    answer = installation.run_command("worker", "ban", WORKER, "--reason", "drill")
    assert answer.returncode == 0, answer.stderr
    until(lambda: not installation.instances(WORKER), 10, "no instance is live")
    with installation.client() as client:
        assert client.worker(WORKER).state == "banned"
    time_is_up = time.monotonic() + 5
    while time.monotonic() < time_is_up:  # a supervisor that did not know would have started one
        assert not installation.instances(WORKER)
    answer = installation.run_command("worker", "unban", WORKER, "--reason", "drill is over")
    assert answer.returncode == 0, answer.stderr
    until(lambda: installation.instances(WORKER), 30, "it is started again")


def test_a_ban_holds_over_a_restart(install) -> None:
    installation = install()
    installation.start()
    installation.until_live()
    digest = next(one.manifest_digest for one in installation.until_live() if one.name == WORKER)
    answer = installation.run_command("worker", "ban", f"sha256:{digest}", "-r", "known bad")
    assert answer.returncode == 0, answer.stderr
    installation.stop()
    installation.start()
    until(lambda: installation.instances("email-parser"), 60, "the others are live")
    assert not installation.instances(WORKER)
    with installation.client() as client:
        assert "package" in client.worker(WORKER).reason
