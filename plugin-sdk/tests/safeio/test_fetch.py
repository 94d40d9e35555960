"""Outgoing requests: every hop and every address is checked, limits hold, secrets stay at home."""

import asyncio

import pytest
from hivemesh_sdk.errors import ConfigurationError, InvalidError
from hivemesh_sdk.safeio.egress import Egress, EgressDeniedError
from hivemesh_sdk.safeio.fetch import Fetcher
from hivemesh_sdk.safeio.hops import FetchFailedError, FetchLimits, FetchTooLargeError
from web_support import Names, WebAuthority, WebServer


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return WebAuthority(tmp_path_factory.mktemp("web"), "api.example.org", "other.example.org")


@pytest.fixture
def web(authority):
    with WebServer(authority.server) as server:
        yield server


@pytest.fixture
def fetch(authority, web):
    """Fetches by `path` from a server whose name leads to loopback, which a rule opens."""
    made = []

    def make(path, *, host="api.example.org", names=None, internal=None, declared=None, **more):
        declared = declared or [f"*.example.org:{web.port}"]
        internal = [f"127.0.0.0/8:{web.port}"] if internal is None else internal
        names = names or Names(api_example_org=["127.0.0.1"], other_example_org=["127.0.0.1"])
        fetcher = Fetcher(Egress(declared, internal), resolver=names, trust=authority.client)
        made.append(fetcher)
        return fetcher.request(
            more.pop("method", "GET"), f"https://{host}:{web.port}{path}", **more
        )

    yield make
    for fetcher in made:
        fetcher.close()


def test_internal_target_works_after_an_explicit_rule(fetch):
    answer = fetch("/")
    assert (answer.status, answer.text, answer.headers["content-type"]) == (
        200,
        "hello",
        "text/plain",
    )


def test_internal_target_is_refused_without_one_and_hears_nothing(fetch, web):
    with pytest.raises(EgressDeniedError, match="loopback"):
        fetch("/", internal=[])
    assert web.requests == []


def test_undeclared_host_is_refused_before_its_name_is_looked_up(fetch):
    names = Names(api_example_org=["127.0.0.1"])
    with pytest.raises(EgressDeniedError):
        fetch("/", names=names, declared=["elsewhere.example.org"])
    assert names.asked == []


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:127.0.0.1"],
)
def test_name_that_leads_inside_is_refused(fetch, web, address):
    with pytest.raises(EgressDeniedError):
        fetch("/", names=Names(api_example_org=[address]), internal=[])
    assert web.requests == []


def test_one_internal_address_among_public_ones_refuses_the_name(fetch, web):
    with pytest.raises(EgressDeniedError):
        fetch("/", names=Names(api_example_org=[["8.8.8.8", "127.0.0.1"]]), internal=[])


def test_name_is_looked_up_once_so_that_rebinding_changes_nothing(fetch, web):
    names = Names(api_example_org=["127.0.0.1", "169.254.169.254"])
    assert fetch("/", names=names).status == 200
    assert names.asked == ["api.example.org"]


def test_certificate_is_verified_by_the_name_in_the_url(fetch):
    with pytest.raises(FetchFailedError):
        fetch("/", host="wrong.example.org", names=Names(wrong_example_org=["127.0.0.1"]))


def test_redirect_to_an_internal_address_is_refused(fetch, web):
    web.redirect = "https://169.254.169.254/latest/meta-data/"
    with pytest.raises(EgressDeniedError):
        fetch("/redirect", declared=["*", f"*:{web.port}"])
    assert [path for _, path, _, _ in web.requests] == ["/redirect"]


@pytest.mark.parametrize("location", ["http://api.example.org/", "file:///etc/passwd", "//user@x/"])
def test_redirect_to_another_scheme_or_a_user_is_refused(fetch, web, location):
    web.redirect = location
    with pytest.raises((EgressDeniedError, InvalidError)):
        fetch("/redirect")


def test_redirects_end_after_five(fetch, web):
    web.redirect = "/redirect"
    with pytest.raises(FetchFailedError, match="5 redirects"):
        fetch("/redirect")
    assert len(web.requests) == 6


