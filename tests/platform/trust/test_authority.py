"""The authority's state folder, and how issuers and roots are replaced."""

import json
from datetime import timedelta

import pytest
from cryptography import x509
from hivemesh_platform.trust.authority import FILE, open_authority
from hivemesh_platform.trust.keyring import KeyKind, KeyState
from hivemesh_platform.trust.limit import SignLimit
from hivemesh_platform.trust.model import CaBusyError, RootExpiredError, SigningLimitedError
from hivemesh_platform.trust.profile import Lifetimes
from hivemesh_sdk.errors import ConfigurationError, NotAuthorizedError
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.jws import verify
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
    for name in (FILE, "signing.json"):
        content = (tmp_path / name).read_bytes()
        assert b"sealed" in content
        assert b"PRIVATE" not in content
    again = open_authority(tmp_path, clock, Lifetimes(), passphrase=b"correct horse")
    assert again.root_sha256 == made.root_sha256
    for wrong, words in ((b"", "is encrypted"), (b"wrong", "another passphrase")):
        with pytest.raises(ConfigurationError, match=words):
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


def test_files_without_a_passphrase_are_sealed_at_the_next_change(tmp_path, clock, authority):
    again = open_authority(tmp_path, clock, Lifetimes(), passphrase=b"correct horse")
    again.prepare(KeyKind.ISSUER)
    assert b"sealed" in (tmp_path / FILE).read_bytes()


def test_one_sealed_file_cannot_stand_for_another(tmp_path, clock):
    open_authority(tmp_path, clock, Lifetimes(), passphrase=b"correct horse")
    (tmp_path / FILE).write_bytes((tmp_path / "signing.json").read_bytes())
    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_authority(tmp_path, clock, Lifetimes(), passphrase=b"correct horse")


def test_issuer_near_its_end_is_replaced_even_without_a_rotation(tmp_path, clock, authority):
    first = issue(authority).chain[1]
    clock.advance(timedelta(days=5))
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
    assert 3 <= len(issuers) <= 5


def states(authority, kind):
    return [key.state.value for key in authority.ring.keys if key.kind is kind]


def test_root_goes_through_four_states(tmp_path, clock, authority):
    old = authority.bundle()
    authority.prepare(KeyKind.ROOT)
    announced = authority.bundle()
    assert announced.roots[0] == old.roots[0]
    assert (len(announced.roots), announced.sequence) == (2, 2)
    before = issue(authority).chain[1]
    authority.activate(KeyKind.ROOT)
    assert set(authority.bundle().roots) == set(announced.roots)
    assert len(authority.bundle().tainted) == 2  # the root and its issuer
    assert issue(authority).chain[1] != before
    authority.revoke_tainted()
    final = authority.bundle()
    assert (final.roots, final.sequence) == ((announced.roots[1],), 4)
    assert len(final.revoked) == 1
    assert states(authority, KeyKind.ROOT) == ["revoked", "active"]
    assert open_authority(tmp_path, clock, Lifetimes()).bundle() == final


def test_issuer_goes_through_four_states(authority):
    first = authority.svid(worker(authority))
    authority.prepare(KeyKind.ISSUER)
    assert authority.svid(worker(authority)).chain[1] == first.chain[1]
    authority.activate(KeyKind.ISSUER)
    second = authority.svid(worker(authority))
    bundle, root = authority.bundle(), authority.bundle().roots[0]
    assert bundle.taints(first.chain)
    assert not bundle.taints(second.chain)
    assert bundle.trusts((*first.chain, root))
    authority.revoke_tainted()
    bundle = authority.bundle()
    assert not bundle.trusts((*first.chain, root))
    assert bundle.trusts((*second.chain, root))


def test_a_key_that_signs_no_more_is_gone_from_the_file(tmp_path, authority):
    old = json.loads((tmp_path / FILE).read_bytes())["keys"]
    authority.prepare(KeyKind.ROOT)
    authority.activate(KeyKind.ROOT)
    content = (tmp_path / FILE).read_text()
    for key in old:
        assert json.dumps(key["certificate"]) in content
        assert json.dumps(key["key"]) not in content


@pytest.mark.parametrize("kind", [KeyKind.ROOT, KeyKind.ISSUER])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_change_survives_a_restart_half_way(tmp_path, clock, authority, kind, steps):
    authority.prepare(kind)
    if steps == 2:
        authority.activate(kind)
    again = open_authority(tmp_path, clock, Lifetimes())
    assert again.bundle() == authority.bundle()
    for other in (KeyKind.ROOT, KeyKind.ISSUER):
        with pytest.raises(CaBusyError, match="being changed"):
            again.prepare(other)


