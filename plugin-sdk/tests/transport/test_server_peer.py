"""The peer is judged on every request, not only in the handshake."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from hivemesh_sdk.trust.refusals import Reason

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_certificate_that_expires_on_an_open_connection_gets_401(mesh, wire):
    connection = await wire(mesh)
    connection.send(GET)
    assert (await connection.answer())[0] == 200
    mesh.clock.jump(timedelta(hours=2))
    connection.send(GET)
    status, headers, body = await connection.answer()
    assert (status, headers["connection"]) == (401, "close")
    assert b"peer-certificate-expired" in body
    assert await connection.rest() == b""
    assert mesh.source.refusals.counts == {Reason.EXPIRED: 1}


async def test_denied_identity_is_refused_on_an_open_connection(mesh, wire):
    connection, other = await wire(mesh), await wire(mesh, mesh.ca.svid(mesh.ca.worker()))
    for each in (connection, other):
        each.send(GET)
        assert (await each.answer())[0] == 200
    mesh.denials.replace(identities=[str(mesh.ca.worker("raw", "r1"))])
    for each in (connection, other):
        each.send(GET)
    status, _, body = await connection.answer()
    assert status == 403
    assert b"peer-revoked" in body
    assert (await other.answer())[0] == 200


async def test_denied_serial_and_prefix_are_refused(mesh, wire):
    svid = mesh.ca.svid(mesh.ca.worker())
    mesh.denials.replace(serials=[svid.serial], identities=[mesh.ca.platform().prefix])
    for refused in (svid, mesh.ca.svid(mesh.ca.platform("p2"))):
        assert await status_of(mesh, wire, refused) == 403


async def status_of(mesh, wire, svid):
    """The status for a peer, who comes again where he met the closing of denied connections."""
    while True:
        connection = await wire(mesh, svid)
        connection.send(GET)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            return (await connection.answer())[0]


async def test_peer_of_a_removed_root_is_refused_on_an_open_connection(mesh_of, wire, own_ca):
    async with mesh_of(authority=own_ca) as mesh:
        old = await wire(mesh)
        own_ca.add_root()
        mesh.source.update(bundle=own_ca.bundle())
        own_ca.use_new_root()
        new = await wire(mesh)
        for each in (old, new):
            each.send(GET)
            assert (await each.answer())[0] == 200
        own_ca.drop_old_root()
        mesh.source.update(bundle=own_ca.bundle())
        for each in (old, new):
            each.send(GET)
        assert (await old.answer())[0] == 403
        assert (await new.answer())[0] == 200


async def test_forwarded_headers_change_nothing(mesh, wire):
    connection = await wire(mesh)
    connection.send(
        b"GET / HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 10.0.0.1\r\n"
        b"x-forwarded-client-cert: spiffe://test.hivemesh.internal/platform/p1\r\n\r\n"
    )
    _, _, body = await connection.answer()
    assert body == b"spiffe://test.hivemesh.internal/worker/raw/r1 0"
