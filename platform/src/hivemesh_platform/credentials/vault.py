"""The store `vault`: OpenBao or HashiCorp Vault, KV version 2.

`a.b.c` is the field `value` of the record `<prefix>/a/b/c`. A record `<prefix>/a/b` that others
have written, with a field `c`, is read by the same reference.
"""

import base64
from collections.abc import Mapping
from datetime import datetime

from hivemesh_sdk.clock import Clock
from pydantic import JsonValue

from hivemesh_platform.credentials.engines import Engines
from hivemesh_platform.credentials.errors import (
    SecretDamagedError,
    SecretInvalidError,
    SecretMissingError,
)
from hivemesh_platform.credentials.model import SecretInfo, StoredSecret
from hivemesh_platform.credentials.ports import SecretStore, StoreParts
from hivemesh_platform.credentials.vault_http import VaultClient, quoted
from hivemesh_platform.settings import VaultSettings

FIELD = "value"
MAX_DEPTH = 16

Fields = Mapping[str, JsonValue]


class VaultStore:
    """A `SecretStore` over a KV version 2 engine."""

    def __init__(self, client: VaultClient, settings: VaultSettings, clock: Clock) -> None:
        self._client = client
        self._mount = settings.mount.strip("/")
        self._prefix = settings.prefix.strip("/")
        self._engines = Engines(client, settings.dynamic, clock)

    async def sealed(self) -> str:
        """Why the vault answers nothing."""
        return await self._client.sealed()

    async def read(
        self, path: str, version: int | None = None, *, holder: str = ""
    ) -> StoredSecret:
        """Read our own record, or the field of another one, or what an engine makes."""
        if self._engines.makes(path):
            return await self._engines.read(path, holder)
        found = await self._record(path, version)
        if found is None or FIELD not in found[0]:
            above, _, field = path.rpartition(".")
            found = await self._record(above, version) if above else None
            if found is None or field not in found[0]:
                raise _missing(path, version)
            return _stored(path, found[0][field], found[1])
        return _stored(path, found[0][FIELD], found[1])

    async def exists(self, path: str) -> bool:
        """Whether something is stored; of what an engine makes it is not known before."""
        if self._engines.makes(path):
            return True
        try:
            await self.read(path)
        except SecretMissingError:
            return False
        return True

    async def describe(self, path: str) -> SecretInfo:
        """Read the metadata of the record."""
        answer = await self._client.get(self._place("metadata", path))
        if answer is None:
            raise _missing(path)
        return _info(path, _fields(answer.get("data")))

    async def entries(self, prefix: str = "") -> list[SecretInfo]:
        """Walk the tree below a path."""
        paths = await self._walk(prefix)
        if prefix:
            above, _, name = prefix.rpartition(".")
            names = await self._client.names(self._place("metadata", above))
            paths += [prefix] if name in names else []
        return [await self.describe(path) for path in sorted(paths)]

    async def write(self, path: str, value: str) -> SecretInfo:
        """Write a new version of our own record."""
        if self._engines.makes(path):
            message = f"{path!r} is made by the vault for each step (secrets.vault.dynamic)"
            raise SecretInvalidError(message)
        await self._client.post(self._place("data", path), {"data": {FIELD: value}})
        return await self.describe(path)

    async def delete(self, path: str) -> SecretInfo:
        """Delete the present version softly."""
        if (await self.describe(path)).deleted:
            raise _missing(path)
        await self._client.delete(self._place("data", path))
        return await self.describe(path)

    async def restore(self, path: str) -> SecretInfo:
        """Bring the present version back."""
        info = await self.describe(path)
        await self._client.post(self._place("undelete", path), {"versions": [info.version]})
        return await self.describe(path)

    async def revoke(self, lease: str) -> None:
        """Have the vault take back what it has made."""
        self._engines.forget(lease)
        await self._client.post("sys/leases/revoke", {"lease_id": lease})

    async def _record(self, path: str, version: int | None) -> tuple[Fields, int] | None:
        question = "" if version is None else f"?version={version}"
        answer = await self._client.get(self._place("data", path) + question)
        if answer is None:
            return None
        data = _fields(answer.get("data"))
        number = _fields(data.get("metadata")).get("version")
        return _fields(data.get("data")), number if isinstance(number, int) else 0

    async def _walk(self, prefix: str, depth: int = 0) -> list[str]:
        if depth > MAX_DEPTH:
            return []
        found = []
        for name in await self._client.names(self._place("metadata", prefix)):
            below = f"{prefix}.{name.rstrip('/')}" if prefix else name.rstrip("/")
            found += await self._walk(below, depth + 1) if name.endswith("/") else [below]
        return found

    def _place(self, what: str, path: str) -> str:
        parts = (self._mount, what, self._prefix, *path.split("."))
        return quoted("/".join(part for part in parts if part))


class Transit:
    """The transit engine: keys that never leave the vault."""

    def __init__(self, client: VaultClient, *, mount: str, key: str) -> None:
        self._client = client
        self._mount = mount.strip("/")
        self._key = key
        self.sealed = client.sealed

    async def encrypt(self, data: bytes) -> bytes:
        """Encrypt; the answer names the version of the key."""
        body: Fields = {"plaintext": base64.b64encode(data).decode()}
        return (await self._ask("encrypt", body, "ciphertext")).encode()

    async def decrypt(self, data: bytes) -> bytes:
        """Decrypt what `encrypt` has made."""
        return base64.b64decode(
            await self._ask("decrypt", {"ciphertext": data.decode()}, "plaintext")
        )

    async def _ask(self, verb: str, body: Fields, wanted: str) -> str:
        place = quoted(f"{self._mount}/{verb}/{self._key}")
        answer = await self._client.post(place, body) or {}
        found = _fields(answer.get("data")).get(wanted)
        if not isinstance(found, str):
            message = f"the transit key {self._key!r} of the vault does not {verb}"
            raise SecretDamagedError(message)
        return found


def make(parts: StoreParts) -> SecretStore:
    """Make the store from the settings."""
    settings = parts.settings.vault
    return VaultStore(VaultClient(settings, parts.clock), settings, parts.clock)


def transit(settings: VaultSettings, clock: Clock) -> Transit:
    """The wrapper of the key of `encrypted_file`."""
    client = VaultClient(settings, clock)
    return Transit(client, mount=settings.transit_mount, key=settings.transit_key)


def _fields(value: object) -> Fields:
    return value if isinstance(value, dict) else {}


def _stored(path: str, value: JsonValue, version: int) -> StoredSecret:
    if not isinstance(value, str):
        message = f"{path!r} is no text in the vault"
        raise SecretDamagedError(message)
    return StoredSecret(path=path, version=version, value=value)


def _info(path: str, data: Fields) -> SecretInfo:
    current = data.get("current_version")
    number = current if isinstance(current, int) else 0
    versions = _fields(data.get("versions"))
    present = _fields(versions.get(str(number)))
    gone = bool(present.get("deletion_time")) or present.get("destroyed") is True
    return SecretInfo(
        path=path,
        version=number,
        created_at=_milliseconds(present.get("created_time")),
        versions=sum(_fields(one).get("destroyed") is not True for one in versions.values()),
        deleted=gone,
    )


def _milliseconds(text: JsonValue) -> int:
    if not isinstance(text, str) or not text:
        return 0
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _missing(path: str, version: int | None = None) -> SecretMissingError:
    what = f"version {version} of {path!r}" if version else repr(path)
    return SecretMissingError(f"there is no secret {what}; `hivemesh secret set {path}` stores it")
