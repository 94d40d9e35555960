"""Which certificate requests are refused."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hivemesh_platform.trust.csr import check_request, key_hash
from hivemesh_platform.trust.model import CsrInvalidError, CsrTooLargeError
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.keys import certificate_request, new_key

SHA256 = hashes.SHA256()
WORKER = SpiffeId.worker("a.b", "echo", "i1")


def request(key, algorithm=SHA256, extension=None):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
    signed = builder.sign(key, algorithm)
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def forged():
    pem = request(new_key())
    der = bytearray(x509.load_pem_x509_csr(pem.encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1])
def test_elliptic_keys_are_accepted(curve):
    key = ec.generate_private_key(curve())
    checked = check_request(request(key))
    assert checked.public_key == key.public_key()
    assert checked.key_hash == key_hash(key.public_key())


@pytest.mark.parametrize(
    "pem",
    [
        request(rsa.generate_private_key(65537, 2048)),
        request(ec.generate_private_key(ec.SECP521R1())),
        request(ec.generate_private_key(ec.SECP256K1())),
        request(ed25519.Ed25519PrivateKey.generate(), None),
    ],
    ids=["rsa", "p521", "k256", "ed25519"],
)
def test_other_keys_are_refused(pem):
    with pytest.raises(CsrInvalidError, match="P-256 or P-384"):
        check_request(pem)


def test_request_without_proof_of_the_key_is_refused():
    with pytest.raises(CsrInvalidError, match="not signed by its own key"):
        check_request(forged())


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "nonsense",
        "é",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ],
)
def test_unreadable_request_is_refused(pem):
    with pytest.raises(CsrInvalidError, match="cannot be read"):
        check_request(pem)


def test_large_request_is_refused_unread():
    with pytest.raises(CsrTooLargeError):
        check_request("x" * 8193)


def test_names_may_be_absent_or_equal():
    check_request(request(new_key())).expect(WORKER)
    check_request(certificate_request(new_key(), WORKER).decode()).expect(WORKER)


@pytest.mark.parametrize(
    "other",
    [
        SpiffeId.worker("a.b", "echo", "i2"),
        SpiffeId.platform("a.b", "p1"),
        SpiffeId.worker("c.d", "echo", "i1"),
    ],
)
def test_other_names_are_refused(other):
    with pytest.raises(CsrInvalidError, match="other names"):
        check_request(certificate_request(new_key(), other).decode()).expect(WORKER)


def test_additional_name_is_refused():
    names = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(str(WORKER)), x509.DNSName("evil.example")]
    )
    with pytest.raises(CsrInvalidError, match="other names"):
        check_request(request(new_key(), extension=names)).expect(WORKER)


def test_request_to_be_an_authority_has_no_effect():
    wish = x509.BasicConstraints(ca=True, path_length=None)
    assert check_request(request(new_key(), extension=wish)).names is None
