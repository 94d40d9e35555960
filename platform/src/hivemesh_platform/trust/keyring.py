"""The keys of the authority and their four states, and how both are kept in one file.

prepared: announced, signs nothing yet. active: signs. tainted: signs no more, is still trusted,
and what it has signed is being renewed. revoked: trusted no more; its private key is gone.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hivemesh_sdk.trust.bundle import Bundle, certificate_id
from hivemesh_sdk.trust.profile import Signer

KEEP_REVOKED = timedelta(days=30)  # for people who look; callees need it until it expires
_DER = serialization.Encoding.DER
_PEM = serialization.Encoding.PEM


class KeyKind(StrEnum):
    """What a key of the authority signs."""

    ROOT = "root"
    ISSUER = "issuer"
    SIGNER = "signer"


class KeyState(StrEnum):
    """The life of a key of the authority, in order."""

    PREPARED = "prepared"
    ACTIVE = "active"
    TAINTED = "tainted"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaKey:
    """A root or issuer; without its private key from the moment it is tainted."""

    kind: KeyKind
    state: KeyState
    since: datetime
    sequence: int  # of the bundle that tells of this state
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | None = None

    @property
    def der(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(_DER)

    @property
    def id(self) -> str:
        """How bundles, heartbeats and people call it."""
        return certificate_id(self.der)

    @property
    def not_after(self) -> datetime:
        """When it expires."""
        return self.certificate.not_valid_after_utc

    def signer(self) -> Signer:
        """The key with its certificate, able to sign."""
        if self.key is None:
            message = f"the key of {self.kind} {self.id} is gone"
            raise LookupError(message)
        return Signer(self.certificate, self.key)

    def moved(self, state: KeyState, now: datetime, sequence: int) -> "CaKey":
        """The same key in its next state."""
        key = self.key if state in {KeyState.PREPARED, KeyState.ACTIVE} else None
        return replace(self, state=state, since=now, sequence=sequence, key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """Every root and issuer of a trust domain."""

    trust_domain: str
    keys: tuple[CaKey, ...]
    sequence: int = 1

    def one(self, kind: KeyKind, state: KeyState) -> CaKey | None:
        """The key of this kind in this state, if there is one."""
        return next((key for key in self.keys if (key.kind, key.state) == (kind, state)), None)

    def active(self, kind: KeyKind) -> CaKey:
        """The key that signs."""
        found = self.one(kind, KeyState.ACTIVE)
        if found is None:
            message = f"there is no active {kind}"
            raise ValueError(message)
        return found

    def in_state(self, *states: KeyState) -> list[CaKey]:
        """All keys in one of these states."""
        return [key for key in self.keys if key.state in states]

    def bundle(self) -> Bundle:
        """Whom to trust: the active root first, then those before and after it."""
        order = (KeyState.ACTIVE, KeyState.PREPARED, KeyState.TAINTED)
        roots = [
            key
            for state in order
            for key in self.keys
            if (key.kind, key.state) == (KeyKind.ROOT, state)
        ]
        tainted = [key.id for key in self.in_state(KeyState.TAINTED)]
        revoked = [key.id for key in self.in_state(KeyState.REVOKED) if key.kind is KeyKind.ISSUER]
        return Bundle(
            trust_domain=self.trust_domain,
            roots=tuple(key.der for key in roots),
            sequence=self.sequence,
            tainted=frozenset(tainted),
            revoked=frozenset(revoked),
        )

    def with_keys(self, keys: Iterable[CaKey], now: datetime, sequence: int) -> "Keyring":
        """The ring with other keys; revoked ones are forgotten long after they could be met."""
        kept = tuple(
            key
            for key in keys
            if key.state is not KeyState.REVOKED
            or now < max(key.not_after, key.since + KEEP_REVOKED)
        )
        return replace(self, keys=kept, sequence=sequence)


class _Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: KeyKind
    state: KeyState
    since: datetime
    sequence: int
    certificate: str
    key: str = ""

    def __repr__(self) -> str:
        return f"_Key({self.kind}, {self.state})"


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int = 2
    trust_domain: str
    sequence: int
    keys: list[_Key]


class _Pair(msgspec.Struct, frozen=True):
    certificate: str
    key: str

    def __repr__(self) -> str:
        return "_Pair(…)"


class _First(msgspec.Struct, frozen=True, kw_only=True):
    """The form of the file before keys had states."""

    trust_domain: str
    sequence: int
    root: _Pair
    issuer: _Pair


def encode(ring: Keyring) -> bytes:
    """The content of the file."""
    keys = [
        _Key(
            kind=key.kind,
            state=key.state,
            since=key.since,
            sequence=key.sequence,
            certificate=key.certificate.public_bytes(_PEM).decode("ascii"),
            key="" if key.key is None else _key_text(key.key),
        )
        for key in ring.keys
    ]
    return msgspec.json.encode(
        _Document(trust_domain=ring.trust_domain, sequence=ring.sequence, keys=keys)
    )


def decode(content: bytes) -> Keyring:
    """Read the file.

    Raises:
        ValueError: it is damaged, or a key does not fit its certificate.
    """
    try:
        document = msgspec.json.decode(content, type=_Document)
    except msgspec.ValidationError:
        document = _from_first(msgspec.json.decode(content, type=_First))
    ring = Keyring(
        trust_domain=document.trust_domain,
        sequence=document.sequence,
        keys=tuple(_key(one) for one in document.keys),
    )
    for kind in (KeyKind.ROOT, KeyKind.ISSUER):
        ring.active(kind).signer()
    return ring


def _from_first(old: _First) -> _Document:
    keys = []
    for kind, pair in ((KeyKind.ROOT, old.root), (KeyKind.ISSUER, old.issuer)):
        certificate = x509.load_pem_x509_certificate(pair.certificate.encode("ascii"))
        keys.append(
            _Key(
                kind=kind,
                state=KeyState.ACTIVE,
                since=certificate.not_valid_before_utc,
                sequence=old.sequence,
                certificate=pair.certificate,
                key=pair.key,
            )
        )
    return _Document(trust_domain=old.trust_domain, sequence=old.sequence, keys=keys)


def _key(one: _Key) -> CaKey:
    certificate = x509.load_pem_x509_certificate(one.certificate.encode("ascii"))
    key = None
    if one.key:
        loaded = serialization.load_pem_private_key(one.key.encode("ascii"), None)
        if (
            not isinstance(loaded, ec.EllipticCurvePrivateKey)
            or loaded.public_key() != certificate.public_key()
        ):
            message = "a key does not fit its certificate"
            raise ValueError(message)
        key = loaded
    return CaKey(
        kind=one.kind,
        state=one.state,
        since=one.since,
        sequence=one.sequence,
        certificate=certificate,
        key=key,
    )


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")


def fingerprint(der: bytes) -> str:
    """The SHA-256 of a root, as tokens carry it."""
    return hashlib.sha256(der).hexdigest()
