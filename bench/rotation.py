"""Rotation under load: leaves, issuers and roots change while requests and streams go on.

    .venv/bin/python bench/rotation.py [REQUESTS] [RESULT.json]

One platform and four callers in this process, over the real transport and mutual TLS, with the
platform's own authority. After each change of an issuer or root somebody still shows the chain that
was removed, on an open connection and on a fresh one, and has to be refused on both.
"""

import asyncio
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

import structlog
import uvloop
from hivemesh_platform.trust.authority import Authority, open_authority
from hivemesh_platform.trust.keyring import KeyKind
from hivemesh_platform.trust.limit import SignLimit
from hivemesh_platform.trust.profile import Lifetimes
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.transport import MeshClient, TransportError, serve
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.source import IdentitySource
from rows import Row, figure, show

CALLERS = 4
KEPT, FRESH, STREAMS = 12, 1, 4  # tasks over all callers
CHANGES = 24  # of issuers and roots, in turn
LEAVES = 1008  # leaf rotations at least
STREAM_PIECES = 40
OPEN_S = 20.0


@dataclass
class Counts:
    """What happened."""

    requests: int = 0
    streams: int = 0
    failed: list[str] = field(default_factory=list)
    leaves: int = 0
    issuers: int = 0
    roots: int = 0
    shown_removed: int = 0
    accepted_removed: int = 0


