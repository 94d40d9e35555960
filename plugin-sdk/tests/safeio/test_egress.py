"""Destinations: which addresses are special, which URLs are refused, what a rule names."""

from ipaddress import ip_address

import pytest
from hivemesh_sdk.errors import InvalidError
from hivemesh_sdk.safeio.addresses import special
from hivemesh_sdk.safeio.egress import Egress, EgressDeniedError, Rule, parse_url

SPECIAL = [
    "0.0.0.0",  # noqa: S104 - an address to refuse
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.1.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "192.0.1.1"]
PUBLIC += ["2606:4700:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888"]


@pytest.mark.parametrize("address", SPECIAL)
def test_special_address_is_named(address):
    assert special(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_not_special(address):
    assert special(ip_address(address)) == ""


REFUSED = [
    "http:///etc/passwd",
    "file:///etc/passwd",
    "gopher://example.org/",
    "ftp://example.org/",
    "//example.org/",
    "/path",
    "https://user@example.org/",
    "https://user:password@example.org/",
    "https://example.org@127.0.0.1/",
    "https://0x7f000001/",
    "https://2130706433/",
    "https://127.1/",
    "https://0177.0.0.1/",
    "https://127.0.0.0x1/",
    "https://1.2.3.4.5/",
    "https://[::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://exa mple.org/",
    "https://example.org\\@127.0.0.1/",
    "https://example.org\r\nHost: other/",
    "https://ex\u00e4mple.org/",
    "https://\u2488.example.org/",
    "https://example.org:70000/",
    "https://example.org:0x50/",
    "https://-example.org/",
    "https://exam..ple.org/",
    "https://",
    "https://" + "a" * 9000,
]


@pytest.mark.parametrize("url", REFUSED)
def test_disguised_or_foreign_url_is_refused(url):
    with pytest.raises(InvalidError):
        parse_url(url)


def test_url_is_taken_apart():
    target = parse_url("HTTPS://API.Example.org.:8443/a/b?c=d#fragment")
    assert (target.scheme, target.host, target.port) == ("https", "api.example.org", 8443)
    assert target.path == "/a/b?c=d"
    assert parse_url("http://[2606:4700::1111]").host == "2606:4700::1111"


@pytest.mark.parametrize(
    ("rule", "url", "named"),
    [
        ("api.example.org", "https://api.example.org/x", True),
        ("api.example.org", "https://api.example.org:8443/x", False),
        ("api.example.org", "http://api.example.org/x", False),
        ("api.example.org", "https://api.example.org.evil.test/", False),
        ("http://api.example.org", "http://api.example.org/x", True),
        ("*.example.org", "https://a.b.example.org/", True),
        ("*.example.org", "https://example.org/", False),
        ("*.example.org", "https://evilexample.org/", False),
        ("*", "https://anything.test/", True),
        ("10.0.0.0/8:5432", "https://10.1.2.3:5432/", True),
        ("10.0.0.0/8:5432", "https://11.1.2.3:5432/", False),
        ("[fd00::/8]:443", "https://[fd00::1]/", True),
        ("192.0.2.1", "https://192.0.2.1/", True),
    ],
)
def test_rule_names_its_destinations(rule, url, named):
    assert Rule.parse(rule).names(parse_url(url)) is named


@pytest.mark.parametrize(
    "rule", ["", "ftp://x", "https://x/y", "127.1", "a b", "x:0", "x:99999", "*.*", "a@b", "[x]"]
)
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(InvalidError):
        Rule.parse(rule)


def test_undeclared_destination_is_refused():
    with pytest.raises(EgressDeniedError, match=r"permissions\.egress"):
        Egress(["api.example.org"]).check_target(parse_url("https://other.example.org"))


def test_declared_name_does_not_open_an_internal_address():
    target = parse_url("https://intern.example.org")
    with pytest.raises(EgressDeniedError, match="private"):
        Egress(["intern.example.org"]).check_address(target, ip_address("10.0.0.5"))


@pytest.mark.parametrize("rule", ["intern.example.org", "10.0.0.0/24"])
def test_internal_address_is_opened_by_name_or_network(rule):
    target = parse_url("https://intern.example.org")
    Egress(["intern.example.org"], [rule]).check_address(target, ip_address("10.0.0.5"))


def test_rule_for_one_port_opens_no_other():
    egress = Egress(["*"], ["10.0.0.5:5432"])
    with pytest.raises(EgressDeniedError):
        egress.check_address(parse_url("https://10.0.0.5"), ip_address("10.0.0.5"))
