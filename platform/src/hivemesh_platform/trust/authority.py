"""The signing half of the authority: root and issuer keys, and what they sign.

All state is one file that only its owner may read; it is replaced whole. Leaves bring their
issuer along, so a new issuer needs no announcement; a new root is announced first, used second,
and the old one is dropped third.
"""

import hashlib
import secrets
import threading
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import ConfigurationError, ConflictError
from hivemesh_sdk.trust.bundle import Bundle
from hivemesh_sdk.trust.identity import SpiffeId, check_trust_domain
from hivemesh_sdk.trust.keys import Svid, new_key, read_private_file, write_private_file
from hivemesh_sdk.trust.profile import PublicKey, Signer, new_root_key

from hivemesh_platform.trust.profile import (
    Lifetimes,
    build_issuer,
    build_leaf,
    build_root,
    half_life,
)
from hivemesh_platform.trust.signing import open_signing

FILE = "authority.json"
_DER = serialization.Encoding.DER
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate just signed, with its issuer."""

    chain: tuple[x509.Certificate, ...]

    @property
    def serial(self) -> int:
        """Serial number of the leaf."""
        return self.chain[0].serial_number

    @property
    def not_after(self) -> datetime:
        """When the leaf expires."""
        return self.chain[0].not_valid_after_utc

    @property
    def pem(self) -> str:
        """Leaf first, without the root."""
        return b"".join(item.public_bytes(_PEM) for item in self.chain).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    trust_domain: str
    root: Signer
    issuer: Signer
    sequence: int = 1
    announced: Signer | None = None  # the next root, not yet used
    retiring: x509.Certificate | None = None  # the previous root, still trusted

    def bundle(self) -> Bundle:
        roots = [self.root.certificate]
        if self.announced is not None:
            roots.append(self.announced.certificate)
        if self.retiring is not None:
            roots.append(self.retiring)
        ders = tuple(root.public_bytes(_DER) for root in roots)
        return Bundle(trust_domain=self.trust_domain, roots=ders, sequence=self.sequence)


class Authority:
    """Signs for one trust domain. Made by `open_authority`; its methods may run in any thread."""

    def __init__(
        self, path: Path, state: _State, clock: Clock, lifetimes: Lifetimes, passphrase: bytes
    ) -> None:
        self.signing = open_signing(path.parent)
        self._path = path
        self._state = state
        self._clock = clock
        self._lifetimes = lifetimes
        self._passphrase = passphrase
        self._lock = threading.Lock()
        self._log = structlog.get_logger("hivemesh.trust")

    @property
    def trust_domain(self) -> str:
        """The trust domain it signs for."""
        return self._state.trust_domain

    @property
    def root_sha256(self) -> str:
        """Fingerprint of the root in use, as tokens carry it."""
        return hashlib.sha256(self._state.root.certificate.public_bytes(_DER)).hexdigest()

    @property
    def issuer_expires_at(self) -> datetime:
        """When the issuer in use expires; the next one replaces it at half of its life."""
        return self._state.issuer.certificate.not_valid_after_utc

    def bundle(self) -> Bundle:
        """The roots and signers to trust now."""
        return replace(self._state.bundle(), signers=self.signing.announced)

    def issue(self, identity: SpiffeId, public_key: PublicKey) -> Issued:
        """Sign a leaf; a due issuer is replaced first.

        Raises:
            ConfigurationError: the identity belongs to another trust domain.
        """
        if identity.trust_domain != self.trust_domain:
            message = f"{str(identity)!r} is not in our trust domain {self.trust_domain!r}"
            raise ConfigurationError(message)
        now = self._clock.now()
        issuer = self._current_issuer(now)
        leaf = build_leaf(identity, public_key, issuer, now, self._lifetimes)
        issued = Issued((leaf, issuer.certificate))
        self._log.info(
            "certificate_issued",
            identity=str(identity),
            serial=f"{issued.serial:x}",
            not_after=issued.not_after.isoformat(),
        )
        return issued

    def renewal_due(self, not_after: datetime) -> datetime:
        """When half of a leaf's life is over; its backdated begin says nothing about that."""
        return not_after - self._lifetimes.svid / 2

    def svid(self, identity: SpiffeId) -> Svid:
        """Make a key here and sign it: for the platform itself and the operator's command."""
        key = new_key()
        issued = self.issue(identity, key.public_key())
        leaf = issued.chain[0]
        return Svid(
            id=identity,
            key=key,
            chain=tuple(item.public_bytes(_DER) for item in issued.chain),
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            serial=leaf.serial_number,
        )

    def rotate_issuer(self) -> None:
        """Replace the issuer at once."""
        with self._lock:
            self._replace_issuer(self._state.root, self._clock.now())

    def announce_root(self) -> Bundle:
        """Begin a change of root: announce a second one, which signs nothing yet.

        Raises:
            ConflictError: another change of root is under way.
        """
        with self._lock:
            if self._state.announced is not None or self._state.retiring is not None:
                message = "another change of root is under way; finish it first"
                raise ConflictError(message)
            root = build_root(self.trust_domain, new_root_key(), self._clock.now(), self._lifetimes)
            self._store(replace(self._state, announced=root, sequence=self._state.sequence + 1))
        return self.bundle()

    def use_announced_root(self) -> None:
        """Sign under the announced root, once everybody trusts it; the old one stays trusted.

        Raises:
            ConflictError: no root was announced.
        """
        with self._lock:
            old, new = self._state.root, self._state.announced
            if new is None:
                message = "no root was announced"
                raise ConflictError(message)
            now = self._clock.now()
            issuer = build_issuer(self.trust_domain, new_key(), new, now, self._lifetimes)
            self._store(
                replace(
                    self._state, root=new, issuer=issuer, announced=None, retiring=old.certificate
                )
            )

    def retire_old_root(self) -> Bundle:
        """End a change of root: trust the old one no longer, once every leaf is renewed."""
        with self._lock:
            self._store(replace(self._state, retiring=None, sequence=self._state.sequence + 1))
        return self.bundle()

    def _current_issuer(self, now: datetime) -> Signer:
        with self._lock:
            if now >= half_life(self._state.issuer.certificate, self._lifetimes.issuer):
                self._replace_issuer(self._state.root, now)
            return self._state.issuer

    def _replace_issuer(self, root: Signer, now: datetime) -> None:
        issuer = build_issuer(self.trust_domain, new_key(), root, now, self._lifetimes)
        self._store(replace(self._state, issuer=issuer))
        self._log.info(
            "issuer_replaced", not_after=issuer.certificate.not_valid_after_utc.isoformat()
        )

    def _store(self, state: _State) -> None:
        write_private_file(self._path, _encode(state, self._passphrase))
        self._state = state


