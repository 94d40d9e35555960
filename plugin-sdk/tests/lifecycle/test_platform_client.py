"""What a worker says to its platform, over mutual TLS with the fake one."""

import socket

import msgspec
import pytest
from hivemesh_sdk.contracts.artifacts import GrantRequest
from hivemesh_sdk.contracts.instances import (
    HEARTBEAT_S,
    LEASE_S,
    Heartbeat,
    HeartbeatReply,
    Registration,
)
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.contracts.tickets import ExchangeRequest
from hivemesh_sdk.errors import RemoteError, RetryableError
from hivemesh_sdk.lifecycle.artifacts import GrantedArtifacts
from hivemesh_sdk.lifecycle.platform import NEXT_AFTER_S, PlatformClient
from hivemesh_sdk.lifecycle.platforms import Platforms
from hivemesh_sdk.testing.fake_platform import FakePlatform
from hivemesh_sdk.transport.balance import Discoverer
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Response, Target

REGISTRATION = Registration(
    worker="echo",
    version="1.0.0",
    manifest_digest="",
    manifest={},
    sdk_version="0.1.0",
    protocol=1,
    host="127.0.0.1",
    port=1234,
    incarnation="x",
    slots={"text.echo@1": 2},
)


@pytest.fixture
async def platform():
    async with FakePlatform() as platform:
        yield platform


@pytest.fixture
def target(platform):
    port = int(platform.environment()["HIVEMESH_PLATFORM"].rpartition(":")[2])
    return Target.platform("127.0.0.1", port, platform.ca.trust_domain)


@pytest.fixture
async def mesh(platform):
    async with MeshClient(platform.ca.source(platform.ca.worker("echo", "i1"))) as mesh:
        yield mesh


@pytest.fixture
def client(mesh, target):
    return PlatformClient(mesh, target)


@pytest.fixture
def artifacts(mesh, target):
    return GrantedArtifacts(mesh, target)


def request(artifact, operation):
    return GrantRequest(
        operation=operation, sha256=artifact.sha256, size=artifact.size, step="r.n.1", attempt=1
    )


def ticket(platform):
    return platform.tickets.of(platform.ca.worker("echo", "i1"), "r.n.1", "text.echo@1")


async def test_nothing_is_granted_without_a_ticket(artifacts, platform):
    with pytest.raises(RemoteError) as caught:
        await artifacts.grant(request(platform.put(b"x"), "get"), ticket="")
    assert caught.value.document.code == "HM-1731"


async def test_a_ticket_that_was_shown_is_exchanged(artifacts, platform):
    caller = platform.ca.worker("other", "i1")
    claims = platform.tickets.claims(
        caller, "r.n.1", "a.b@1", aud=["other", "echo"], calls=["text.echo@1"]
    )
    asked = ExchangeRequest(
        ticket=platform.tickets.sign(claims), step="r.n.1.call", capability="text.echo@1"
    )
    own = (await artifacts.exchange(asked)).ticket
    named = platform.tickets.check(own, str(platform.ca.worker("echo", "i1")), "r.n.1.call", 1)
    assert (named.sub, named.act) == (claims.sub, [str(caller)])


class Full:
    """A mesh on which the first replica has no place, or no database, and the others answer."""

    def __init__(self):
        self.asked = []

    async def request(self, target, _method, _path, **_):
        self.asked.append(target.host)
        if target.host == "a":
            body = msgspec.json.encode(problem("overloaded-server"))
            return Response(503, (), body)
        return Response(200, (), msgspec.json.encode(HeartbeatReply(bundle_sequence=1)))


async def test_a_replica_that_says_it_cannot_is_passed_over():
    mesh = Full()
    replicas = [Target.platform(name, 8443, "test.hivemesh.internal") for name in "ab"]
    client = PlatformClient(mesh, Platforms(replicas))
    for _ in range(2):
        await client.heartbeat("i1", Heartbeat(slots={}, active={}, cpu=0.0, memory=0.0))
    assert mesh.asked == ["a", "b", "b"]


async def test_an_instance_registers_beats_is_found_and_leaves(client):
    await client.register("i1", REGISTRATION)
    await client.heartbeat("i1", Heartbeat(slots={}, active={}, cpu=0.5, memory=0.1))
    discoverer = Discoverer(client.discovery)
    await discoverer.refresh()
    assert [one.port for one in discoverer.endpoints] == [1234]
    await client.deregister("i1")
    await client.deregister("i1")  # not there any more: nothing to give back
    assert (await client.discovery(0, 0.0)).endpoints == []


async def test_nobody_registers_for_another(client):
    with pytest.raises(RemoteError) as caught:
        await client.register("i2", REGISTRATION)
    assert caught.value.document.code == "HM-1105"


async def test_an_artifact_is_read_in_parts(artifacts, platform):
    artifact = platform.put(b"0123456789")
    grant = await artifacts.grant(request(artifact, "get"), ticket=ticket(platform))
    assert [await artifacts.get(grant, 0, 4), await artifacts.get(grant, 8, 99)] == [b"0123", b"89"]


async def test_an_artifact_that_is_not_there_is_refused_with_its_code(artifacts, platform):
    artifact = platform.put(b"x")
    platform.blobs.clear()
    with pytest.raises(RemoteError) as caught:
        await artifacts.grant(request(artifact, "get"), ticket=ticket(platform))
    assert caught.value.document.code == "HM-1501"


@pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024])
@pytest.mark.parametrize("as_file", [False, True])
async def test_an_artifact_is_stored_from_memory_and_from_a_file(
    artifacts, platform, tmp_path, size, as_file
):
    content = bytes(size)
    artifact = platform.put(content)
    platform.blobs.clear()
    (tmp_path / "content").write_bytes(content)
    grant = await artifacts.grant(request(artifact, "put"), ticket=ticket(platform))
    await artifacts.put(grant, tmp_path / "content" if as_file else content, size)
    assert platform.blobs == {artifact.sha256: content}
    assert (await artifacts.grant(request(artifact, "put"), ticket=ticket(platform))).present


async def test_a_grant_of_a_foreign_store_is_refused(artifacts, platform):
    grant = await artifacts.grant(request(platform.put(b"x"), "get"), ticket=ticket(platform))
    elsewhere = type(grant)(
        method="GET", url="https://example.com/x", headers={}, expires_in_s=1, present=False
    )
    with pytest.raises(RetryableError, match="another store"):
        await artifacts.get(elsewhere, 0, 1)


async def test_a_replica_that_hangs_is_passed_over_before_the_lease_ends(mesh, platform, target):
    """It takes the connection and says nothing, as a process that was stopped."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        hanging = Target(target.host, port, target.identity, target.server_name)
        platforms = Platforms([hanging, target])
        await PlatformClient(mesh, target).register("i1", REGISTRATION)
        told = []
        client = PlatformClient(mesh, platforms, told=told.append)
        await client.heartbeat("i1", Heartbeat(slots={}, active={}, cpu=0.5, memory=0.1))
        assert platforms.current == target
        assert told[0].platforms == platform.replicas
    assert 2 * HEARTBEAT_S + NEXT_AFTER_S < LEASE_S
