"""The default store: one file in the state folder, each value under AES-256-GCM.

Every version has a nonce of its own and is bound to its path and number, so that a value cannot
be moved elsewhere in the file. The file is replaced as a whole, after it was made durable. Old
versions are kept up to `KEPT`.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import ConfigurationError, HivemeshError

from hivemesh_platform.credentials.errors import (
    SecretDamagedError,
    SecretMissingError,
    SecretsSealedError,
)
from hivemesh_platform.credentials.keys import (
    NONCE_BYTES,
    KeyFile,
    KeyKeeper,
    KeySlot,
    Passphrase,
    Wrapped,
)
from hivemesh_platform.credentials.model import SecretInfo, StoredSecret
from hivemesh_platform.credentials.ports import SecretStore, StoreParts
from hivemesh_platform.trust.folder import FolderLock, Signature, signature

FORMAT = 1
KEPT = 10
FILE, KEY_FILE = "secrets.json", "key"
_CHECK = b"hivemesh secrets"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One encrypted value."""

    nonce: bytes
    data: bytes
    created_at: int


class Record(msgspec.Struct, kw_only=True):
    """A secret: its versions by number, the highest one is present."""

    versions: dict[int, Version]
    deleted: bool = False


class Contents(msgspec.Struct, kw_only=True):
    """The whole file. `check` tells whether a key is the right one."""

    format: int
    key: KeySlot
    check: Version
    records: dict[str, Record] = {}


class EncryptedFile:
    """A `SecretStore` in a file; of the processes that use it one writes at a time."""

    def __init__(self, folder: Path, keeper: KeyKeeper, clock: Clock) -> None:
        self._path = folder / FILE
        self._keeper = keeper
        self._clock = clock
        self._lock = asyncio.Lock()
        self._contents: Contents | None = None
        self._cipher: AESGCM | None = None
        self._read: Signature | None = None

    async def sealed(self) -> str:
        """Why the key cannot be opened; a key that its keeper would not open now is forgotten."""
        try:
            reason = await self._keeper.sealed()
            if reason:
                self._contents = self._cipher = None
                return reason
            await self._open()
        except HivemeshError as error:
            return error.detail
        return ""

    async def read(
        self, path: str, version: int | None = None, *, holder: str = ""
    ) -> StoredSecret:
        """Decrypt a value."""
        contents, cipher = await self._open()
        record = contents.records.get(path)
        if record is None or record.deleted:
            raise _missing(path)
        number = version or max(record.versions)
        kept = record.versions.get(number)
        if kept is None:
            message = f"there is no version {number} of {path!r}"
            raise SecretMissingError(message)
        data = _decrypt(cipher, kept, _bound(path, number), path)
        return StoredSecret(path=path, version=number, value=data.decode())

    async def exists(self, path: str) -> bool:
        """Whether it is there and not deleted."""
        contents, _ = await self._open()
        record = contents.records.get(path)
        return record is not None and not record.deleted

    async def describe(self, path: str) -> SecretInfo:
        """What is told of a secret."""
        contents, _ = await self._open()
        record = contents.records.get(path)
        if record is None:
            raise _missing(path)
        return _info(path, record)

    async def entries(self, prefix: str = "") -> list[SecretInfo]:
        """What is told of the secrets below a path."""
        contents, _ = await self._open()
        return [
            _info(path, record)
            for path, record in sorted(contents.records.items())
            if not prefix or path == prefix or path.startswith(f"{prefix}.")
        ]

    async def write(self, path: str, value: str) -> SecretInfo:
        """Encrypt a new version."""

        def change(contents: Contents, cipher: AESGCM) -> SecretInfo:
            record = contents.records.get(path) or Record(versions={})
            number = 1 + max(record.versions, default=0)
            now = round(self._clock.now().timestamp() * 1000)
            record.versions[number] = _encrypt(cipher, value.encode(), _bound(path, number), now)
            for old in sorted(record.versions)[:-KEPT]:
                del record.versions[old]
            record.deleted = False
            contents.records[path] = record
            return _info(path, record)

        return await self._change(change)

    async def delete(self, path: str) -> SecretInfo:
        """Withdraw a secret; its versions stay encrypted in the file."""
        return await self._mark(path, deleted=True)

    async def restore(self, path: str) -> SecretInfo:
        """Bring it back."""
        return await self._mark(path, deleted=False)

    async def revoke(self, lease: str) -> None:
        """Nothing is made for a lease here."""

    async def _mark(self, path: str, *, deleted: bool) -> SecretInfo:
        def change(contents: Contents, _: AESGCM) -> SecretInfo:
            record = contents.records.get(path)
            if record is None or (deleted and record.deleted):
                raise _missing(path)
            record.deleted = deleted
            return _info(path, record)

        return await self._change(change)

    async def _change(self, change: Callable[[Contents, AESGCM], SecretInfo]) -> SecretInfo:
        """Apply a change to a copy, make it durable, and only then let it be seen."""
        await self._open()
        async with self._lock:
            if self._contents is None or self._cipher is None:
                message = "the store was sealed meanwhile"
                raise SecretsSealedError(message)
            return await asyncio.to_thread(self._rewrite, change, self._cipher)

    def _rewrite(
        self, change: Callable[[Contents, AESGCM], SecretInfo], cipher: AESGCM
    ) -> SecretInfo:
        """Change what the file holds now, whoever wrote it last."""
        with FolderLock(self._path.parent):
            contents = _decode(self._path.read_bytes())
            _decrypt(cipher, contents.check, _CHECK, "the check of the key")
            info = change(contents, cipher)
            _replace(self._path, _encode(contents))
            self._contents, self._read = contents, signature(self._path)
        return info

    async def _open(self) -> tuple[Contents, AESGCM]:
        """Read the file and open its key, once; make both where there are none.

        Raises:
            SecretsSealedError: the key cannot be opened at the moment.
            SecretDamagedError: file or key is not what was written.
        """
        if self._contents is not None and self._cipher is not None and not self._is_outdated():
            return self._contents, self._cipher
        async with self._lock:
            if self._contents is None or self._cipher is None or self._is_outdated():
                contents, key = await self._read_or_make()
                self._read = signature(self._path)
                cipher = AESGCM(key)
                _decrypt(cipher, contents.check, _CHECK, "the check of the key")
                self._contents, self._cipher = contents, cipher
            return self._contents, self._cipher

    def _is_outdated(self) -> bool:
        """Whether another replica has written the file."""
        try:
            return signature(self._path) != self._read
        except OSError:
            return False  # what was read stays valid

    async def _read_or_make(self) -> tuple[Contents, bytes]:
        try:
            text = await asyncio.to_thread(self._path.read_bytes)
        except FileNotFoundError:
            return await self._make()
        try:
            contents = _decode(text)
        except msgspec.DecodeError as error:
            message = f"{str(self._path)!r} cannot be read"
            raise SecretDamagedError(message) from error
        if contents.key.kind == KeyFile.kind != self._keeper.kind:
            return await self._protected(contents)
        if contents.key.kind != self._keeper.kind:
            message = (
                f"the secrets were stored with a key of the kind {contents.key.kind!r}; the "
                f"settings ask for {self._keeper.kind!r}"
            )
            raise ConfigurationError(message, slug="configuration-invalid")
        return contents, await self._keeper.open(contents.key)

    async def _protected(self, contents: Contents) -> tuple[Contents, bytes]:
        """Encrypt everything anew under a key that does not lie beside it, and remove the old one."""
        beside = self._path.parent / KEY_FILE
        old = AESGCM(await KeyFile(beside).open(contents.key))
        _decrypt(old, contents.check, _CHECK, "the check of the key")
        key, contents.key = await self._keeper.make()
        new = AESGCM(key)
        contents.check = _encrypt(new, _CHECK, _CHECK, 0)
        for path, record in contents.records.items():
            for number, version in record.versions.items():
                bound = _bound(path, number)
                data = _decrypt(old, version, bound, path)
                record.versions[number] = _encrypt(new, data, bound, version.created_at)
        await asyncio.to_thread(_replace, self._path, _encode(contents))
        beside.unlink()
        return contents, key

    async def _make(self) -> tuple[Contents, bytes]:
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key, slot = await self._keeper.make()
        check = _encrypt(AESGCM(key), _CHECK, _CHECK, 0)
        contents = Contents(format=FORMAT, key=slot, check=check)
        await asyncio.to_thread(_replace, self._path, _encode(contents))
        return contents, key


