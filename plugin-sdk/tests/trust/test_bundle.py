"""The trust bundle as it travels."""

import msgspec
import pytest
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.bundle import bundle_from_json


def test_bundle_survives_the_wire(ca):
    content = msgspec.json.encode(ca.bundle().document())
    assert bundle_from_json(content) == ca.bundle()


def test_document_is_a_spiffe_bundle(ca):
    document = msgspec.json.decode(msgspec.json.encode(ca.bundle().document()))
    assert document["spiffe_sequence"] == 1
    [key] = document["keys"]
    assert (key["kty"], key["crv"], key["use"], len(key["x5c"])) == ("EC", "P-384", "x509-svid", 1)


def test_unknown_members_and_foreign_keys_are_ignored(ca):
    document = msgspec.json.decode(msgspec.json.encode(ca.bundle().document()))
    document["later"] = True
    document["keys"].append({**document["keys"][0], "use": "jwt-svid", "x5c": []})
    assert bundle_from_json(msgspec.json.encode(document)) == ca.bundle()


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
