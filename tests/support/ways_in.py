"""Wrong ways into a listener, each with the reason by which a mesh listener counts it."""

import ssl
from collections.abc import Callable
from datetime import timedelta

from cryptography.x509.oid import ExtendedKeyUsageOID
from hivemesh_sdk.testing.pki import ThrowawayCA, Wrong
from hivemesh_sdk.trust.contexts import anonymous_context, client_context
from hivemesh_sdk.trust.keys import Svid

FOREIGN = "spiffe://other.hivemesh.internal/worker/echo/i1"
Way = Callable[[ThrowawayCA], ssl.SSLContext | None]


def presenting(ca: ThrowawayCA, svid: Svid) -> ssl.SSLContext:
    return client_context(svid, ca.bundle())


def plain_http(_ca: ThrowawayCA) -> None:
    return None


def tls_1_2(ca: ThrowawayCA) -> ssl.SSLContext:
    context = presenting(ca, ca.svid(ca.worker()))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def no_certificate(ca: ThrowawayCA) -> ssl.SSLContext:
    return anonymous_context(ca.bundle())


def foreign_root(ca: ThrowawayCA) -> ssl.SSLContext:
    stranger = ThrowawayCA(ca.trust_domain)
    return presenting(ca, stranger.svid(stranger.worker()))


def expired(ca: ThrowawayCA) -> ssl.SSLContext:
    life = timedelta(seconds=-5)
    return presenting(ca, ca.svid(ca.worker(), lifetime=life, starts_in=timedelta(minutes=-2)))


def not_yet_valid(ca: ThrowawayCA) -> ssl.SSLContext:
    return presenting(ca, ca.svid(ca.worker(), starts_in=timedelta(minutes=30)))


def server_only(ca: ThrowawayCA) -> ssl.SSLContext:
    return presenting(ca, ca.wrong(ca.worker(), Wrong(usages=[ExtendedKeyUsageOID.SERVER_AUTH])))


def issuer_as_client(ca: ThrowawayCA) -> ssl.SSLContext:
    return presenting(ca, ca.issuer_as_peer())


def foreign_domain(ca: ThrowawayCA) -> ssl.SSLContext:
    return presenting(ca, ca.wrong(ca.worker(), Wrong(uris=[FOREIGN], dns=[])))


def two_uris(ca: ThrowawayCA) -> ssl.SSLContext:
    uris = [str(ca.worker()), str(ca.platform())]
    return presenting(ca, ca.wrong(ca.worker(), Wrong(uris=uris)))


def ip_name(ca: ThrowawayCA) -> ssl.SSLContext:
    return presenting(ca, ca.wrong(ca.worker(), Wrong(addresses=["127.0.0.1"])))


WAYS: list[tuple[Way, str]] = [
    (plain_http, "plain-http"),
    (tls_1_2, "tls-version"),
    (no_certificate, "no-certificate"),
    (foreign_root, "untrusted-root"),
    (expired, "expired"),
    (not_yet_valid, "not-yet-valid"),
    (server_only, "wrong-purpose"),
    (issuer_as_client, "wrong-purpose"),
    (foreign_domain, "name-constraint"),
    (two_uris, "peer-identity-invalid"),
    (ip_name, ""),  # the name constraint or our own check, whichever OpenSSL lets come first
]
