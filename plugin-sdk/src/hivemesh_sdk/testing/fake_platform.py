"""A fake platform for tests: a throw-away CA, enrolment and mesh listeners, and no scheduling.

A real worker process joins it by the same environment variables as the real platform; what a
pipeline would do, the test does through `InstanceUnderTest`. It grants every artifact it holds.
"""

import asyncio
import hashlib
import os
import secrets
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hivemesh_sdk.contracts.artifacts import Artifact, Grant, GrantRequest, Tree
from hivemesh_sdk.contracts.instances import (
    Discovery,
    Endpoint,
    Heartbeat,
    HeartbeatReply,
    Registration,
    RegistrationReply,
)
from hivemesh_sdk.contracts.names import TREE_MEDIA_TYPE
from hivemesh_sdk.contracts.secrets import SecretLease, SecretRequest
from hivemesh_sdk.contracts.submits import SubmitReply, SubmitRequest
from hivemesh_sdk.contracts.tickets import ExchangeReply, ExchangeRequest
from hivemesh_sdk.errors import FatalError, InvalidError, NotAuthorizedError, NotFoundError
from hivemesh_sdk.testing.fake_api import CONTENT, EnrolmentApi, MeshApi, digest
from hivemesh_sdk.testing.fake_policies import FakePolicies
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.transport.server import Listener, enrolment_listener, serve
from hivemesh_sdk.trust.identity import Peer, SpiffeId
from hivemesh_sdk.trust.source import IdentitySource
from hivemesh_sdk.trust.tokens import Token, TokenKind
from hivemesh_sdk.trust.wire import EnrolRequest, IdentityAnswer, RenewRequest


class Member:
    """An instance as the fake platform knows it."""

    def __init__(self, instance: str, registration: Registration, peer: Peer) -> None:
        self.instance = instance
        self.registration = registration
        self.peer = peer
        self.heartbeats: list[Heartbeat] = []

    @property
    def target(self) -> Target:
        """Where it listens and who must answer there."""
        return Target.instance(self.registration.host, self.registration.port, self.peer.id)


