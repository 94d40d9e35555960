"""The policy of a running installation: changed by command, in force at every worker, denials too."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hivemesh_sdk.contracts.problems import Problem, slug_of
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.transport.errors import WorkerUnreachableError
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.source import IdentitySource
from stolen_ca import StolenCA, port_of
from whole_platform import Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

CLASSIFY = "email.classify@1"
MAIL = {"subject": "Invoice 7", "text": "Please pay.", "from": [], "to": [], "date": None}
WITHOUT_CLASSIFIER = """\
version: 1
rules:
  - id: parser-and-insights
    from: {platform: "*"}
    to: {worker: "*", capabilities: [email.parse@1, email.insights@1]}
tests:
  - {caller: platform, callee: parser, capability: email.parse@1, expect: allow}
  - {caller: platform, callee: classifier, capability: email.classify@1, expect: deny}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shared: Shared) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("policy"), shared) as found:
        found.start()
        found.until_live()
        yield found


def classified(running: Installation) -> tuple[str, dict[str, object]]:
    with running.client() as client:
        run = client.call(CLASSIFY, MAIL, {"types": ["bill"]})
    run = running.until_ended(run.id)
    return run.state.value, run.problem or {}


def test_a_worker_that_no_rule_names_gets_no_work_until_one_does(
    running: Installation, tmp_path: Path
) -> None:
    assert classified(running)[0] == "completed"
    before, file = tmp_path / "before.yaml", tmp_path / "policy.yaml"
    before.write_text(running.run_command("policy", "show").stdout)
    file.write_text(WITHOUT_CLASSIFIER)

    tried = running.run_command("policy", "apply", str(file), "--dry-run")
    assert "cut: platform -> email-classifier email.classify@1\n" in tried.stdout
    assert classified(running)[0] == "completed"

    applied = running.run_command("policy", "apply", str(file), "--yes", "--reason", "drill")
    assert applied.returncode == 0, applied.stderr
    state, problem = classified(running)
    assert (state, problem.get("code")) == ("failed", "HM-1724")
    explained = running.run_command("policy", "explain", "platform", "classifier", CLASSIFY)
    assert explained.returncode == 4
    assert "no rule covers platform -> email-classifier" in explained.stdout

    back = running.run_command("policy", "apply", str(before), "--yes")
    assert back.returncode == 0, back.stderr
    assert classified(running)[0] == "completed"
    versions = running.run_command("policy", "history", "-o", "name").stdout.split()
    assert versions == sorted(versions, key=int, reverse=True)


def test_a_document_whose_tests_fail_is_not_applied(running: Installation, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(WITHOUT_CLASSIFIER.replace("expect: deny", "expect: allow"))
    present = running.run_command("policy", "show", "-o", "name").stdout
    tested = running.run_command("policy", "test", str(file))
    assert (tested.returncode, tested.stdout.count("FAIL")) == (1, 1)
    applied = running.run_command("policy", "apply", str(file), "--yes")
    assert applied.returncode != 0
    assert "HM-1721" in applied.stderr
    assert running.run_command("policy", "show", "-o", "name").stdout == present


async def test_a_banned_worker_is_refused_by_the_others_on_open_connections(
    running: Installation,
) -> None:
    ca = StolenCA(running.state)
    instance = running.instances("email-parser")[0]
    target = Target.instance(
        "127.0.0.1", port_of(running, "worker"), SpiffeId.parse(instance.identity)
    )
    banned, other = ca.worker("email-insights", "banned"), ca.worker("email-classifier", "other")
    async with _client(ca, banned) as open_before, _client(ca, other) as neighbour:

        async def answer(client: MeshClient) -> str:
            try:
                response = await client.request(target, "GET", "/v1/status", deadline_s=10)
            except WorkerUnreachableError:  # the denial came while it was answered
                return await answer(client)
            return slug_of(msgspec.json.decode(response.body, type=Problem))

        assert await answer(open_before) == "not-authorized"
        with running.client() as client:
            client.deny("ban", str(banned), "drill")
        while await answer(open_before) != "peer-revoked":  # within the time limit of the test
            assert await answer(neighbour) == "not-authorized"
        assert await answer(neighbour) == "not-authorized"
        assert classified(running)[0] == "completed"
        with running.client() as client:
            client.lift(str(banned), "drill is over")
        while await answer(open_before) == "peer-revoked":
            assert await answer(neighbour) == "not-authorized"


def test_a_worker_that_starts_while_others_run_has_the_policy_in_force(
    running: Installation,
) -> None:
    with running.client() as client:
        client.scale("email-classifier", 2)
        version = client.policy().version
    until(lambda: len(running.instances("email-classifier")) == 2, 60, "two instances")
    log = (running.state / "logs" / "worker-email-classifier.log").read_text()
    assert log.count(f'"version": {version}') >= 2


def _client(ca: StolenCA, who: SpiffeId) -> MeshClient:
    return MeshClient(IdentitySource(ca.svid(who), ca.bundle()))
