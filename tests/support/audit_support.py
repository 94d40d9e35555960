"""Audit trails in a temporary folder, and the ways in which somebody may tamper with one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hivemesh_platform.audit.checkpoints import FileSink
from hivemesh_platform.audit.keys import AuditKeys, open_keys
from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.audit.records import Record, read
from hivemesh_platform.audit.segments import lines, segments
from hivemesh_platform.audit.trail import AuditLog, open_trail
from hivemesh_platform.audit.verification import Report, verify
from hivemesh_platform.audit.writer import Bounds
from hivemesh_sdk.testing.clock import ManualClock

OPERATOR = "spiffe://test.hivemesh.internal/user/operator"


@dataclass
class Place:
    """A state folder with a trail."""

    state: Path
    clock: ManualClock = field(default_factory=ManualClock)

    @property
    def folder(self) -> Path:
        return self.state / "audit"

    @property
    def sink(self) -> FileSink:
        return FileSink(self.state / "elsewhere.jws")

    @property
    def keys(self) -> AuditKeys:
        return open_keys(self.state / "trust", self.folder)

    @asynccontextmanager
    async def open(self, **bounds: object) -> AsyncIterator[AuditLog]:
        chosen = Bounds(**bounds)
        async with open_trail(self.folder, self.keys, self.sink, self.clock, chosen) as trail:
            yield trail

    async def filled(self, number: int, **bounds: object) -> None:
        async with self.open(**bounds) as trail:
            await write(trail, number)

    def verify(self, **options: object) -> Report:
        return verify(self.folder, self.sink.path, **options)

    def records(self) -> list[Record]:
        found = [
            read(line.data)
            for one in segments(self.folder)
            if not one.dropped
            for line in lines(one.path)
        ]
        return [record for record in found if record is not None]


def event(number: int = 0, **changes: object) -> AuditEvent:
    return AuditEvent(
        **{
            "actor": OPERATOR,
            "action": "run:pipeline",
            "target": f"run_{number}",
            "parameters": {"number": number},
            **changes,
        }
    )


async def write(trail: AuditLog, number: int, *, at_once: int = 10) -> None:
    for start in range(0, number, at_once):
        part = range(start, min(number, start + at_once))
        await asyncio.gather(*(trail.record(event(one)) for one in part))
