"""The listeners of a running installation refuse every wrong way in, and say why."""

import asyncio
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as forms
from hivemesh_sdk.errors import HivemeshError, RemoteError
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.trust.enrolment import Identity, Newcomer, enrol
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.source import IdentitySource
from hivemesh_sdk.trust.tokens import Token
from mail import submit, write_mbox
from stolen_ca import StolenCA, name_of, port_of
from ways_in import WAYS, Way, no_certificate, plain_http, tls_1_2
from whole_platform import Installation, Shared, group_of, installed, until

pytestmark = pytest.mark.e2e

GET = b"GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
DEADLINE_S = 10.0
KEY_MARKS = (
    b"PRIVATE KEY",
    bytes.fromhex("30770201010420"),  # SEC 1, P-256
    bytes.fromhex("06082a8648ce3d030107046d306b0201010420"),  # PKCS 8, P-256
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shared: Shared) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("security"), shared) as found:
        found.start()
        found.until_live()
        yield found


@pytest.fixture(scope="module")
def ca(running: Installation) -> StolenCA:
    return StolenCA(running.state)


def send_raw(port: int, context: ssl.SSLContext | None, name: str) -> bytes:
    """What comes back to one request; nothing where the connection is dropped."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as plain:
            if context is None:
                plain.sendall(GET)
                return plain.recv(4096)
            with context.wrap_socket(plain, server_hostname=name) as wrapped:
                wrapped.sendall(GET)
                return wrapped.recv(4096)
    except OSError:
        return b""


@pytest.mark.parametrize(("way", "reason"), WAYS, ids=lambda item: getattr(item, "__name__", ""))
def test_the_mesh_refuses_counts_and_logs(running, ca, way: Way, reason: str) -> None:
    metric = "hivemesh_peers_refused_total{" + (f'reason="{reason}"' if reason else "")
    before = running.metric(metric)
    answer = send_raw(port_of(running, "mesh"), way(ca), name_of(ca.trust_domain, "mesh"))
    assert b" 200 " not in answer
    until(lambda: running.metric(metric) > before, 60, f"{reason} was counted")
    if reason:
        assert f'"reason": "{reason}"' in running.log()


@pytest.mark.parametrize(("way", "reason"), WAYS, ids=lambda item: getattr(item, "__name__", ""))
def test_a_worker_refuses_and_logs(running, ca, way: Way, reason: str) -> None:
    assert b" 200 " not in send_raw(
        port_of(running, "worker"), way(ca), name_of(ca.trust_domain, "worker")
    )
    log = running.state / "logs" / "worker-email-parser.log"
    until(lambda: f'"reason": "{reason}' in log.read_text(), 60, f"{reason} was logged")


@pytest.mark.parametrize("way", [plain_http, tls_1_2])
def test_enrolment_speaks_tls_1_3_alone(running, ca, way: Way) -> None:
    assert (
        send_raw(port_of(running, "enrolment"), way(ca), name_of(ca.trust_domain, "enrolment"))
        == b""
    )


def test_enrolment_serves_nothing_else(running, ca) -> None:
    assert b" 404 " in send_raw(
        port_of(running, "enrolment"), no_certificate(ca), name_of(ca.trust_domain, "enrolment")
    )


async def status_of(ca: StolenCA, who: SpiffeId, target: Target, method: str, path: str) -> int:
    """The status that a peer with a valid certificate gets."""
    async with MeshClient(IdentitySource(ca.svid(who), ca.bundle())) as client:
        response = await client.request(
            target,
            method,
            path,
            headers={"content-type": "application/json"},
            body=b"{}" if method != "GET" else b"",
            deadline_s=DEADLINE_S,
        )
    return response.status


def platform_of(running: Installation, ca: StolenCA) -> Target:
    return Target.platform("127.0.0.1", port_of(running, "mesh"), ca.trust_domain)


@pytest.mark.parametrize(
    "path", ["/v1/runs", "/v1/workers", "/v1/config", "/v1/datasets", "/metrics"]
)
async def test_a_worker_sees_nothing_of_the_operators(running, ca, path: str) -> None:
    assert (
        await status_of(ca, ca.worker("email-parser"), platform_of(running, ca), "GET", path) == 403
    )


async def test_an_operator_cannot_register_an_instance(running, ca) -> None:
    operator = SpiffeId.user(ca.trust_domain, "operator")
    path = "/v1/instances/wi-1"
    assert await status_of(ca, operator, platform_of(running, ca), "PUT", path) == 403


async def test_another_worker_cannot_read_an_artifact(running, ca, tmp_path: Path) -> None:
    run = submit(running, write_mbox(tmp_path / "mail.mbox", 3000))
    sha256 = running.run(run).parameters["archive"]["sha256"]
    path = f"/v1/artifacts/{sha256}?step={run}.parse.0&attempt=1"
    until(lambda: running.node(run, "parse").records_out, 60, "the step is held")
    for who in (ca.worker("email-classifier"), ca.worker("email-parser", "another")):
        assert await status_of(ca, who, platform_of(running, ca), "GET", path) == 401
    running.until_ended(run)


@pytest.mark.parametrize(("kind", "status"), [("worker", 401), ("user", 403)])
async def test_only_the_platform_may_run_steps_at_a_worker(
    running, ca, kind: str, status: int
) -> None:
    who = (
        ca.worker("email-classifier") if kind == "worker" else SpiffeId.user(ca.trust_domain, "ada")
    )
    instance = running.instances("email-parser")[0]
    target = Target.instance(
        "127.0.0.1", port_of(running, "worker"), SpiffeId.parse(instance.identity)
    )
    assert await status_of(ca, who, target, "PUT", "/v1/steps/run_1.parse.0") == status


def token(running: Installation, worker: str, lifetime_s: float = 600.0) -> Token:
    with running.client() as client:
        return Token.parse(client.join_token(worker, lifetime_s=lifetime_s))


async def join(running: Installation, secret: Token, worker: str) -> Identity | HivemeshError:
    try:
        return await enrol(
            "127.0.0.1", port_of(running, "enrolment"), secret, Newcomer(worker=worker)
        )
    except HivemeshError as error:
        return error


async def test_a_token_lets_one_of_fifty_in(running) -> None:
    secret = token(running, "email-parser")
    answers = await asyncio.gather(*(join(running, secret, "email-parser") for _ in range(50)))
    assert sum(isinstance(answer, Identity) for answer in answers) == 1
    assert all(isinstance(answer, Identity | RemoteError) for answer in answers), answers


async def test_a_token_is_for_one_worker(running) -> None:
    answer = await join(running, token(running, "email-parser"), "email-classifier")
    assert isinstance(answer, RemoteError)


async def test_a_token_expires(running) -> None:
    secret = token(running, "email-parser", lifetime_s=1.0)
    made = time.monotonic()
    until(lambda: time.monotonic() > made + 1.5, 60, "the token's life is over")
    assert isinstance(await join(running, secret, "email-parser"), RemoteError)


def test_no_private_key_of_a_worker_is_on_disk(running) -> None:
    workers = [
        one for name in ("email-parser", "email-classifier") for one in running.instances(name)
    ]
    files = {path for path in running.state.parent.rglob("*") if path.is_file()}
    files |= {path for path in Path(tempfile.gettempdir()).iterdir() if path.is_file()}
    for pid in {pid for one in workers for pid in group_of(one.pid)}:
        files |= {path for path in Path(f"/proc/{pid}/cwd").resolve().iterdir() if path.is_file()}
    since = (running.state / "lock").stat().st_mtime
    own = {running.state / "trust", running.state / "operator"}  # the platform's and the operator's
    found = [
        path
        for path in files
        if not own & set(path.parents) and path.stat().st_mtime >= since and holds_key(path)
    ]
    assert not found


def holds_key(path: Path) -> bool:
    data = path.read_bytes()
    return any(mark in data for mark in KEY_MARKS)


def test_the_search_for_keys_finds_one(running, ca, tmp_path: Path) -> None:
    key = ca.svid(ca.worker()).key
    for name, form in (
        ("sec1", forms.PrivateFormat.TraditionalOpenSSL),
        ("pkcs8", forms.PrivateFormat.PKCS8),
    ):
        path = tmp_path / name
        path.write_bytes(key.private_bytes(forms.Encoding.DER, form, forms.NoEncryption()))
        assert holds_key(path)