def open_authority(
    folder: Path,
    clock: Clock,
    lifetimes: Lifetimes,
    *,
    trust_domain: str = "",
    passphrase: bytes = b"",
) -> Authority:
    """Load the authority of a state folder, or make one; an empty trust domain is made up once.

    Raises:
        ConfigurationError: the file can be read by others, is damaged, or is of another domain.
    """
    path = folder / FILE
    if path.exists():
        state = _decode(read_private_file(path), passphrase)
        if trust_domain not in {"", state.trust_domain}:
            message = (
                f"the state folder belongs to trust domain {state.trust_domain!r}, "
                f"not {trust_domain!r}; choose another --state"
            )
            raise ConfigurationError(message)
        return Authority(path, state, clock, lifetimes, passphrase)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    domain = check_trust_domain(trust_domain or f"{secrets.token_hex(4)}.hivemesh.internal")
    now = clock.now()
    root = build_root(domain, new_root_key(), now, lifetimes)
    issuer = build_issuer(domain, new_key(), root, now, lifetimes)
    state = _State(trust_domain=domain, root=root, issuer=issuer)
    write_private_file(path, _encode(state, passphrase))
    return Authority(path, state, clock, lifetimes, passphrase)


class _Pair(msgspec.Struct, frozen=True):
    certificate: str
    key: str

    def __repr__(self) -> str:
        return "_Pair(…)"


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int = 1
    trust_domain: str
    sequence: int
    root: _Pair
    issuer: _Pair
    announced: _Pair | None = None
    retiring: str | None = None


def _encode(state: _State, passphrase: bytes) -> bytes:
    document = _Document(
        trust_domain=state.trust_domain,
        sequence=state.sequence,
        root=_pair(state.root, passphrase),
        issuer=_pair(state.issuer, passphrase),
        announced=_pair(state.announced, passphrase) if state.announced is not None else None,
        retiring=(
            state.retiring.public_bytes(_PEM).decode("ascii")
            if state.retiring is not None
            else None
        ),
    )
    return msgspec.json.encode(document)


def _decode(content: bytes, passphrase: bytes) -> _State:
    try:
        document = msgspec.json.decode(content, type=_Document)
        return _State(
            trust_domain=document.trust_domain,
            sequence=document.sequence,
            root=_signer(document.root, passphrase),
            issuer=_signer(document.issuer, passphrase),
            announced=(
                _signer(document.announced, passphrase) if document.announced is not None else None
            ),
            retiring=(
                x509.load_pem_x509_certificate(document.retiring.encode("ascii"))
                if document.retiring is not None
                else None
            ),
        )
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        message = f"{FILE} cannot be read: damaged, or another passphrase; restore it from a backup"
        raise ConfigurationError(message) from error


def _pair(signer: Signer, passphrase: bytes) -> _Pair:
    protection: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    key = signer.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, protection)
    certificate = signer.certificate.public_bytes(_PEM)
    return _Pair(certificate.decode("ascii"), key.decode("ascii"))


def _signer(pair: _Pair, passphrase: bytes) -> Signer:
    certificate = x509.load_pem_x509_certificate(pair.certificate.encode("ascii"))
    key = serialization.load_pem_private_key(pair.key.encode("ascii"), passphrase or None)
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or key.public_key() != certificate.public_key()
    ):
        message = "a key does not fit its certificate"
        raise ValueError(message)
    return Signer(certificate, key)
