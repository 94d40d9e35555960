"""The deny list at both ends: callers that are named get no answer, callees that are named no byte."""

import asyncio

import pytest
from hivemesh_sdk.transport import MeshClient, PeerRefusedError, TransportError, serve
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.refusals import Reason


async def ask(client, target):
    return (await client.request(target, "GET", "/", deadline_s=60)).status


async def test_nothing_is_sent_to_whom_the_deny_list_names(mesh):
    denials, caller = Denials(), mesh.ca.source(mesh.ca.worker())
    async with MeshClient(caller, denials=denials) as client:
        assert await ask(client, mesh.target) == 200
        denials.replace(identities=[str(mesh.ca.platform())])
        with pytest.raises(PeerRefusedError, match="deny list"):
            await ask(client, mesh.target)
        assert len(mesh.app.requests) == 1
        assert caller.refusals.counts == {Reason.REVOKED: 1}
        denials.replace()
        assert await ask(client, mesh.target) == 200


async def test_what_is_being_answered_to_the_denied_is_cut_off(ca):
    begun, denials = asyncio.Event(), Denials()

    async def never(scope, receive, send):
        begun.set()
        await asyncio.Event().wait()

    source = ca.source(ca.platform())
    serving = serve(never, source, "127.0.0.1", 0, denials=denials, drain_s=0.1)
    async with serving as listener:
        target = Target.instance("127.0.0.1", listener.port, ca.platform())
        async with MeshClient(ca.source(ca.worker())) as client:
            call = asyncio.create_task(ask(client, target))
            async with asyncio.timeout(30):
                await begun.wait()
            denials.replace(identities=[ca.worker().prefix])
            async with asyncio.timeout(30):
                with pytest.raises(TransportError):
                    await call


async def test_the_others_are_answered_on(ca, mesh):
    mesh.denials.replace(identities=[str(ca.worker("echo", "i2"))])
    async with MeshClient(mesh.ca.source(mesh.ca.worker())) as client:
        assert await ask(client, mesh.target) == 200
