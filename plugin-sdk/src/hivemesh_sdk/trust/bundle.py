"""The trust bundle: which roots this installation believes, numbered, in the SPIFFE format."""

import base64
import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.jws import VerifyKey, verify_key

ROOT_USE = "x509-svid"
SIGNER_USE = "jwt-svid"
REFRESH_HINT_S = 300  # how often a worker asks again where no heartbeat told it to


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Trust roots of one trust domain; a higher sequence replaces a lower one."""

    trust_domain: str
    roots: tuple[bytes, ...]  # DER
    sequence: int = 1
    refresh_hint_s: int = REFRESH_HINT_S
    signers: tuple[bytes, ...] = ()  # Ed25519 keys (32 bytes) that sign tickets and policies
    tainted: frozenset[str] = frozenset()  # roots and issuers whose certificates are to be renewed
    revoked: frozenset[str] = frozenset()  # issuers that are trusted no longer

    @property
    def verify_keys(self) -> dict[str, VerifyKey]:
        """The keys that sign tickets and policies, by their ids."""
        return {key.id: key for key in map(verify_key, self.signers)}

    def trusts(self, chain: Sequence[bytes]) -> bool:
        """Say whether a verified chain, leaf first and root last, is still believed."""
        return (
            len(chain) > 1
            and chain[-1] in self.roots
            and self.revoked.isdisjoint(map(certificate_id, chain[1:-1]))
        )

    def taints(self, chain: Sequence[bytes]) -> bool:
        """Say whether a chain without its root is to be renewed before its time."""
        return not self.tainted.isdisjoint(map(certificate_id, chain[1:]))

    def trusted_by(self, context: ssl.SSLContext) -> None:
        """Make these roots, and no others, the trust store of a fresh context."""
        if self.roots:
            context.load_verify_locations(cadata=b"".join(self.roots))

    def document(self) -> "BundleDocument":
        """The bundle as it travels (SPIFFE Trust Domain and Bundle, section 4)."""
        return BundleDocument(
            trust_domain=self.trust_domain,
            spiffe_sequence=self.sequence,
            spiffe_refresh_hint=self.refresh_hint_s,
            keys=[*map(_jwk, self.roots), *map(_signer_jwk, self.signers)],
            hivemesh_tainted=sorted(self.tainted),
            hivemesh_revoked=sorted(self.revoked),
        )


class Jwk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A trusted key: of a root the certificate is `x5c[0]` (base64 of its DER), of a signer `x`."""

    kty: str
    crv: str
    x: str
    y: str = ""
    x5c: list[str] = []
    kid: str = ""
    use: str


class BundleDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON form of a bundle; readers ignore what they do not know."""

    trust_domain: str
    keys: list[Jwk]
    spiffe_sequence: int
    spiffe_refresh_hint: int = REFRESH_HINT_S
    hivemesh_tainted: list[str] = []
    hivemesh_revoked: list[str] = []

    def bundle(self) -> Bundle:
        """Parse the certificates.

        Raises:
            ConfigurationError: a certificate cannot be read, or there is none.
        """
        try:
            roots = tuple(
                base64.b64decode(key.x5c[0], validate=True)
                for key in self.keys
                if key.use == ROOT_USE
            )
            for root in roots:
                x509.load_der_x509_certificate(root)
            signers = tuple(
                base64.urlsafe_b64decode(key.x + "=")
                for key in self.keys
                if key.use == SIGNER_USE and key.kty == "OKP"
            )
            for signer in signers:
                verify_key(signer)
        except (ValueError, IndexError) as error:
            message = "the trust bundle cannot be read"
            raise ConfigurationError(message) from error
        if not roots:
            message = "the trust bundle is empty"
            raise ConfigurationError(message)
        return Bundle(
            trust_domain=self.trust_domain,
            roots=roots,
            sequence=self.spiffe_sequence,
            refresh_hint_s=self.spiffe_refresh_hint,
            signers=signers,
            tainted=frozenset(self.hivemesh_tainted),
            revoked=frozenset(self.hivemesh_revoked),
        )


def certificate_id(der: bytes) -> str:
    """How a root or issuer is called in bundles and heartbeats."""
    return hashlib.sha256(der).hexdigest()[:32]


def bundle_from_json(content: bytes) -> Bundle:
    """Read a bundle document.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        return msgspec.json.decode(content, type=BundleDocument).bundle()
    except msgspec.DecodeError as error:
        message = "the trust bundle is no valid document"
        raise ConfigurationError(message) from error


def _jwk(der: bytes) -> Jwk:
    key = x509.load_der_x509_certificate(der).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        message = "trust roots are elliptic-curve certificates"
        raise ConfigurationError(message)
    numbers = key.public_numbers()
    size = (key.curve.key_size + 7) // 8
    curve = {"secp256r1": "P-256", "secp384r1": "P-384"}[key.curve.name]
    return Jwk(
        kty="EC",
        crv=curve,
        x=_base64url(numbers.x.to_bytes(size, "big")),
        y=_base64url(numbers.y.to_bytes(size, "big")),
        x5c=[base64.b64encode(der).decode("ascii")],
        use=ROOT_USE,
    )


def _signer_jwk(raw: bytes) -> Jwk:
    """RFC 8037 section 2."""
    return Jwk(kty="OKP", crv="Ed25519", x=_base64url(raw), kid=verify_key(raw).id, use=SIGNER_USE)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
