"""Keys stay in memory, or in files that only their owner may read."""

import ssl

import pytest
from cryptography import x509
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.identity import PeerIdentityError
from hivemesh_sdk.trust.keys import (
    certificate_request,
    key_pem,
    load_into,
    new_key,
    pem,
    read_private_file,
    svid,
    write_private_file,
)


def test_request_proves_the_key_and_names_its_identity(ca):
    key = new_key()
    request = x509.load_pem_x509_csr(certificate_request(key, ca.worker()))
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(ca.worker())]


def test_key_shows_in_no_representation(ca):
    identity = ca.svid(ca.worker())
    assert "key" not in repr(identity)
    assert "PRIVATE" not in repr(identity)


def test_key_reaches_openssl_without_a_file(ca, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ca.svid(ca.worker()))
    assert list(tmp_path.iterdir()) == []


def test_chain_and_key_become_an_identity(ca):
    key = new_key()
    identity = svid(key, ca.sign(ca.worker(), key.public_key()), ca.trust_domain)
    assert identity.id == ca.worker()
    assert len(identity.chain) == 2


def test_chain_of_another_key_is_refused(ca):
    chain = ca.sign(ca.worker(), new_key().public_key())
    with pytest.raises(ConfigurationError, match="another key"):
        svid(new_key(), chain, ca.trust_domain)


def test_chain_of_another_trust_domain_is_refused(ca):
    key = new_key()
    with pytest.raises(PeerIdentityError, match="not ours"):
        svid(key, ca.sign(ca.worker(), key.public_key()), "other.hivemesh.internal")


def test_chain_that_cannot_be_read_is_refused():
    with pytest.raises(ConfigurationError, match="cannot be read"):
        svid(new_key(), b"nonsense", "x.y")


def test_private_file_is_for_its_owner_only(tmp_path):
    path = tmp_path / "svid.json"
    write_private_file(path, b"secret")
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_private_file(path) == b"secret"
    assert [item.name for item in tmp_path.iterdir()] == ["svid.json"]


def test_private_file_replaces_a_readable_one(tmp_path):
    path = tmp_path / "svid.json"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_private_file(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_file_that_others_may_read_is_refused(tmp_path, mode):
    path = tmp_path / "svid.json"
    path.write_bytes(b"secret")
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_private_file(path)


def test_missing_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_private_file(tmp_path / "absent")


def test_certificates_become_pem_in_order(ca):
    chain = ca.svid(ca.worker()).chain
    text = pem(chain)
    assert [
        ssl.PEM_cert_to_DER_cert(part + "-----END CERTIFICATE-----\n")
        for part in text.decode().split("-----END CERTIFICATE-----\n")[:-1]
    ] == list(chain)
    assert b"BEGIN PRIVATE KEY" in key_pem(new_key())
