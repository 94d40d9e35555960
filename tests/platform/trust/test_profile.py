"""What the authority's certificates look like, and how long they may live."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hivemesh_platform.trust.profile import (
    Lifetimes,
    build_issuer,
    build_leaf,
    build_root,
    check_lifetimes,
    half_life,
)
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.keys import new_key
from hivemesh_sdk.trust.profile import new_root_key

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TD = "0011aabb.hivemesh.internal"
LIFE = Lifetimes()
WORKER = SpiffeId.worker(TD, "email-parser", "i1")


@pytest.fixture(scope="module")
def root():
    return build_root(TD, new_root_key(), NOW, LIFE)


@pytest.fixture(scope="module")
def issuer(root):
    return build_issuer(TD, new_key(), root, NOW, LIFE)


@pytest.fixture(scope="module")
def leaf(issuer):
    return build_leaf(WORKER, new_key().public_key(), issuer, NOW, LIFE)


def extension(certificate, kind):
    found = certificate.extensions.get_extension_for_class(kind)
    return found.value, found.critical


def assert_is_authority(certificate, path_length):
    constraints, critical = extension(certificate, x509.BasicConstraints)
    assert (constraints.ca, constraints.path_length, critical) == (True, path_length, True)
    usage, critical = extension(certificate, x509.KeyUsage)
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature, critical) == (
        True,
        True,
        False,
        True,
    )
    names, _ = extension(certificate, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://{TD}"]


def test_root_is_p384_for_ten_years_above_one_issuer(root):
    certificate = root.certificate
    assert_is_authority(certificate, 1)
    assert isinstance(certificate.public_key().curve, ec.SECP384R1)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=3650)
    assert certificate.issuer == certificate.subject


def test_issuer_is_p256_for_a_week_above_leaves_only(issuer):
    assert_is_authority(issuer.certificate, 0)
    assert isinstance(issuer.certificate.public_key().curve, ec.SECP256R1)
    assert issuer.certificate.not_valid_after_utc == NOW + timedelta(days=7)


def test_issuer_is_constrained_to_the_exact_trust_domain(issuer):
    constraints, critical = extension(issuer.certificate, x509.NameConstraints)
    assert critical
    assert constraints.permitted_subtrees == [x509.UniformResourceIdentifier(TD), x509.DNSName(TD)]


def test_leaf_has_an_empty_subject_and_critical_derived_names(leaf):
    assert leaf.subject == x509.Name([])
    names, critical = extension(leaf, x509.SubjectAlternativeName)
    assert critical
    assert list(names) == [
        x509.UniformResourceIdentifier(str(WORKER)),
        *(x509.DNSName(name) for name in WORKER.dns_names),
    ]


def test_leaf_may_sign_as_client_and_server_and_nothing_else(leaf):
    usage, critical = extension(leaf, x509.KeyUsage)
    assert (usage.digital_signature, usage.key_cert_sign, usage.key_agreement, critical) == (
        True,
        False,
        False,
        True,
    )
    constraints, critical = extension(leaf, x509.BasicConstraints)
    assert (constraints.ca, critical) == (False, True)
    purposes, _ = extension(leaf, x509.ExtendedKeyUsage)
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_leaf_names_its_keys_and_has_a_long_random_serial(leaf, issuer):
    authority, _ = extension(leaf, x509.AuthorityKeyIdentifier)
    own, _ = extension(issuer.certificate, x509.SubjectKeyIdentifier)
    assert authority.key_identifier == own.digest
    assert extension(leaf, x509.SubjectKeyIdentifier)
    assert leaf.serial_number.bit_length() > 100
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA256)


def test_leaf_is_backdated_by_a_minute_and_lives_an_hour(leaf):
    assert leaf.not_valid_before_utc == NOW - timedelta(seconds=60)
    assert leaf.not_valid_after_utc == NOW + timedelta(hours=1)


def test_a_new_installation_can_sign_after_its_clock_was_set_back(root, issuer):
    earlier = NOW - timedelta(hours=1)
    made = build_leaf(WORKER, new_key().public_key(), issuer, earlier, LIFE)
    assert made.not_valid_before_utc == earlier - timedelta(seconds=60)
    assert root.certificate.not_valid_before_utc <= issuer.certificate.not_valid_before_utc
    assert issuer.certificate.not_valid_before_utc <= earlier


def test_nothing_outlives_its_signer(root):
    late = root.certificate.not_valid_after_utc - timedelta(days=1)
    issuer = build_issuer(TD, new_key(), root, late, LIFE)
    assert issuer.certificate.not_valid_after_utc == root.certificate.not_valid_after_utc
    later = issuer.certificate.not_valid_after_utc - timedelta(minutes=1)
    leaf = build_leaf(WORKER, new_key().public_key(), issuer, later, LIFE)
    assert leaf.not_valid_after_utc == issuer.certificate.not_valid_after_utc


def test_successor_is_due_at_half_life(issuer):
    assert half_life(issuer.certificate, LIFE.issuer) == NOW + timedelta(days=3.5)


@pytest.mark.parametrize("local", [True, False])
def test_defaults_fit_both_modes(local):
    assert check_lifetimes(LIFE, local=local) is LIFE


def test_drills_may_be_short_in_local_mode_only():
    drill = Lifetimes(issuer=timedelta(seconds=120), svid=timedelta(seconds=20))
    assert check_lifetimes(drill, local=True) is drill
    with pytest.raises(ConfigurationError, match="too short"):
        check_lifetimes(drill, local=False)


@pytest.mark.parametrize(
    "lifetimes",
    [
        Lifetimes(svid=timedelta(seconds=9)),
        Lifetimes(issuer=timedelta(seconds=59), svid=timedelta(seconds=10)),
        Lifetimes(svid=timedelta(hours=25)),
        Lifetimes(issuer=timedelta(hours=1)),
        Lifetimes(root=timedelta(days=8)),
    ],
)
def test_lifetimes_that_cannot_work_are_refused(lifetimes):
    with pytest.raises(ConfigurationError):
        check_lifetimes(lifetimes, local=True)
