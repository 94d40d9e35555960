"""A real worker process under a policy: denials on open connections, changed and older documents."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hivemesh_sdk.contracts.policy import DenyList
from hivemesh_sdk.contracts.problems import Problem, slug_of
from hivemesh_sdk.testing.fake_policies import PLATFORM_MAY_CALL, FakePolicies
from hivemesh_sdk.testing.harness import WorkerHarness
from hivemesh_sdk.testing.instance import Step
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.transport.errors import WorkerUnreachableError

TEXT_WORKER = Path(__file__).parents[1] / "testing" / "text-worker"

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def worker():
    with WorkerHarness(TEXT_WORKER) as found:
        yield found


def refused_with(worker: WorkerHarness) -> str:
    """The slug that a step is refused with, "" where it runs."""
    page = worker.put(worker.key(), Step.of("text.spin@1", "call", bodies=[b"3"]))
    return page.slug


def until_taken(worker: WorkerHarness, slug: str) -> None:
    """Ask until the worker answers so; the harness ends what takes too long."""
    while refused_with(worker) != slug:
        pass


def tell(worker: WorkerHarness, change: Callable[[FakePolicies], None]) -> None:
    """Change the policy on the loop of the platform."""

    async def changed() -> None:
        change(worker.platform.policies)

    worker.run(changed())


async def refusal(client: MeshClient, target: Target) -> str:
    try:
        response = await client.request(target, "GET", "/v1/status", deadline_s=30)
    except WorkerUnreachableError:  # the denial came while it was answered
        return await refusal(client, target)
    return slug_of(msgspec.json.decode(response.body, type=Problem))


async def banned_while_connected(worker: WorkerHarness) -> list[str]:
    """What a peer and its neighbour are told, in order, on connections that stay open."""
    ca, target, policies = worker.platform.ca, worker.member.target, worker.platform.policies
    banned, neighbour = ca.worker("parser", "i1"), ca.worker("other", "i1")
    async with MeshClient(ca.source(banned)) as own, MeshClient(ca.source(neighbour)) as other:
        seen = [await refusal(own, target)]
        policies.sign(DenyList(identities=[f"spiffe://{ca.trust_domain}/worker/parser/*"]))
        while seen[-1] == "not-authorized":
            seen.append(await refusal(own, target))
        seen += [await refusal(other, target), await refusal(own, target)]
        policies.sign()
        while seen[-1] == "peer-revoked":
            seen.append(await refusal(own, target))
        return seen


def test_a_denied_peer_is_refused_on_its_open_connection_and_nobody_else(worker):
    seen = worker.run(banned_while_connected(worker), within_s=30)
    told = [one for one, before in zip(seen, ["", *seen], strict=False) if one != before]
    assert told == [
        "not-authorized",  # a worker may not look at another one
        "peer-revoked",
        "not-authorized",  # the neighbour
        "peer-revoked",
        "not-authorized",  # the denial was lifted
    ]


def test_a_changed_policy_is_in_force_and_a_forged_or_older_one_is_not(worker):
    assert refused_with(worker) == ""
    present = worker.platform.policies.token
    tell(worker, lambda policies: policies.apply({}))
    until_taken(worker, "not-authorized")
    tell(worker, lambda policies: policies.announce(present))  # by this one it was allowed
    log = worker.process.log
    while '"detail": "it is older"' not in log():
        assert refused_with(worker) == "not-authorized"
    tell(worker, lambda policies: policies.announce(f"{present[:-4]}AAAA"))
    while log().count("policy_refused") < 2:
        assert refused_with(worker) == "not-authorized"
    assert (
        b"hivemesh_worker_policies_refused_total 0.0" not in worker.request("GET", "/metrics").body
    )
    tell(worker, lambda policies: policies.apply(PLATFORM_MAY_CALL))
    until_taken(worker, "")
    version = worker.platform.policies.version
    metrics = worker.request("GET", "/metrics").body.decode()
    assert f"hivemesh_worker_policy_version {float(version)}" in metrics
    assert "hivemesh_worker_policy_stale 0.0" in metrics


def test_the_policy_outlives_the_platform():
    with WorkerHarness(TEXT_WORKER) as worker:
        assert refused_with(worker) == ""
        worker.run(worker.platform.close_listeners())
        assert refused_with(worker) == ""
