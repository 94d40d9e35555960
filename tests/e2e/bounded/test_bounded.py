"""Too much is refused before it begins; what blocks blocks itself alone."""

import asyncio
import json
import time
from collections.abc import Iterator
from uuid import uuid4

import msgspec
import psutil
import pytest
import waiting
from chaos_figures import record
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.contracts.names import PAGE_MEDIA_TYPE, TICKET_HEADER
from hivemesh_sdk.contracts.pages import encode_request
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.contracts.steps import InputPart, StepRequest, WorkerStatus
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Response, Target
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.source import IdentitySource
from stolen_ca import StolenCA
from whole_platform import ROOT, Installation, Shared, group_of, installed, signal_all, until

pytestmark = pytest.mark.e2e

TEXT = ROOT / "plugin-sdk" / "tests" / "testing" / "text-worker"
SPIN, SLOTS = "text.spin@1", 2
LONG = 30  # characters: minutes of one C call that holds the GIL
DEADLINE_S = 10.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shared: Shared) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("bounded")
    with installed(folder, shared, workers=[TEXT]) as found:
        found.start()
        found.until_live()
        yield found


class Direct:
    """Asks the worker as the platform does, with a certificate of the platform's authority."""

    def __init__(
        self, installation: Installation, client: MeshClient, tickets: ThrowawayTickets
    ) -> None:
        self._client = client
        self._tickets = tickets
        self.run = f"run_{uuid4().hex}"  # a worker remembers the keys of ended steps
        instance = installation.instances("text")[0]
        self.pid = instance.pid
        host, _, port = instance.address.rpartition(":")
        self._identity = identity = SpiffeId.parse(instance.identity)
        self._target = Target.instance(host.removeprefix("https://"), int(port), identity)

    async def put(self, key: str, length: int, wait_s: float = 0.0) -> Response:
        value = json.dumps(length).encode()
        request = StepRequest(
            capability=SPIN, kind="call", attempt=1, epoch=1,
            inputs=[InputPart(bytes=len(value), count=1)],
        )  # fmt: skip
        headers = {
            "content-type": PAGE_MEDIA_TYPE,
            "prefer": f"wait={wait_s:g}",
            TICKET_HEADER: self._tickets.fresh(self._identity, key, request),
        }
        return await self._ask("PUT", f"/v1/steps/{key}", headers, encode_request(request, [value]))

    async def delete(self, key: str) -> Response:
        return await self._ask("DELETE", f"/v1/steps/{key}?attempt=1")

    async def status(self) -> WorkerStatus:
        return msgspec.json.decode((await self._ask("GET", "/v1/status")).body, type=WorkerStatus)

    async def active(self) -> int:
        return (await self.status()).slots[SPIN].active

    async def until_idle(self) -> None:
        async def idle() -> bool:
            return not await self.active()

        await waiting.until(idle)

    async def _ask(self, method: str, path: str, headers=None, body=b"") -> Response:
        return await self._client.request(
            self._target, method, path, headers=headers, body=body, deadline_s=DEADLINE_S
        )


@pytest.fixture
async def direct(running: Installation):
    ca = StolenCA(running.state)
    async with MeshClient(IdentitySource(ca.svid(ca.platform("p9")), ca.bundle())) as client:
        asked = Direct(running, client, ThrowawayTickets(ca.signing, str(ca.platform("p9"))))
        await asked.until_idle()  # what the test before has cancelled may still be stopping
        yield asked
        for number in range(SLOTS):
            await asked.delete(f"{asked.run}.a.{number}")
        await asked.until_idle()


def memory_of(pid: int) -> int:
    return sum(psutil.Process(one).memory_info().rss for one in group_of(pid))


async def test_ten_times_the_slots_are_refused_in_form_and_cost_no_memory(direct: Direct) -> None:
    for number in range(SLOTS):
        assert (await direct.put(f"{direct.run}.a.{number}", LONG)).status == 200
    await refused_by_the_dozen(direct, rounds=20)  # connections are open, memos are full
    before = memory_of(direct.pid)
    await refused_by_the_dozen(direct, rounds=20)
    assert memory_of(direct.pid) - before < 8 * 1024 * 1024


async def refused_by_the_dozen(direct: Direct, *, rounds: int) -> None:
    for _ in range(rounds):
        answers = await asyncio.gather(
            *(direct.put(f"{direct.run}.b.{number}", LONG) for number in range(10 * SLOTS))
        )
        for answer in answers:
            assert answer.status in {429, 503}
            assert int(answer.headers["retry-after"]) >= 1
            assert msgspec.json.decode(answer.body, type=Problem).code.startswith("HM-")


async def blocked_for(direct: Direct, seconds: float) -> float:
    """Hold the GIL in an executor for so long; returns the longest answer of status meanwhile."""
    assert (await direct.put(f"{direct.run}.a.0", LONG)).status == 200
    until_s, longest = time.monotonic() + seconds, 0.0
    while time.monotonic() < until_s:
        asked = time.monotonic()
        assert await direct.active() == 1
        longest = max(longest, time.monotonic() - asked)
        answer = await direct.put(f"{direct.run}.a.1", 3, wait_s=5)  # a neighbour on the other slot
        assert answer.status == 200, answer.body
        assert answer.body.rstrip().endswith(b"false")
        await direct.delete(f"{direct.run}.a.1")
    assert (await direct.delete(f"{direct.run}.a.0")).status in {200, 202}
    await direct.until_idle()
    return longest


async def test_code_that_holds_the_gil_stops_neither_status_nor_cancel(direct: Direct) -> None:
    await blocked_for(direct, 3)


@pytest.mark.chaos
async def test_half_a_minute_of_the_gil(direct: Direct) -> None:
    longest = await blocked_for(direct, 30)
    name = "bounded: longest answer of status while a capability holds the GIL for 30 s"
    record(name, round(1000 * longest), "ms", 1000, holds=longest <= 1)


def test_a_job_that_holds_the_gil_is_cancelled_through_the_platform(running) -> None:
    with running.client() as client:
        job = client.call(SPIN, LONG, wait_s=0)
        until(lambda: client.run(job.id).state is RunState.RUNNING, 60, "it runs")
        client.cancel(job.id)
        assert running.until_ended(job.id, within_s=60).state is RunState.CANCELLED
        assert client.call("text.upper@1", "still here").state is RunState.COMPLETED


def test_temporary_files_are_gone_after_a_crash(running) -> None:
    with running.client() as client:
        job = client.call(SPIN, LONG, wait_s=0)
        until(lambda: client.run(job.id).state is RunState.RUNNING, 60, "it runs")
        first = running.instances("text")[0]
        signal_all(group_of(first.pid))
        client.cancel(job.id)
        until(lambda: first.id not in {one.id for one in running.instances("text")}, 60, "gone")
        running.until_live()
    scratch = running.state / "scratch"
    left = f"text.{first.pid}*"
    until(lambda: not list(scratch.rglob(left)), 60, "nothing of the dead instance is left")
