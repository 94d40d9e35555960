"""The front context decides how strict a listener is; alone it lets nobody in."""

import ssl

import pytest
from hivemesh_sdk.trust.contexts import client_context, front_context, server_context
from hivemesh_sdk.trust.keys import load_into
from hivemesh_sdk.trust.refusals import Refusals


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str, session=None):
    """Run a handshake in memory; returns both ends.

    Raises:
        ssl.SSLError: one of them refuses.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    right = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [left, right]
    for _ in range(10):
        for end in tuple(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not waiting
    right.write(b"ready")
    assert left.read(5) == b"ready"
    return left, right


@pytest.fixture
def client(ca):
    return client_context(ca.svid(ca.worker()), ca.bundle())


@pytest.fixture
def name(ca):
    return f"platform.{ca.trust_domain}"


def never() -> ssl.SSLContext:
    message = "the front was to stand alone"
    raise AssertionError(message)


def test_front_alone_refuses_a_valid_client(client, name):
    front = front_context(never, Refusals())
    front.sni_callback = None
    with pytest.raises(ssl.SSLError):
        handshake(front, client, name)


def test_front_with_a_certificate_still_has_no_trust_roots(ca, client, name):
    front = front_context(never, Refusals())
    front.sni_callback = None
    load_into(front, ca.svid(ca.platform()))
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        handshake(front, client, name)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_failing_callback_refuses(client, name):
    def broken() -> ssl.SSLContext:
        message = "no context"
        raise LookupError(message)

    with pytest.raises(ssl.SSLError):
        handshake(front_context(broken, Refusals()), client, name)


def test_front_is_as_strict_as_what_it_swaps_in(ca):
    swapped = server_context(ca.svid(ca.platform()), ca.bundle())
    front = front_context(lambda: swapped, Refusals())
    for context in (front, swapped):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_flags & ssl.VerifyFlags.VERIFY_X509_STRICT
        assert context.num_tickets == 0


def test_swapped_context_gives_certificate_and_roots(ca, client, name):
    swapped = server_context(ca.svid(ca.platform()), ca.bundle())
    left, right = handshake(front_context(lambda: swapped, Refusals()), client, name)
    assert left.version() == right.version() == "TLSv1.3"
    assert right.getpeercert(binary_form=True)


def test_no_session_is_resumed_even_after_the_client_lost_its_right(ca, client, name):
    contexts = [server_context(ca.svid(ca.platform()), ca.bundle())]
    front = front_context(lambda: contexts[0], Refusals())
    left, _ = handshake(front, client, name)
    assert not left.session.has_ticket
    again, _ = handshake(front, client, name, session=left.session)
    assert not again.session_reused
    stranger = type(ca)(ca.trust_domain)
    contexts[0] = server_context(ca.svid(ca.platform()), stranger.bundle())
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(front, client, name, session=left.session)


def test_client_context_checks_host_names(ca, client):
    swapped = server_context(ca.svid(ca.platform()), ca.bundle())
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(front_context(lambda: swapped, Refusals()), client, "elsewhere.example")
