"""The store `vault` on a real OpenBao: TLS, AppRole, expiry, seal, foreign paths, transit."""

import asyncio

import pytest
from hivemesh_platform.credentials import encrypted_file, vault
from hivemesh_platform.credentials.errors import SecretDeniedError, SecretsSealedError
from hivemesh_platform.credentials.ports import StoreParts
from hivemesh_platform.settings import SecretsSettings
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.errors import ConfigurationError
from openbao import OpenBao, openbao
from secret_store_conformance import SecretStoreConformance

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with openbao(tmp_path_factory.mktemp("openbao")) as found:
        yield found


def opened(server: OpenBao, tmp_path, **changes):
    settings = SecretsSettings.model_validate({"vault": {**server.settings, **changes}})
    return StoreParts(settings=settings, folder=tmp_path / "secrets", clock=SystemClock())


@pytest.fixture
def prefix(request):
    """A place of its own per test, below what the role may use."""
    return f"hivemesh/{abs(hash(request.node.nodeid)):x}"


@pytest.fixture
def store(server, tmp_path, prefix):
    return vault.make(opened(server, tmp_path, prefix=prefix))


class TestVault(SecretStoreConformance):
    pass


class TestKeyWrappedByTransit(SecretStoreConformance):
    @pytest.fixture
    def store(self, server, tmp_path):
        return encrypted_file.make(opened(server, tmp_path, transit_key="hivemesh"))


async def test_a_record_of_others_is_read_by_its_field(server, store, prefix):
    body = {"data": {"client_id": "abc", "client_secret": "s3cret"}}
    server.ask("POST", f"secret/data/{prefix}/google", body)
    assert (await store.read("google.client_secret")).value == "s3cret"
    assert (await store.read("google.client_id")).version == 1


async def test_what_the_role_may_not_read_is_denied(server, store, tmp_path):
    foreign = vault.make(opened(server, tmp_path, prefix="somebody-else"))
    for ask in (foreign.read("a.b"), foreign.write("a.b", "x"), foreign.entries()):
        with pytest.raises(SecretDeniedError):
            await ask
    inside = vault.make(opened(server, tmp_path, prefix="hivemesh"))
    with pytest.raises(SecretDeniedError):
        await inside.read("forbidden.thing")


async def test_a_certificate_of_another_authority_is_not_spoken_to(server, tmp_path):
    stranger = vault.make(opened(server, tmp_path, ca_file=None))
    with pytest.raises(SecretsSealedError, match="does not answer"):
        await stranger.read("a.b")
    assert "does not answer" in await stranger.sealed()


@pytest.mark.parametrize("address", ["http://127.0.0.1:8200", "127.0.0.1:8200", "https://", ""])
def test_only_tls_addresses_are_taken(server, tmp_path, address):
    with pytest.raises(ConfigurationError, match=r"secrets\.vault\.address"):
        vault.make(opened(server, tmp_path, address=address))


async def test_a_wrong_secret_id_reads_nothing(server, tmp_path):
    stranger = vault.make(opened(server, tmp_path, secret_id="wrong"))
    with pytest.raises(SecretsSealedError, match="AppRole"):
        await stranger.read("a.b")


async def test_nobody_listens(server, tmp_path):
    gone = vault.make(opened(server, tmp_path, address="https://127.0.0.1:9", timeout_s=1))
    with pytest.raises(SecretsSealedError):
        await gone.read("a.b")


async def test_a_token_that_was_revoked_is_replaced(server, store):
    await store.write("a.b", "one")
    server.ask("POST", "auth/token/revoke-accessor", {"accessor": accessor_of(server)})
    assert (await store.read("a.b")).value == "one"


def accessor_of(server):
    keys = server.ask("GET", "auth/token/accessors?list=true")["data"]["keys"]
    for key in keys:
        found = server.ask("POST", "auth/token/lookup-accessor", {"accessor": key})["data"]
        if found["path"] == "auth/approle/login":
            return key
    raise AssertionError(keys)


class CountingClock(SystemClock):
    """Time that the test moves."""

    ahead = 0.0

    def monotonic(self):
        return super().monotonic() + self.ahead


async def test_a_token_is_renewed_at_half_of_its_life_and_replaced_after_it(tmp_path):
    with openbao(tmp_path / "openbao", lifetime="4s") as server:
        clock = CountingClock()
        parts = opened(server, tmp_path)
        parts = StoreParts(settings=parts.settings, folder=parts.folder, clock=clock)
        store = vault.make(parts)
        client = store._client
        await store.write("a.b", "one")
        first = client._token
        clock.ahead = 2.5
        assert (await store.read("a.b")).value == "one"
        assert client._token == first  # renewed, not replaced
        assert client._renew_at > clock.monotonic()
        server.ask("POST", "auth/token/revoke", {"token": first})
        clock.ahead = 60.0
        assert (await store.read("a.b")).value == "one"
        assert client._token != first


async def test_a_sealed_vault_is_told_from_an_empty_one(server, store):
    await store.write("a.b", "one")
    server.seal()
    try:
        assert "is sealed" in await store.sealed()
        for ask in (store.read("a.b"), store.write("a.b", "two"), store.entries()):
            with pytest.raises(SecretsSealedError):
                await ask
    finally:
        server.unseal()
    assert await store.sealed() == ""
    assert (await store.read("a.b")).value == "one"


async def test_a_file_whose_key_the_vault_wraps_is_sealed_with_it(server, tmp_path):
    store = encrypted_file.make(opened(server, tmp_path, transit_key="hivemesh"))
    await store.write("a.b", "one")
    assert not (tmp_path / "secrets/key").exists()
    server.seal()
    try:
        assert "is sealed" in await store.sealed()
        with pytest.raises(SecretsSealedError):
            await store.read("a.b")
    finally:
        server.unseal()
    assert (await store.read("a.b")).value == "one"


async def test_the_rest_of_the_platform_goes_on_while_a_vault_is_slow(
    server, tmp_path, monkeypatch
):
    gate = asyncio.Event()
    store = vault.make(opened(server, tmp_path))
    loop = asyncio.get_running_loop()

    def slow(*_):
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
        return {"sealed": False}

    monkeypatch.setattr(store._client, "_send", slow)
    asking = asyncio.create_task(store.sealed())
    await asyncio.sleep(0)
    gate.set()
    assert await asking == ""


def test_the_secret_id_is_not_shown(server, tmp_path):
    parts = opened(server, tmp_path)
    shown = [repr(parts.settings), str(parts.settings.model_dump()), repr(vault.make(parts))]
    assert not any(server.secret_id in text for text in shown)
