"""Pins what is used of uvicorn's private parts, so that an upgrade that changes them fails here."""

import inspect
from datetime import UTC, datetime

import pytest
from hivemesh_sdk.transport.protocol import MeshCycle, MeshProtocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HOOKS = (
    "connection_made",
    "connection_lost",
    "data_received",
    "on_message_begin",
    "on_url",
    "on_header",
    "on_headers_complete",
    "on_body",
    "on_message_complete",
    "on_response_complete",
    "send_400_response",
    "shutdown",
    "pause_writing",
    "resume_writing",
)


@pytest.mark.parametrize("name", HOOKS)
def test_overridden_hook_still_exists(name):
    theirs, ours = getattr(HttpToolsProtocol, name), getattr(MeshProtocol, name)
    assert ours is not theirs
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


def test_cycle_takes_the_same_arguments():
    assert list(inspect.signature(RequestResponseCycle.__init__).parameters) == [
        "self",
        "scope",
        "transport",
        "flow",
        "logger",
        "access_logger",
        "access_log",
        "default_headers",
        "message_event",
        "expect_100_continue",
        "keep_alive",
        "on_response",
    ]
    assert "cycle.run_asgi(app)" in inspect.getsource(HttpToolsProtocol._start_asgi_task)
    assert issubclass(MeshCycle, RequestResponseCycle)


def test_protocol_takes_the_same_arguments():
    assert list(inspect.signature(HttpToolsProtocol.__init__).parameters) == [
        "self",
        "config",
        "server_state",
        "app_state",
        "_loop",
    ]


async def test_peer_arrives_in_the_state_of_the_request(mesh_of, wire):
    seen = []

    async def application(scope, receive, send):
        seen.append(scope["state"]["peer"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with mesh_of(application) as mesh:
        svid = mesh.ca.svid(mesh.ca.worker())
        connection = await wire(mesh, svid)
        connection.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await connection.answer()
    assert (seen[0].id, seen[0].serial) == (mesh.ca.worker(), svid.serial)
    assert seen[0].not_after > datetime.now(UTC)


async def test_without_the_hook_every_request_is_refused(mesh_of, wire, monkeypatch):
    # The one thing that cannot be injected: uvicorn no longer calling our `connection_made`.
    monkeypatch.setattr(MeshProtocol, "connection_made", HttpToolsProtocol.connection_made)
    async with mesh_of() as mesh:
        connection = await wire(mesh)
        connection.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        status, _, body = await connection.answer()
        assert status == 401
        assert b"no-peer-identity" in body
        assert mesh.app.requests == []
