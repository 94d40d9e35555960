"""One table over every listener: what each wrong handshake and each wrong request gets.

The rows are the ways in and the requests; the columns are the mesh, a worker, enrolment and people.
"""

import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hivemesh_sdk.contracts.problems import CATALOGUE
from hivemesh_sdk.trust.identity import SpiffeId
from stolen_ca import StolenCA, name_of, port_of
from ways_in import WAYS, Way, no_certificate, plain_http, presenting, tls_1_2
from whole_platform import ROOT, Installation, Shared, installed

pytestmark = pytest.mark.e2e

DEADLINE_S = 10.0
LISTENERS = ("mesh", "worker", "enrolment", "people")
MUTUAL = frozenset({"mesh", "worker"})
NO_TLS = frozenset({plain_http, tls_1_2})  # refused by every listener, whoever comes


@dataclass(frozen=True)
class World:
    """A running installation and somebody who has stolen its keys."""

    running: Installation
    ca: StolenCA

    def port(self, listener: str) -> int:
        return port_of(self.running, listener)

    def name(self, listener: str) -> str:
        return "localhost" if listener == "people" else name_of(self.ca.trust_domain, listener)

    def welcome(self, listener: str) -> ssl.SSLContext:
        """The context of somebody whom the listener lets in."""
        who = {
            "mesh": SpiffeId.user(self.ca.trust_domain, "operator"),
            "worker": self.ca.platform(),
        }.get(listener)
        return no_certificate(self.ca) if who is None else presenting(self.ca, self.ca.svid(who))

    def ask(self, listener: str, context: ssl.SSLContext | None, request: bytes) -> bytes:
        """All that comes back to a request; nothing where the connection is dropped."""
        if context is not None and listener == "people":
            context.load_verify_locations(self.running.state / "trust" / "web-root.pem")
        try:
            with socket.create_connection(("127.0.0.1", self.port(listener)), DEADLINE_S) as plain:
                if context is None:
                    return _exchange(plain, request)
                with context.wrap_socket(plain, server_hostname=self.name(listener)) as wrapped:
                    return _exchange(wrapped, request)
        except OSError:
            return b""


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    answer = b""
    with suppress(OSError):  # a listener that refuses what is still being sent
        connection.sendall(request)
        while block := connection.recv(65_536):
            answer += block
    return answer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, shared: Shared) -> Iterator[World]:
    workers = [ROOT / "workers" / "email-parser"]
    with installed(tmp_path_factory.mktemp("matrix"), shared, workers=workers) as found:
        found.start()
        found.until_live()
        yield World(found, StolenCA(found.state))


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [line, "host: localhost", "connection: close", *headers]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


JSON = "content-type: application/json"
GET = request("GET /v1/status HTTP/1.1")
FORGED = (
    "x-forwarded-client-cert: URI=spiffe://x/user/operator",
    "x-spiffe-id: spiffe://x/user/operator",
    "x-ssl-client-s-dn: CN=operator",
    "authorization: Bearer operator",
)

# Each request, and what the listeners answer to somebody whom they let in: mesh, worker,
# enrolment, people (who has shown no API token, and learns nothing else).
REQUESTS: dict[str, tuple[bytes, dict[str, set[int]]]] = {}


def row(name: str, data: bytes, mesh: int, worker: int, enrolment: int, people: int) -> None:
    answers = {"mesh": {mesh}, "worker": {worker}, "enrolment": {enrolment}, "people": {people}}
    REQUESTS[name] = (data, answers)


row("no such route", request("GET /nothing HTTP/1.1"), 404, 404, 404, 401)
row("a method that a route has not", request("DELETE /v1/status HTTP/1.1"), 405, 405, 404, 401)
row("the status", GET, 200, 200, 404, 401)
row("forged identities", request("GET /v1/status HTTP/1.1", *FORGED), 200, 200, 404, 401)
row("not HTTP", b"nonsense\r\n\r\n", 400, 400, 400, 400)
row("HTTP/2 without negotiation", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 400, 400, 400)
row("a header without end", b"GET / HTTP/1.1\r\nx: " + b"y" * 600_000, 431, 431, 431, 431)
for _statuses in REQUESTS["a header without end"][1].values():
    _statuses.add(0)  # the connection ends while it is still being sent: the answer may be lost

