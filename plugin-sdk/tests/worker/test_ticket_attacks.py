"""Attacks with tickets against a worker that listens: each is refused, and none runs anything."""

import base64
import hashlib
import hmac
import json
from contextlib import AsyncExitStack
from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemesh_sdk import Worker
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.names import TICKET_HEADER
from hivemesh_sdk.contracts.pages import decode_page, encode_request
from hivemesh_sdk.contracts.policy import PolicyDocument, SignedPolicy
from hivemesh_sdk.contracts.problems import Problem, slug_of
from hivemesh_sdk.contracts.steps import InputPart, StepRequest
from hivemesh_sdk.testing.artifacts import FolderPlatform
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.transport import MeshClient, serve
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.trust.jws import SigningKey
from hivemesh_sdk.trust.policy import CompiledPolicy, raw_rules, signed_rules
from hivemesh_sdk.trust.tickets import announced_keys, own_identity
from hivemesh_sdk.worker.access import Own
from hivemesh_sdk.worker.server import ServerSettings, WorkerServer

CAPABILITY = "ledger.book@1"
STEP = "run_1.convert.0"
CALL = f"{STEP}.book"
worker = Worker()
booked: list[int] = []


@worker.call(CAPABILITY, run_in="inline")
async def book(amount: int) -> int:
    """An effect: booking twice would be wrong."""
    booked.append(amount)
    return len(booked)


MANIFEST = Manifest.model_validate(
    {
        "apiVersion": "hivemesh/v1",
        "kind": "Worker",
        "metadata": {"name": "ledger", "version": "1.0.0"},
        "runtime": {"entrypoint": "test_ticket_attacks:worker"},
        "capabilities": [
            {"id": CAPABILITY, "kind": "call", "run_in": "inline", "slots": 4},
        ],
    }
)
RULES = {
    "rules": [
        {
            "id": "platform",
            "from": {"spiffe": "spiffe://test.hivemesh.internal/platform/*"},
            "to": {"worker": "ledger", "capabilities": [CAPABILITY]},
            "when": {"on_behalf_of_roles": ["analyst"]},
        },
        {
            "id": "converter",
            "from": {"spiffe": "spiffe://test.hivemesh.internal/worker/converter/*"},
            "to": {"worker": "ledger", "capabilities": [CAPABILITY]},
            "when": {"ticket": "required", "data_class_max": "internal"},
        },
    ]
}


class FixedPolicies:
    """One policy that is always fresh."""

    stale = False
    refused = 0
    age_s = 0.0

    def __init__(self, trust_domain):
        rules, deny = signed_rules(PolicyDocument.model_validate(RULES), trust_domain)
        signed = SignedPolicy(
            version=1, issued_at=1, trust_domain=trust_domain, rules=raw_rules(rules), deny=deny
        )
        self._policy = CompiledPolicy(signed)

    def current(self):
        return self._policy


class Listening:
    """The worker, and whoever calls it."""

    def __init__(self, ca, source, server, port, stack):
        self.ca, self.source, self.server, self._stack = ca, source, server, stack
        self.own = source.svid().id
        self.target = Target.instance("127.0.0.1", port, self.own)
        self.tickets = ThrowawayTickets(ca.signing, str(ca.platform()))
        self.caller = ca.worker("converter", "c1")
        self._clients = {}

    def refused(self, reason):
        line = f'hivemesh_worker_access_refused_total{{reason="{reason}"}}'
        found = [one for one in self.server.metrics().decode().splitlines() if line in one]
        return float(found[0].rpartition(" ")[2]) if found else 0

    def from_platform(self, **changes):
        """The claims of the ticket with which the platform asks for `STEP`."""
        claims = self.tickets.claims(self.own, STEP, CAPABILITY)
        return msgspec.structs.replace(claims, **changes)

    def from_caller(self, **changes):
        """The claims of the ticket with which the converter calls us."""
        claims = self.tickets.claims(self.caller, STEP, "doc.convert@1")
        claims = msgspec.structs.replace(claims, aud=["converter", "ledger"], calls=[CAPABILITY])
        return msgspec.structs.replace(claims, **changes)

    async def put(self, who, token, *, key=CALL, attempt=1, amount=5):
        client = self._clients.get(who)
        if client is None:
            client = self._clients[who] = await self._stack.enter_async_context(
                MeshClient(self.ca.source(who))
            )
        body = json.dumps(amount).encode()
        request = StepRequest(
            capability=CAPABILITY, kind="call", attempt=attempt, epoch=1,
            inputs=[InputPart(bytes=len(body), count=1)],
        )  # fmt: skip
        headers = {"prefer": "wait=10"} | ({TICKET_HEADER: token} if token else {})
        return await client.request(
            self.target, "PUT", f"/v1/steps/{key}", headers=headers,
            body=encode_request(request, [body]), deadline_s=20.0,
        )  # fmt: skip

    async def get(self, who, path, token):
        headers = {TICKET_HEADER: token, "prefer": "wait=0"}
        return await self._clients[who].request(
            self.target, "GET", path, headers=headers, deadline_s=30.0
        )

    async def delete(self, who, key):
        return await self._clients[who].request(
            self.target, "DELETE", f"/v1/steps/{key}?attempt=1", deadline_s=30.0
        )


