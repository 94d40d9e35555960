"""What people do with secrets is written down before it happens, and stays within their tenant."""

import asyncio
from dataclasses import replace

import pytest
from hivemesh_platform.credentials.errors import SecretMissingError
from hivemesh_platform.credentials.service import SecretService
from hivemesh_sdk.errors import InvalidError
from secret_support import OPERATOR, MemoryStore, Trail

STRANGER = replace(OPERATOR, id="token:1", tenant="acme")


class Parts:
    def __init__(self):
        self.store = MemoryStore(mail__password="one")
        self.trail = Trail()
        self.service = SecretService(self.store, self.trail, check_s=0.001)


@pytest.fixture
def parts():
    return Parts()


async def test_a_store_that_answers_in_an_unforeseen_way_is_sealed_until_it_answers(
    parts, monkeypatch
):
    async def sealed():
        message = "a redirect to another host"
        raise OSError(message)

    with monkeypatch.context() as patched:
        patched.setattr(parts.store, "sealed", sealed)
        assert "a redirect to another host" in await parts.service.check()
        assert parts.service.sealed
    assert not await parts.service.check()


async def test_each_change_is_written_down_without_the_value(parts):
    service = parts.service
    await service.set(OPERATOR, "a.b", "first-value")
    await service.rotate(OPERATOR, "a.b", "second-value")
    await service.reveal(OPERATOR, "a.b")
    await service.delete(OPERATOR, "a.b")
    assert [one.action for one in parts.trail.events] == [
        "secrets:set",
        "secrets:rotate",
        "secrets:reveal",
        "secrets:delete",
    ]
    assert "value" not in repr(parts.trail.events)


@pytest.mark.parametrize("verb", ["set", "rotate", "delete", "restore", "reveal"])
async def test_nothing_happens_that_cannot_be_written_down(parts, verb):
    parts.trail.broken = OSError(28, "the disk is full")
    arguments = ("two",) if verb in {"set", "rotate"} else ()
    with pytest.raises(OSError, match="full"):
        await getattr(parts.service, verb)(OPERATOR, "mail.password", *arguments)
    assert parts.store.values == {"mail.password": ["one"]}


async def test_what_failed_is_written_down_as_that(parts):
    with pytest.raises(SecretMissingError):
        await parts.service.rotate(OPERATOR, "nothing", "x")
    assert [one[2] for one in parts.trail.said] == ["allow", "deny"]


async def test_a_rotation_brings_a_new_value(parts):
    with pytest.raises(InvalidError, match="present value"):
        await parts.service.rotate(OPERATOR, "mail.password", "one")
    assert (await parts.service.rotate(OPERATOR, "mail.password", "two")).version == 2


async def test_tenants_see_their_own(parts):
    service = parts.service
    await service.set(STRANGER, "mail.password", "theirs")
    assert (await service.reveal(STRANGER, "mail.password")).value == "theirs"
    assert (await service.reveal(OPERATOR, "mail.password")).value == "one"
    assert [one.path for one in await service.entries(STRANGER)] == ["mail.password"]
    assert [one.path for one in await service.entries(OPERATOR)] == ["mail.password"]
    assert await service.unknown(frozenset({"mail.password"}), "other") == {"mail.password"}


@pytest.mark.parametrize("verb", ["set", "rotate", "delete", "restore", "reveal", "describe"])
async def test_nobody_reaches_the_secrets_of_a_tenant_by_where_they_lie(parts, verb):
    await parts.service.set(STRANGER, "mail.password", "theirs")
    arguments = ("ours",) if verb in {"set", "rotate"} else ()
    with pytest.raises(InvalidError, match="tenants"):
        await getattr(parts.service, verb)(OPERATOR, "tenants.acme.mail.password", *arguments)
    with pytest.raises(InvalidError, match="tenants"):
        await parts.service.entries(OPERATOR, "tenants.acme")
    place = frozenset({"tenants.acme.mail.password"})
    assert await parts.service.unknown(place) == place


async def test_what_is_unknown_cannot_be_said_while_the_store_is_sealed(parts):
    paths = frozenset({"mail.password", "nothing"})
    assert await parts.service.unknown(paths) == {"nothing"}
    parts.store.reason = "sealed"
    assert await parts.service.unknown(paths) == frozenset()
    assert parts.service.sealed == "sealed"


async def test_who_waits_is_told_when_the_store_was_unsealed(parts):
    opened = asyncio.Event()
    parts.store.reason = "sealed"
    watch = asyncio.create_task(parts.service.watch(opened.set))
    while not parts.service.sealed:  # noqa: ASYNC110 - the watch tells nobody of this
        await asyncio.sleep(0)
    assert not opened.is_set()
    parts.store.reason = ""
    async with asyncio.timeout(30):
        await opened.wait()
    assert parts.service.sealed == ""
    watch.cancel()
