"""The policy: the time of one decision, and how long a refused worker is still let in by others."""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import corpus
import installation
import msgspec
import structlog
from hivemesh_sdk import __version__
from hivemesh_sdk.client import Client
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.instances import Heartbeat, Registration
from hivemesh_sdk.contracts.names import PROTOCOL
from hivemesh_sdk.contracts.policy import PolicyDocument, SignedPolicy
from hivemesh_sdk.contracts.problems import Problem, slug_of
from hivemesh_sdk.lifecycle.platform import PlatformClient
from hivemesh_sdk.lifecycle.policy import PolicyFetcher, PolicyStore
from hivemesh_sdk.safeio.documents import load_manifest
from hivemesh_sdk.transport import MeshClient, serve
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.transport.errors import WorkerUnreachableError
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.enrolment import Identity, Newcomer, enrol
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.policy import CompiledPolicy, Facts, raw_rules, signed_rules
from hivemesh_sdk.trust.tokens import Token
from rows import Row, figure

COMMAND = "make bench (bench/run.py policy)"
DOMAIN = "bench.hivemesh.internal"
RULES, CALLERS = 1000, 64
REFUSED = "email-parser"
AT = ("email-classifier", "email-insights")
LIGHT = 20  # further listeners of AT's second worker, in this process
BEAT_S = 2.0
PAUSE_S = 0.002


def measure(*, quick: bool) -> Iterator[Row]:
    """(g) one decision among many rules; from a ban to the refusal at every other worker."""
    yield figure(f"policy.lookup, {RULES} rules", _lookup_us(), "us", "<= 1", command=COMMAND)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    times, listeners = asyncio.run(_revocations(20 if quick else 200))
    p99 = statistics.quantiles(times, n=100)[98]
    title = "policy.revocation, bans and evictions"
    goal = "" if quick else ">= 200"
    yield figure(title, len(times), "", goal, command=COMMAND)
    yield figure("policy.revocation, live listeners", listeners, "", ">= 20", command=COMMAND)
    yield figure("policy.revocation, p50", statistics.median(times), "s", command=COMMAND)
    yield figure("policy.revocation, p99", p99, "s", "<= 5", command=COMMAND)
    yield figure("policy.revocation, slowest", max(times), "s", command=COMMAND)


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


async def _revocations(count: int) -> tuple[list[float], int]:
    """The seconds of every refusal, and at how many listeners each had to arrive."""
    with installation.running(), Client.from_state(installation.STATE) as operator:
        async with AsyncExitStack() as stack:
            targets = [_platform(operator), *(_target(operator, worker) for worker in AT)]
            lights = [_light(operator) for _ in range(LIGHT)]
            targets += [await stack.enter_async_context(one) for one in lights]
            times = [
                await _revocation(operator, targets, "evict" if one % 2 else "ban")
                for one in range(count)
            ]
            return times, len(targets)


@asynccontextmanager
async def _light(operator: Client) -> AsyncIterator[Target]:
    """A live instance with the SDK's listener, client and policy, and no code of its own."""
    clock, denials = SystemClock(), Denials()
    source = (await _joined(operator, AT[1])).source()
    own = source.svid().id
    async with (
        MeshClient(source, denials=denials) as mesh,
        serve(_answer, source, "127.0.0.1", 0, denials=denials) as listener,
    ):
        platform = PlatformClient(mesh, _platform(operator))
        manifest = load_manifest(corpus.ROOT / "workers" / AT[1] / "plugin.yaml")
        slots = {one.id: one.slots for one in manifest.capabilities}
        beat = Heartbeat(slots=slots, active={}, cpu=0.0, memory=0.0, incarnation="bench")
        await platform.register(
            own.instance,
            Registration(
                worker=manifest.metadata.name,
                version=manifest.metadata.version,
                manifest_digest=manifest.digest(),
                manifest=manifest.document(),
                sdk_version=__version__,
                protocol=PROTOCOL,
                host="127.0.0.1",
                port=listener.port,
                incarnation="bench",
                slots=slots,
            ),
        )
        fetcher = PolicyFetcher(PolicyStore(source, denials, clock), platform.policy)
        await fetcher.first()
        tasks = [
            asyncio.create_task(fetcher.run()),
            asyncio.create_task(_beat(platform, own.instance, beat)),
        ]
        try:
            yield Target.instance("127.0.0.1", listener.port, own)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await platform.deregister(own.instance)


async def _answer(_scope: dict, _receive: object, send: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _beat(platform: PlatformClient, instance: str, beat: Heartbeat) -> None:
    while True:
        await platform.heartbeat(instance, beat)
        await asyncio.sleep(BEAT_S)


async def _joined(operator: Client, worker: str) -> Identity:
    address = json.loads((installation.STATE / "ports.json").read_text())["enrolment"]
    token = Token.parse(await asyncio.to_thread(operator.join_token, worker))
    return await enrol("127.0.0.1", address, token, Newcomer(worker=worker))


async def _revocation(operator: Client, targets: list[Target], action: str) -> float:
    """Seconds from asking for it until the last listener refuses on an open connection."""
    source = (await _joined(operator, REFUSED)).source()
    own = str(source.svid().id)
    async with MeshClient(source) as client:
        for target in targets:
            assert await _slug(client, target) in {"", "not-authorized"}
        started = time.perf_counter()
        await asyncio.to_thread(operator.deny, action, own, "bench")
        for target in targets:
            while await _slug(client, target) != "peer-revoked":
                await asyncio.sleep(PAUSE_S)
        seconds = time.perf_counter() - started
    if action == "ban":
        await asyncio.to_thread(operator.lift, own, "bench")
    return seconds


async def _slug(client: MeshClient, target: Target) -> str:
    """Why a request is refused; empty where it is not."""
    try:
        response = await client.request(target, "GET", "/v1/status", deadline_s=10)
    except WorkerUnreachableError:
        return "dropped"  # the denial came while it was answered
    if response.status == 200:
        return ""
    return slug_of(msgspec.json.decode(response.body, type=Problem))


def _platform(operator: Client) -> Target:
    domain = SpiffeId.parse(operator.whoami().id).trust_domain
    port = json.loads((installation.STATE / "ports.json").read_text())["mesh"]
    return Target.platform("127.0.0.1", port, domain)


def _target(operator: Client, worker: str) -> Target:
    instance = operator.worker(worker).instances[0]
    host, _, port = instance.address.rpartition(":")
    return Target.instance(host, int(port), SpiffeId.parse(instance.identity))