async def application(scope: dict, _receive: object, send: object) -> None:
    """Answer at once, or in many pieces over a while."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/stream":
        for _ in range(STREAM_PIECES):
            await send({"type": "http.response.body", "body": b"x" * 512, "more_body": True})
            await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class Drill:
    """The platform, its callers and the counts."""

    def __init__(self, authority: Authority, counts: Counts) -> None:
        self.authority, self.counts = authority, counts
        self.own = SpiffeId.platform(authority.trust_domain, "p1")
        self.server = IdentitySource(authority.svid(self.own), authority.bundle())
        self.callers = [
            IdentitySource(authority.svid(self.name(number)), authority.bundle())
            for number in range(CALLERS)
        ]
        self.target: Target

    def name(self, number: int) -> SpiffeId:
        """The identity of a caller."""
        return SpiffeId.worker(self.authority.trust_domain, "load", f"i{number}")

    async def renew(self) -> None:
        """A new certificate for everybody, one after the other, as their timers would have it."""
        for source in (self.server, *self.callers):
            svid = await asyncio.to_thread(self.authority.svid, source.svid().id)
            source.update(svid=svid, bundle=self.authority.bundle())
            self.counts.leaves += 1
            await asyncio.sleep(0)

    def announce(self) -> None:
        """Everybody learns the bundle."""
        for source in (self.server, *self.callers):
            source.update(bundle=self.authority.bundle())

    async def ask(self, client: MeshClient, path: str) -> None:
        """One request that must not fail."""
        try:
            response = await client.request(self.target, "GET", path, deadline_s=OPEN_S)
            if response.status != 200:
                self.counts.failed.append(f"status {response.status}: {response.body!r}")
        except TransportError as error:
            self.counts.failed.append(repr(error))
        if path == "/stream":
            self.counts.streams += 1
        self.counts.requests += 1

    async def kept(self, client: MeshClient) -> None:
        """Ask on kept connections until cancelled."""
        while True:
            await self.ask(client, "/")

    async def streaming(self, client: MeshClient) -> None:
        """Have one stream open all the time."""
        while True:
            await self.ask(client, "/stream")

    async def fresh(self, source: IdentitySource) -> None:
        """Ask on a connection of its own each time."""
        while True:
            async with MeshClient(source) as client:
                await self.ask(client, "/")
            await asyncio.sleep(0.02)

    async def change(self, kind: KeyKind) -> None:
        """Take an issuer or root through its four states, and show the removed chain afterwards."""
        svid = self.authority.svid(self.name(99))
        late = IdentitySource(svid, self.authority.bundle())
        async with MeshClient(late) as thief:
            await thief.request(self.target, "GET", "/", deadline_s=OPEN_S)
            await asyncio.to_thread(self.authority.prepare, kind)
            self.announce()
            await asyncio.to_thread(self.authority.activate, kind)
            self.announce()
            await self.renew()
            await self.turn()
            await asyncio.to_thread(self.authority.revoke_tainted)
            self.announce()
            await self.shows(thief)
        # what the thief knows of the new roots must not be why it is refused
        late.update(bundle=self.authority.bundle())
        async with MeshClient(late) as thief:
            await self.shows(thief)
        if kind is KeyKind.ROOT:
            self.counts.roots += 1
        self.counts.issuers += 1

    async def shows(self, thief: MeshClient) -> None:
        """A request with a removed chain: refused in the handshake, or answered by a refusal."""
        self.counts.shown_removed += 1
        try:
            response = await thief.request(self.target, "GET", "/", deadline_s=OPEN_S)
        except TransportError:
            return
        if response.status == 200:
            self.counts.accepted_removed += 1

    async def turn(self) -> None:
        """Let every caller finish what it had begun on a connection of the certificate before."""
        goal = self.counts.requests + 200
        while self.counts.requests < goal:
            await asyncio.sleep(0.01)


async def drill(requests: int) -> Counts:
    """Rotate until everything has happened often enough."""
    counts = Counts()
    lifetimes = Lifetimes(issuer=timedelta(days=7), svid=timedelta(hours=1))
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        limit = SignLimit(clock, per_second=1e6, burst=10**6)
        authority = open_authority(Path(folder) / "trust", clock, lifetimes, limit=limit)
        one = Drill(authority, counts)
        async with serve(application, one.server, "127.0.0.1", 0) as listener:
            one.target = Target.instance("127.0.0.1", listener.port, one.own)
            await _under_load(one, requests)
    return counts


async def _under_load(one: Drill, requests: int) -> None:
    clients = [MeshClient(source) for source in one.callers]
    work = [one.kept(clients[number % CALLERS]) for number in range(KEPT)]
    work += [one.streaming(clients[number % CALLERS]) for number in range(STREAMS)]
    work += [one.fresh(one.callers[number % CALLERS]) for number in range(FRESH)]
    tasks = [asyncio.create_task(each) for each in work]
    counts, rounds = one.counts, 0
    while counts.issuers < CHANGES or counts.leaves < LEAVES or counts.requests < requests:
        if rounds % 8 == 0 and counts.issuers < CHANGES:
            await one.change(KeyKind.ROOT if counts.issuers % 2 else KeyKind.ISSUER)
        await one.renew()
        goal = counts.requests + requests // 250
        while counts.requests < goal:
            await asyncio.sleep(0.01)
        rounds += 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for client in clients:
        await client.close()


def rows(counts: Counts, command: str) -> list[Row]:
    """The figures with their goals."""
    return [
        figure("rotation, requests", counts.requests, "", ">= 100000", command=command),
        figure("rotation, of them streams", counts.streams, "", command=command),
        figure("rotation, leaf rotations", counts.leaves, "", ">= 1000", command=command),
        figure("rotation, issuer changes", counts.issuers, "", ">= 20", command=command),
        figure("rotation, of them with a new root", counts.roots, "", command=command),
        figure("rotation, failed requests", len(counts.failed), "", "<= 0", command=command),
        figure("rotation, removed chains shown", counts.shown_removed, "", command=command),
        figure("rotation, of them accepted", counts.accepted_removed, "", "<= 0", command=command),
    ]


def main() -> None:
    """Run it; the first failures are printed."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    counts = uvloop.run(drill(requests))
    found = rows(counts, f"bench/rotation.py {requests}")
    show(found)
    for failure in counts.failed[:5]:
        print(failure, file=sys.stderr)
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps([asdict(row) for row in found]))


if __name__ == "__main__":
    main()
