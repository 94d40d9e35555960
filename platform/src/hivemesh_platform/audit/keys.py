"""The keys of the trail: Ed25519 for checkpoints, and one for the HMAC of parameters.

They are apart from the keys of the CA and from those that sign tickets. The public half lies beside
the records, so that a copy of their folder can be verified without the private one.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.jws import SigningKey, VerifyKey, verify_key
from hivemesh_sdk.trust.keys import read_private_file, write_private_file

FILE = "audit.json"
PUBLIC = "keys.json"


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    signing: bytes
    hmac: bytes

    def __repr__(self) -> str:
        return "_Document(…)"


class _Public(msgspec.Struct, frozen=True):
    keys: list[bytes]


class AuditKeys:
    """What signs checkpoints and what hides parameters. Made by `open_keys`."""

    def __init__(self, signing: SigningKey, hmac: bytes) -> None:
        self.signing = signing
        self.hmac = hmac

    @property
    def public(self) -> dict[str, VerifyKey]:
        """What verifies the checkpoints, by id."""
        return {self.signing.public.id: self.signing.public}


def open_keys(private: Path, folder: Path) -> AuditKeys:
    """Load the keys from the folder of private files, or make them; tell the public half.

    Raises:
        ConfigurationError: the file can be read by others, or is damaged.
    """
    path = private / FILE
    if not path.exists():
        private.mkdir(parents=True, exist_ok=True, mode=0o700)
        raw = Ed25519PrivateKey.generate().private_bytes(
            Encoding.Raw, PrivateFormat.Raw, NoEncryption()
        )
        write_private_file(path, msgspec.json.encode(_Document(raw, secrets.token_bytes(32))))
    try:
        document = msgspec.json.decode(read_private_file(path), type=_Document)
        signing = SigningKey(Ed25519PrivateKey.from_private_bytes(document.signing))
    except (msgspec.DecodeError, ValueError) as error:
        message = f"{FILE} cannot be read; restore it from a backup"
        raise ConfigurationError(message) from error
    _announce(folder / PUBLIC, signing.public)
    return AuditKeys(signing, document.hmac)


def public_keys(folder: Path) -> Mapping[str, VerifyKey]:
    """The public keys that lie beside the records, by id; empty where there are none."""
    try:
        document = msgspec.json.decode((folder / PUBLIC).read_bytes(), type=_Public)
        keys = [verify_key(raw) for raw in document.keys]
    except (OSError, ValueError, msgspec.DecodeError):
        return {}
    return {key.id: key for key in keys}


def _announce(path: Path, key: VerifyKey) -> None:
    known = public_keys(path.parent)
    if key.id not in known:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        raws = [key.raw, *(one.raw for one in known.values())]
        write_private_file(path, msgspec.json.encode(_Public(raws)))
