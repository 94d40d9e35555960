"""A platform whose certificate somebody else issues: peers of that issuer and of its own get on."""

import asyncio
import os

import pytest
from hivemesh_sdk.lifecycle.platform import PlatformClient
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.transport import MeshClient, TransportError
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.trust.enrolment import fetch_bundle
from hivemesh_sdk.trust.files import FileIdentitySource, IdentityPaths
from hivemesh_sdk.trust.keys import key_pem, pem, write_private_file
from platform_support import address, ask, install, member, platform
from registry_support import manifest, registration

pytestmark = pytest.mark.integration

DOMAIN = "files.example"


@pytest.fixture
def ca() -> ThrowawayCA:
    return ThrowawayCA(DOMAIN)


def write(folder, ca, identity, *, age=0) -> IdentityPaths:
    folder.mkdir(exist_ok=True)
    svid = ca.svid(identity)
    paths = IdentityPaths(
        key=folder / "tls.key", chain=folder / "tls.crt", bundle=folder / "ca.crt"
    )
    write_private_file(paths.key, key_pem(svid.key))
    paths.chain.write_bytes(pem(svid.chain))
    paths.bundle.write_bytes(pem(ca.bundle().roots))
    for path in (paths.key, paths.chain, paths.bundle):
        os.utime(path, ns=(age, age))
    return paths


def by_files(tmp_path, ca):
    paths = write(tmp_path / "own", ca, ca.platform())
    return platform(
        tmp_path,
        **{
            "trust.identity": "files",
            "trust.trust_domain": DOMAIN,
            "trust.identity_key": str(paths.key),
            "trust.identity_chain": str(paths.chain),
            "trust.identity_bundle": str(paths.bundle),
        },
    )


async def test_the_command_and_enrolled_workers_meet_a_platform_of_another_issuer(tmp_path, ca):
    found = install(tmp_path)
    async with by_files(tmp_path, ca) as running:
        assert running.source.issuer != running.sources.embedded.issuer
        assert (await ask(running, "status")).trust_domain == DOMAIN
        async with member(running, found) as (instance, _):
            assert [one.instance.id for one in running.registry.instances()] == [instance]


async def test_a_worker_of_the_other_issuer_registers_without_enrolment(tmp_path, ca):
    found = install(tmp_path, manifest())
    async with by_files(tmp_path, ca) as running:
        source = FileIdentitySource(write(tmp_path / "worker", ca, ca.worker("echo", "i1")))
        host, port = address(running.mesh_url)
        target = Target.platform(host, port, DOMAIN)
        source.update(bundle=await fetch_bundle(source, target))
        assert source.bundle().verify_keys == running.authority.bundle().verify_keys
        async with MeshClient(source) as mesh:
            await PlatformClient(mesh, target).register("i1", registration(found))
        assert [one.instance.id for one in running.registry.instances()] == ["i1"]


async def test_changed_files_are_taken_over_while_it_serves(tmp_path, ca):
    async with by_files(tmp_path, ca) as running:
        before, roots = running.source.svid().serial, running.authority.bundle().roots
        ca.add_root()
        write(tmp_path / "own", ca, ca.platform(), age=1)
        changed = Changed(running.source)
        await changed.until(lambda: running.source.svid().serial != before)
        await changed.until(lambda: len(running.authority.bundle().roots) == len(roots) + 1)
        assert (await ask(running, "status")).ready


async def test_a_foreign_certificate_opens_nothing(tmp_path, ca):
    stranger = ThrowawayCA(DOMAIN)
    async with by_files(tmp_path, ca) as running:
        source = stranger.source(stranger.worker("echo", "i1"))
        source.update(bundle=running.authority.bundle())
        host, port = address(running.mesh_url)
        async with MeshClient(source) as mesh:
            client = PlatformClient(mesh, Target.platform(host, port, DOMAIN))
            with pytest.raises(TransportError):
                await client.register("i1", registration(manifest()))
        assert not running.registry.instances()


class Changed:
    """Waits for a condition that changes with the source."""

    def __init__(self, source) -> None:
        self._source = source

    async def until(self, condition) -> None:
        async with asyncio.timeout(30):
            while not condition():
                event = asyncio.Event()
                end = self._source.subscribe(lambda _, event=event: event.set())
                try:
                    if not condition():
                        await event.wait()
                finally:
                    end()
