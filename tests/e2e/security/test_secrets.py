"""Secrets in a running installation: used by pipelines, found nowhere, waited for when sealed."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hivemesh_sdk.contracts.api import RunView
from hivemesh_sdk.errors import RemoteError
from openbao import OpenBao, openbao
from secret_hunt import descendants, files, processes, where
from whole_platform import ROOT, Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

WORKER = ROOT / "tests/support/workers/key-user"
CANARY = "cAnary/7+f3&Zq9=x~J2-\u017c\u00f3\u0142w"
OWN = "workers.key-user.token"
PIPELINE = {
    "apiVersion": "hivemesh/v1",
    "kind": "Pipeline",
    "metadata": {"name": "signed", "version": 1},
    "parameters": {
        "size": {"type": "integer", "default": 40},
        "pause_s": {"type": "number", "default": 0},
    },
    "steps": {
        "count": {
            "use": "key.count@1",
            "with": {"size": "${{ parameters.size }}", "pause_s": "${{ parameters.pause_s }}"},
        },
        "sign": {
            "use": "key.sign@1",
            "map": "count",
            "with": {"key": "{{ vault.workers.key-user.token }}"},
        },
        "quick": {"use": "key.quick@1", "with": {"key": "{{ vault.shared.key }}"}},
    },
    "outputs": {"signed": "sign", "digest": "quick.digest"},
}
OTHERS = "{{ vault.workers.somebody-else.token }}"


@pytest.fixture
def installation(tmp_path: Path, shared: Shared) -> Iterator[Installation]:
    with installed(tmp_path / "i", shared, workers=[WORKER]) as found:
        found.start()
        found.until_live()
        yield found


def store(installation: Installation, name: str, value: str, verb: str = "set") -> None:
    file = installation.state.parent / "value"
    file.write_text(value)
    done = installation.run_command("secret", verb, name, "--file", str(file))
    file.unlink()
    assert done.returncode == 0, done.stderr
    assert value not in done.stdout + done.stderr


def call(installation: Installation, name: str = "key.use@1", **options: object) -> RunView:
    options.setdefault("key", "{{ vault.shared.key }}")
    with installation.client() as client:
        return client.call(name, None, options)  # type: ignore[arg-type]  # JSON


def slug(view: RunView) -> str:
    assert view.problem is not None, view
    return str(view.problem["type"]).rpartition(":")[2]


def refusals(installation: Installation, options: dict[str, object]) -> list[str]:
    with pytest.raises(RemoteError) as caught:
        call(installation, **options)
    return [one.code for one in caught.value.document.errors]


def audited(installation: Installation, **wanted: str) -> list[dict[str, object]]:
    words = [word for key, value in wanted.items() for word in (f"--{key}", value)]
    done = installation.run_command("audit", "list", *words, "-o", "json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_a_secret_is_used_by_a_pipeline_and_found_nowhere(installation: Installation) -> None:
    store(installation, OWN, CANARY)
    store(installation, "shared.key", CANARY)
    with installation.client() as client:
        run = client.start_run(dict(PIPELINE)).id
    ended = installation.until_ended(run)
    assert ended.state == "completed", ended
    check_answers(installation, run)

    outcomes = {how: call(installation, how=how) for how in ("log", "raise", "break", "crash")}
    assert outcomes["log"].state == "completed"
    for how in ("answer", "basic", "artifact"):
        outcomes[how] = call(installation, how=how)
        assert slug(outcomes[how]) == "secret-in-answer"
    assert "***" in installation.log()

    with installation.client() as client:
        child = client.call(
            "key.use@1", None, {"key": "{{ vault.shared.key }}", "how": "child"}, wait_s=0
        )
    assert installation.process is not None
    sleeping = lambda: any(  # noqa: E731 - a condition
        b"sleep" in data for name, data in processes(iter(descendants_of(installation)))
    )
    until(sleeping, 60, "the capability has started a child")
    running = list(processes(iter(descendants_of(installation))))
    assert len(running) > 6
    with installation.client() as client:
        client.cancel(child.id)
        metrics = client._read("GET", "/metrics")
        runs = client._read("GET", "/v1/runs?limit=100")
        log = client.worker_log("key-user").encode()
        listed = client._read("GET", "/v1/secrets")
        config = client._read("GET", "/v1/config")
    installation.until_ended(child.id)
    views = [(how, view.model_dump_json().encode()) for how, view in outcomes.items()]
    said = [
        ("metrics", metrics),
        ("runs", runs),
        ("the worker's log", log),
        ("names", listed),
        ("settings", config),
        ("views", ended.model_dump_json().encode()),
        ("audit", json.dumps(audited(installation)).encode()),
    ]
    assert where(CANARY, iter([*said, *views, *running])) == []
    assert where(CANARY, files(installation.state)) == []
    installation.stop()
    assert where(CANARY, files(installation.state.parent)) == []


def check_answers(installation: Installation, run: str) -> None:
    """The capabilities had the value: they made of it what only the value makes."""
    with installation.client() as client:
        lines = b"".join(client.output(run, "signed")).splitlines()
        answer = json.loads(b"".join(client.output(run, "digest")))
    assert answer == hashlib.sha256(CANARY.encode()).hexdigest()[:16]
    signed = [json.loads(line) for line in lines]
    assert len(signed) == 40
    for one in signed:
        expected = hmac.new(CANARY.encode(), str(one["n"]).encode(), "sha256").hexdigest()
        assert one["signature"] == expected


def descendants_of(installation: Installation) -> list[int]:
    """The platform and everything that it has started, workers and their executors included."""
    from hivemesh_platform.supervisor.records import Records  # noqa: PLC0415 - reads a live folder

    records = Records(installation.state / "run").all()
    pids = [installation.pid, *(record.pid for record in records)]
    return sorted({one for pid in pids for one in descendants(pid)})


def test_what_a_step_may_not_use_is_denied_and_written_down(installation: Installation) -> None:
    store(installation, "shared.key", "first-value")
    store(installation, "shared.other", "other-value")
    store(installation, "workers.somebody-else.token", "foreign-value")
    foreign = call(installation, key=OTHERS)
    assert slug(foreign) == "secret-denied"
    assert slug(call(installation, also="shared.other")) == "secret-denied"
    denied = audited(installation, action="secrets:resolve", decision="deny")
    assert {one["object"] for one in denied} == {"workers.somebody-else.token", "shared.other"}
    record = next(one for one in denied if one["object"] == "workers.somebody-else.token")
    assert "/worker/key-user/" in str(record["actor"])
    assert str(record["on_behalf_of"]).endswith("/user/operator")
    assert record["run"] == foreign.id
    assert record["rule"] == "own-path"

    assert call(installation).state == "completed"
    allowed = audited(installation, action="secrets:resolve", decision="allow")
    assert [one["object"] for one in allowed].count("shared.key") == 2  # `also` had it too
    assert {one["action"] for one in audited(installation, action="secrets:set")} == {"secrets:set"}


def test_a_plan_refuses_what_could_not_run(installation: Installation) -> None:
    store(installation, "shared.key", "first-value")
    assert refusals(installation, {"key": "first-value"}) == ["secret-literal"]
    assert refusals(installation, {"key": "{{ vault.shared.none }}"}) == ["secret-unknown"]
    assert refusals(installation, {"key": "{{ vault.google.id }}"}) == ["secret-not-permitted"]
    assert refusals(installation, {"how": "{{ vault.shared.key }}"}) == ["secret-misplaced"]
    assert refusals(installation, {"how": "a {{ vault.shared.key }}"}) == ["secret-misplaced"]
    assert refusals(installation, {"key": "{{ vault.shared.key | upper }}"}) == ["secret-literal"]

    text = (
        "apiVersion: hivemesh/v1\nkind: Pipeline\nmetadata: {name: x, version: 1}\nsteps:\n"
        "  quick:\n    use: key.quick@1\n    with:\n      key: '{{ vault.shared.none }}'\n"
    )
    file = installation.state.parent / "x.yaml"
    file.write_text(text)
    done = installation.run_command("pipeline", "validate", str(file))
    assert done.returncode == 2, done
    assert f"{file}:8" in done.stderr


def test_values_come_by_file_or_input_and_leave_on_demand_alone(installation: Installation) -> None:
    store(installation, "shared.key", "first-value")
    listed = installation.run_command("secret", "list", "-o", "json")
    assert [one["path"] for one in json.loads(listed.stdout)] == ["shared.key"]
    shown = installation.run_command("secret", "get", "shared.key")
    assert "first-value" not in listed.stdout + shown.stdout
    revealed = installation.run_command("secret", "get", "shared.key", "--reveal")
    assert revealed.stdout == "first-value"
    assert len(audited(installation, action="secrets:reveal")) == 1

    before = call(installation).outputs
    store(installation, "shared.key", "second-value", "rotate")
    assert call(installation).outputs != before
    old = installation.run_command("secret", "get", "shared.key", "--reveal", "--version", "1")
    assert old.stdout == "first-value"
    again = installation.state.parent / "again"
    again.write_text("second-value")
    same = installation.run_command("secret", "rotate", "shared.key", "--file", str(again))
    assert same.returncode == 2
    assert "present value" in same.stderr

    assert installation.run_command("secret", "delete", "shared.key").returncode == 0
    assert refusals(installation, {}) == ["secret-unknown"]
    assert installation.run_command("secret", "delete", "shared.key", "--undo").returncode == 0
    assert call(installation).state == "completed"
    assert installation.run_command("secret", "get", "nothing").returncode == 3


@pytest.fixture
def bao(tmp_path: Path) -> Iterator[OpenBao]:
    with openbao(tmp_path / "openbao") as found:
        yield found


def vault_settings(tmp_path: Path, bao: OpenBao) -> list[str]:
    secret_id = tmp_path / "secret-id"
    secret_id.write_text(bao.secret_id)
    secret_id.chmod(0o600)
    return [
        "secrets.store=vault",
        "secrets.check_s=0.2",
        f"secrets.vault.address={bao.address}",
        f"secrets.vault.ca_file={bao.ca_file}",
        f"secrets.vault.role_id={bao.role_id}",
        f"secrets.vault.secret_id=${{file:{secret_id}}}",
    ]


def test_a_run_waits_while_the_vault_is_sealed_and_goes_on(
    tmp_path: Path, shared: Shared, bao: OpenBao
) -> None:
    settings = [*vault_settings(tmp_path, bao), "execution.batch_records=1"]
    with installed(tmp_path / "i", shared, *settings, workers=[WORKER]) as installation:
        installation.start()
        installation.until_live()
        store(installation, OWN, CANARY)
        store(installation, "shared.key", CANARY)
        kept = bao.ask("GET", "secret/data/hivemesh/shared/key")["data"]
        assert kept["data"] == {"value": CANARY}  # type: ignore[index]  # JSON

        with installation.client() as client:
            run = client.start_run(dict(PIPELINE), {"size": 60, "pause_s": 0.05}).id
        until(lambda: installation.node(run, "sign").batches_done > 3, 60, "some are signed")
        bao.seal()
        waits = "secrets sealed"
        until(lambda: waits in installation.node(run, "sign").reason, 60, "the step waits")
        assert installation.run(run).state in {"running", "waiting"}
        until(lambda: "sealed" in installation.run_command("status").stdout, 60, "status")
        doctor = installation.run_command("doctor")
        assert "secrets can be read: the vault at" in doctor.stdout
        refused = installation.run_command("secret", "list")
        assert refused.returncode == 7
        assert "sealed" in refused.stderr
        waiting = installation.state.parent
        with installation.client() as client:
            job = client.call("key.use@1", None, {"key": "{{ vault.shared.key }}"}, wait_s=0).id
        until(lambda: waits in installation.run(job).reason, 60, "the job waits")

        bao.unseal()
        ended = installation.until_ended(run)
        assert ended.state == "completed", ended
        assert next(one for one in ended.nodes if one.name == "sign").records_out == 60
        assert installation.until_ended(job).state == "completed"
        until(
            lambda: "sealed" not in installation.run_command("status").stdout, 20, "status is well"
        )
        with installation.client() as client:
            assert len(b"".join(client.output(run, "signed")).splitlines()) == 60
        assert where(CANARY, files(waiting)) == []


def test_what_the_vault_denies_to_the_platform_is_denied_and_written_down(
    tmp_path: Path, shared: Shared, bao: OpenBao
) -> None:
    with installed(
        tmp_path / "i", shared, *vault_settings(tmp_path, bao), workers=[WORKER]
    ) as found:
        found.start()
        found.until_live()
        store(found, "shared.key", CANARY)
        assert call(found).state == "completed"
        denied = """path "secret/*" { capabilities = ["deny"] }"""
        bao.ask("PUT", "sys/policies/acl/hivemesh", {"policy": denied})
        assert slug(call(found)) == "secret-denied"
        records = audited(found, action="secrets:resolve", decision="deny")
        assert [(one["object"], one["rule"]) for one in records] == [("shared.key", "store")]
        found.stop()
        assert where(bao.secret_id, files(found.state)) == []
