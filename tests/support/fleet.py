"""Many identities in one process: each renews itself and calls the next one over mutual TLS, all the time."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.transport import MeshClient, serve
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.trust.enrolment import Newcomer, enrol, renewal_by
from hivemesh_sdk.trust.keys import Svid
from hivemesh_sdk.trust.renewal import Renewer
from hivemesh_sdk.trust.source import IdentitySource
from hivemesh_sdk.trust.tokens import Token
from stolen_ca import port_of
from whole_platform import Installation

PAUSE_S = 0.25  # between two calls of one identity
DEADLINE_S = 10.0


@dataclass(slots=True)
class Member:
    """One identity, and the certificates it has had."""

    source: IdentitySource
    renewed: list[datetime] = field(default_factory=list)
    before: list[Svid] = field(default_factory=list)  # the certificate that each renewal replaced

    def first_after(self, moment: datetime) -> tuple[datetime, Svid] | None:
        """Its first renewal from a moment on, and the certificate it had until then."""
        pairs = zip(self.renewed, self.before, strict=True)
        return next((pair for pair in pairs if pair[0] >= moment), None)


@dataclass(slots=True)
class Fleet:
    """The identities and what became of their calls."""

    members: list[Member] = field(default_factory=list)
    calls: int = 0
    wrong: list[str] = field(default_factory=list)

    def renewals(self) -> list[datetime]:
        """When anybody renewed."""
        return sorted(moment for one in self.members for moment in one.renewed)


async def _answer(_scope: object, _receive: object, send: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here", "more_body": False})


@contextmanager
def fleet(installation: Installation, worker: str, size: int) -> Iterator[Fleet]:
    """Let so many instances of a worker join; they live until the end of the block."""
    found, ready, ending = Fleet(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            loop.run_until_complete(_live(installation, worker, size, found, ready, ending))
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            failures.append(error)
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run, name="fleet")
    thread.start()
    try:
        assert ready.wait(120), "the fleet did not join"
        if not failures:
            yield found
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(ending.set)
        thread.join(60)
    if failures:
        raise failures[0]


async def _live(
    installation: Installation,
    worker: str,
    size: int,
    found: Fleet,
    ready: threading.Event,
    ending: asyncio.Event,
) -> None:
    domain = await _join(installation, worker, size, found)
    mesh = Target.platform("127.0.0.1", port_of(installation, "mesh"), domain)
    async with AsyncExitStack() as stack:
        targets = []
        for one in found.members:
            listener = await stack.enter_async_context(
                serve(_answer, one.source, "127.0.0.1", 0)  # type: ignore[arg-type]
            )
            targets.append(Target.instance("127.0.0.1", listener.port, one.source.svid().id))
        tasks = []
        for number, one in enumerate(found.members):
            client = await stack.enter_async_context(MeshClient(one.source))
            tasks.append(asyncio.create_task(_call(client, targets[number - 1], found)))
            tasks.append(asyncio.create_task(_renew(one, mesh)))
            await asyncio.sleep(1.0 / size)  # the ticks of processes do not fall together
        ready.set()
        await ending.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _join(installation: Installation, worker: str, size: int, found: Fleet) -> str:
    port = port_of(installation, "enrolment")
    domain = ""
    with installation.client() as operator:
        for _ in range(size):
            token = Token.parse(await asyncio.to_thread(operator.join_token, worker))
            identity = await enrol("127.0.0.1", port, token, Newcomer(worker=worker))
            found.members.append(Member(identity.source()))
            domain = identity.bundle.trust_domain
    return domain


async def _renew(member: Member, mesh: Target) -> None:
    renewer = Renewer(member.source, renewal_by(member.source, mesh))
    while True:
        before = member.source.svid()
        await renewer.tick()
        if member.source.svid().serial != before.serial:
            member.before.append(before)
            member.renewed.append(datetime.now(UTC))
        await asyncio.sleep(1.0)


async def _call(client: MeshClient, target: Target, found: Fleet) -> None:
    while True:
        try:
            answer = await client.request(target, "GET", "/", deadline_s=DEADLINE_S)
        except HivemeshError as error:
            found.wrong.append(f"{datetime.now(UTC)} {error!r}")
        else:
            if answer.status != 200:
                found.wrong.append(f"{datetime.now(UTC)} {answer.status} {answer.body!r}")
        found.calls += 1
        await asyncio.sleep(PAUSE_S)
