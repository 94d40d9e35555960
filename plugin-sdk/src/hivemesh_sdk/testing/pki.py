"""A throw-away certificate authority for tests, able to issue every wrong certificate too.

It builds with the same profile as the platform's authority, so what passes here passes there.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from hivemesh_sdk.trust.bundle import Bundle
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.jws import SigningKey
from hivemesh_sdk.trust.keys import PrivateKey, Svid, new_key
from hivemesh_sdk.trust.profile import (
    PublicKey,
    Signer,
    Validity,
    issuer_certificate,
    key_identifiers,
    key_usage,
    leaf_certificate,
    new_root_key,
    root_certificate,
)
from hivemesh_sdk.trust.refusals import Refusals
from hivemesh_sdk.trust.source import IdentitySource

_DER = serialization.Encoding.DER


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """How a certificate deviates from the profile; the defaults deviate in nothing."""

    uris: Sequence[str] | None = None
    dns: Sequence[str] | None = None
    addresses: Sequence[str] = ()
    no_names: bool = False
    authority: bool = False
    bare: bool = False  # neither basic constraints nor key usage
    usages: Sequence[ObjectIdentifier] = field(
        default=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    )


class ThrowawayCA:
    """Root and issuer of a trust domain that exists for one test."""

    def __init__(
        self, trust_domain: str = "test.hivemesh.internal", *, constrained: bool = True
    ) -> None:
        self.trust_domain = trust_domain
        self._constrained = constrained
        self.sequence = 1
        self.root = self._new_root()
        self.roots: list[x509.Certificate] = [self.root.certificate]
        self.issuer = self._new_issuer()
        self.signing = SigningKey(Ed25519PrivateKey.generate())  # of tickets and policies

    def bundle(self) -> Bundle:
        """The roots and the signer that this authority announces now."""
        return Bundle(
            trust_domain=self.trust_domain,
            roots=tuple(root.public_bytes(_DER) for root in self.roots),
            sequence=self.sequence,
            signers=(self.signing.public.raw,),
        )

    def platform(self, replica: str = "p1") -> SpiffeId:
        """Identity of a platform replica."""
        return SpiffeId.platform(self.trust_domain, replica)

    def worker(self, worker: str = "echo", instance: str = "i1") -> SpiffeId:
        """Identity of a worker instance."""
        return SpiffeId.worker(self.trust_domain, worker, instance)

    def svid(
        self,
        identity: SpiffeId,
        *,
        lifetime: timedelta = timedelta(hours=1),
        starts_in: timedelta = timedelta(minutes=-1),
        now: datetime | None = None,
        key: PrivateKey | None = None,
    ) -> Svid:
        """Issue a certificate that follows the profile."""
        key = key or new_key()
        validity = _validity(lifetime, starts_in, now)
        certificate = leaf_certificate(identity, key.public_key(), self.issuer, validity)
        return self._svid(identity, key, certificate)

    def sign(
        self, identity: SpiffeId, public_key: PublicKey, lifetime: timedelta = timedelta(hours=1)
    ) -> bytes:
        """Issue for somebody else's key; returns the chain as PEM."""
        validity = _validity(lifetime, timedelta(minutes=-1), None)
        leaf = leaf_certificate(identity, public_key, self.issuer, validity)
        return b"".join(
            item.public_bytes(serialization.Encoding.PEM)
            for item in (leaf, self.issuer.certificate)
        )

    def wrong(self, identity: SpiffeId, how: Wrong, *, self_signed: bool = False) -> Svid:
        """Issue a certificate that deviates from the profile."""
        key = new_key()
        issuer = Signer(self.issuer.certificate, key) if self_signed else self.issuer
        certificate = _deviating(identity, key.public_key(), issuer, how)
        return self._svid(identity, key, certificate)

    def issuer_as_peer(self) -> Svid:
        """The issuer's own certificate and key, as a thief would present them."""
        certificate = self.issuer.certificate
        return Svid(
            id=self.platform(),
            key=self.issuer.key,
            chain=(certificate.public_bytes(_DER),),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            serial=certificate.serial_number,
        )

    def source(self, identity: SpiffeId, *, refusals: Refusals | None = None) -> IdentitySource:
        """An identity source with a fresh certificate."""
        return IdentitySource(self.svid(identity), self.bundle(), refusals=refusals)

    def rotate_issuer(self) -> None:
        """Replace the issuer; leaves of the old one stay valid until they expire."""
        self.issuer = self._new_issuer()

    def add_root(self) -> None:
        """Announce a second root; certificates still chain to the first."""
        self._next_root = self._new_root()
        self.roots.append(self._next_root.certificate)
        self.sequence += 1

    def use_new_root(self) -> None:
        """Issue under the announced second root from now on."""
        self.root = self._next_root
        self.issuer = self._new_issuer()

    def drop_old_root(self) -> None:
        """Announce the present root alone."""
        self.roots = [self.root.certificate]
        self.sequence += 1

    def _new_root(self) -> Signer:
        key = new_root_key()
        validity = _validity(timedelta(days=30), timedelta(days=-1), None)
        return Signer(root_certificate(self.trust_domain, key, validity), key)

    def _new_issuer(self) -> Signer:
        key = new_key()
        validity = _validity(timedelta(days=7), timedelta(days=-1), None)
        if self._constrained:
            certificate = issuer_certificate(
                self.trust_domain, key.public_key(), self.root, validity
            )
        else:
            certificate = _unconstrained_issuer(key.public_key(), self.root, validity)
        return Signer(certificate, key)

    def _svid(self, identity: SpiffeId, key: PrivateKey, certificate: x509.Certificate) -> Svid:
        chain = (certificate.public_bytes(_DER), self.issuer.certificate.public_bytes(_DER))
        return Svid(
            id=identity,
            key=key,
            chain=chain,
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            serial=certificate.serial_number,
        )


def _validity(lifetime: timedelta, starts_in: timedelta, now: datetime | None) -> Validity:
    now = now or datetime.now(UTC)
    return Validity(now + starts_in, now + lifetime)


def _deviating(
    identity: SpiffeId, public_key: PublicKey, issuer: Signer, how: Wrong
) -> x509.Certificate:
    uris = how.uris if how.uris is not None else (str(identity),)
    dns = how.dns if how.dns is not None else identity.dns_names
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    names += [x509.DNSName(name) for name in dns]
    names += [x509.IPAddress(ipaddress.ip_address(text)) for text in how.addresses]
    builder = _wrong_builder(public_key, issuer, how)
    if not how.no_names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(issuer.key, hashes.SHA256())


def _wrong_builder(public_key: PublicKey, issuer: Signer, how: Wrong) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    # OpenSSL's strict mode refuses an empty subject where there are no names, and for authorities.
    named = how.no_names or how.authority
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "wrong")] if named else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage(list(how.usages)), critical=False)
    )
    if not how.bare:
        constraints = x509.BasicConstraints(ca=how.authority, path_length=None)
        usage = key_usage(digital_signature=True, authority=how.authority)
        builder = builder.add_extension(constraints, critical=True)
        builder = builder.add_extension(usage, critical=True)
    issuer_key = issuer.certificate.public_key()
    return key_identifiers(builder, public_key, issuer_key)  # type: ignore[arg-type]  # an EC key, by our profile


def _unconstrained_issuer(
    public_key: PublicKey, root: Signer, validity: Validity
) -> x509.Certificate:
    """An issuer without name constraints, to show that our own check stands without them."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loose issuer")]))
        .issuer_name(root.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(authority=True), critical=True)
    )
    builder = key_identifiers(builder, public_key, root.key.public_key())
    return builder.sign(root.key, hashes.SHA384())
