"""Joining an installation knowing nothing but a token."""

import asyncio
import hashlib
from contextlib import asynccontextmanager

import msgspec
import pytest
from cryptography import x509
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.errors import ConfigurationError, RemoteError
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.transport import (
    DeadlineExceededError,
    MeshClient,
    PeerRefusedError,
    Target,
    WorkerUnreachableError,
    enrolment_listener,
    serve,
)
from hivemesh_sdk.trust import enrolment
from hivemesh_sdk.trust.contexts import anonymous_context
from hivemesh_sdk.trust.enrolment import (
    Newcomer,
    enrol,
    fetch_bundle,
    renewal_by,
    trust_domain_of,
)
from hivemesh_sdk.trust.keys import certificate_request, new_key
from hivemesh_sdk.trust.refusals import Reason
from hivemesh_sdk.trust.tokens import Token, TokenKind
from hivemesh_sdk.trust.wire import EnrolRequest, IdentityAnswer, RenewRequest


class Office:
    """A platform that enrols and renews everybody, as ASGI application."""

    def __init__(self, ca):
        self.ca = ca
        self.instance = "i7"
        self.asked = []
        self.lose = 0
        self.refuse = ""

    async def __call__(self, scope, receive, send):
        body = (await receive())["body"]
        self.asked.append((scope["path"], body))
        if self.lose:
            self.lose -= 1
            message = "the reply is lost"
            raise ConnectionError(message)
        status, content = self.answer(scope, body)
        headers = [(b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def answer(self, scope, body):
        if self.refuse:
            document = problem(self.refuse)
            return document.status, msgspec.json.encode(document)
        if scope["path"] == "/v1/bundle":
            return 200, msgspec.json.encode(self.ca.bundle().document())
        if scope["path"] == "/v1/renew":
            csr = msgspec.json.decode(body, type=RenewRequest).csr
            return 200, self.issue(scope["state"]["peer"].id, csr)
        request = msgspec.json.decode(body, type=EnrolRequest)
        return 200, self.issue(self.ca.worker(request.worker, self.instance), request.csr)

    def issue(self, identity, csr):
        key = x509.load_pem_x509_csr(csr.encode()).public_key()
        answer = IdentityAnswer(
            certificate_chain=self.ca.sign(identity, key).decode(),
            bundle=self.ca.bundle().document(),
            instance=identity.instance,
        )
        return msgspec.json.encode(answer)


def token_of(ca):
    root = ca.bundle().roots[0]
    return Token(TokenKind.JOIN, "0" * 16, "s" * 43, hashlib.sha256(root).hexdigest())


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(enrolment, "RETRY_S", 0.0)


@pytest.fixture
def office(ca):
    return Office(ca)


@asynccontextmanager
async def opened(office, source=None):
    source = source or office.ca.source(office.ca.platform())
    async with enrolment_listener(office, source, "127.0.0.1", 0) as listener:
        yield listener, source


async def join(listener, token, **newcomer):
    return await enrol("127.0.0.1", listener.port, token, Newcomer(worker="echo", **newcomer))


async def test_token_is_all_that_a_newcomer_needs(office):
    async with opened(office) as (listener, source):
        joined = await join(listener, token_of(office.ca), version="0.1.0")
    assert joined.svid.id == office.ca.worker("echo", "i7")
    assert joined.bundle == office.ca.bundle()
    [(path, body)] = office.asked
    request = msgspec.json.decode(body, type=EnrolRequest)
    assert (path, request.token, request.version) == (
        "/v1/enrol",
        token_of(office.ca).reveal(),
        "0.1.0",
    )
    assert not source.refusals.counts


async def test_new_identity_works_on_the_mesh(office):
    source = office.ca.source(office.ca.platform())
    async with opened(office, source) as (listener, _):
        joined = await join(listener, token_of(office.ca))
    async with serve(office, source, "127.0.0.1", 0) as mesh, MeshClient(joined.source()) as client:
        target = Target.platform("127.0.0.1", mesh.port, office.ca.trust_domain)
        assert (await client.request(target, "GET", "/v1/bundle", deadline_s=30)).status == 200


async def test_platform_with_another_root_never_sees_the_token(office):
    stranger = ThrowawayCA(office.ca.trust_domain)
    async with opened(office) as (listener, _):
        with pytest.raises(PeerRefusedError, match="another installation"):
            await join(listener, token_of(stranger))
    assert office.asked == []


async def test_server_that_shows_the_root_but_is_not_under_it_never_sees_the_token(office):
    stranger = ThrowawayCA(office.ca.trust_domain)
    source = stranger.source(stranger.platform())
    shown = office.ca.bundle()
    source.update(
        bundle=type(shown)(trust_domain=shown.trust_domain, roots=shown.roots, sequence=9)
    )
    async with opened(office, source) as (listener, _):
        with pytest.raises(PeerRefusedError, match="not accepted"):
            await join(listener, token_of(office.ca))
    assert office.asked == []


async def test_worker_of_the_installation_cannot_pose_as_the_platform(office):
    source = office.ca.source(office.ca.worker("evil", "i1"))
    async with opened(office, source) as (listener, _):
        with pytest.raises(PeerRefusedError):
            await join(listener, token_of(office.ca))
    assert office.asked == []


async def test_enrolment_listener_takes_tls_1_3_only(office):
    async with opened(office) as (listener, source):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"POST /v1/enrol HTTP/1.1\r\n\r\n")
        assert b"HTTP" not in await reader.read()
        writer.close()
        await writer.wait_closed()
    assert source.refusals.counts == {Reason.PLAIN_HTTP: 1}


async def test_nobody_listens(office):
    async with opened(office) as (listener, _):
        port = listener.port
    with pytest.raises(WorkerUnreachableError, match="cannot be reached"):
        await enrol("127.0.0.1", port, token_of(office.ca), Newcomer(worker="echo"))


async def test_port_that_speaks_no_tls_is_refused(office, strange_server):
    async def echo(reader, writer):
        writer.write(await reader.read(1))

    async with strange_server(echo) as port:
        with pytest.raises((PeerRefusedError, WorkerUnreachableError)):
            await enrol("127.0.0.1", port, token_of(office.ca), Newcomer(worker="echo"))


async def test_refusal_is_passed_on_and_not_repeated(office):
    office.refuse = "enrolment-refused"
    async with opened(office) as (listener, _):
        with pytest.raises(RemoteError) as caught:
            await join(listener, token_of(office.ca))
    assert caught.value.document.code == "HM-1106"
    assert len(office.asked) == 1


async def test_lost_reply_is_asked_for_again_with_the_same_key(office, monkeypatch):
    async with opened(office) as (listener, _):
        original = office.answer

        def vanish_once(scope, body):
            office.answer = original
            for connection in listener._connections.all():
                connection.transport.abort()
            return original(scope, body)

        office.answer = vanish_once
        joined = await join(listener, token_of(office.ca))
    keys = {msgspec.json.decode(body, type=EnrolRequest).csr.encode() for _, body in office.asked}
    publics = {x509.load_pem_x509_csr(pem).public_key().public_numbers() for pem in keys}
    assert len(office.asked) == 2
    assert publics == {joined.svid.key.public_key().public_numbers()}


async def test_certificate_for_another_name_is_refused(office):
    office.issue = lambda identity, csr: Office.issue(office, office.ca.worker("other", "i7"), csr)
    async with opened(office) as (listener, _):
        with pytest.raises(ConfigurationError, match="instead of"):
            await join(listener, token_of(office.ca))


async def test_renewal_keeps_the_name_and_changes_key_and_serial(office):
    source = office.ca.source(office.ca.platform())
    member = office.ca.source(office.ca.worker())
    async with serve(office, source, "127.0.0.1", 0) as mesh:
        target = Target.platform("127.0.0.1", mesh.port, office.ca.trust_domain)
        key = new_key()
        answer = await renewal_by(member, target)(certificate_request(key))
        renewed = enrolment.identity(answer, key, member.svid().id)
        assert await fetch_bundle(member, target) == office.ca.bundle()
    assert renewed.svid.id == member.svid().id
    assert renewed.svid.serial != member.svid().serial


async def test_answer_without_a_problem_document_is_an_error(office):
    office.answer = lambda scope, body: (500, b"oops")
    member = office.ca.source(office.ca.worker())
    async with serve(office, office.ca.source(office.ca.platform()), "127.0.0.1", 0) as mesh:
        target = Target.platform("127.0.0.1", mesh.port, office.ca.trust_domain)
        with pytest.raises(WorkerUnreachableError, match="answered 500"):
            await fetch_bundle(member, target)


def test_trust_domain_is_read_from_the_root(ca):
    assert trust_domain_of(ca.bundle().roots[0]) == ca.trust_domain


@pytest.mark.parametrize("pick", [lambda ca: b"x", lambda ca: ca.svid(ca.worker()).chain[0]])
def test_certificate_that_is_no_root_names_no_trust_domain(ca, pick):
    with pytest.raises(ConfigurationError):
        trust_domain_of(pick(ca))


async def test_platform_that_stays_away_is_an_error_after_three_tries(office):
    def vanish(scope, body):
        for connection in listener._connections.all():
            connection.transport.abort()
        return 200, b""

    office.answer = vanish
    async with opened(office) as (listener, _):
        with pytest.raises(WorkerUnreachableError):
            await join(listener, token_of(office.ca))
    assert len(office.asked) == 3


async def test_silent_platform_is_given_up_at_the_deadline(office, strange_server):
    async def silent(reader, writer):
        await reader.read()

    async with strange_server(silent) as port:
        with pytest.raises(DeadlineExceededError, match="in time"):
            await enrol(
                "127.0.0.1", port, token_of(office.ca), Newcomer(worker="echo"), deadline_s=0.02
            )


async def test_answer_of_another_version_is_told(office):
    office.answer = lambda scope, body: (200, b"{}")
    async with opened(office) as (listener, _):
        with pytest.raises(ConfigurationError, match="do the versions fit"):
            await join(listener, token_of(office.ca))


async def test_openssl_that_completes_without_roots_is_not_used(office, monkeypatch):
    # The one thing that cannot be injected: an OpenSSL that accepts a chain without trust roots.
    root = office.ca.bundle()
    monkeypatch.setattr(enrolment, "anonymous_context", lambda _: anonymous_context(root))
    monkeypatch.setattr(enrolment, "PROBE_NAME", f"platform.{office.ca.trust_domain}")
    async with opened(office) as (listener, _):
        with pytest.raises(PeerRefusedError, match="not usable"):
            await join(listener, token_of(office.ca))
    assert office.asked == []


def test_token_shows_in_no_representation_of_a_request(ca):
    request = EnrolRequest(token=token_of(ca).reveal(), csr="", worker="echo")
    assert "s" * 43 not in repr(request)
