"""The certificate of the people listener: an issuer of its own, which the mesh does not trust.

Browsers and tools verify names and addresses, which no certificate of the mesh may carry. Whoever
imports this root trusts it for web pages of this machine and for nothing in the mesh.
"""

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.keys import (
    PrivateKey,
    key_pem,
    load_chain,
    new_key,
    read_private_file,
    write_private_file,
)

from hivemesh_platform.trust.folder import FolderLock

KEY_FILE = "web.json"
ROOT_FILE = "web-root.pem"  # for --ca-file, and for the trust store of a browser
ROOT_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=90)
RENEW_AFTER = timedelta(days=60)
BACKDATE = timedelta(seconds=60)
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class _Issuer:
    certificate: x509.Certificate
    key: PrivateKey


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    certificate: str
    key: str

    def __repr__(self) -> str:
        return "_Document(…)"


class WebIssuer:
    """Keeps the TLS context of the people listener supplied with a valid certificate."""

    def __init__(self, folder: Path, clock: Clock, names: Sequence[str], installation: str) -> None:
        self._folder = folder
        self._clock = clock
        self._installation = installation
        self._names = tuple(names)
        self._issuer: _Issuer | None = None
        self._fresh: tuple[datetime, datetime] | None = None  # from its begin until it is renewed
        self._log = structlog.get_logger("hivemesh.trust")
        self.context = _context()

    @property
    def root_file(self) -> Path:
        """Where the root is, for those who are to trust the listener."""
        return self._folder / ROOT_FILE

    def open(self) -> None:
        """Load the issuer or make one, and put a fresh certificate into the context.

        Raises:
            ConfigurationError: the key's file is damaged, or others may read it.
        """
        path = self._folder / KEY_FILE
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FolderLock(self._folder):  # of replicas that start together one makes it
            issuer = _decoded(read_private_file(path)) if path.exists() else None
            if (
                issuer is None
                or self._clock.now() + LIFETIME > issuer.certificate.not_valid_after_utc
            ):
                issuer = self._new_issuer(path)
        self._issuer = issuer
        self.root_file.write_bytes(issuer.certificate.public_bytes(_PEM))
        self.renew()

    def renew(self) -> bool:
        """Replace the certificate where two thirds of its life are over; new connections see it.

        Also where the clock was set back before its begin.
        """
        now = self._clock.now()
        if self._issuer is None or (
            self._fresh is not None and self._fresh[0] <= now < self._fresh[1]
        ):
            return False
        key = new_key()
        leaf = _leaf(self._issuer, key, self._names, now)
        load_chain(self.context, key_pem(key) + leaf.public_bytes(_PEM))
        self._fresh = leaf.not_valid_before_utc, now + RENEW_AFTER
        self._log.info(
            "web_certificate_issued",
            names=list(self._names),
            not_after=leaf.not_valid_after_utc.isoformat(),
        )
        return True

    def _new_issuer(self, path: Path) -> _Issuer:
        key = ec.generate_private_key(ec.SECP384R1())
        issuer = _Issuer(_root(key, self._installation, self._clock.now()), key)
        document = _Document(
            issuer.certificate.public_bytes(_PEM).decode("ascii"), key_pem(key).decode("ascii")
        )
        write_private_file(path, msgspec.json.encode(document))
        return issuer


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


def _decoded(content: bytes) -> _Issuer:
    try:
        document = msgspec.json.decode(content, type=_Document)
        certificate = x509.load_pem_x509_certificate(document.certificate.encode("ascii"))
        key = serialization.load_pem_private_key(document.key.encode("ascii"), None)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        message = f"{KEY_FILE} is damaged; remove it, and the root is made anew"
        raise ConfigurationError(message) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        message = f"{KEY_FILE} holds no key of ours; remove it, and the root is made anew"
        raise ConfigurationError(message)
    return _Issuer(certificate, key)


def _root(key: PrivateKey, installation: str, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Hivemesh web {installation}"[:64])])
    builder = _builder(name, name, key, now, ROOT_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return builder.sign(key, hashes.SHA384())


def _leaf(
    issuer: _Issuer, key: PrivateKey, names: Sequence[str], now: datetime
) -> x509.Certificate:
    builder = _builder(x509.Name([]), issuer.certificate.subject, key, now, LIFETIME)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
    )
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=True
    )
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False
    )
    return builder.sign(issuer.key, hashes.SHA384())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