@pytest.mark.parametrize("kind", [KeyKind.ROOT, KeyKind.ISSUER])
def test_what_was_not_prepared_cannot_be_used(authority, kind):
    with pytest.raises(CaBusyError, match="was prepared"):
        authority.activate(kind)


def test_signing_key_is_announced_first_and_told_until_its_signatures_have_ended(
    tmp_path, clock, authority
):
    first = authority.signing.sign(b"x", "t")
    authority.prepare(KeyKind.SIGNER)
    assert authority.bundle().sequence == 2
    assert len(authority.bundle().signers) == 2
    second = authority.signing.sign(b"x", "t")
    authority.activate(KeyKind.SIGNER)
    third = authority.signing.sign(b"x", "t")
    assert first.partition(".")[0] == second.partition(".")[0] != third.partition(".")[0]
    again = open_authority(tmp_path, clock, Lifetimes())
    for token in (first, third):
        assert verify(token, again.bundle().verify_keys, "t") == b"x"
    again.drop_signers(clock.now())
    with pytest.raises(NotAuthorizedError):
        verify(first, again.bundle().verify_keys, "t")
    assert verify(third, again.bundle().verify_keys, "t") == b"x"


def test_starting_over_leaves_nothing_that_was_trusted(tmp_path, clock, authority):
    token = authority.signing.sign(b"x", "t")
    before, leaf = authority.bundle(), authority.svid(worker(authority))
    authority.prepare(KeyKind.ROOT)
    authority.start_over()
    bundle = open_authority(tmp_path, clock, Lifetimes()).bundle()
    assert not set(bundle.roots) & set(before.roots)
    assert bundle.sequence > before.sequence
    assert not bundle.trusts((*leaf.chain, before.roots[0]))
    with pytest.raises(NotAuthorizedError):
        verify(token, bundle.verify_keys, "t")
    assert len([key for key in authority.ring.keys if key.state is KeyState.ACTIVE]) == 2


def test_nothing_is_signed_under_a_root_that_has_expired(tmp_path, clock):
    lifetimes = Lifetimes(root=timedelta(days=2), issuer=timedelta(days=1))
    authority = open_authority(tmp_path, clock, lifetimes)
    clock.advance(timedelta(days=3))
    with pytest.raises(RootExpiredError):
        issue(authority)
    authority.start_over()
    assert issue(authority).not_after > clock.now()


def test_more_signatures_than_anybody_needs_are_refused(tmp_path, clock):
    limit = SignLimit(clock, per_second=1, burst=3)
    authority = open_authority(tmp_path, clock, Lifetimes(), limit=limit)
    for _ in range(3):
        issue(authority)
    with pytest.raises(SigningLimitedError):
        issue(authority)
    clock.advance(1)
    assert issue(authority)


def test_every_signature_is_told_those_before_the_listener_too(authority):
    told = []
    first = issue(authority)
    authority.on_signed(lambda identity, issued: told.append((str(identity), issued.serial)))
    second = issue(authority)
    assert told == [(str(worker(authority)), one.serial) for one in (first, second)]


def test_file_of_the_form_before_is_read(tmp_path, clock, authority):
    keys = json.loads((tmp_path / FILE).read_bytes())["keys"]
    pairs = {key["kind"]: {"certificate": key["certificate"], "key": key["key"]} for key in keys}
    old = {"format": 1, "trust_domain": authority.trust_domain, "sequence": 3, **pairs}
    (tmp_path / FILE).write_text(json.dumps(old))
    again = open_authority(tmp_path, clock, Lifetimes())
    assert again.root_sha256 == authority.root_sha256
    assert again.bundle().sequence == 3


def test_key_that_does_not_fit_its_certificate_stops_the_start(tmp_path, clock, authority):
    other = open_authority(tmp_path / "other", clock, Lifetimes())
    mine, theirs = (
        json.loads((folder / FILE).read_bytes()) for folder in (tmp_path, tmp_path / "other")
    )
    mine["keys"][1]["key"] = theirs["keys"][1]["key"]
    (tmp_path / FILE).write_text(json.dumps(mine))
    with pytest.raises(ConfigurationError, match="restore it"):
        open_authority(tmp_path, clock, Lifetimes())
    assert other.trust_domain != authority.trust_domain


def test_private_parts_show_in_no_representation(authority):
    for shown in (authority.ring, authority.signing.keys):
        assert "raw=" not in repr(shown)
        assert "PRIVATE" not in repr(shown)


def test_renewal_is_due_at_half_life_whatever_the_backdating(tmp_path, clock):
    drill = Lifetimes(issuer=timedelta(seconds=120), svid=timedelta(seconds=20))
    authority = open_authority(tmp_path, clock, drill)
    left = authority.renewal_due(issue(authority).not_after) - clock.now()
    assert timedelta(seconds=9) <= left <= timedelta(seconds=10)
