"""Leaves, issuers and roots change under load without one failed call."""

import asyncio

import pytest
from hivemesh_sdk.transport import MeshClient, TransportError


class Load:
    """Calls in a loop, on kept and on fresh connections, and remembers what failed."""

    def __init__(self, mesh, caller):
        self.mesh, self.caller = mesh, caller
        self.done, self.failed = 0, []
        self.goal, self.reached = 0, asyncio.Event()

    async def kept(self, client):
        while True:
            await self._call(client)

    async def fresh(self):
        while True:
            async with MeshClient(self.caller) as client:
                await self._call(client)

    async def _call(self, client):
        try:
            response = await client.request(self.mesh.target, "GET", "/", deadline_s=30)
        except TransportError as error:
            self.failed.append(error)
        else:
            if response.status != 200:
                self.failed.append(response)
        self.done += 1
        if self.done >= self.goal:
            self.reached.set()

    async def more(self, calls):
        self.goal = self.done + calls
        self.reached.clear()
        await self.reached.wait()


async def test_rotation_under_load_fails_no_call(mesh_of, own_ca):
    async with mesh_of(authority=own_ca) as mesh:
        caller = own_ca.source(own_ca.worker())
        load = Load(mesh, caller)
        async with MeshClient(caller) as client:
            tasks = [asyncio.create_task(load.kept(client)) for _ in range(4)]
            tasks += [asyncio.create_task(load.fresh()) for _ in range(2)]

            async def renew():
                for source, identity in (
                    (mesh.source, own_ca.platform()),
                    (caller, own_ca.worker()),
                ):
                    source.update(svid=own_ca.svid(identity), bundle=own_ca.bundle())
                    await load.more(20)

            for _ in range(3):
                await renew()
            own_ca.rotate_issuer()
            await renew()
            own_ca.add_root()
            await renew()
            own_ca.use_new_root()
            await renew()
            own_ca.drop_old_root()
            await renew()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    assert load.failed == []
    assert load.done >= 200


async def test_client_of_a_removed_root_is_refused(mesh_of, own_ca):
    late = own_ca.source(own_ca.worker())
    async with mesh_of(authority=own_ca) as mesh:
        own_ca.add_root()
        late.update(bundle=own_ca.bundle())
        own_ca.use_new_root()
        own_ca.drop_old_root()
        mesh.source.update(svid=own_ca.svid(own_ca.platform()), bundle=own_ca.bundle())
        async with MeshClient(late) as client:
            with pytest.raises(TransportError, match="certificate"):
                await client.request(mesh.target, "GET", "/", deadline_s=30)
        assert mesh.app.requests == []


async def test_client_drops_connections_whose_root_was_removed(mesh_of, own_ca, until):
    async with mesh_of(authority=own_ca) as mesh:
        caller = own_ca.source(own_ca.worker())
        async with MeshClient(caller) as client:
            await client.request(mesh.target, "GET", "/", deadline_s=30)
            own_ca.add_root()
            caller.update(bundle=own_ca.bundle())
            assert client.connections == 1
            own_ca.use_new_root()
            own_ca.drop_old_root()
            caller.update(bundle=own_ca.bundle())
            assert client.connections == 0


async def test_older_bundle_does_not_replace_a_newer_one(own_ca):
    source = own_ca.source(own_ca.worker())
    before = own_ca.bundle()
    own_ca.add_root()
    source.update(bundle=own_ca.bundle())
    source.update(bundle=before)
    assert source.bundle().sequence == 2
