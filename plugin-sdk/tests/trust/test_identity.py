"""SPIFFE IDs, derived names, and what makes a certificate an identity."""

import pytest
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.testing.pki import ThrowawayCA, Wrong
from hivemesh_sdk.trust.identity import (
    Kind,
    PeerIdentityError,
    SpiffeId,
    check_trust_domain,
    covers,
    peer_identity,
)

TD = "test.hivemesh.internal"


@pytest.mark.parametrize(
    ("identity", "text", "names"),
    [
        (
            SpiffeId.platform(TD, "p1"),
            f"spiffe://{TD}/platform/p1",
            (f"p1.platform.{TD}", f"platform.{TD}"),
        ),
        (
            SpiffeId.worker(TD, "email-parser", "i1"),
            f"spiffe://{TD}/worker/email-parser/i1",
            (f"i1.email-parser.worker.{TD}", f"email-parser.worker.{TD}"),
        ),
        (SpiffeId.user(TD, "operator"), f"spiffe://{TD}/user/operator", (f"operator.user.{TD}",)),
    ],
)
def test_identity_has_one_text_and_derived_names(identity, text, names):
    assert str(identity) == text
    assert SpiffeId.parse(text) == identity
    assert identity.dns_names == names


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        f"spiffe://{TD}",
        f"spiffe://{TD}/",
        f"spiffe://{TD}/platform",
        f"spiffe://{TD}/platform/",
        f"spiffe://{TD}/platform/a/b",
        f"spiffe://{TD}/worker/a",
        f"spiffe://{TD}/worker/a/",
        f"spiffe://{TD}/worker//b",
        f"spiffe://{TD}/worker/a/../b",
        f"spiffe://{TD}/worker/a/%62",
        f"spiffe://{TD}/worker/a/b?x=1",
        f"spiffe://{TD}/worker/a/b#x",
        f"spiffe://{TD}/worker/A/b",
        f"spiffe://{TD}/worker/a/*",
        f"spiffe://{TD}/admin/a",
        f"spiffe://{TD}:443/platform/a",
        f"spiffe://user@{TD}/platform/a",
        "spiffe://localhost/platform/a",
        f"https://{TD}/platform/a",
        f"SPIFFE://{TD}/platform/a",
        f"spiffe://{TD}/platform/" + "a" * 64,
    ],
)
def test_anything_else_is_no_identity(text):
    with pytest.raises(ConfigurationError):
        SpiffeId.parse(text)


@pytest.mark.parametrize(
    "name", ["", "one", "a..b", ".a.b", "a.b.", "A.b", "a b.c", "a." + "b" * 190]
)
def test_trust_domain_is_a_lower_case_dns_name(name):
    with pytest.raises(ConfigurationError):
        check_trust_domain(name)


def test_identity_tells_its_parts():
    identity = SpiffeId.worker(TD, "email-parser", "i1")
    assert (identity.kind, identity.name, identity.instance) == (Kind.WORKER, "email-parser", "i1")
    assert identity.prefix == f"spiffe://{TD}/worker/email-parser/*"


@pytest.mark.parametrize(
    ("rule", "covered"),
    [
        (f"spiffe://{TD}/worker/echo/i1", True),
        (f"spiffe://{TD}/worker/echo/*", True),
        (f"spiffe://{TD}/worker/*", True),
        (f"spiffe://{TD}/*", True),
        (f"spiffe://{TD}/worker/echo/i", False),
        (f"spiffe://{TD}/worker/ec/*", False),
        (f"spiffe://{TD}/worker/echo/i1/*", False),
        (f"spiffe://{TD}/worker/echo*", False),
        ("spiffe://*", False),
        ("*", False),
        ("/*", False),
        ("", False),
    ],
)
def test_rule_is_exact_or_a_prefix_of_whole_segments(rule, covered):
    assert covers(rule, f"spiffe://{TD}/worker/echo/i1") is covered


def test_certificate_of_the_profile_is_an_identity(ca):
    svid = ca.svid(ca.worker())
    peer = peer_identity(svid.chain[0], ca.trust_domain)
    assert (peer.id, peer.serial, peer.not_after) == (ca.worker(), svid.serial, svid.not_after)
    assert peer.uri == str(ca.worker())
    assert peer.matches(ca.worker().prefix)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (Wrong(uris=[f"spiffe://{TD}/worker/a/b", f"spiffe://{TD}/platform/p"]), "2 URI names"),
        (Wrong(uris=[f"spiffe://{TD}/worker/a/b"] * 2), "2 URI names"),
        (Wrong(uris=[]), "0 URI names"),
        (Wrong(no_names=True), "no subject alternative name"),
        (Wrong(uris=[f"spiffe://{TD}"]), "no identity path"),
        (Wrong(uris=["spiffe://other.hivemesh.internal/platform/p"]), "is not ours"),
        (Wrong(addresses=["10.0.0.1"]), "IP address"),
        (Wrong(addresses=["::1"]), "IP address"),
        (Wrong(dns=["localhost"]), "localhost"),
        (Wrong(dns=["x.LOCALHOST."]), "localhost"),
        (Wrong(authority=True), "certificate authority"),
    ],
)
def test_certificate_that_deviates_is_none(ca, how, reason):
    svid = ca.wrong(ca.worker(), how)
    with pytest.raises(PeerIdentityError, match=reason):
        peer_identity(svid.chain[0], ca.trust_domain)


def test_authority_is_no_identity(ca):
    with pytest.raises(PeerIdentityError):
        peer_identity(ca.issuer_as_peer().chain[0], ca.trust_domain)


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"nonsense"])
def test_noise_is_no_identity(der):
    with pytest.raises(PeerIdentityError, match="cannot be read"):
        peer_identity(der, TD)


def test_certificate_without_basic_constraints_is_none(ca):
    foreign = ThrowawayCA(ca.trust_domain)
    assert foreign.trust_domain == ca.trust_domain
    bare = ca.wrong(ca.worker(), Wrong(bare=True))
    with pytest.raises(PeerIdentityError, match="basic constraints"):
        peer_identity(bare.chain[0], ca.trust_domain)
