"""How a process gets its identity: enrolment by token, and renewal by the identity itself.

Nothing is trusted on first use. The token carries the fingerprint of the root. A first handshake,
which trusts no root at all and therefore always fails, shows the platform's chain; the certificate
with that fingerprint becomes the only trust root of the second one, which carries the token.
"""

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from cryptography import x509

from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.errors import ConfigurationError, RemoteError
from hivemesh_sdk.pauses import around
from hivemesh_sdk.transport.connection import Response, Target, call_once
from hivemesh_sdk.transport.errors import (
    DeadlineExceededError,
    PeerRefusedError,
    TransportError,
    WorkerUnreachableError,
    why_unreachable,
)
from hivemesh_sdk.trust.bundle import Bundle, bundle_from_json
from hivemesh_sdk.trust.chains import presented_chain
from hivemesh_sdk.trust.contexts import anonymous_context
from hivemesh_sdk.trust.identity import SpiffeId, check_trust_domain
from hivemesh_sdk.trust.keys import PrivateKey, Svid, certificate_request, new_key, svid
from hivemesh_sdk.trust.source import IdentitySource
from hivemesh_sdk.trust.tokens import Token
from hivemesh_sdk.trust.wire import (
    BUNDLE_PATH,
    ENROL_PATH,
    RENEW_PATH,
    EnrolRequest,
    IdentityAnswer,
    RenewRequest,
)

