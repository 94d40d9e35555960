from http import HTTPStatus
from pathlib import Path

import pytest
from hivemesh_platform.audit.index import Query
from hivemesh_platform.replicas.model import Urls
from hivemesh_platform.replicas.service import Replicas
from hivemesh_platform.storage.errors import DatabaseUnreachableError
from hivemesh_sdk.contracts.instances import Refusal
from hivemesh_sdk.errors import RemoteError
from platform_support import ask, install, join, member, platform
from registry_support import heartbeat, manifest

pytestmark = pytest.mark.integration


async def test_a_worker_enrols_registers_and_is_listed(tmp_path: Path) -> None:
    worker = install(tmp_path)
    async with platform(tmp_path) as found, member(found, worker) as (instance, client):
        await client.heartbeat(instance, heartbeat(active=1))
        status = await ask(found, "status")
        (capability,) = await ask(found, "capabilities")
        endpoints = (await client.discovery(-1, wait_s=0)).endpoints
    assert status.live_instances == 1
    assert (capability.id, capability.live_instances) == ("echo.say@1", 1)
    assert [endpoint.instance for endpoint in endpoints] == [instance]


async def test_a_token_is_used_once(tmp_path: Path) -> None:
    worker = install(tmp_path)
    async with platform(tmp_path) as found:
        token = await found.enrolment.create_token("echo")
        await join(found, worker, token=token)
        with pytest.raises(RemoteError) as refused:
            await join(found, worker, token=token)
    assert refused.value.document.code == "HM-1106"


async def test_a_worker_may_not_speak_for_another(tmp_path: Path) -> None:
    worker = install(tmp_path)
    async with (
        platform(tmp_path) as found,
        member(found, worker) as (instance, _),
        member(found, worker) as (_, other),
    ):
        with pytest.raises(RemoteError) as refused:
            await other.heartbeat(instance, heartbeat())
    assert refused.value.document.code == "HM-1105"


async def test_an_undeclared_capability_is_refused(tmp_path: Path) -> None:
    install(tmp_path)
    more = manifest(capabilities=[{"id": "echo.steal@1", "kind": "call"}])
    async with platform(tmp_path) as found:
        with pytest.raises(RemoteError) as refused:
            async with member(found, more):
                pass
    assert refused.value.document.code == "HM-1304"


async def test_who_leaves_is_gone_at_once(tmp_path: Path) -> None:
    worker = install(tmp_path)
    async with platform(tmp_path) as found, member(found, worker) as (instance, client):
        await client.deregister(instance)
        assert not (await client.discovery(-1, wait_s=0)).endpoints


async def test_whom_a_worker_refused_is_in_the_audit_trail(tmp_path: Path) -> None:
    worker = install(tmp_path)
    async with platform(tmp_path) as found, member(found, worker) as (instance, client):
        peer = f"spiffe://{found.authority.trust_domain}/worker/other/i2"
        refusal = Refusal(peer=peer, reason="other-audience", count=3)
        await client.heartbeat(instance, heartbeat(refusals=[refusal]))
        (record,) = await found.audit_service.find(Query(action="access:refused"))
    assert record.actor.endswith(f"/worker/echo/{instance}")
    assert (record.object, record.decision, record.count) == (peer, "deny", 3)


async def test_a_report_that_is_passed_on_to_another_replica_counts_there_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(_: object) -> list[Urls]:
        message = "this replica does not reach the database; ask another one"
        raise DatabaseUnreachableError(message)

    monkeypatch.setattr(Replicas, "told", cut_off)
    worker = install(tmp_path)
    async with platform(tmp_path) as found, member(found, worker) as (instance, client):
        refusal = Refusal(peer="", reason="no-certificate", count=3)
        with pytest.raises(RemoteError) as passed_on:
            await client.heartbeat(instance, heartbeat(refusals=[refusal]))
        records = await found.audit_service.find(Query(action="access:refused"))
    assert passed_on.value.document.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert records == []
