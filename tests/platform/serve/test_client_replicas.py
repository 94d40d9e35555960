"""`Client` at several replicas: who is asked, what is sent again, and what is not."""

import io
import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hivemesh_platform.api.whereabouts import Whereabouts
from hivemesh_sdk import api_channel
from hivemesh_sdk.client import Client
from hivemesh_sdk.contracts.names import IDEMPOTENCY_HEADER, REPLICAS_HEADER
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.errors import RemoteError
from web_support import WebAuthority

VIEW = {
    "id": "run_1",
    "pipeline": "",
    "version": 0,
    "state": "running",
    "created_at": "2026-11-22T09:00:00Z",
}


class Replica:
    """A server with the people listener's certificate; `answers` are given in turn, then the view."""

    def __init__(self, authority):
        self.asked, self.answers, self.tells = [], [], ""
        self.busy = "database-unreachable"
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = _body(self.rfile, self.headers)
                replica.asked.append((self.command, self.path, body))
                answer = replica.answers.pop(0) if replica.answers else 200
                if answer == "cut":
                    self.close_connection = True
                    self.connection.close()
                    return
                refused = problem(replica.busy, retry_after_s=0.05)
                view = json.dumps(VIEW) if answer == 200 else _json(refused)
                self.send_response(answer)
                self.send_header("content-length", str(len(view)))
                if replica.tells:
                    self.send_header(REPLICAS_HEADER, replica.tells)
                self.end_headers()
                self.wfile.write(view.encode())

            do_POST = do_GET  # noqa: N815 - named by the library

            def log_message(self, *_):
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = authority.server.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None  # connections that are cut
        self.url = f"https://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


def _body(file, headers):
    if "transfer-encoding" not in headers:
        return file.read(int(headers.get("content-length", 0)))
    body = b""
    while size := int(file.readline(), 16):
        body += file.read(size)
        file.readline()
    file.readline()
    return body


def _pipe(data):
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return os.fdopen(reading, "rb")


class Unpacked(io.BytesIO):
    """What a library unpacks from a pipe: it knows where it stands, and cannot go back."""

    def seek(self, *_):
        raise io.UnsupportedOperation


def _upload(client, source):
    with client._channel.exchange("POST", "/v1/artifacts", api_channel.Source(source), {}) as found:
        found.read()


def _json(document):
    return api_channel.msgspec.json.encode(document).decode()


@pytest.fixture
def authority(tmp_path):
    return WebAuthority(tmp_path, "localhost")


@pytest.fixture
def replicas(authority):
    found = [Replica(authority), Replica(authority)]
    yield found
    for one in found:
        one.stop()


@pytest.fixture
def client(replicas, authority):
    with Client.from_server(
        ",".join(one.url for one in replicas), "hm1.x.y", ca_file=authority.root
    ) as found:
        yield found


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(api_channel, "PAUSE_S", (0.001, 0.001))


async def test_the_first_is_asked_as_long_as_it_answers(client, replicas):
    for _ in range(3):
        client.run("run_1")
    assert [len(one.asked) for one in replicas] == [3, 0]


async def test_the_next_is_asked_where_the_first_cannot_be_reached(client, replicas):
    replicas[0].stop()
    assert client.cancel("run_1").id == "run_1"  # nothing had been sent, so any request may go on
    assert [len(one.asked) for one in replicas] == [0, 1]


async def test_what_reads_is_asked_again_where_the_connection_is_lost(client, replicas):
    client.run("run_1")
    replicas[0].answers = ["cut", "cut"]
    assert client.run("run_1").id == "run_1"
    assert len(replicas[1].asked) == 1


async def test_a_submit_with_a_key_is_sent_again_and_one_without_is_not(client, replicas):
    client.run("run_1")
    replicas[0].answers = ["cut", "cut"]
    assert client.submit("a.do@1", 1, idempotency_key="once").id == "run_1"
    assert [path for _, path, _ in replicas[1].asked] == ["/v1/jobs"]
    replicas[1].answers = ["cut"]
    with pytest.raises(RemoteError) as refused:
        client.submit("a.do@1", 1)
    assert refused.value.document.code == "HM-1605"
    assert len(replicas[1].asked) == 2


async def test_a_busy_replica_is_passed_over_and_two_busy_ones_are_waited_for(client, replicas):
    replicas[0].answers = [503]
    client.run("run_1")
    assert [len(one.asked) for one in replicas] == [1, 1]
    replicas[0].answers = replicas[1].answers = [503, 503, 503]
    assert client.run("run_1").id == "run_1"


