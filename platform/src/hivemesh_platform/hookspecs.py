"""The hooks of the platform: what an extension of the entry-point group `hivemesh.extensions` may add.

An extension runs inside the platform's process and sees what the platform sees: install none
that you would not run as the platform. Workers are never extensions.
"""

from typing import TYPE_CHECKING, cast

import pluggy

if TYPE_CHECKING:
    from hivemesh_platform.credentials.ports import SecretStore, StoreFactories, StoreParts

PROJECT = "hivemesh"
GROUP = "hivemesh.extensions"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """Every hook, one method each."""

    @hookspec
    def register_secret_stores(self) -> "StoreFactories":
        """Return secret stores by the name that `secrets.store` selects them with."""
        raise NotImplementedError


class BuiltIn:
    """What comes with the platform, registered as any extension is."""

    @hookimpl
    def register_secret_stores(self) -> "StoreFactories":
        """The two stores of `credentials`."""
        return {"encrypted_file": _encrypted_file, "vault": _vault}


def _encrypted_file(parts: "StoreParts") -> "SecretStore":
    from hivemesh_platform.credentials import encrypted_file  # noqa: PLC0415 - only where chosen

    return encrypted_file.make(parts)


def _vault(parts: "StoreParts") -> "SecretStore":
    from hivemesh_platform.credentials import vault  # noqa: PLC0415 - only where chosen

    return vault.make(parts)


def extensions() -> pluggy.PluginManager:
    """Find what is installed; imports each extension."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    manager.register(BuiltIn(), "built-in")
    manager.load_setuptools_entrypoints(GROUP)
    return manager


def secret_stores(manager: pluggy.PluginManager) -> "StoreFactories":
    """All secret stores by name; an extension cannot take the name of another one's."""
    found: dict[str, object] = {}
    for stores in reversed(manager.hook.register_secret_stores()):  # the built-in ones first
        for name, factory in stores.items():
            found.setdefault(name, factory)
    return cast("StoreFactories", found)
