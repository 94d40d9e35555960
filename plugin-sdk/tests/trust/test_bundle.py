"""The trust bundle as it travels."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.bundle import Bundle, bundle_from_json


def test_bundle_survives_the_wire(ca):
    content = msgspec.json.encode(ca.bundle().document())
    assert bundle_from_json(content) == ca.bundle()


def test_document_is_a_spiffe_bundle(ca):
    document = msgspec.json.decode(msgspec.json.encode(ca.bundle().document()))
    assert document["spiffe_sequence"] == 1
    key, signer = document["keys"]
    assert (key["kty"], key["crv"], key["use"], len(key["x5c"])) == ("EC", "P-384", "x509-svid", 1)
    assert (signer["kty"], signer["crv"], signer["use"]) == ("OKP", "Ed25519", "jwt-svid")
    assert signer["kid"] == ca.signing.public.id


def test_unknown_members_and_foreign_keys_are_ignored(ca):
    document = msgspec.json.decode(msgspec.json.encode(ca.bundle().document()))
    document["later"] = True
    document["keys"].append({**document["keys"][0], "use": "jwt-svid", "x5c": []})
    assert bundle_from_json(msgspec.json.encode(document)) == ca.bundle()


def test_root_that_is_no_elliptic_key_is_refused(ca):
    key = rsa.generate_private_key(65537, 2048)
    now = datetime.now(UTC)
    root = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    bundle = Bundle(trust_domain="x.y", roots=(root.public_bytes(serialization.Encoding.DER),))
    with pytest.raises(ConfigurationError, match="elliptic"):
        bundle.document()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"trust_domain":"x.y","keys":[],"spiffe_sequence":1}',
        b'{"trust_domain":"x.y","keys":[{"kty":"EC","crv":"P-384","x":"","y":"","x5c":[]}],"spiffe_sequence":1}',
        b'{"trust_domain":"x.y","keys":[{"kty":"EC","crv":"P-384","x":"","y":"","x5c":["AAAA"]}],"spiffe_sequence":1}',
        b'{"trust_domain":"x.y","keys":[{"kty":"EC","crv":"P-384","x":"","y":"","x5c":["!"]}],"spiffe_sequence":1}',
    ],
)
def test_bundle_that_cannot_be_read_is_refused(content):
    with pytest.raises(ConfigurationError, match="trust bundle"):
        bundle_from_json(content)
