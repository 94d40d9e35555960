"""What certificates of an installation look like: root, issuer and leaf. Pure; no clock, no files.

The platform's authority and the tests' throw-away CA build with these functions and no others.
"""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.keys import PrivateKey, alternative_names

PublicKey = ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Signer:
    """A certificate authority: its certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is valid."""

    not_before: datetime
    not_after: datetime


def new_root_key() -> PrivateKey:
    """Make a P-384 key: a root lives ten years."""
    return ec.generate_private_key(ec.SECP384R1())


def root_certificate(trust_domain: str, key: PrivateKey, validity: Validity) -> x509.Certificate:
    """Build the self-signed root; its URI name is the trust domain itself."""
    subject = _subject("root", trust_domain)
    builder = _authority(
        _builder(subject, subject, key.public_key(), validity), trust_domain, path_length=1
    )
    builder = key_identifiers(builder, key.public_key(), key.public_key())
    return builder.sign(key, hashes.SHA384())


def issuer_certificate(
    trust_domain: str, public_key: PublicKey, root: Signer, validity: Validity
) -> x509.Certificate:
    """Build an issuer that can sign leaves of this trust domain and nothing else."""
    builder = _builder(
        _subject("issuer", trust_domain), root.certificate.subject, public_key, validity
    )
    builder = _authority(builder, trust_domain, path_length=0).add_extension(
        # The host form must be exact: OpenSSL takes a leading dot to exclude the domain itself.
        x509.NameConstraints(
            permitted_subtrees=[
                x509.UniformResourceIdentifier(trust_domain),
                x509.DNSName(trust_domain),
            ],
            excluded_subtrees=None,
        ),
        critical=True,
    )
    builder = key_identifiers(builder, public_key, root.key.public_key())
    return builder.sign(root.key, hashes.SHA384())


def leaf_certificate(
    identity: SpiffeId, public_key: PublicKey, issuer: Signer, validity: Validity
) -> x509.Certificate:
    """Build the certificate of one process or person."""
    builder = leaf_builder(public_key, issuer, validity)
    builder = builder.add_extension(alternative_names(identity), critical=True)
    return builder.sign(issuer.key, hashes.SHA256())


def leaf_builder(
    public_key: PublicKey, issuer: Signer, validity: Validity
) -> x509.CertificateBuilder:
    """Everything of a leaf but its names."""
    builder = _builder(x509.Name([]), issuer.certificate.subject, public_key, validity)
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
    )
    return key_identifiers(builder, public_key, issuer.key.public_key())


def key_usage(*, digital_signature: bool = False, authority: bool = False) -> x509.KeyUsage:
    """Key usage of a leaf (signature) or of an authority (certificates and lists)."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(role: str, trust_domain: str) -> x509.Name:
    # CN is limited to 64 characters; trust domains may be longer.
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Hivemesh"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{role} {trust_domain}"[:64]),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: PublicKey, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
    )


def _authority(
    builder: x509.CertificateBuilder, trust_domain: str, *, path_length: int
) -> x509.CertificateBuilder:
    uri = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    return (
        builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=path_length), critical=True
        )
        .add_extension(key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    )


def key_identifiers(
    builder: x509.CertificateBuilder, own: PublicKey, authority: PublicKey
) -> x509.CertificateBuilder:
    """Name the own key and that of the signer, as strict verification demands."""
    return builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(own), critical=False
    ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
