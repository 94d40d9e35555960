"""The keys that sign tickets and policies: Ed25519, apart from the keys of the CA.

A new key is announced in the trust bundle before it signs, and stays announced until what it has
signed has expired.
"""

from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.jws import SigningKey
from hivemesh_sdk.trust.keys import read_private_file, write_private_file

FILE = "signing.json"


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[bytes]  # the first one signs

    def __repr__(self) -> str:
        return "_Document(…)"


class Signing:
    """The key in use and those that are only announced. Made by `open_signing`."""

    def __init__(self, keys: list[SigningKey]) -> None:
        self._keys = keys

    @property
    def announced(self) -> tuple[bytes, ...]:
        """The public keys that the bundle tells, 32 bytes each."""
        return tuple(key.public.raw for key in self._keys)

    def sign(self, payload: bytes, typ: str) -> str:
        """Sign a document; see `hivemesh_sdk.trust.jws`."""
        return self._keys[0].sign(payload, typ)


def open_signing(folder: Path) -> Signing:
    """Load the keys of a state folder's `trust/`, or make the first one.

    Raises:
        ConfigurationError: the file can be read by others, or is damaged.
    """
    path = folder / FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        raw = Ed25519PrivateKey.generate().private_bytes(
            Encoding.Raw, PrivateFormat.Raw, NoEncryption()
        )
        write_private_file(path, msgspec.json.encode(_Document([raw])))
    try:
        document = msgspec.json.decode(read_private_file(path), type=_Document)
        keys = [SigningKey(Ed25519PrivateKey.from_private_bytes(raw)) for raw in document.keys]
    except (msgspec.DecodeError, ValueError) as error:
        message = f"{FILE} cannot be read; restore it from a backup"
        raise ConfigurationError(message) from error
    if not keys:
        message = f"{FILE} holds no key; restore it from a backup"
        raise ConfigurationError(message)
    return Signing(keys)