ENROL_TRIES = 3  # the same token with the same key is answered again for 60 s
RETRY_S = 1.0
PROBE_NAME = "enrolment.invalid"  # nobody's name: the first handshake is not to succeed
DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """Who asks to join."""

    worker: str
    version: str = ""
    manifest_digest: str = ""
    instance: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What an enrolment or a renewal yields."""

    svid: Svid
    bundle: Bundle
    platforms: tuple[str, ...] = ()  # mesh addresses of the replicas that live
    enrolments: tuple[str, ...] = ()  # and where they enrol

    def source(self) -> IdentitySource:
        """A source that starts with this identity."""
        return IdentitySource(self.svid, self.bundle)


async def enrol(
    host: str, port: int, token: Token, newcomer: Newcomer, *, deadline_s: float = DEADLINE_S
) -> Identity:
    """Join the installation whose root the token names.

    Raises:
        PeerRefusedError: who answers there does not have this root.
        RemoteError: the platform refused; the problem says why.
        TransportError: the platform does not answer.
    """
    key = new_key()
    for _ in range(ENROL_TRIES - 1):
        try:
            return await _enrol_once(host, port, token, newcomer, key, deadline_s)
        except PeerRefusedError:
            raise
        except TransportError:
            await asyncio.sleep(around(RETRY_S))
    return await _enrol_once(host, port, token, newcomer, key, deadline_s)


async def _enrol_once(
    host: str, port: int, token: Token, newcomer: Newcomer, key: PrivateKey, deadline_s: float
) -> Identity:
    root = await announced_root(host, port, token.root_sha256, deadline_s=deadline_s)
    trust_domain = trust_domain_of(root)
    request = EnrolRequest(
        token=token.reveal(),
        csr=certificate_request(key).decode("ascii"),
        worker=newcomer.worker,
        instance=newcomer.instance,
        manifest_digest=newcomer.manifest_digest,
        version=newcomer.version,
    )
    bundle = Bundle(trust_domain=trust_domain, roots=(root,))
    response = await call_once(
        anonymous_context(bundle),
        bundle,
        Target.platform(host, port, trust_domain),
        ("POST", ENROL_PATH),
        body=msgspec.json.encode(request),
        deadline_s=deadline_s,
    )
    answer = _answer(response)
    expected = SpiffeId.worker(trust_domain, newcomer.worker, answer.instance)
    return identity(answer, key, expected)


async def announced_root(host: str, port: int, fingerprint: str, *, deadline_s: float) -> bytes:
    """The root that the server at this address shows, if it has this SHA-256.

    Raises:
        PeerRefusedError: no certificate of its chain has the fingerprint.
        WorkerUnreachableError: nobody answers there.
    """
    for der in await _shown_chain(host, port, deadline_s):
        if hmac.compare_digest(hashlib.sha256(der).hexdigest(), fingerprint):
            return der
    detail = (
        f"the platform at {host}:{port} does not have the root that the token names; "
        "is it another installation?"
    )
    raise PeerRefusedError(detail, sent=False)


async def _shown_chain(host: str, port: int, deadline_s: float) -> list[bytes]:
    context = anonymous_context(Bundle(trust_domain="", roots=()))
    handshakes: list[ssl.SSLObject] = []

    class Kept(ssl.SSLObject):
        def do_handshake(self) -> None:
            handshakes[:] = [self]
            super().do_handshake()

    context.sslobject_class = Kept
    try:
        async with asyncio.timeout(deadline_s):
            transport, _ = await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, host, port, ssl=context, server_hostname=PROBE_NAME
            )
    except ssl.SSLError:
        return list(presented_chain(handshakes[0])) if handshakes else []
    except TimeoutError as error:
        detail = f"no answer from {host}:{port} in time"
        raise DeadlineExceededError(detail, sent=False) from error
    except OSError as error:
        detail = f"{host}:{port} cannot be reached: {why_unreachable(error)}"
        raise WorkerUnreachableError(detail, sent=False) from error
    transport.abort()
    detail = "a handshake without trust roots was completed; this build of OpenSSL is not usable"
    raise PeerRefusedError(detail, sent=False)


def trust_domain_of(root: bytes) -> str:
    """The trust domain that a root names in its URI.

    Raises:
        ConfigurationError: it names none.
    """
    try:
        names = (
            x509.load_der_x509_certificate(root)
            .extensions.get_extension_for_class(x509.SubjectAlternativeName)
            .value.get_values_for_type(x509.UniformResourceIdentifier)
        )
    except (ValueError, x509.ExtensionNotFound) as error:
        message = "the root certificate names no trust domain"
        raise ConfigurationError(message) from error
    return check_trust_domain(names[0].removeprefix("spiffe://") if names else "")


def identity(answer: IdentityAnswer, key: PrivateKey, expected: SpiffeId) -> Identity:
    """Join an answer with the key it was asked for.

    Raises:
        ConfigurationError: it is for another identity or trust domain.
    """
    bundle = answer.bundle.bundle()
    issued = svid(key, answer.certificate_chain.encode("ascii"), expected.trust_domain)
    if issued.id != expected or bundle.trust_domain != expected.trust_domain:
        message = f"the platform issued {str(issued.id)!r} instead of {str(expected)!r}"
        raise ConfigurationError(message)
    return Identity(
        svid=issued,
        bundle=bundle,
        platforms=tuple(answer.platforms),
        enrolments=tuple(answer.enrolments),
    )


Renewal = Callable[[bytes], Awaitable[IdentityAnswer]]


def renewal_by(
    source: IdentitySource, target: Target, *, deadline_s: float = DEADLINE_S
) -> Renewal:
    """How a worker renews: `POST /v1/renew` on a connection of its own.

    A pooled connection may still speak for the certificate before this one, which the platform
    would take for a stolen key.
    """

    async def renew(csr: bytes) -> IdentityAnswer:
        response = await call_once(
            source.client_context(),
            source.bundle(),
            target,
            ("POST", RENEW_PATH),
            body=msgspec.json.encode(RenewRequest(csr=csr.decode("ascii"))),
            deadline_s=deadline_s,
        )
        return _answer(response)

    return renew


async def fetch_bundle(
    source: IdentitySource, target: Target, *, deadline_s: float = DEADLINE_S
) -> Bundle:
    """Ask the platform for its present trust bundle."""
    response = await call_once(
        source.client_context(),
        source.bundle(),
        target,
        ("GET", BUNDLE_PATH),
        deadline_s=deadline_s,
    )
    return bundle_from_json(_success(response))


def _answer(response: Response) -> IdentityAnswer:
    try:
        return msgspec.json.decode(_success(response), type=IdentityAnswer)
    except msgspec.DecodeError as error:
        message = "the platform's answer cannot be read; do the versions fit?"
        raise ConfigurationError(message) from error


def _success(response: Response) -> bytes:
    if response.status == 200:
        return response.body
    try:
        document = msgspec.json.decode(response.body, type=Problem)
    except msgspec.DecodeError as error:
        detail = f"the platform answered {response.status} without a problem document"
        raise WorkerUnreachableError(detail, sent=True) from error
    raise RemoteError(document)
