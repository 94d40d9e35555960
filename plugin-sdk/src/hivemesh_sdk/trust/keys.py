"""Private keys, certificate requests and the way of both into OpenSSL without touching a disk."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.identity import SpiffeId, peer_identity

PrivateKey = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Svid:
    """One identity ready for use: key and chain (leaf first, without the root)."""

    id: SpiffeId
    key: PrivateKey = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)  # DER
    not_before: datetime
    not_after: datetime
    serial: int


def new_key() -> PrivateKey:
    """Make a P-256 key; it lives in this process only."""
    return ec.generate_private_key(ec.SECP256R1())


def certificate_request(key: PrivateKey, names: SpiffeId | None = None) -> bytes:
    """Make a PEM request; the platform composes the certificate, the request proves the key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names is not None:
        builder = builder.add_extension(alternative_names(names), critical=True)
    request = builder.sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def alternative_names(identity: SpiffeId) -> x509.SubjectAlternativeName:
    """The names of a leaf: its URI and the DNS names derived from it."""
    return x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier(str(identity)),
            *(x509.DNSName(name) for name in identity.dns_names),
        ]
    )


def svid(key: PrivateKey, chain_pem: bytes, trust_domain: str) -> Svid:
    """Join a key and the chain that was issued for it.

    Raises:
        ConfigurationError: the chain is unreadable or was issued for another key.
        PeerIdentityError: the leaf is no identity of this trust domain.
    """
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except ValueError as error:
        message = "the certificate chain cannot be read"
        raise ConfigurationError(message) from error
    leaf = chain[0]
    if leaf.public_key() != key.public_key():
        message = "the certificate was issued for another key"
        raise ConfigurationError(message)
    ders = tuple(item.public_bytes(serialization.Encoding.DER) for item in chain)
    peer = peer_identity(ders[0], trust_domain)
    return Svid(
        id=peer.id,
        key=key,
        chain=ders,
        not_before=leaf.not_valid_before_utc,
        not_after=peer.not_after,
        serial=peer.serial,
    )


def key_pem(key: PrivateKey) -> bytes:
    """The key as unencrypted PKCS#8; for memory files and 0600 files only."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def pem(ders: tuple[bytes, ...]) -> bytes:
    """Certificates as PEM, in the given order."""
    return b"".join(ssl.DER_cert_to_PEM_cert(der).encode("ascii") for der in ders)


def load_into(context: ssl.SSLContext, identity: Svid, extra: tuple[bytes, ...] = ()) -> None:
    """Load key and chain through an anonymous file: Python's ssl takes paths only."""
    load_chain(context, key_pem(identity.key) + pem((*identity.chain, *extra)))


def load_chain(context: ssl.SSLContext, content: bytes) -> None:
    """Load a key and its chain, both PEM, without touching a disk."""
    with _memory_file(content) as path:
        context.load_cert_chain(path)


def write_private_file(path: Path, content: bytes) -> None:
    """Replace a file that only its owner may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


def read_private_file(path: Path) -> bytes:
    """Read a file that only its owner may read.

    Raises:
        ConfigurationError: the group or others may read it, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                message = f"{str(path)!r} can be read by others; run: chmod 600 {path}"
                raise ConfigurationError(message)
            return file.read()
    except OSError as error:
        message = f"{str(path)!r} cannot be read: {error.strerror}"
        raise ConfigurationError(message) from error


@contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("svid")
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
