"""Encrypts the authority's files with a passphrase: AES-256-GCM under a key from scrypt.

The name of the file is part of what is authenticated, so that one file cannot stand for another.
"""

import base64
import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from hivemesh_sdk.errors import ConfigurationError

LEAST = 16  # characters of a passphrase
LEAST_DIFFERENT = 8
_COST = 2**15  # 32 MiB and a tenth of a second for each guess
_BLOCK = 8
_KNOWN = ("changeme", "change-me", "password", "passphrase", "hivemesh", "secret", "default")


class _Sealed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sealed: str  # base64
    nonce: str
    salt: str
    kdf: str = "scrypt-15-8-1"


class Sealer:
    """Seals and opens files with one passphrase; without one it leaves them as they are."""

    def __init__(self, passphrase: bytes) -> None:
        self._passphrase = passphrase
        self._keys: dict[bytes, AESGCM] = {}
        self._salt = os.urandom(16)

    def __repr__(self) -> str:
        """Without the passphrase."""
        return "Sealer(…)"

    def seal(self, name: str, content: bytes) -> bytes:
        """What is written for `content`."""
        if not self._passphrase:
            return content
        nonce = os.urandom(12)
        sealed = self._key(self._salt).encrypt(nonce, content, name.encode())
        return msgspec.json.encode(
            _Sealed(sealed=_text(sealed), nonce=_text(nonce), salt=_text(self._salt))
        )

    def open(self, name: str, content: bytes) -> bytes:
        """What `seal` was given; files that were written without a passphrase are taken too.

        Raises:
            ConfigurationError: there is no passphrase, another one, or the file was changed.
        """
        try:
            sealed = msgspec.json.decode(content, type=_Sealed)
        except msgspec.DecodeError:
            return content
        if not self._passphrase:
            message = f"{name} is encrypted; set trust.passphrase: ${{file:…}}"
            raise ConfigurationError(message)
        try:
            key = self._key(base64.b64decode(sealed.salt))
            return key.decrypt(
                base64.b64decode(sealed.nonce), base64.b64decode(sealed.sealed), name.encode()
            )
        except (InvalidTag, ValueError) as error:
            message = f"{name} cannot be read: damaged, or another passphrase; see trust.passphrase"
            raise ConfigurationError(message) from error

    def _key(self, salt: bytes) -> AESGCM:
        if salt not in self._keys:
            kdf = Scrypt(salt=salt, length=32, n=_COST, r=_BLOCK, p=1)
            self._keys[salt] = AESGCM(kdf.derive(self._passphrase))
        return self._keys[salt]


def check_passphrase(passphrase: str, *, production: bool) -> bytes:
    """Return the passphrase as bytes; empty where none is demanded.

    Raises:
        ConfigurationError: production has none, or it is one that is guessed first.
    """
    text = passphrase.strip()
    if not text and not production:
        return b""
    if not text:
        message = (
            "mode: production encrypts the keys of the authority; "
            "set trust.passphrase: ${file:/path/to/passphrase}"
        )
        raise ConfigurationError(message, slug="configuration-invalid")
    plain = text.lower()
    if len(text) < LEAST or len(set(text)) < LEAST_DIFFERENT or any(one in plain for one in _KNOWN):
        message = (
            f"trust.passphrase is too easy to guess; use at least {LEAST} random characters, "
            "for example: openssl rand -base64 32"
        )
        raise ConfigurationError(message, slug="configuration-invalid")
    return text.encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