def make(parts: StoreParts) -> SecretStore:
    """Make the store from the settings."""
    settings = parts.settings
    passphrase = settings.passphrase.get_secret_value()
    if settings.vault.transit_key and passphrase:
        message = "set either secrets.passphrase or secrets.vault.transit_key, not both"
        raise ConfigurationError(message, slug="configuration-invalid")
    keeper: KeyKeeper
    if settings.vault.transit_key:
        from hivemesh_platform.credentials.vault import transit  # noqa: PLC0415 - on demand

        keeper = Wrapped(transit(settings.vault, parts.clock))
    elif passphrase:
        keeper = Passphrase(passphrase)
    else:
        keeper = KeyFile(parts.folder / KEY_FILE)
    return EncryptedFile(parts.folder, keeper, parts.clock)


def _encode(contents: Contents) -> bytes:
    return msgspec.json.format(msgspec.json.encode(contents), indent=1)


_decode = msgspec.json.Decoder(Contents).decode


def _bound(path: str, number: int) -> bytes:
    """What a value is bound to: it cannot be read under another path or number."""
    return f"{path}\n{number}".encode()


def _encrypt(cipher: AESGCM, data: bytes, bound: bytes, now: int) -> Version:
    nonce = os.urandom(NONCE_BYTES)
    return Version(nonce=nonce, data=cipher.encrypt(nonce, data, bound), created_at=now)


def _decrypt(cipher: AESGCM, version: Version, bound: bytes, what: str) -> bytes:
    try:
        return cipher.decrypt(version.nonce, version.data, bound)
    except (InvalidTag, ValueError) as error:
        message = f"{what} is not what was encrypted, or the key is another one"
        raise SecretDamagedError(message) from error


def _replace(path: Path, data: bytes) -> None:
    """Write beside the file, make it durable, and put it in its place."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        message = f"{str(path)!r} cannot be written: {error.strerror}"
        raise SecretsSealedError(message) from error
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _info(path: str, record: Record) -> SecretInfo:
    number = max(record.versions)
    return SecretInfo(
        path=path,
        version=number,
        created_at=record.versions[number].created_at,
        versions=len(record.versions),
        deleted=record.deleted,
    )


def _missing(path: str) -> SecretMissingError:
    message = f"there is no secret {path!r}; `hivemesh secret set {path}` stores it"
    return SecretMissingError(message)
