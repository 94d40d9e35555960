"""Who may talk to a mesh listener: every wrong way in is refused, counted and logged with a reason."""

import re
import ssl
from datetime import timedelta

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hivemesh_sdk.testing.pki import ThrowawayCA, Wrong
from hivemesh_sdk.transport import Limits
from hivemesh_sdk.trust.contexts import anonymous_context, client_context
from hivemesh_sdk.trust.refusals import Reason
from structlog.testing import capture_logs

GET = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
FOREIGN = "spiffe://other.hivemesh.internal/worker/echo/i1"


def presenting(ca, svid):
    return client_context(svid, ca.bundle())


def plain_http(ca):
    return None


def tls_1_2(ca):
    context = presenting(ca, ca.svid(ca.worker()))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def no_certificate(ca):
    return anonymous_context(ca.bundle())


def foreign_root(ca):
    stranger = ThrowawayCA(ca.trust_domain)
    return presenting(ca, stranger.svid(stranger.worker()))


def own_signature(ca):
    return presenting(ca, ca.wrong(ca.worker(), Wrong(), self_signed=True))


def expired(ca):
    life = timedelta(seconds=-5)
    return presenting(ca, ca.svid(ca.worker(), lifetime=life, starts_in=timedelta(minutes=-2)))


def not_yet_valid(ca):
    return presenting(ca, ca.svid(ca.worker(), starts_in=timedelta(minutes=30)))


def server_only(ca):
    return presenting(ca, ca.wrong(ca.worker(), Wrong(usages=[ExtendedKeyUsageOID.SERVER_AUTH])))


def issuer_as_client(ca):
    return presenting(ca, ca.issuer_as_peer())


def foreign_domain(ca):
    return presenting(ca, ca.wrong(ca.worker(), Wrong(uris=[FOREIGN], dns=[])))


def foreign_dns_name(ca):
    return presenting(ca, ca.wrong(ca.worker(), Wrong(dns=["evil.example"])))


def ip_name(ca):
    return presenting(ca, ca.wrong(ca.worker(), Wrong(addresses=["127.0.0.1"])))


REFUSED_IN_HANDSHAKE = [
    (plain_http, Reason.PLAIN_HTTP),
    (tls_1_2, Reason.TLS_VERSION),
    (no_certificate, Reason.NO_CERTIFICATE),
    (foreign_root, Reason.UNTRUSTED),
    (own_signature, Reason.CERTIFICATE),
    (expired, Reason.EXPIRED),
    (not_yet_valid, Reason.NOT_YET_VALID),
    (server_only, Reason.PURPOSE),
    (issuer_as_client, Reason.PURPOSE),
    (foreign_domain, Reason.NAME_CONSTRAINT),
    (foreign_dns_name, Reason.NAME_CONSTRAINT),
]


@pytest.mark.parametrize(
    ("way_in", "reason"), REFUSED_IN_HANDSHAKE, ids=lambda item: getattr(item, "__name__", "")
)
async def test_handshake_is_refused_counted_and_logged(mesh, raw, way_in, reason):
    with capture_logs() as lines:
        answer = await raw(mesh, GET, way_in(mesh.ca))
    assert b"HTTP/1.1 2" not in answer
    assert mesh.source.refusals.counts == {reason: 1}
    assert [line["reason"] for line in lines if line["event"] == "peer_refused"] == [reason]
    assert mesh.app.requests == []


@pytest.mark.parametrize("way_in", [expired, not_yet_valid])
async def test_a_certificate_of_another_time_is_refused_with_the_time_here(mesh, raw, way_in):
    with capture_logs() as lines:
        await raw(mesh, GET, way_in(mesh.ca))
    [line] = [line for line in lines if line["event"] == "peer_refused"]
    assert re.search(": so by the clock here, 20.*Z$", line["detail"])


def two_uris(loose):
    worker = loose.worker()
    return Wrong(uris=[str(worker), str(loose.platform())])


def no_uri(loose):
    return Wrong(uris=[])


def no_names(loose):
    return Wrong(no_names=True)


def domain_alone(loose):
    return Wrong(uris=[f"spiffe://{loose.trust_domain}"])


def other_scheme(loose):
    return Wrong(uris=[f"https://{loose.trust_domain}/worker/echo/i1"])


def unknown_kind(loose):
    return Wrong(uris=[f"spiffe://{loose.trust_domain}/admin/root"])


def foreign_domain_unconstrained(loose):
    return Wrong(uris=[FOREIGN])


def ip_name_unconstrained(loose):
    return Wrong(addresses=["127.0.0.1"])


def localhost_name(loose):
    return Wrong(dns=["localhost"])


def authority_bit(loose):
    return Wrong(authority=True)


@pytest.mark.parametrize(
    "how",
    [
        two_uris,
        no_uri,
        no_names,
        domain_alone,
        other_scheme,
        unknown_kind,
        foreign_domain_unconstrained,
        ip_name_unconstrained,
        localhost_name,
        authority_bit,
    ],
    ids=lambda how: how.__name__,
)
async def test_chain_that_openssl_accepts_is_refused_by_identity(mesh_of, raw, loose_ca, how):
    async with mesh_of(authority=loose_ca) as mesh:
        svid = loose_ca.wrong(loose_ca.worker(), how(loose_ca))
        with capture_logs() as lines:
            answer = await raw(mesh, GET, client_context(svid, loose_ca.bundle()))
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"connection: close\r\n" in answer
        assert b"urn:hivemesh:problem:peer-identity-invalid" in answer
        assert mesh.source.refusals.counts == {Reason.IDENTITY: 1}
        assert [line["detail"] for line in lines if line["event"] == "peer_refused"] != [""]
        assert mesh.app.requests == []


async def test_name_of_an_address_is_refused_under_the_constrained_issuer_too(mesh, raw):
    answer = await raw(mesh, GET, ip_name(mesh.ca))
    assert b"HTTP/1.1 2" not in answer
    assert mesh.source.refusals.counts.total() == 1
    assert mesh.app.requests == []


async def test_valid_certificate_is_let_in_and_named(mesh, raw):
    answer = await raw(mesh, GET, presenting(mesh.ca, mesh.ca.svid(mesh.ca.worker())))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(f"{mesh.ca.worker()} 0".encode())
    assert not mesh.source.refusals.counts


async def test_second_refusal_for_the_same_reason_is_counted_but_not_logged(mesh, raw):
    with capture_logs() as lines:
        for _ in range(3):
            await raw(mesh, GET, None)
    assert mesh.source.refusals.counts[Reason.PLAIN_HTTP] == 3
    assert len([line for line in lines if line["event"] == "peer_refused"]) == 1


async def test_silent_peer_is_dropped_by_the_handshake_deadline(mesh_of, raw):
    async with mesh_of(limits=Limits(handshake_s=0.05)) as mesh:
        assert await raw(mesh, b"", None) == b""
