"""An identity from PEM files that somebody else keeps fresh: cert-manager, a CSI driver, a script.

The files are read again when they change. What they hold is checked like every other identity:
one SPIFFE ID of the trust domain, the DNS names that callers ask for, a key that fits, a chain
that leads to the bundle, and validity now. A bad set of files is refused and the one before stays
in use, so a half-written change does no harm.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hivemesh_sdk.clock import Clock, SystemClock
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.bundle import Bundle
from hivemesh_sdk.trust.identity import PeerIdentityError, SpiffeId
from hivemesh_sdk.trust.keys import PrivateKey, Svid, read_private_file, svid
from hivemesh_sdk.trust.source import IdentitySource

POLL_S = 1.0
_DER = serialization.Encoding.DER
_CURVES = ("secp256r1", "secp384r1")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityPaths:
    """Where the files are; a chain holds the leaf first, a bundle the roots to trust."""

    key: Path
    chain: Path
    bundle: Path

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Changes whenever a file was replaced or written; links are followed, as mounts swap them."""
        found = []
        for path in (self.key, self.chain, self.bundle):
            try:
                state = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((state.st_mtime_ns, state.st_ino, state.st_size))
        return tuple(found)

    def load(self) -> tuple[Svid, tuple[bytes, ...]]:
        """Read and check the files; returns the identity and the roots.

        Raises:
            ConfigurationError: a file cannot be read, or they do not make an identity.
        """
        key = _key(self.key)
        chain = _readable(self.chain)
        roots = _roots(self.bundle)
        try:
            leaf = x509.load_pem_x509_certificates(chain)[0]
            found = svid(key, chain, _trust_domain(leaf))
        except (ValueError, x509.ExtensionNotFound, PeerIdentityError) as error:
            message = f"{str(self.chain)!r} holds no identity: {error}"
            raise ConfigurationError(message) from error
        _check_names(leaf, found.id)
        return replace(found, chain=_without_roots(found.chain, roots)), roots


class FileIdentitySource(IdentitySource):
    """An identity source whose identity and roots come from files.

    Roots and signing keys that the platform announces are trusted in addition.
    """

    def __init__(
        self,
        paths: IdentityPaths,
        *,
        clock: Clock | None = None,
        expected: Callable[[SpiffeId], None] = lambda _identity: None,
    ) -> None:
        self._paths = paths
        self._clock = clock or SystemClock()
        self._expected = expected
        self._stamp = paths.stamp()
        identity, roots = self._load()
        self._file_roots = roots
        self.reloads = 0
        self.failures = 0
        self._log = structlog.get_logger("hivemesh.trust")
        trust_domain = identity.id.trust_domain
        super().__init__(identity, Bundle(trust_domain=trust_domain, roots=roots, sequence=0))

    @property
    def file_roots(self) -> tuple[bytes, ...]:
        """The roots of the bundle file."""
        return self._file_roots

    def update(self, *, svid: Svid | None = None, bundle: Bundle | None = None) -> None:
        """As every source does; the roots of the files stay trusted."""
        if bundle is not None:
            if bundle.trust_domain != self.trust_domain:
                message = f"the bundle is of trust domain {bundle.trust_domain!r}, not ours"
                raise ConfigurationError(message)
            others = tuple(root for root in bundle.roots if root not in self._file_roots)
            bundle = replace(bundle, roots=(*self._file_roots, *others))
        super().update(svid=svid, bundle=bundle)

    def reload(self) -> bool:
        """Take over files that have changed; False where they have not, or make no identity."""
        stamp = self._paths.stamp()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            identity, roots = self._load()
            _check_same(identity.id, self.svid().id)
        except ConfigurationError as error:
            self.failures += 1
            self._log.warning("identity_files_refused", detail=error.detail)
            return False
        gone = set(self._file_roots) - set(roots)
        bundle = self.bundle()
        kept = tuple(root for root in bundle.roots if root not in gone)
        self._file_roots = roots
        self.update(svid=identity, bundle=replace(bundle, roots=kept))
        self.reloads += 1
        self._log.info("identity_files_reloaded", not_after=identity.not_after.isoformat())
        return True

    async def run(self) -> None:
        """Look at the files every second until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await asyncio.to_thread(self._paths.stamp)  # a slow mount must not hold up the loop
            self.reload()

    def _load(self) -> tuple[Svid, tuple[bytes, ...]]:
        identity, roots = self._paths.load()
        now = self._clock.now()
        if not identity.not_before <= now < identity.not_after:
            message = (
                f"the certificate in {str(self._paths.chain)!r} is valid from "
                f"{identity.not_before.isoformat()} until {identity.not_after.isoformat()}, not now"
            )
            raise ConfigurationError(message)
        _check_chain(identity, roots, self._paths.chain)
        self._expected(identity.id)
        return identity, roots


def _check_same(found: SpiffeId, present: SpiffeId) -> None:
    if found != present:
        message = f"the files now hold {str(found)!r} instead of {str(present)!r}"
        raise ConfigurationError(message)


def _key(path: Path) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(read_private_file(path), None)
    except (ValueError, TypeError) as error:
        message = f"{str(path)!r} holds no unencrypted private key"
        raise ConfigurationError(message) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        message = f"{str(path)!r} holds no P-256 or P-384 key; ask its issuer for one"
        raise ConfigurationError(message)
    return key


def _roots(path: Path) -> tuple[bytes, ...]:
    try:
        roots = x509.load_pem_x509_certificates(_readable(path))
    except ValueError as error:
        message = f"{str(path)!r} holds no certificates"
        raise ConfigurationError(message) from error
    for root in roots:
        key = root.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
            message = f"{str(path)!r} holds a root that is no P-256 or P-384 certificate"
            raise ConfigurationError(message)
    return tuple(dict.fromkeys(root.public_bytes(_DER) for root in roots))


def _readable(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"{str(path)!r} cannot be read: {error.strerror}"
        raise ConfigurationError(message) from error


def _trust_domain(leaf: x509.Certificate) -> str:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        message = f"it carries {len(uris)} URI names instead of one"
        raise ValueError(message)
    return SpiffeId.parse(uris[0]).trust_domain


def _check_names(leaf: x509.Certificate, identity: SpiffeId) -> None:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    missing = set(identity.dns_names) - set(names.get_values_for_type(x509.DNSName))
    if missing:
        message = f"the certificate of {str(identity)!r} lacks the DNS names {sorted(missing)}"
        raise ConfigurationError(message)


def _without_roots(chain: tuple[bytes, ...], roots: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return (chain[0], *(der for der in chain[1:] if der not in roots))


def _check_chain(identity: Svid, roots: tuple[bytes, ...], path: Path) -> None:
    """Each certificate is signed by the next one, the last by a root of the bundle."""
    chain = [x509.load_der_x509_certificate(der) for der in identity.chain]
    anchors = [x509.load_der_x509_certificate(der) for der in roots]
    for lower, upper in pairwise(chain):
        if not _signed(lower, upper):
            message = f"the certificates in {str(path)!r} do not follow each other, leaf first"
            raise ConfigurationError(message)
    if not any(_signed(chain[-1], anchor) for anchor in anchors):
        message = f"the chain in {str(path)!r} does not lead to a root of the bundle"
        raise ConfigurationError(message)


def _signed(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