def test_authorization_stays_within_its_origin(fetch, web):
    secret = {"Authorization": "Bearer abc", "Cookie": "a=b", "X-Api-Key": "1", "Accept": "a/b"}
    web.redirect = "/here"
    fetch("/redirect", headers=secret)
    assert web.requests[-1][2]["authorization"] == "Bearer abc"
    web.redirect = f"https://other.example.org:{web.port}/there"
    fetch("/redirect", headers=secret)
    sent = {name.lower() for name in web.requests[-1][2]}
    assert web.requests[-1][1] == "/there"
    assert "accept" in sent
    assert not sent & {"authorization", "cookie", "x-api-key"}


def test_body_stays_within_its_origin(fetch, web):
    web.redirect = f"https://other.example.org:{web.port}/there"
    with pytest.raises(EgressDeniedError):
        fetch("/redirect=307", method="POST", content=b"body")
    assert len(web.requests) == 1


def test_post_becomes_get_after_303_and_stays_after_307(fetch, web):
    web.redirect = "/next"
    fetch("/redirect=303", method="POST", content=b"body")
    assert (web.requests[-1][0], web.requests[-1][3]) == ("GET", b"")
    fetch("/redirect=307", method="POST", content=b"body")
    assert (web.requests[-1][0], web.requests[-1][3]) == ("POST", b"body")


def test_proxy_of_the_environment_is_ignored(fetch, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch("/").status == 200


@pytest.mark.parametrize("path", ["/large", "/bomb"])
def test_answer_ends_at_the_limit(fetch, path):
    with pytest.raises(FetchTooLargeError):
        fetch(path, limits=FetchLimits(bytes=1_000_000))


def test_packed_answer_is_unpacked(fetch):
    assert fetch("/packed").json() == {"ok": True}


@pytest.mark.parametrize("path", ["/cut", "/brotli", "/trailing"])
def test_incomplete_or_unasked_encoding_is_refused(fetch, path):
    with pytest.raises(FetchFailedError):
        fetch(path)


@pytest.mark.parametrize(
    "headers",
    [{"Host": "x"}, {"X": "a\r\nY: b"}, {"X Y": "a"}, {"Content-Length": "5"}, {"X": "€"}],
)
def test_header_that_would_change_the_request_is_refused(fetch, web, headers):
    with pytest.raises(InvalidError):
        fetch("/", headers=headers)
    assert web.requests == []


def test_time_that_is_over_ends_a_request(fetch):
    with pytest.raises(FetchFailedError):
        fetch("/", limits=FetchLimits(seconds=0))


def test_error_names_the_origin_and_not_the_query(fetch, web):
    with pytest.raises(FetchFailedError) as caught:
        fetch("/?key=hush", host="wrong.example.org", names=Names(wrong_example_org=["127.0.0.1"]))
    assert "hush" not in caught.value.detail


async def test_inline_capability_awaits_the_same(authority, web):
    names = Names(api_example_org=["127.0.0.1"])
    egress = Egress([f"api.example.org:{web.port}"], [f"127.0.0.1:{web.port}"])
    fetcher = Fetcher(egress, resolver=names, trust=authority.client)
    address = f"https://api.example.org:{web.port}"
    answer = await fetcher.request_async("GET", f"{address}/packed")
    assert answer.json() == {"ok": True}
    with pytest.raises(FetchTooLargeError):
        await fetcher.request_async("GET", f"{address}/bomb", limits=FetchLimits(bytes=1000))
    with pytest.raises(FetchFailedError):
        await fetcher.request_async("GET", f"{address}/", limits=FetchLimits(seconds=0))
    with pytest.raises(ConfigurationError, match="request_async"):
        fetcher.request("GET", f"{address}/")
    await fetcher.aclose()


async def test_inline_capability_is_refused_the_same(authority, web):
    names = Names(api_example_org=["127.0.0.1"])
    fetcher = Fetcher(
        Egress([f"api.example.org:{web.port}"]), resolver=names, trust=authority.client
    )
    with pytest.raises(EgressDeniedError):
        await fetcher.request_async("GET", f"https://api.example.org:{web.port}/")
    await asyncio.wait_for(fetcher.aclose(), 30)