async def test_one_that_stays_busy_is_given_up(client, replicas, monkeypatch):
    monkeypatch.setattr(api_channel, "PATIENCE_S", 0.2)
    replicas[0].answers, replicas[1].answers = [503] * 1000, [503] * 1000
    with pytest.raises(RemoteError) as refused:
        client.run("run_1")
    assert refused.value.document.status == 503
    assert all(one.asked for one in replicas)


async def test_a_full_disk_of_the_trail_is_not_waited_for(client, replicas):
    for one in replicas:
        one.answers, one.busy = [503] * 1000, "audit-unavailable"
    with pytest.raises(RemoteError) as refused:
        client.run("run_1")
    assert refused.value.document.code == "HM-1700"
    assert [len(one.asked) for one in replicas] == [1, 1]


async def test_nobody_is_waited_for_who_was_never_there(client, replicas):
    for one in replicas:
        one.stop()
    with pytest.raises(RemoteError) as refused:
        client.run("run_1")
    assert refused.value.document.code == "HM-1605"


async def test_others_are_learned_from_who_answers(replicas, authority):
    first, second = replicas
    first.tells = f"{first.url}, {second.url}, http://plain:1, https://[, nonsense"
    with Client.from_server(first.url, "hm1.x.y", ca_file=authority.root) as client:
        client.run("run_1")
        first.stop()
        client._channel.close()
        assert client.run("run_1").id == "run_1"
    assert len(second.asked) == 1


async def test_a_token_goes_to_no_other_host_that_any_authority_may_have_certified(
    replicas, authority, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.root))  # a root of this machine
    first, second = replicas
    first.tells = f"{second.url}, https://elsewhere.test:443"
    with Client.from_server(first.url, "hm1.x.y") as client:
        client.run("run_1")
        assert [one.host for one in client._channel._addresses] == ["localhost", "localhost"]
        first.stop()
        client._channel.close()
        assert client.run("run_1").id == "run_1"


async def test_a_certificate_of_a_foreign_root_ends_it(replicas, tmp_path):
    (tmp_path / "other").mkdir()
    foreign = WebAuthority(tmp_path / "other", "localhost")
    url = ",".join(one.url for one in replicas)
    with (
        Client.from_server(url, "hm1.x.y", ca_file=foreign.root) as client,
        pytest.raises(RemoteError, match="certificate was not accepted"),
    ):
        client.run("run_1")
    assert [len(one.asked) for one in replicas] == [0, 0]


@pytest.mark.parametrize("urls", [["https://a:1", "https://b:1"], ["https://a:1"], [""]])
async def test_answers_name_the_replicas_where_there_are_several(urls):
    sent = []

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.extend(message["headers"])

    await Whereabouts(app, lambda: urls)({"type": "http"}, None, send)
    told = [(REPLICAS_HEADER.encode(), b"https://a:1, https://b:1")] if len(urls) > 1 else []
    assert sent == told


async def test_what_can_be_read_once_is_uploaded(client, replicas):
    for data in (b"first", b"second"):
        with _pipe(data) as source:
            _upload(client, source)
    assert [body for _, _, body in replicas[0].asked] == [b"first", b"second"]


async def test_an_upload_begins_where_its_file_stands_and_does_so_again(client, replicas):
    source = io.BytesIO(b"header data")
    source.seek(7)
    client.run("run_1")
    replicas[0].answers = ["cut"]
    _upload(client, source)
    assert [body for _, _, body in replicas[0].asked] == [b"", b"data", b"data"]


async def test_what_cannot_be_read_again_is_not_sent_again(client, replicas):
    client.run("run_1")
    replicas[0].answers = ["cut"]
    with pytest.raises(RemoteError) as refused:
        _upload(client, Unpacked(b"data"))
    assert refused.value.document.code == "HM-1605"
    assert [body for _, _, body in replicas[0].asked] == [b"", b"data"]


async def test_what_can_be_read_once_goes_on_a_connection_that_is_open_for_sure(client, replicas):
    client.run("run_1")
    client._channel._connection.sock.shutdown(socket.SHUT_RDWR)  # as one that was idle for long
    with _pipe(b"data") as source:
        _upload(client, source)
    assert [body for _, _, body in replicas[0].asked] == [b"", b"data"]


def test_a_key_makes_a_request_repeatable():
    assert api_channel._does_no_harm("POST", {IDEMPOTENCY_HEADER: "k"})
    assert not api_channel._does_no_harm("POST", {})
    assert not api_channel._does_no_harm("DELETE", {})
