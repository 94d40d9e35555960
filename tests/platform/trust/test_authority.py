"""The authority's state folder, and how issuers and roots are replaced."""

import json
from datetime import timedelta

import pytest
from cryptography import x509
from hivemesh_platform.trust.authority import FILE, _Pair, open_authority
from hivemesh_platform.trust.profile import Lifetimes
from hivemesh_sdk.errors import ConfigurationError, ConflictError
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.keys import new_key


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def authority(tmp_path, clock):
    return open_authority(tmp_path, clock, Lifetimes())


def worker(authority):
    return SpiffeId.worker(authority.trust_domain, "echo", "i1")


def issue(authority):
    return authority.issue(worker(authority), new_key().public_key())


def test_trust_domain_is_made_up_once_and_kept(tmp_path, clock, authority):
    again = open_authority(tmp_path, clock, Lifetimes())
    assert authority.trust_domain.endswith(".hivemesh.internal")
    assert again.trust_domain == authority.trust_domain
    assert again.bundle() == authority.bundle()
    assert again.root_sha256 == authority.root_sha256


def test_two_installations_differ(tmp_path, clock):
    one, two = (open_authority(tmp_path / name, clock, Lifetimes()) for name in "ab")
    assert one.trust_domain != two.trust_domain


def test_folder_and_file_are_for_their_owner_only(tmp_path, clock):
    open_authority(tmp_path / "ca", clock, Lifetimes())
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "ca" / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_key_that_others_may_read_stops_the_start(tmp_path, clock, authority, mode):
    (tmp_path / FILE).chmod(mode)
    with pytest.raises(ConfigurationError, match="can be read by others"):
        open_authority(tmp_path, clock, Lifetimes())


def test_other_trust_domain_stops_the_start(tmp_path, clock, authority):
    with pytest.raises(ConfigurationError, match="belongs to trust domain"):
        open_authority(tmp_path, clock, Lifetimes(), trust_domain="other.example")


@pytest.mark.parametrize("content", [b"", b"{}", b"nonsense"])
def test_damaged_file_stops_the_start_and_is_kept(tmp_path, clock, authority, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ConfigurationError, match="restore it from a backup"):
        open_authority(tmp_path, clock, Lifetimes())
    assert (tmp_path / FILE).read_bytes() == content


def test_passphrase_protects_the_keys(tmp_path, clock):
    made = open_authority(tmp_path, clock, Lifetimes(), passphrase=b"correct horse")
    assert b"ENCRYPTED PRIVATE KEY" in (tmp_path / FILE).read_bytes()
    again = open_authority(tmp_path, clock, Lifetimes(), passphrase=b"correct horse")
    assert again.root_sha256 == made.root_sha256
    for wrong in (b"", b"wrong"):
        with pytest.raises(ConfigurationError, match="another passphrase"):
            open_authority(tmp_path, clock, Lifetimes(), passphrase=wrong)


def test_leaf_comes_with_its_issuer_and_not_with_the_root(authority):
    issued = issue(authority)
    assert len(issued.chain) == 2
    issued.chain[0].verify_directly_issued_by(issued.chain[1])
    root = x509.load_der_x509_certificate(authority.bundle().roots[0])
    issued.chain[1].verify_directly_issued_by(root)
    assert issued.pem.count("BEGIN CERTIFICATE") == 2


def test_foreign_identity_is_not_signed(authority):
    with pytest.raises(ConfigurationError, match="not in our trust domain"):
        authority.issue(SpiffeId.worker("other.example", "echo", "i1"), new_key().public_key())


def test_own_identity_has_its_key_here(authority):
    svid = authority.svid(SpiffeId.platform(authority.trust_domain, "p1"))
    leaf = x509.load_der_x509_certificate(svid.chain[0])
    assert leaf.public_key() == svid.key.public_key()


def test_issuer_is_replaced_at_half_life_and_kept_over_a_restart(tmp_path, clock, authority):
    first = issue(authority).chain[1]
    clock.advance(timedelta(days=3))
    assert issue(authority).chain[1] == first
    clock.advance(timedelta(days=1))
    second = issue(authority).chain[1]
    assert second != first
    assert issue(open_authority(tmp_path, clock, Lifetimes())).chain[1] == second


def test_issuer_that_expired_while_the_platform_was_off_is_replaced(authority, clock):
    clock.advance(timedelta(days=30))
    assert issue(authority).not_after == clock.now().replace(microsecond=0) + timedelta(hours=1)


def test_no_leaf_of_a_drill_outlives_its_issuer(tmp_path, clock):
    drill = Lifetimes(issuer=timedelta(seconds=120), svid=timedelta(seconds=20))
    authority = open_authority(tmp_path, clock, drill)
    issuers = set()
    for _ in range(24):
        clock.advance(10)
        leaf, issuer = issue(authority).chain
        issuers.add(issuer.serial_number)
        assert leaf.not_valid_after_utc <= issuer.not_valid_after_utc
        assert leaf.not_valid_after_utc >= clock.now() + timedelta(seconds=19)
    assert len(issuers) == 5


def test_root_is_replaced_in_three_steps(tmp_path, clock, authority):
    old = authority.bundle()
    announced = authority.announce_root()
    assert announced.roots[0] == old.roots[0]
    assert (len(announced.roots), announced.sequence) == (2, 2)
    before = issue(authority).chain[1]
    authority.use_announced_root()
    assert set(authority.bundle().roots) == set(announced.roots)
    assert issue(authority).chain[1] != before
    final = authority.retire_old_root()
    assert (final.roots, final.sequence) == ((announced.roots[1],), 3)
    again = open_authority(tmp_path, clock, Lifetimes())
    assert again.bundle() == final


@pytest.mark.parametrize("steps", [["announce_root"], ["announce_root", "use_announced_root"]])
def test_change_of_root_survives_a_restart_half_way(tmp_path, clock, authority, steps):
    for step in steps:
        getattr(authority, step)()
    again = open_authority(tmp_path, clock, Lifetimes())
    assert again.bundle() == authority.bundle()
    with pytest.raises(ConflictError, match="under way"):
        again.announce_root()


def test_root_that_was_not_announced_cannot_be_used(authority):
    with pytest.raises(ConflictError, match="no root was announced"):
        authority.use_announced_root()


def test_issuer_can_be_replaced_at_once(authority):
    before = issue(authority).chain[1]
    authority.rotate_issuer()
    assert issue(authority).chain[1] != before


def test_key_that_does_not_fit_its_certificate_stops_the_start(tmp_path, clock, authority):
    other = open_authority(tmp_path / "other", clock, Lifetimes())
    mine, theirs = (
        json.loads((folder / FILE).read_bytes()) for folder in (tmp_path, tmp_path / "other")
    )
    mine["issuer"]["key"] = theirs["issuer"]["key"]
    (tmp_path / FILE).write_text(json.dumps(mine))
    with pytest.raises(ConfigurationError, match="restore it"):
        open_authority(tmp_path, clock, Lifetimes())
    assert other.trust_domain != authority.trust_domain


def test_private_parts_show_in_no_representation(tmp_path, authority):
    pair = json.loads((tmp_path / FILE).read_bytes())["root"]
    assert "PRIVATE" not in repr(_Pair(**pair))


def test_renewal_is_due_at_half_life_whatever_the_backdating(tmp_path, clock):
    drill = Lifetimes(issuer=timedelta(seconds=120), svid=timedelta(seconds=20))
    authority = open_authority(tmp_path, clock, drill)
    left = authority.renewal_due(issue(authority).not_after) - clock.now()
    assert timedelta(seconds=9) <= left <= timedelta(seconds=10)