class FakePlatform:
    """Enter it as an async context manager; everything lives on that loop."""

    def __init__(
        self, *, ca: ThrowawayCA | None = None, lifetime: timedelta = timedelta(hours=1)
    ) -> None:
        self.ca = ca or ThrowawayCA()
        self.lifetime = lifetime
        self.source: IdentitySource = self.ca.source(self.ca.platform("fake"))
        self.tickets = ThrowawayTickets(self.ca.signing, str(self.ca.platform("fake")))
        self.members: dict[str, Member] = {}
        self.left: list[str] = []
        self.enrolments: list[EnrolRequest] = []
        self.replicas: list[str] = []  # what it tells of others
        self.renewals = 0
        self.bundles_given = 0
        self.refuses_renewals = False
        self.blobs: dict[str, bytes] = {}
        self.secrets: dict[str, str] = {}
        self.submitted: dict[str, SubmitRequest] = {}  # by key
        self.policies = FakePolicies(self.ca)
        self.changed = asyncio.Condition()
        self._tokens: set[str] = set()
        self._stack = AsyncExitStack()
        self._changes: set[asyncio.Task[None]] = set()
        self._mesh: Listener
        self._enrolment: Listener
        self.client: MeshClient

    async def __aenter__(self) -> Self:
        self.changed = asyncio.Condition()
        mesh, enrolment = MeshApi(self), EnrolmentApi(self)
        enter = self._stack.enter_async_context
        self._mesh = await enter(serve(mesh, self.source, "127.0.0.1", 0, drain_s=0.1))  # type: ignore[arg-type]  # an ASGI application
        self._enrolment = await enter(enrolment_listener(enrolment, self.source, "127.0.0.1", 0))  # type: ignore[arg-type]  # an ASGI application
        self.client = await enter(MeshClient(self.source))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def close_listeners(self) -> None:
        """Go away, as a killed platform does; the client stays usable."""
        await self._mesh.close()
        await self._enrolment.close()

    def environment(self) -> dict[str, str]:
        """The addresses, as a worker process gets them; the token goes over a descriptor."""
        return {
            "HIVEMESH_PLATFORM": f"https://127.0.0.1:{self._mesh.port}",
            "HIVEMESH_ENROLMENT": f"https://127.0.0.1:{self._enrolment.port}",
        }

    def new_token(self, kind: TokenKind = TokenKind.JOIN) -> str:
        """A token that the enrolment listener will accept: once, or always for a credential."""
        root = self.ca.root.certificate.public_bytes(serialization.Encoding.DER)
        identifier, secret = os.urandom(8).hex(), secrets.token_urlsafe(32)
        token = Token(kind, identifier, secret, hashlib.sha256(root).hexdigest()).reveal()
        self._tokens.add(token)
        return token

    def withdraw(self, token: str) -> None:
        """Accept a token no more."""
        self._tokens.discard(token)

    def forget(self, instance: str) -> None:
        """Lose a registration, as a platform does that was restored from an older state."""
        self.members.pop(instance, None)

    def put(self, data: bytes, *, name: str | None = None) -> Artifact:
        """Hold an artifact and grant it to whoever asks."""
        sha256 = digest(data)
        self.blobs[sha256] = data
        return Artifact(sha256=sha256, size=len(data), name=name)

    def put_path(self, path: Path) -> Artifact:
        """Hold a file, or a folder as a tree artifact."""
        if path.is_file():
            return self.put(path.read_bytes(), name=path.name)
        files = sorted(one for one in path.rglob("*") if one.is_file())
        entries = {one.relative_to(path).as_posix(): self.put_path(one) for one in files}
        data = msgspec.json.encode(Tree(entries=entries))
        tree = self.put(data, name=path.name)
        return msgspec.structs.replace(tree, media_type=TREE_MEDIA_TYPE)

    # What `fake_api` asks

    def enrol(self, request: EnrolRequest) -> IdentityAnswer:
        """Accept a token that was given out; a join token is used up by it."""
        if request.token not in self._tokens:
            raise NotAuthorizedError(slug="enrolment-refused")
        if Token.parse(request.token).kind is TokenKind.JOIN:
            self._tokens.discard(request.token)
        self.enrolments.append(request)
        instance = request.instance or f"wi-{os.urandom(4).hex()}"
        return self._issue(self.ca.worker(request.worker, instance), request.csr)

    def renew(self, request: RenewRequest, peer: Peer) -> IdentityAnswer:
        """Issue for the next key, unless a test has it refused."""
        if self.refuses_renewals:
            raise NotAuthorizedError(slug="renewal-refused")
        self.renewals += 1
        return self._issue(peer.id, request.csr)

    def bundle_json(self) -> bytes:
        """The roots of the throw-away CA."""
        self.bundles_given += 1
        return msgspec.json.encode(self.ca.bundle().document())

    def register(self, instance: str, registration: Registration, peer: Peer) -> RegistrationReply:
        """Take an instance in; it must speak for itself."""
        if peer.id.instance != instance or peer.id.name != registration.worker:
            message = f"{peer.uri!r} registers {instance!r}"
            raise NotAuthorizedError(message)
        self.members[instance] = Member(instance, registration, peer)
        self._notify()
        return RegistrationReply(state="live", heartbeat_s=0.2)

    def beat(self, instance: str, heartbeat: Heartbeat) -> HeartbeatReply:
        """Remember a heartbeat."""
        if instance not in self.members:
            raise NotFoundError(instance, slug="instance-unknown")
        self.members[instance].heartbeats.append(heartbeat)
        self._notify()
        return HeartbeatReply(
            bundle_sequence=self.ca.sequence, platforms=self.replicas, enrolments=self.replicas
        )

    def leave(self, instance: str) -> None:
        """Forget an instance that says goodbye."""
        if self.members.pop(instance, None) is None:
            raise NotFoundError(instance, slug="instance-unknown")
        self.left.append(instance)
        self._notify()

    def discovery(self) -> Discovery:
        """Everybody, at once: the fake does not hold long polls."""
        return Discovery(
            version=len(self.members),
            endpoints=[
                Endpoint(
                    instance=member.instance,
                    worker=member.registration.worker,
                    version=member.registration.version,
                    identity=member.peer.uri,
                    host=member.registration.host,
                    port=member.registration.port,
                    capabilities=list(member.registration.slots),
                )
                for member in self.members.values()
            ],
        )

    async def policy(self, after: int, wait_s: float) -> str | None:
        """The signed policy, when it is newer than the one signed at `after`."""
        return await self.policies.newer(after, wait_s)

    def grant(self, request: GrantRequest, peer: Peer, ticket: str) -> Grant:
        """Say where bytes go and come from, always here, to who shows the ticket of the step."""
        self.tickets.check(ticket, peer.uri, request.step, request.attempt)
        present = request.sha256 in self.blobs
        if request.operation == "get" and not present:
            raise FatalError(request.sha256, slug="artifact-missing")
        return Grant(
            method="PUT" if request.operation == "put" else "GET",
            url=f"{CONTENT}{request.sha256}",
            headers={},
            expires_in_s=60,
            present=present and request.operation == "put",
        )

    def lend(self, request: SecretRequest) -> SecretLease:
        """Lend any of `secrets`."""
        value = self.secrets.get(request.path)
        if value is None:
            raise NotFoundError(request.path, slug="secret-missing")
        name = f"{request.step}.{request.path}"
        return SecretLease(id=name, path=request.path, version=1, value=value, expires_in_s=60.0)

    def submit(self, request: SubmitRequest) -> SubmitReply:
        """Accept every job, once for a key."""
        self.submitted.setdefault(f"{request.step}.{request.name}", request)
        return SubmitReply(job=f"job_{request.step}.{request.name}")

    def exchange(self, request: ExchangeRequest, peer: Peer) -> ExchangeReply:
        """Give a ticket of its own to who was shown one as the callee."""
        return self.tickets.exchange(request, peer.id)

    def read(self, sha256: str) -> bytes:
        """The bytes of an artifact."""
        if sha256 not in self.blobs:
            raise NotFoundError(sha256, slug="artifact-missing")
        return self.blobs[sha256]

    def store(self, sha256: str, data: bytes) -> None:
        """Take the bytes of an artifact."""
        if digest(data) != sha256:
            raise InvalidError(sha256, slug="artifact-digest-mismatch")
        self.blobs[sha256] = data

    def _issue(self, identity: SpiffeId, csr_pem: str) -> IdentityAnswer:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        key = csr.public_key()
        if not (csr.is_signature_valid and isinstance(key, ec.EllipticCurvePublicKey)):
            raise InvalidError(slug="csr-invalid")
        chain = self.ca.sign(identity, key, self.lifetime)
        return IdentityAnswer(
            certificate_chain=chain.decode(),
            bundle=self.ca.bundle().document(),
            instance=identity.instance,
        )

    def _notify(self) -> None:
        async def notify() -> None:
            async with self.changed:
                self.changed.notify_all()

        task = asyncio.get_running_loop().create_task(notify())
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
