"""The keys that sign tickets and policies: Ed25519, apart from the keys of the CA.

A new key is announced in the trust bundle before it signs, and stays announced until what it has
signed has expired.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.jws import Seal, SignatureInvalidError, SigningKey, verify_key
from hivemesh_sdk.trust.keys import read_private_file, write_private_file

from hivemesh_platform.trust.folder import signature
from hivemesh_platform.trust.keyring import KeyState
from hivemesh_platform.trust.sealing import Sealer

FILE = "signing.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerKey:
    """One key and its state; without its private half from the moment it is tainted."""

    state: KeyState
    since: datetime
    sequence: int  # of the bundle that tells of this state
    public: bytes
    private: SigningKey | None = None
    raw: bytes = b""

    def __repr__(self) -> str:
        """Without the key."""
        return f"SignerKey({self.id}, {self.state})"

    @property
    def id(self) -> str:
        """The id that its signatures name."""
        return verify_key(self.public).id

    def moved(self, state: KeyState, now: datetime, sequence: int) -> "SignerKey":
        """The same key in its next state."""
        moved = replace(self, state=state, since=now, sequence=sequence)
        if state in {KeyState.TAINTED, KeyState.REVOKED}:
            moved = replace(moved, private=None, raw=b"")
        return moved


class _Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    state: KeyState
    since: datetime
    sequence: int
    public: bytes
    raw: bytes = b""

    def __repr__(self) -> str:
        return f"_Key({self.state})"


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[_Key]


class _First(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The form of the file before keys had states."""

    keys: list[bytes]

    def __repr__(self) -> str:
        return "_First(…)"


class Signing:
    """The key in use and those that are only announced. Made by `open_signing`."""

    def __init__(self, path: Path, keys: list[SignerKey], sealer: Sealer) -> None:
        self._path = path
        self._sealer = sealer
        self._keys = keys
        self._read = signature(path) if keys else None
        self._sealed_before: Seal | None = None  # of the key before; what it sealed still lives

    @property
    def keys(self) -> tuple[SignerKey, ...]:
        """Every key that is not revoked."""
        return tuple(self._keys)

    @property
    def announced(self) -> tuple[bytes, ...]:
        """The public keys that the bundle tells, 32 bytes each; the one that signs is the first."""
        keys = sorted(self._keys, key=lambda key: key.state is not KeyState.ACTIVE)
        return tuple(key.public for key in keys)

    def sign(self, payload: bytes, typ: str) -> str:
        """Sign a document; see `hivemesh_sdk.trust.jws`."""
        return self._active.sign(payload, typ)

    def seal(self, payload: bytes) -> str:
        """Seal a document that only this platform reads again."""
        return self._active.seal(payload)

    def unseal(self, token: str) -> bytes:
        """The payload of what `seal` has sealed, under the present key or the one before.

        Raises:
            SignatureInvalidError: it has not.
        """
        try:
            return self._unseal(token)
        except SignatureInvalidError:
            if not self.is_outdated:
                raise
        self.read_again()  # another replica seals with the next key already
        return self._unseal(token)

    @property
    def is_outdated(self) -> bool:
        """Whether another replica has changed the keys."""
        return signature(self._path) != self._read

    def read_again(self) -> None:
        """Take over what another replica has changed."""
        if not self.is_outdated:
            return
        self._read = signature(self._path)
        keys = _read(self._path, self._sealer, self._keys[0].since)
        present = self.one(KeyState.ACTIVE)
        if present is not None and not any(
            key.public == present.public and key.state is KeyState.ACTIVE for key in keys
        ):
            self._sealed_before = self._active.sealing
        self._keys = keys

    def _unseal(self, token: str) -> bytes:
        try:
            return self._active.unseal(token)
        except SignatureInvalidError:
            if self._sealed_before is None:
                raise
            return self._sealed_before.open(token)

    def one(self, state: KeyState) -> SignerKey | None:
        """The oldest key in this state, if there is one."""
        return next((key for key in self._keys if key.state is state), None)

    def prepare(self, now: datetime, sequence: int) -> None:
        """Announce a new key."""
        self._store([*self._keys, _new(KeyState.PREPARED, now, sequence)])

    def activate(self, now: datetime, sequence: int) -> None:
        """Sign with the announced key from now on."""
        self._sealed_before = self._active.sealing
        after = {KeyState.ACTIVE: KeyState.TAINTED, KeyState.PREPARED: KeyState.ACTIVE}
        self._store(
            [
                key.moved(after[key.state], now, sequence) if key.state in after else key
                for key in self._keys
            ]
        )

    def drop(self, before: datetime) -> None:
        """Announce no longer what was tainted before this moment."""
        self._store(
            [key for key in self._keys if key.state is not KeyState.TAINTED or key.since > before]
        )

    def replace_all(self, now: datetime, sequence: int) -> None:
        """Announce one new key and no other."""
        self._sealed_before = None
        self._store([_new(KeyState.ACTIVE, now, sequence)])

    @property
    def _active(self) -> SigningKey:
        found = self.one(KeyState.ACTIVE)
        if found is None or found.private is None:
            message = "there is no active signing key"
            raise LookupError(message)
        return found.private

    def _store(self, keys: list[SignerKey]) -> None:
        document = _Document(
            [
                _Key(
                    state=key.state,
                    since=key.since,
                    sequence=key.sequence,
                    public=key.public,
                    raw=key.raw,
                )
                for key in keys
            ]
        )
        write_private_file(self._path, self._sealer.seal(FILE, msgspec.json.encode(document)))
        self._keys, self._read = keys, signature(self._path)


def open_signing(folder: Path, now: datetime, sealer: Sealer) -> Signing:
    """Load the keys of a state folder's `trust/`, or make the first one.

    Raises:
        ConfigurationError: the file can be read by others, or is damaged.
    """
    path = folder / FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        signing = Signing(path, [], sealer)
        signing.replace_all(now, 1)
        return signing
    return Signing(path, _read(path, sealer, now), sealer)


def _read(path: Path, sealer: Sealer, now: datetime) -> list[SignerKey]:
    try:
        keys = _decode(sealer.open(FILE, read_private_file(path)), now)
    except (msgspec.DecodeError, ValueError) as error:
        message = f"{FILE} cannot be read; restore it from a backup"
        raise ConfigurationError(message) from error
    if not any(key.state is KeyState.ACTIVE and key.private for key in keys):
        message = f"{FILE} holds no key that signs; restore it from a backup"
        raise ConfigurationError(message)
    return keys


def _decode(content: bytes, now: datetime) -> list[SignerKey]:
    try:
        document = msgspec.json.decode(content, type=_Document)
    except msgspec.ValidationError:
        first = msgspec.json.decode(content, type=_First)
        return [_loaded(KeyState.ACTIVE, now, 1, raw) for raw in first.keys[:1]]
    return [
        _loaded(key.state, key.since, key.sequence, key.raw)
        if key.raw
        else SignerKey(state=key.state, since=key.since, sequence=key.sequence, public=key.public)
        for key in document.keys
    ]


def _new(state: KeyState, now: datetime, sequence: int) -> SignerKey:
    raw = Ed25519PrivateKey.generate().private_bytes(
        Encoding.Raw, PrivateFormat.Raw, NoEncryption()
    )
    return _loaded(state, now, sequence, raw)


def _loaded(state: KeyState, since: datetime, sequence: int, raw: bytes) -> SignerKey:
    private = SigningKey(Ed25519PrivateKey.from_private_bytes(raw))
    return SignerKey(
        state=state,
        since=since,
        sequence=sequence,
        public=private.public.raw,
        private=private,
        raw=raw,
    )
