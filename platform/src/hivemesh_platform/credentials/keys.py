"""The key of the encrypted file: beside it (0600), under a passphrase, or wrapped by a vault."""

import base64
import os
import stat
from pathlib import Path
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hivemesh_sdk.errors import ConfigurationError

from hivemesh_platform.credentials.errors import SecretDamagedError

KEY_BYTES = 32
NONCE_BYTES = 12
_COST = 2**15  # of scrypt: 32 MiB and a tenth of a second, once per start
_OTHERS = 0o077


class KeySlot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the key is kept, as it stands in the file; `wrapped` means nothing without the rest."""

    kind: str  # file, passphrase, wrapped
    salt: bytes = b""
    nonce: bytes = b""
    wrapped: bytes = b""


class KeyKeeper(Protocol):
    """Makes the key once and opens it at each start."""

    kind: str

    async def sealed(self) -> str:
        """Why the key cannot be opened at the moment; "" where it can."""
        ...

    async def make(self) -> tuple[bytes, KeySlot]:
        """Make a new key and say how it is kept."""
        ...

    async def open(self, slot: KeySlot) -> bytes:
        """Return the key.

        Raises:
            SecretsSealedError: what wraps it is sealed.
            SecretDamagedError: it is gone or does not fit.
            ConfigurationError: the passphrase is wrong, or others may read the key.
        """
        ...


class KeyFile:
    """The key in a file of its own that only the owner may read."""

    kind = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    async def sealed(self) -> str:
        """Never: it lies in the file."""
        return ""

    async def make(self) -> tuple[bytes, KeySlot]:
        """Write the key, or take the one that a start before this one has written."""
        key = os.urandom(KEY_BYTES)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except FileExistsError:
            return await self.open(KeySlot(kind=self.kind)), KeySlot(kind=self.kind)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(key) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return key, KeySlot(kind=self.kind)

    async def open(self, slot: KeySlot) -> bytes:
        """Read the key."""
        try:
            mode = stat.S_IMODE(self._path.stat().st_mode)
            text = self._path.read_bytes()
        except OSError as error:
            message = f"the key {str(self._path)!r} cannot be read: {error.strerror}"
            raise SecretDamagedError(message) from error
        if mode & _OTHERS:
            message = f"others may read {str(self._path)!r}; chmod 600 it and rotate every secret"
            raise ConfigurationError(message)
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            message = f"{str(self._path)!r} holds no key of {KEY_BYTES} bytes"
            raise SecretDamagedError(message)
        return key


class Passphrase:
    """The key encrypted under what scrypt makes of a passphrase."""

    kind = "passphrase"

    def __init__(self, passphrase: str) -> None:
        self._passphrase = passphrase

    async def sealed(self) -> str:
        """Never: the settings hold the passphrase."""
        return ""

    async def make(self) -> tuple[bytes, KeySlot]:
        """Make a key and encrypt it."""
        key, salt, nonce = os.urandom(KEY_BYTES), os.urandom(16), os.urandom(NONCE_BYTES)
        wrapped = AESGCM(self._stretched(salt)).encrypt(nonce, key, self.kind.encode())
        return key, KeySlot(kind=self.kind, salt=salt, nonce=nonce, wrapped=wrapped)

    async def open(self, slot: KeySlot) -> bytes:
        """Decrypt the key."""
        try:
            stretched = AESGCM(self._stretched(slot.salt))
            return stretched.decrypt(slot.nonce, slot.wrapped, self.kind.encode())
        except InvalidTag as error:
            message = "`secrets.passphrase` is not the one under which the secrets were stored"
            raise ConfigurationError(message, slug="configuration-invalid") from error

    def _stretched(self, salt: bytes) -> bytes:
        from cryptography.hazmat.primitives.kdf.scrypt import (  # noqa: PLC0415 - on demand
            Scrypt,
        )

        stretch = Scrypt(salt=salt, length=KEY_BYTES, n=_COST, r=8, p=1)
        return stretch.derive(self._passphrase.encode())


class Wrapper(Protocol):
    """Encrypts and decrypts small things elsewhere."""

    async def sealed(self) -> str:
        """Why it does not at the moment; "" where it does."""
        ...

    async def encrypt(self, data: bytes) -> bytes:
        """Encrypt."""
        ...

    async def decrypt(self, data: bytes) -> bytes:
        """Decrypt what `encrypt` has made."""
        ...


class Wrapped:
    """The key as a vault has encrypted it (transit): it opens only while the vault is unsealed."""

    kind = "wrapped"

    def __init__(self, wrapper: Wrapper) -> None:
        self._wrapper = wrapper
        self.sealed = wrapper.sealed

    async def make(self) -> tuple[bytes, KeySlot]:
        """Make a key and have it wrapped."""
        key = os.urandom(KEY_BYTES)
        return key, KeySlot(kind=self.kind, wrapped=await self._wrapper.encrypt(key))

    async def open(self, slot: KeySlot) -> bytes:
        """Have the key unwrapped."""
        return await self._wrapper.decrypt(slot.wrapped)