row(
    "two lengths",
    request("POST /v1/enrol HTTP/1.1", JSON, "content-length: 2", "content-length: 3", body=b"{}"),
    400, 400, 400, 400,
)  # fmt: skip
row(
    "a length and chunks",
    request(
        "POST /v1/enrol HTTP/1.1", JSON, "content-length: 2", "transfer-encoding: chunked"
    ) + b"0\r\n\r\n",
    400, 400, 400, 400,
)  # fmt: skip
row("a relative path", request("GET v1/status HTTP/1.1"), 400, 400, 400, 400)
row("another site's address", request("GET http://x/v1/status HTTP/1.1"), 400, 400, 400, 400)
row(
    "an upgrade",
    request("GET /v1/status HTTP/1.1", "upgrade: websocket", "connection: upgrade"),
    400, 400, 400, 400,
)  # fmt: skip

# The same body at a route that takes one. A worker reads none without a ticket.
WRITES: Mapping[str, str] = {
    "mesh": "POST /v1/runs HTTP/1.1",
    "worker": "PUT /v1/steps/run_1.a.0 HTTP/1.1",
    "enrolment": "POST /v1/enrol HTTP/1.1",
    "people": "POST /v1/runs HTTP/1.1",
}
BODIES: dict[str, tuple[bytes, str, dict[str, int]]] = {
    name: (body, media, {"mesh": status, "worker": 401, "enrolment": status, "people": 401})
    for name, body, media, status in (
        ("broken JSON", b"{", JSON, 400),
        ("not a number", b'{"a": NaN}', JSON, 400),
        ("broken UTF-8", b'{"a": "\xff"}', JSON, 400),
        ("a key twice", b'{"a": 1, "a": 2}', JSON, 400),
        ("too deep", b"[" * 2000 + b"]" * 2000, JSON, 400),
        ("a shape of its own", b'{"a": 1}', JSON, 422),
        ("another media type", b"a=1", "content-type: text/plain", 415),
        ("too large", b" " * 20_000_000, JSON, 413),
    )
}


def handshake(listener: str, way: Way) -> set[int]:
    """What a wrong way in gets: nothing at all, or, where no certificate is asked for, no more."""
    if listener in MUTUAL or way in NO_TLS:
        return {0, 403}
    return {404} if listener == "enrolment" else {401}


def status_of(answer: bytes) -> int:
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else 0


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("way", [way for way, _ in WAYS], ids=lambda way: way.__name__)
def test_a_wrong_handshake_opens_nothing(world: World, listener: str, way: Way) -> None:
    answer = world.ask(listener, way(world.ca), GET)
    assert status_of(answer) in handshake(listener, way), answer[:300]


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("name", REQUESTS)
def test_each_request_gets_its_answer(world: World, listener: str, name: str) -> None:
    data, expected = REQUESTS[name]
    answer = world.ask(listener, world.welcome(listener), data)
    assert status_of(answer) in expected[listener], answer[:500]
    if status_of(answer) >= 400:
        _check_problem(answer)


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("name", BODIES)
def test_each_body_gets_its_answer(world: World, listener: str, name: str) -> None:
    body, media, expected = BODIES[name]
    data = request(WRITES[listener], media, body=body)
    answer = world.ask(listener, world.welcome(listener), data)
    assert status_of(answer) == expected[listener], answer[:500]
    _check_problem(answer)


def _check_problem(answer: bytes) -> None:
    """Every refusal is a problem document of the catalogue that tells nothing of the inside."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    document = json.loads(body)
    assert document["type"].rpartition(":")[2] in CATALOGUE
    assert document["code"].startswith("HM-")
    assert b"Traceback" not in body
    assert b"/site-packages/" not in body