@pytest.fixture
async def listening(tmp_path):
    booked.clear()
    ca = ThrowawayCA()
    source = ca.source(ca.worker("ledger", "l1"))
    own = Own.of(
        MANIFEST, own_identity(source), announced_keys(source), FixedPolicies(ca.trust_domain)
    )
    settings = ServerSettings(own=own, scratch=tmp_path / "scratch", instance="l1")
    (tmp_path / "artifacts").mkdir()
    platform = FolderPlatform(tmp_path / "artifacts")
    server = WorkerServer(MANIFEST, platform, settings, worker=worker)
    await server.start()
    try:
        async with (
            AsyncExitStack() as stack,
            serve(server.app, source, "127.0.0.1", 0) as listener,
        ):
            yield Listening(ca, source, server, listener.port, stack)
    finally:
        await server.stop()


def slug(response):
    return slug_of(msgspec.json.decode(response.body, type=Problem))


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(claims, header):
    return f"{encoded(json.dumps(header).encode())}.{encoded(msgspec.json.encode(claims))}."


def with_public_key(claims, public):
    """HS256 with the public key as its secret: the confusion of algorithms."""
    header = {"alg": "HS256", "kid": public.id, "typ": "hivemesh-ticket"}
    content = unsigned(claims, header).rstrip(".")
    mac = hmac.new(public.raw, content.encode(), hashlib.sha256).digest()
    return f"{content}.{encoded(mac)}"


def widened(token, **changes):
    """The claims changed under the old signature."""
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return f"{head}.{encoded(json.dumps(claims | changes).encode())}.{signature}"


# Claims that a ticket for the converter's call has instead of the right ones.
WRONG_CLAIMS = {
    "of another caller": {"azp": "spiffe://test.hivemesh.internal/worker/converter/c2"},
    "for another callee": {"aud": ["converter"]},
    "for another capability": {"calls": ["ledger.read@1"]},
    "without calls": {"calls": []},
    "of another step": {"step": "run_1.convert.1"},
    "of another run": {"step": "run_2.convert.0", "run": "run_2"},
    "of a step above": {"step": "run_1.convert"},
    "of another attempt": {"attempt": 2},
    "above the policy's class": {"data_class": DataClass.PERSONAL},
}


@pytest.mark.parametrize("wrong", WRONG_CLAIMS)
async def test_a_workers_ticket_allows_what_it_says_and_nothing_else(listening, wrong):
    token = listening.tickets.sign(listening.from_caller(**WRONG_CLAIMS[wrong]))
    answer = await listening.put(listening.caller, token)
    assert (answer.status, slug(answer)) == (403, "not-authorized")
    assert booked == []


FROM_PLATFORM = {
    "of another instance": {"azp": "spiffe://test.hivemesh.internal/worker/ledger/l2"},
    "for another worker": {"aud": ["converter"]},
    "for another capability": {"cap": "ledger.read@1"},
    "of another step": {"step": "run_1.convert.1"},
    "of another attempt": {"attempt": 2},
    "on behalf of a viewer": {"roles": ["viewer"]},
}


@pytest.mark.parametrize("wrong", FROM_PLATFORM)
async def test_the_platforms_own_ticket_is_checked_too(listening, wrong):
    token = listening.tickets.sign(listening.from_platform(**FROM_PLATFORM[wrong]))
    answer = await listening.put(listening.ca.platform(), token, key=STEP)
    assert (answer.status, slug(answer)) == (403, "not-authorized")
    assert booked == []


FORGED = {
    "alg none": (lambda at: unsigned(at.from_caller(), {"alg": "none", "kid": "x", "typ": "hivemesh-ticket"}), "signature-invalid"),
    "HS256 with the public key": (lambda at: with_public_key(at.from_caller(), at.ca.signing.public), "signature-invalid"),
    "a sealed one, which only the platform can check": (lambda at: f"{encoded(msgspec.json.encode(at.from_caller()))}.{encoded(bytes(32))}", "signature-invalid"),
    "an unknown key": (lambda at: at.tickets.sign(at.from_caller(), signing=SigningKey(Ed25519PrivateKey.generate())), "signature-invalid"),
    "widened": (lambda at: widened(at.tickets.sign(at.from_caller(calls=[])), calls=[CAPABILITY]), "signature-invalid"),
    "a policy as ticket": (lambda at: at.ca.signing.sign(msgspec.json.encode(at.from_caller()), "hivemesh-policy"), "signature-invalid"),
    "no JSON in it": (lambda at: at.ca.signing.sign(b"claims", "hivemesh-ticket"), "ticket-invalid"),
    "nothing of it": (lambda _: "x", "signature-invalid"),
    "oversized": (lambda at: at.tickets.sign(at.from_caller(secrets=["a.b"] * 1500)), "ticket-invalid"),
    "none": (lambda _: "", "ticket-missing"),
    "expired": (lambda at: at.tickets.sign(at.from_caller(iat=1_000_000_000, exp=1_000_000_900)), "ticket-expired"),
    "of the future": (lambda at: at.tickets.sign(at.from_caller(iat=4_000_000_000, exp=4_000_000_900)), "ticket-not-yet-valid"),
}  # fmt: skip


