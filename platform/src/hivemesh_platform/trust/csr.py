"""Refuses certificate requests. Pure: the platform composes the certificate by itself."""

import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.keys import alternative_names
from hivemesh_sdk.trust.profile import PublicKey

from hivemesh_platform.trust.model import CsrInvalidError, CsrTooLargeError

MAX_BYTES = 8 * 1024
_CURVES = (ec.SECP256R1, ec.SECP384R1)


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request whose sender has the private key."""

    public_key: PublicKey
    key_hash: str
    names: x509.SubjectAlternativeName | None

    def expect(self, identity: SpiffeId) -> None:
        """Accept no names or exactly those of `identity`.

        Raises:
            CsrInvalidError: it asks for other names.
        """
        if self.names is not None and set(self.names) != set(alternative_names(identity)):
            message = f"the request asks for other names than those of {str(identity)!r}"
            raise CsrInvalidError(message)


def check_request(pem: str) -> CheckedRequest:
    """Parse a PEM request and check what does not depend on who sends it.

    Raises:
        CsrTooLargeError: more than 8 KiB.
        CsrInvalidError: unreadable, wrong kind of key, or not signed by that key.
    """
    if len(pem) > MAX_BYTES:
        message = f"the certificate request is larger than {MAX_BYTES} bytes"
        raise CsrTooLargeError(message)
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        key = request.public_key()
        names, proven = _names(request), request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        message = "the certificate request cannot be read; it must be PEM"
        raise CsrInvalidError(message) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        message = "the key of the certificate request must be P-256 or P-384"
        raise CsrInvalidError(message)
    if not proven:
        message = "the certificate request is not signed by its own key"
        raise CsrInvalidError(message)
    return CheckedRequest(key, key_hash(key), names)


def key_hash(key: PublicKey) -> str:
    """SHA-256 of a public key, by which it is recognised."""
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def _names(request: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    try:
        return request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
