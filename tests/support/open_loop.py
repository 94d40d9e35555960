"""Requests at a rate that does not wait for answers, as many independent callers make them.

It speaks HTTP over TLS by itself, so that nothing of what is measured helps it.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from whole_platform import Installation

Body = Callable[[int], object]
LATE_S = 30.0  # after the last request nothing is waited for longer


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a request, and how long it took."""

    number: int
    status: int
    headers: dict[str, str]
    body: bytes
    took_s: float


@dataclass(slots=True)
class Callers:
    """Connections to the mesh listener of a platform, as many as are needed at a time."""

    host: str
    port: int
    name: str
    tls: ssl.SSLContext
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    @classmethod
    def of(cls, platform: Installation) -> "Callers":
        """Callers with the operator's certificate."""
        folder = platform.state / "operator"
        endpoint = json.loads((folder / "endpoint.json").read_text())
        tls = ssl.create_default_context(cafile=str(folder / "bundle.pem"))
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        tls.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
        return cls(endpoint["host"], endpoint["port"], endpoint["server_name"], tls)

    async def ask(self, number: int, method: str, path: str, body: object = None) -> Answer:
        """One request."""
        began = time.monotonic()
        connection = self._idle.pop() if self._idle else await self._connect()
        reader, writer = connection
        payload = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self.name}\r\ncontent-length: {len(payload)}\r\n"
        )
        kind = "content-type: application/json\r\n" if payload else ""
        writer.write(f"{head}{kind}\r\n".encode() + payload)
        try:
            status, headers = await _head(reader)
            content = await reader.readexactly(int(headers.get("content-length", "0")))
        except BaseException:  # whoever asked does not wait any more
            writer.transport.abort()
            raise
        if headers.get("connection", "") == "close":
            writer.close()
        else:
            self._idle.append(connection)
        return Answer(number, status, headers, content, time.monotonic() - began)

    async def close(self) -> None:
        """End all connections that are not in use."""
        for _, writer in self._idle:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            self.host, self.port, ssl=self.tls, server_hostname=self.name
        )


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): text.strip() for name, _, text in pairs}


async def open_loop(
    callers: Callers, path: str, body: Body, *, rate: float, seconds: float
) -> list[Answer]:
    """POST so many a second, each at its time, whatever has become of those before."""
    began, found = time.monotonic(), list[Answer]()

    async def one(number: int) -> None:
        found.append(await callers.ask(number, "POST", path, body(number)))

    async with asyncio.timeout(seconds + LATE_S), asyncio.TaskGroup() as group:
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            group.create_task(one(number))
    return found


async def closed_loop(
    callers: Callers, path: str, body: Body, *, callers_at_once: int, count: int
) -> list[Answer]:
    """POST so many in all, each caller the next one when it has its answer."""
    numbers, found = iter(range(count)), list[Answer]()

    async def one() -> None:
        for number in numbers:
            found.append(await callers.ask(number, "POST", path, body(number)))

    async with asyncio.TaskGroup() as group:
        for _ in range(callers_at_once):
            group.create_task(one())
    return found