@pytest.mark.parametrize("forged", FORGED)
async def test_a_forged_or_untimely_ticket_is_refused(listening, forged):
    make, expected = FORGED[forged]
    answer = await listening.put(listening.caller, make(listening))
    assert (answer.status, slug(answer)) == (401, expected)
    assert booked == []


async def test_the_platforms_connection_makes_no_other_algorithm_good(listening):
    header = {"alg": "none", "kid": "x", "typ": "hivemesh-ticket"}
    token = unsigned(listening.from_platform(), header)
    answer = await listening.put(listening.ca.platform(), token, key=STEP)
    assert slug(answer) == "ticket-invalid"


async def test_a_worker_of_the_installation_serves_every_tenant(listening):
    claims = listening.from_platform(tenant="acme")
    answer = await listening.put(listening.ca.platform(), listening.tickets.sign(claims), key=STEP)
    assert answer.status == 200


async def test_a_right_ticket_books_once(listening):
    answer = await listening.put(listening.caller, listening.tickets.sign(listening.from_caller()))
    [frame] = decode_page(answer.body)
    assert (json.loads(frame.body), booked) == (1, [5])


async def test_what_was_seen_over_the_platforms_connection_is_not_taken_as_verified(listening):
    other = SigningKey(Ed25519PrivateKey.generate())
    token = listening.tickets.sign(listening.from_caller(), signing=other)
    await listening.put(listening.ca.platform(), token)
    answer = await listening.put(listening.caller, token)
    assert slug(answer) == "signature-invalid"


async def test_a_ticket_of_a_removed_key_is_refused_even_if_it_was_seen(listening):
    token = listening.tickets.sign(listening.from_caller())
    assert (await listening.put(listening.caller, token)).status == 200
    bundle = listening.source.bundle()
    new = SigningKey(Ed25519PrivateKey.generate()).public.raw
    listening.ca.sequence += 1
    listening.source.update(bundle=replace(bundle, signers=(new,), sequence=listening.ca.sequence))
    answer = await listening.put(listening.caller, token, key=f"{STEP}.again")
    assert slug(answer) == "signature-invalid"
    assert booked == [5]


async def test_a_replayed_write_is_answered_and_never_runs_twice(listening):
    token = listening.tickets.sign(listening.from_caller())
    first = await listening.put(listening.caller, token)
    again = await listening.put(listening.caller, token)
    assert first.body == again.body
    assert booked == [5]


async def test_a_replay_after_the_answer_was_forgotten_is_refused(listening):
    token = listening.tickets.sign(listening.from_caller())
    await listening.put(listening.caller, token)
    assert (await listening.delete(listening.caller, CALL)).status == 200
    answer = await listening.put(listening.caller, token)
    assert (answer.status, slug(answer)) == (401, "ticket-replayed")
    assert booked == [5]


async def test_a_step_of_another_caller_cannot_be_taken_over_or_ended(listening):
    await listening.put(listening.caller, listening.tickets.sign(listening.from_caller()))
    thief = listening.ca.worker("converter", "c2")
    stolen = listening.tickets.sign(listening.from_caller(azp=str(thief)))
    answer = await listening.put(thief, stolen)
    assert (answer.status, slug(answer)) == (403, "not-authorized")
    assert (await listening.delete(thief, CALL)).status == 404
    path = f"/v1/steps/{CALL}/events?execution=x&epoch=1&after=0"
    seen = await listening.get(thief, path, stolen)
    unknown = await listening.get(thief, path.replace(CALL, f"{STEP}.none"), stolen)
    assert slug(seen) == slug(unknown) == "execution-unknown"


async def test_a_page_is_read_with_the_ticket_of_its_attempt(listening):
    platform = listening.ca.platform()
    first = listening.tickets.sign(listening.from_platform())
    later = listening.tickets.sign(listening.from_platform(attempt=2))
    answer = await listening.put(platform, first, key=STEP)
    await listening.put(platform, later, key=STEP, attempt=2)
    execution = answer.headers["hivemesh-execution"]
    path = f"/v1/steps/{STEP}/events?execution={execution}&epoch=1&after=0"
    assert (await listening.get(platform, path, later)).status == 200
    assert slug(await listening.get(platform, path, first)) == "stale-attempt"


async def test_every_refusal_is_counted_with_its_reason(listening):
    await listening.put(listening.caller, "")
    await listening.put(listening.caller, listening.tickets.sign(listening.from_caller(calls=[])))
    assert listening.refused("missing") == 1
    assert listening.refused("other-capability") == 1
