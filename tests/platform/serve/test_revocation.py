"""What a decision to refuse somebody does in a running platform, at once."""

import pytest
from hivemesh_platform.cli.doctor import _quarantine
from hivemesh_sdk.contracts.problems import slug_of
from hivemesh_sdk.errors import RemoteError
from hivemesh_sdk.lifecycle.platform import PlatformClient
from hivemesh_sdk.transport import MeshClient
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.trust.enrolment import renewal_by
from hivemesh_sdk.trust.keys import certificate_request, new_key
from platform_support import address, ask, install, join, member, platform
from registry_support import heartbeat

pytestmark = pytest.mark.integration


def slugs(refused) -> str:
    return slug_of(refused.value.document)


async def test_an_evicted_instance_is_refused_on_its_open_connection_and_forgotten(tmp_path):
    found = install(tmp_path)
    async with platform(tmp_path) as running, member(running, found) as (instance, client):
        await client.heartbeat(instance, heartbeat())
        (denial,) = await ask(running, "deny", "evict", instance, "strange load")
        assert (denial.kind, denial.by.rpartition("/")[2]) == ("eviction", "operator")
        assert not running.registry.instances()
        with pytest.raises(RemoteError) as refused:
            await client.heartbeat(instance, heartbeat())
        assert slugs(refused) == "peer-revoked"
        assert (await join(running, found)).svid.id.path[1] == found.metadata.name


async def test_a_banned_worker_does_not_enrol_until_the_ban_is_lifted(tmp_path):
    found = install(tmp_path)
    async with platform(tmp_path) as running:
        await ask(running, "deny", "ban", found.metadata.name, "stolen")
        with pytest.raises(RemoteError) as refused:
            await join(running, found)
        assert slugs(refused) == "enrolment-refused"
        assert await ask(running, "lift", found.metadata.name, "found again") == []
        assert await join(running, found)


async def test_the_platforms_own_certificate_is_refused_by_nobody(tmp_path):
    async with platform(tmp_path) as running:
        own = running.source.svid().serial
        for target in (f"serial:{own:x}", f"spiffe://{running.authority.trust_domain}/user/*"):
            with pytest.raises(RemoteError) as refused:
                await ask(running, "deny", "ban", target, "a mistake")
            assert "platform or its operator" in str(refused.value)


async def test_a_denial_holds_over_a_restart_before_the_first_request(tmp_path):
    found = install(tmp_path)
    async with platform(tmp_path) as running:
        identity = await join(running, found)
        await ask(running, "deny", "evict", str(identity.svid.id), "stolen")
    async with platform(tmp_path) as running:
        host, port = address(running.mesh_url)
        async with MeshClient(identity.source()) as mesh:
            target = Target.platform(host, port, identity.bundle.trust_domain)
            with pytest.raises(RemoteError) as refused:
                await PlatformClient(mesh, target).heartbeat("i1", heartbeat())
        assert slugs(refused) == "peer-revoked"


async def test_two_keys_that_renew_from_one_certificate_are_reported(tmp_path):
    found = install(tmp_path)
    async with platform(tmp_path) as running:
        identity = await join(running, found)
        host, port = address(running.mesh_url)
        target = Target.platform(host, port, identity.bundle.trust_domain)
        renew = renewal_by(identity.source(), target)
        assert await renew(certificate_request(new_key()))
        with pytest.raises(RemoteError) as refused:
            await renew(certificate_request(new_key()))
        assert slugs(refused) == "renewal-refused"
        who = str(identity.svid.id)
        assert (await ask(running, "status")).quarantined == [who]
        metrics = (await ask(running, "_read", "GET", "/metrics")).decode()
        assert 'hivemesh_denials{kind="quarantine"} 1.0' in metrics
        (told,) = _quarantine([who])
        assert (told.verdict, who in told.fix) == ("failure", True)
        await ask(running, "lift", who, "a copied container")
        assert (await ask(running, "status")).quarantined == []


async def test_a_revoked_credential_lets_nobody_in(tmp_path):
    found = install(tmp_path)
    async with platform(tmp_path) as running:
        secret = await running.enrolment.create_credential(found.metadata.name)
        assert await join(running, found, token=secret)
        (credential,) = await ask(running, "credentials")
        assert credential.revoked_at is None
        assert (await ask(running, "revoke_credential", credential.id)).revoked_at is not None
        with pytest.raises(RemoteError) as refused:
            await join(running, found, token=secret)
        assert slugs(refused) == "enrolment-refused"
        with pytest.raises(RemoteError) as unknown:
            await ask(running, "revoke_credential", "0" * 16)
        assert unknown.value.document.status == 404


async def test_a_change_of_the_root_waits_for_the_heartbeats_of_those_who_are_live(tmp_path):
    found = install(tmp_path)
    async with platform(tmp_path) as running, member(running, found) as (instance, client):
        shown = await ask(running, "rotate", "root")
        (prepared,) = [key for key in shown.keys if key.state == "prepared"]
        assert [one.rpartition("/")[2] for one in prepared.waiting] == [instance]
        await running.rotation.tick()
        assert running.authority.changing("root")[1] == "prepared"
        bundle = running.authority.bundle()
        await client.heartbeat(instance, heartbeat(bundle_sequence=bundle.sequence))
        await running.rotation.tick()
        assert running.authority.changing("root")[1] == "tainted"
        assert (await ask(running, "roots")).sha256[0] == running.authority.root_sha256
        with pytest.raises(RemoteError) as refused:
            await ask(running, "rotate", "issuer")
        assert slugs(refused) == "ca-busy"
