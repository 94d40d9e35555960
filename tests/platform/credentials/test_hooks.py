"""Stores are registered through a hook, ours as well as those of extensions."""

import pytest
from hivemesh_platform import hookspecs
from hivemesh_platform.hookspecs import Hooks, extensions, hookimpl, secret_stores
from hivemesh_sdk.errors import ConfigurationError
from platform_support import ask, platform
from secret_support import MemoryStore


def test_ours_are_there():
    assert set(secret_stores(extensions())) == {"encrypted_file", "vault"}


def test_every_hook_has_a_line_of_documentation():
    hooks = [one for name, one in vars(Hooks).items() if not name.startswith("_")]
    assert hooks
    assert all(one.__doc__ for one in hooks)


class Extension:
    @hookimpl
    def register_secret_stores(self):
        return {"memory": lambda parts: MemoryStore(), "vault": None}


@pytest.fixture
def _extended(monkeypatch):
    def found():
        manager = extensions()
        manager.register(Extension())
        return manager

    monkeypatch.setattr(hookspecs, "extensions", found)


@pytest.mark.usefixtures("_extended")
async def test_an_extension_adds_a_store_and_takes_no_name_of_ours(tmp_path):
    stores = secret_stores(hookspecs.extensions())
    assert stores["vault"] is not None
    async with platform(tmp_path, **{"secrets.store": "memory"}) as found:
        view = await ask(found, "set_secret", "a.b", "one")
        assert view.path == "a.b"
        assert not (found.state_folder / "secrets").exists()


async def test_an_unknown_store_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigurationError, match="known are encrypted_file, vault"):
        async with platform(tmp_path, **{"secrets.store": "volt"}):
            pass


async def test_the_authoritys_passphrase_serves_where_there_is_no_other(tmp_path):
    async with platform(tmp_path, **{"trust.passphrase": "eleven-random-words-7731"}) as found:
        await ask(found, "set_secret", "a.b", "one")
        assert (await ask(found, "reveal_secret", "a.b")).value == "one"
        assert not (found.state_folder / "secrets/key").exists()
