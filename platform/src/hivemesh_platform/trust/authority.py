"""The signing half of the authority: what is signed, and each step by which its keys change.

All state is one file that only its owner may read; it is replaced whole. `rotation` decides when
a step is taken.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.bundle import Bundle
from hivemesh_sdk.trust.identity import Kind, SpiffeId, check_trust_domain
from hivemesh_sdk.trust.keys import Svid, new_key, read_private_file, write_private_file
from hivemesh_sdk.trust.profile import PublicKey, Signer, new_root_key

from hivemesh_platform.trust.folder import FolderLock, signature
from hivemesh_platform.trust.keyring import (
    CaKey,
    KeyKind,
    Keyring,
    KeyState,
    decode,
    encode,
    fingerprint,
)
from hivemesh_platform.trust.limit import SignLimit
from hivemesh_platform.trust.model import CaBusyError, RootExpiredError
from hivemesh_platform.trust.profile import (
    Lifetimes,
    build_issuer,
    build_leaf,
    build_root,
    half_life,
)
from hivemesh_platform.trust.sealing import Sealer
from hivemesh_platform.trust.signing import Signing, open_signing

FILE = "authority.json"
_DER = serialization.Encoding.DER
_PEM = serialization.Encoding.PEM
_CA = frozenset({KeyKind.ROOT, KeyKind.ISSUER})


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


Signed = Callable[[SpiffeId, Issued], None]


class Authority:
    """Signs for one trust domain. Made by `open_authority`; its methods may run in any thread."""

    def __init__(  # noqa: PLR0913 - what it consists of; made in one place
        self,
        path: Path,
        ring: Keyring,
        *,
        signing: Signing,
        clock: Clock,
        lifetimes: Lifetimes,
        sealer: Sealer,
        limit: SignLimit,
        lock: FolderLock,
    ) -> None:
        self.signing = signing
        self.lifetimes = lifetimes
        self._path = path
        self._ring = ring
        self._clock = clock
        self._sealer = sealer
        self._limit = limit
        self._lock = lock
        self._read = signature(path)
        self._others: tuple[bytes, ...] = ()
        self._signed: Signed | None = None
        self._unheard: list[tuple[SpiffeId, Issued]] = []
        self._own: dict[int, datetime] = {}  # certificates of the platform and of people
        self._log = structlog.get_logger("hivemesh.trust")

    @property
    def trust_domain(self) -> str:
        """The trust domain it signs for."""
        return self._ring.trust_domain

    @property
    def root_sha256(self) -> str:
        """Fingerprint of the root in use, as tokens carry it."""
        return fingerprint(self._ring.active(KeyKind.ROOT).der)

    @property
    def issuer_expires_at(self) -> datetime:
        """When the issuer in use expires; the next one is prepared at half of its life."""
        return self._ring.active(KeyKind.ISSUER).not_after

    @property
    def ring(self) -> Keyring:
        """Roots and issuers with their states."""
        return self._ring

    def bundle(self) -> Bundle:
        """The roots and signers to trust now."""
        own = self._ring.bundle()
        others = tuple(root for root in self._others if root not in own.roots)
        return replace(own, roots=(*own.roots, *others), signers=self.signing.announced)

    def reload(self) -> None:
        """Take over what another replica has changed, all of it or nothing."""
        if signature(self._path) != self._read or self.signing.is_outdated:
            with self._changing():
                pass

    def trust_also(self, roots: tuple[bytes, ...]) -> None:
        """Announce the roots of another issuer of this trust domain beside the own ones."""
        with self._changing():
            if roots != self._others:
                self._others = roots
                self._store(replace(self._ring, sequence=self._ring.sequence + 1))

    def on_signed(self, signed: Signed) -> None:
        """Call `signed` for every certificate, those before this call included."""
        unheard, self._unheard, self._signed = self._unheard, [], signed
        for identity, issued in unheard:
            signed(identity, issued)

    def is_own(self, serial: int) -> bool:
        """Say whether this process has issued it to the platform or to the operator."""
        return serial in self._own

    def issue(self, identity: SpiffeId, public_key: PublicKey) -> Issued:
        """Sign a leaf; an issuer near its end is replaced first.

        Raises:
            ConfigurationError: the identity belongs to another trust domain.
            SigningLimitedError: more signatures are asked for than anybody needs.
            RootExpiredError: nothing is left to sign with.
        """
        if identity.trust_domain != self.trust_domain:
            message = f"{str(identity)!r} is not in our trust domain {self.trust_domain!r}"
            raise ConfigurationError(message)
        self._limit.take()
        now = self._clock.now()
        issuer = self._usable_issuer(now)
        leaf = build_leaf(identity, public_key, issuer, now, self.lifetimes)
        issued = Issued((leaf, issuer.certificate))
        if identity.kind is not Kind.WORKER:
            self._own = {one: until for one, until in self._own.items() if until > now}
            self._own[issued.serial] = issued.not_after
        self._log.info(
            "certificate_issued",
            identity=str(identity),
            serial=f"{issued.serial:x}",
            not_after=issued.not_after.isoformat(),
        )
        if self._signed is not None:
            self._signed(identity, issued)
        else:
            self._unheard.append((identity, issued))
        return issued

    def renewal_due(self, not_after: datetime) -> datetime:
        """When half of a leaf's life is over; its backdated begin says nothing about that."""
        return not_after - self.lifetimes.svid / 2

    def would_begin_sooner(self, not_before: datetime) -> bool:
        """Whether a leaf is not valid yet, and one made now would be: the clock was set back."""
        issuer = self._ring.active(KeyKind.ISSUER).certificate
        return issuer.not_valid_before_utc <= self._clock.now() < not_before

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

    def due(self, kind: KeyKind) -> datetime:
        """When the successor of the key in use is to be prepared."""
        if kind is KeyKind.SIGNER:
            active = self.signing.one(KeyState.ACTIVE)
            since = self._clock.now() if active is None else active.since
            return since + self.lifetimes.issuer
        life = self.lifetimes.root if kind is KeyKind.ROOT else self.lifetimes.issuer
        return half_life(self._ring.active(kind).certificate, life)

    def changing(self, kind: KeyKind) -> tuple[KeyKind, KeyState] | None:
        """The change under way that keeps another one of this kind waiting."""
        if kind is KeyKind.SIGNER:
            prepared = self.signing.one(KeyState.PREPARED)
            return None if prepared is None else (kind, KeyState.PREPARED)
        for state in (KeyState.PREPARED, KeyState.TAINTED):
            keys = self._ring.in_state(state)
            if keys:
                roots = any(key.kind is KeyKind.ROOT for key in keys)
                return (KeyKind.ROOT if roots else KeyKind.ISSUER), state
        return None

    def prepare(self, kind: KeyKind) -> None:
        """Announce the next key of this kind; it signs nothing yet.

        Raises:
            CaBusyError: another change is under way.
            RootExpiredError: an issuer would have nobody to sign it.
        """
        with self._changing():
            busy = self.changing(kind)
            if busy is not None:
                message = f"the {busy[0]} is being changed ({busy[1]}); see `hivemesh ca status`"
                raise CaBusyError(message)
            now, sequence = self._clock.now(), self._ring.sequence + 1
            if kind is KeyKind.SIGNER:
                self._store(replace(self._ring, sequence=sequence))
                self.signing.prepare(now, sequence)
                return
            fresh = self._new(kind, KeyState.PREPARED, now, sequence)
            self._store(self._ring.with_keys((*self._ring.keys, fresh), now, sequence))
        self._log.info("authority_key_prepared", kind=kind.value, id=fresh.id)

    def activate(self, kind: KeyKind) -> None:
        """Sign with the prepared key; the one before it is tainted: trusted, and being replaced.

        Raises:
            CaBusyError: none was prepared.
        """
        with self._changing():
            now, sequence = self._clock.now(), self._ring.sequence + 1
            if kind is KeyKind.SIGNER:
                self._store(replace(self._ring, sequence=sequence))
                self.signing.activate(now, sequence)
                return
            prepared = self._ring.one(kind, KeyState.PREPARED)
            if prepared is None:
                message = f"no {kind} was prepared"
                raise CaBusyError(message)
            # A new root needs an issuer of its own; what signed before is tainted with its root.
            ending = _CA if kind is KeyKind.ROOT else {kind}
            keys = [
                key.moved(KeyState.TAINTED, now, sequence)
                if key.state is KeyState.ACTIVE and key.kind in ending
                else key
                for key in self._ring.keys
                if key is not prepared
            ]
            active = prepared.moved(KeyState.ACTIVE, now, sequence)
            keys.append(active)
            if kind is KeyKind.ROOT:
                keys.append(self._issuer_under(active.signer(), KeyState.ACTIVE, now, sequence))
            self._store(self._ring.with_keys(keys, now, sequence))
        self._log.info("authority_key_active", kind=kind.value, id=active.id)

    def revoke_tainted(self) -> None:
        """Trust the roots and issuers no longer whose successors everybody uses."""
        with self._changing():
            now, sequence = self._clock.now(), self._ring.sequence + 1
            keys = [
                key.moved(KeyState.REVOKED, now, sequence) if key.state is KeyState.TAINTED else key
                for key in self._ring.keys
            ]
            self._store(self._ring.with_keys(keys, now, sequence))
        self._log.info("authority_keys_revoked")

    def drop_signers(self, before: datetime) -> None:
        """Announce signing keys no longer that were tainted before this moment."""
        with self._changing():
            self._store(replace(self._ring, sequence=self._ring.sequence + 1))
            self.signing.drop(before)

    def start_over(self) -> None:
        """Break glass: new root, issuer and signing key now; nothing before them is trusted."""
        with self._changing():
            now, sequence = self._clock.now(), self._ring.sequence + 1
            old = [
                key if key.state is KeyState.REVOKED else key.moved(KeyState.REVOKED, now, sequence)
                for key in self._ring.keys
            ]
            root = self._new(KeyKind.ROOT, KeyState.ACTIVE, now, sequence)
            issuer = self._issuer_under(root.signer(), KeyState.ACTIVE, now, sequence)
            self._store(self._ring.with_keys((*old, root, issuer), now, sequence))
            self.signing.replace_all(now, sequence)
        self._log.warning("authority_started_over", root=root.id)

    def _usable_issuer(self, now: datetime) -> Signer:
        """The issuer in use; replaced here only where no rotation did in time."""
        if self._is_late(now):
            with self._changing():
                if self._is_late(now):  # no other replica was faster
                    self._replace_issuer(now)
        return self._ring.active(KeyKind.ISSUER).signer()

    def _is_late(self, now: datetime) -> bool:
        active = self._ring.active(KeyKind.ISSUER)
        margin = max(self.lifetimes.issuer / 4, self.lifetimes.svid)
        # An issuer that its root cuts short has no better successor.
        return now >= active.not_after - margin and not self._cut_short(active)

    def _cut_short(self, issuer: CaKey) -> bool:
        root = self._ring.active(KeyKind.ROOT)
        if self._clock.now() >= root.not_after:
            message = f"the root expired at {root.not_after.isoformat()}"
            raise RootExpiredError(message)
        return issuer.not_after >= root.not_after

    def _replace_issuer(self, now: datetime) -> None:
        if self._ring.one(KeyKind.ISSUER, KeyState.PREPARED) is None:
            sequence = self._ring.sequence + 1
            fresh = self._new(KeyKind.ISSUER, KeyState.PREPARED, now, sequence)
            self._store(self._ring.with_keys((*self._ring.keys, fresh), now, sequence))
        self.activate(KeyKind.ISSUER)

    def _new(self, kind: KeyKind, state: KeyState, now: datetime, sequence: int) -> CaKey:
        if kind is KeyKind.ISSUER:
            root = self._ring.active(KeyKind.ROOT).signer()
            return self._issuer_under(root, state, now, sequence)
        root = build_root(self.trust_domain, new_root_key(), now, self.lifetimes)
        return _ca_key(kind, state, root, now, sequence)

    def _issuer_under(self, root: Signer, state: KeyState, now: datetime, sequence: int) -> CaKey:
        issuer = build_issuer(self.trust_domain, new_key(), root, now, self.lifetimes)
        return _ca_key(KeyKind.ISSUER, state, issuer, now, sequence)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change the keys while no other replica does, on top of what it has changed before."""
        with self._lock:
            if self._lock.is_outermost:
                self._read_again()
            yield

    def _read_again(self) -> None:
        found = signature(self._path)
        if found != self._read:
            self._ring, self._read = _loaded(self._path, self._sealer), found
        self.signing.read_again()

    def _store(self, ring: Keyring) -> None:
        write_private_file(self._path, self._sealer.seal(FILE, encode(ring)))
        self._ring, self._read = ring, signature(self._path)


def open_authority(
    folder: Path,
    clock: Clock,
    lifetimes: Lifetimes,
    *,
    trust_domain: str = "",
    passphrase: bytes = b"",
    limit: SignLimit | None = None,
) -> Authority:
    """Load the authority of a state folder, or make one; an empty trust domain is made up once.

    Raises:
        ConfigurationError: the file can be read by others, is damaged, or is of another domain.
    """
    path, sealer = folder / FILE, Sealer(passphrase)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FolderLock(folder)
    with lock:  # of replicas that start together one makes the keys
        ring, signing = _opened(path, sealer, clock.now(), lifetimes, trust_domain)
    return Authority(
        path,
        ring,
        signing=signing,
        clock=clock,
        lifetimes=lifetimes,
        sealer=sealer,
        limit=limit or SignLimit(clock),
        lock=lock,
    )


def _opened(
    path: Path, sealer: Sealer, now: datetime, lifetimes: Lifetimes, trust_domain: str
) -> tuple[Keyring, Signing]:
    if path.exists():
        ring = _loaded(path, sealer)
        if trust_domain not in {"", ring.trust_domain}:
            message = (
                f"the state folder belongs to trust domain {ring.trust_domain!r}, "
                f"not {trust_domain!r}; choose another --state"
            )
            raise ConfigurationError(message)
    else:
        ring = _first(trust_domain, now, lifetimes)
        write_private_file(path, sealer.seal(FILE, encode(ring)))
    return ring, open_signing(path.parent, now, sealer)


def _loaded(path: Path, sealer: Sealer) -> Keyring:
    try:
        return decode(sealer.open(FILE, read_private_file(path)))
    except (msgspec.DecodeError, ValueError, TypeError, LookupError) as error:
        message = f"{FILE} cannot be read: it is damaged; restore it from a backup"
        raise ConfigurationError(message) from error


def _first(trust_domain: str, now: datetime, lifetimes: Lifetimes) -> Keyring:
    domain = check_trust_domain(trust_domain or f"{secrets.token_hex(4)}.hivemesh.internal")
    root = build_root(domain, new_root_key(), now, lifetimes)
    issuer = build_issuer(domain, new_key(), root, now, lifetimes)
    keys = (
        _ca_key(KeyKind.ROOT, KeyState.ACTIVE, root, now, 1),
        _ca_key(KeyKind.ISSUER, KeyState.ACTIVE, issuer, now, 1),
    )
    return Keyring(trust_domain=domain, keys=keys)


def _ca_key(kind: KeyKind, state: KeyState, signer: Signer, now: datetime, sequence: int) -> CaKey:
    return CaKey(
        kind=kind,
        state=state,
        since=now,
        sequence=sequence,
        certificate=signer.certificate,
        key=signer.key,
    )
