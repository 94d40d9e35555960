"""The listener for people: its certificate, its ways in, and what it refuses."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from access_support import name_users, token_of
from api_support import call, peer
from cryptography import x509
from hivemesh_platform.access.store import Subject
from hivemesh_platform.app import Platform
from hivemesh_platform.audit.index import Query
from hivemesh_platform.people import names_of
from hivemesh_platform.settings import ApiSettings
from hivemesh_platform.trust.web import LIFETIME, RENEW_AFTER, WebIssuer
from hivemesh_sdk.client import Client
from hivemesh_sdk.contracts.problems import slug_of
from hivemesh_sdk.errors import ConfigurationError, RemoteError
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.trust.identity import SpiffeId
from platform_support import address, install, platform
from registry_support import manifest

pytestmark = pytest.mark.integration

GOOD = {"host": "localhost"}


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[Platform]:
    install(tmp_path, manifest())
    async with platform(tmp_path) as running:
        yield running


def root_of(found: Platform) -> Path:
    return found.state_folder / "trust" / "web-root.pem"


async def ask(found: Platform, token: str, method: str, *arguments: object, **options: object):
    def work():
        with Client.from_server(found.people_url, token, ca_file=root_of(found)) as client:
            return getattr(client, method)(*arguments, **options)

    return await asyncio.to_thread(work)


async def by_token(found: Platform, token: str, path: str = "/v1/whoami", **headers: str):
    sent = {**GOOD, "authorization": f"Bearer {token}", **headers}
    return await call(found.people_app, "GET", path, as_=None, headers=sent)


async def test_a_token_lets_its_owner_in(found: Platform) -> None:
    await name_users(found, {"anna": ("viewer", "default")})
    token = await token_of(found, "anna")
    who = await ask(found, token, "whoami")
    assert (who.name, who.roles) == ("anna", ["viewer"])
    assert [one.name for one in await ask(found, token, "workers")] == ["echo"]
    with pytest.raises(RemoteError) as refused:
        await ask(found, token, "scale", "echo", 2)
    assert slug_of(refused.value.document) == "not-authorized"


async def test_a_role_that_is_taken_away_counts_no_more_with_the_next_request(
    found: Platform,
) -> None:
    await name_users(found, {"anna": ("viewer", "default")})
    token = await token_of(found, "anna")
    anna = peer(SpiffeId.user(found.authority.trust_domain, "anna"))
    for status in (200, 403):
        assert (await by_token(found, token, "/v1/status")).status == status
        assert (await call(found.mesh_app, "GET", "/v1/status", as_=anna)).status == status
        if status == 200:
            admin = await found.people.access.user("operator")
            await found.people.service.revoke(admin, Subject("user", "anna"), "viewer")
    await token_of(found, "operator")  # its record is durable, and with it what came before
    refused = await found.audit_service.find(Query(action="read:status"))
    actors = {one.actor.rpartition("/")[2] for one in refused if one.decision == "deny"}
    assert actors == {f"token:{token.split('.')[1]}", "anna"}


async def test_a_revoked_token_ends_on_an_open_connection(found: Platform) -> None:
    token = await token_of(found, "operator")
    admin = await found.people.access.user("operator")
    token_id = token.split(".")[1]
    loop = asyncio.get_running_loop()

    def work():
        with Client.from_server(found.people_url, token, ca_file=root_of(found)) as client:
            client.whoami()
            revoked = found.people.service.revoke_token(admin, token_id)
            asyncio.run_coroutine_threadsafe(revoked, loop).result(10)
            return client.whoami()

    with pytest.raises(RemoteError) as refused:
        await asyncio.to_thread(work)
    assert slug_of(refused.value.document) == "token-refused"


async def test_the_address_is_known_to_the_operator(found: Platform) -> None:
    token = await token_of(found, "operator")
    assert (await ask(found, token, "status")).people_url == found.people_url
    assert found.people_url.startswith("https://localhost:")


async def test_the_certificate_has_the_names_of_this_machine(found: Platform) -> None:
    _, port = address(found.people_url)
    for name in ("localhost", "127.0.0.1", "::1"):
        await asyncio.to_thread(talk, port, trusting(root_of(found)), name)


async def test_the_certificate_has_no_other_names(found: Platform) -> None:
    _, port = address(found.people_url)
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(talk, port, trusting(root_of(found)), "example.org")


async def test_neither_root_vouches_for_the_other(found: Platform, tmp_path: Path) -> None:
    mesh_root = tmp_path / "mesh.pem"
    mesh_root.write_bytes((found.state_folder / "operator" / "bundle.pem").read_bytes())
    _, people = address(found.people_url)
    _, mesh = address(found.mesh_url)
    name = f"platform.{found.authority.trust_domain}"
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(talk, people, trusting(mesh_root))
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(talk, mesh, trusting(root_of(found)), name)


async def test_older_protocols_are_refused(found: Platform) -> None:
    context = trusting(root_of(found))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    _, port = address(found.people_url)
    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(talk, port, context)


async def test_a_certificate_of_the_mesh_opens_nothing_here(found: Platform) -> None:
    folder = found.state_folder / "operator"
    context = trusting(root_of(found))
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    _, port = address(found.people_url)
    request = "GET /v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n"
    answer = await asyncio.to_thread(talk, port, context, "localhost", request)
    assert answer.startswith("HTTP/1.1 401 ")


OTHER_WAYS: list[dict[str, str]] = [
    {},
    {"authorization": "Basic b3BlcmF0b3I6"},
    {"authorization": "Bearer"},
    {"authorization": "Bearer " + "x" * 300},
    {"x-api-key": "{token}"},
    {"cookie": "token={token}"},
    {"authorization": "Bearer {token}", "x-api-key": "{token}"},
]


async def test_a_token_comes_in_one_header_only(found: Platform) -> None:
    token = await token_of(found, "operator")
    for headers in OTHER_WAYS:
        sent = {**GOOD, **{name: text.replace("{token}", token) for name, text in headers.items()}}
        answer = await call(found.people_app, "GET", "/v1/status", as_=None, headers=sent)
        assert (answer.status, answer.json()["code"]) == (401, "HM-1711"), headers
        assert answer.headers["www-authenticate"] == 'Bearer realm="hivemesh"'


async def test_a_token_in_the_address_is_refused(found: Platform) -> None:
    token = await token_of(found, "operator")
    for name in ("token", "access_token", "api_key", "Token"):
        answer = await by_token(found, token, f"/v1/status?{name}={token}")
        assert answer.status == 401
        assert token not in answer.body.decode()


async def test_the_fifth_refused_token_of_an_address_is_the_last_for_a_minute(
    found: Platform,
) -> None:
    for _ in range(5):
        answer = await by_token(found, "hm1.x.y")
        assert answer.status == 401
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    answer = await by_token(found, "hm1.x.y")
    assert (answer.status, answer.json()["code"]) == (429, "HM-1713")
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert (await by_token(found, await token_of(found, "operator"))).status == 200


async def test_only_our_own_names_are_answered(found: Platform) -> None:
    token = await token_of(found, "operator")
    ours = ("localhost", "LOCALHOST:8445", "127.0.0.1:1", "[::1]:8445", "localhost.")
    for host in (*ours, "evil.example", "localhost.evil.example", ""):
        answer = await by_token(found, token, host=host)
        assert answer.status == (200 if host in ours else 421), host


async def test_every_answer_is_hardened(found: Platform) -> None:
    token = await token_of(found, "operator")
    for path in ("/v1/whoami", "/v1/nothing", "/v1/runs/run_0"):
        answer = await by_token(found, token, path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in answer.headers  # of localhost, see the front
        assert "access-control-allow-origin" not in answer.headers
        assert "set-cookie" not in answer.headers


async def test_other_names_than_localhost_are_for_tls_only(found: Platform) -> None:
    token = await token_of(found, "operator")
    answer = await by_token(found, token, host="127.0.0.1")
    assert "max-age" in answer.headers["strict-transport-security"]


async def test_no_token_gets_into_the_log(found: Platform, capfd) -> None:
    token = await token_of(found, "operator")
    await ask(found, token, "whoami")
    for path in (f"/v1/status?token={token}", f"/v1/nothing/{token}"):
        await by_token(found, token, path)
    await by_token(found, token[:-1] + ("a" if token[-1] != "a" else "b"))
    assert token.split(".")[2][:20] not in "".join(capfd.readouterr())


def test_only_an_https_address_names_a_platform() -> None:
    for url in ("http://localhost:8445", "localhost:8445", "https://localhost/x", ""):
        with pytest.raises(ConfigurationError):
            Client.from_server(url, "hm1.x.y")


def test_the_names_of_a_listener() -> None:
    assert names_of(ApiSettings()) == ("localhost", "127.0.0.1", "::1")
    api = ApiSettings(people_host="192.0.2.7", people_names=("Mesh.Example.org",))
    assert names_of(api)[3:] == ("192.0.2.7", "mesh.example.org")


def test_the_root_stays_and_the_certificate_is_renewed(tmp_path: Path) -> None:
    clock = ManualClock()
    issuer = WebIssuer(tmp_path, clock, ["localhost"], "td.internal")
    issuer.open()
    root = issuer.root_file.read_bytes()
    assert not issuer.renew()
    clock.advance(RENEW_AFTER)
    assert issuer.renew()
    again = WebIssuer(tmp_path, clock, ["localhost"], "td.internal")
    again.open()
    assert again.root_file.read_bytes() == root
    assert (tmp_path / "web.json").stat().st_mode & 0o077 == 0
    clock.advance(
        x509.load_pem_x509_certificate(root).not_valid_after_utc - clock.now() - LIFETIME / 2
    )
    again.open()
    assert again.root_file.read_bytes() != root


def test_a_certificate_that_is_not_valid_yet_is_replaced(tmp_path: Path) -> None:
    clock = ManualClock()
    issuer = WebIssuer(tmp_path, clock, ["localhost"], "td.internal")
    issuer.open()
    clock.jump(timedelta(hours=-1))
    assert issuer.renew()
    assert not issuer.renew()


def test_the_root_may_sign_nothing_but_leaves(tmp_path: Path) -> None:
    issuer = WebIssuer(tmp_path, ManualClock(), ["localhost"], "td.internal")
    issuer.open()
    root = x509.load_pem_x509_certificate(issuer.root_file.read_bytes())
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.path_length) == (True, 0)


def test_a_damaged_key_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "web.json").write_text("{")
    (tmp_path / "web.json").chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"web\.json"):
        WebIssuer(tmp_path, ManualClock(), ["localhost"], "td.internal").open()
    (tmp_path / "web.json").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        WebIssuer(tmp_path, ManualClock(), ["localhost"], "td.internal").open()


def trusting(root: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(root)
    return context


def talk(port: int, context: ssl.SSLContext, name: str = "localhost", request: str = "") -> str:
    """Shake hands with whoever calls himself `name`; returns the first words of the answer."""
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        tls.sendall(request.encode())
        return tls.recv(4096).decode() if request else ""
