"""The policy: the time of one decision, and how long a banned worker is still let in by others."""

import asyncio
import json
import statistics
import time
from collections.abc import Iterator

import installation
import msgspec
from hivemesh_sdk.client import Client
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.policy import PolicyDocument, SignedPolicy
from hivemesh_sdk.contracts.problems import Problem, slug_of
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.transport.errors import WorkerUnreachableError
from hivemesh_sdk.trust.enrolment import Newcomer, enrol
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.policy import CompiledPolicy, Facts, raw_rules, signed_rules
from hivemesh_sdk.trust.tokens import Token
from rows import Row, figure

COMMAND = "make bench (bench/run.py policy)"
DOMAIN = "bench.hivemesh.internal"
RULES, CALLERS = 1000, 64
BANNED = "email-parser"
AT = ("email-classifier", "email-insights")
PAUSE_S = 0.002


def measure(*, quick: bool) -> Iterator[Row]:
    """(g) one decision among many rules; from a ban to the refusal at every other worker."""
    yield figure(f"policy.lookup, {RULES} rules", _lookup_us(), "us", "<= 1", command=COMMAND)
    times = asyncio.run(_revocations(20 if quick else 100))
    p99 = statistics.quantiles(times, n=100)[98]
    yield figure("policy.revocation, bans", len(times), "", command=COMMAND)
    yield figure("policy.revocation, p50", statistics.median(times), "s", command=COMMAND)
    yield figure("policy.revocation, p99", p99, "s", "<= 5", command=COMMAND)


def _lookup_us() -> float:
    rules = [
        {"id": f"r{one}", "from": {"worker": f"w{one}"}, "to": {"worker": f"w{one + 1}"}}
        for one in range(RULES - 1)
    ]
    rules.append({"id": "p", "from": {"platform": "*"}, "to": {"worker": "*"}})
    allow, deny = signed_rules(PolicyDocument.model_validate({"rules": rules}), DOMAIN)
    policy = CompiledPolicy(
        SignedPolicy(version=1, issued_at=1, trust_domain=DOMAIN, rules=raw_rules(allow), deny=deny)
    )
    facts = Facts(True, ["analyst"], DataClass.INTERNAL)  # noqa: FBT003 - as it is called
    callers = [f"spiffe://{DOMAIN}/platform/p{one}" for one in range(CALLERS)]
    decide, best = policy.decide, float("inf")
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(100):
            for caller in callers:
                decide(caller, "w1", "text.echo@1", facts)
        best = min(best, (time.perf_counter() - started) / (100 * CALLERS))
    return best * 1e6


async def _revocations(count: int) -> list[float]:
    with installation.running(), Client.from_state(installation.STATE) as operator:
        targets = [_target(operator, worker) for worker in AT]
        return [await _revocation(operator, targets) for _ in range(count)]


async def _revocation(operator: Client, targets: list[Target]) -> float:
    """Seconds from asking for the ban until the last worker refuses on an open connection."""
    address = json.loads((installation.STATE / "ports.json").read_text())["enrolment"]
    token = Token.parse(operator.join_token(BANNED))
    identity = await enrol("127.0.0.1", address, token, Newcomer(worker=BANNED))
    source = identity.source()
    async with MeshClient(source) as client:
        for target in targets:
            assert await _slug(client, target) == "not-authorized"
        started = time.perf_counter()
        await asyncio.to_thread(operator.deny, "ban", str(source.svid().id), "bench")
        for target in targets:
            while await _slug(client, target) != "peer-revoked":
                await asyncio.sleep(PAUSE_S)
        seconds = time.perf_counter() - started
    await asyncio.to_thread(operator.lift, str(source.svid().id), "bench")
    return seconds


async def _slug(client: MeshClient, target: Target) -> str:
    try:
        response = await client.request(target, "GET", "/v1/status", deadline_s=10)
    except WorkerUnreachableError:
        return "dropped"  # the denial came while it was answered
    return slug_of(msgspec.json.decode(response.body, type=Problem))


def _target(operator: Client, worker: str) -> Target:
    instance = operator.worker(worker).instances[0]
    host, _, port = instance.address.rpartition(":")
    return Target.instance(host, int(port), SpiffeId.parse(instance.identity))
