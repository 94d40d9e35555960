"""Starts one process of a worker: its name, its clean environment, its record, its tokens.

The token travels over an inherited socket and nowhere else: not by file, variable or argument.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
from hivemesh_sdk.errors import HivemeshError

from hivemesh_platform.registry.types import InstalledWorker
from hivemesh_platform.supervisor import processes
from hivemesh_platform.supervisor.outputs import WorkerLog
from hivemesh_platform.supervisor.processes import Launch, WorkerProcess
from hivemesh_platform.supervisor.records import Record, Records

REQUEST = b"token\n"
_log = structlog.get_logger("hivemesh.supervisor")


class TokenIssuer(Protocol):
    """Makes join tokens."""

    async def create_token(
        self, worker: str, *, instance: str = "", manifest_digest: str = ""
    ) -> str:
        """A token for one enrolment."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process that was started, and the way of its tokens."""

    process: WorkerProcess
    instance: str
    channel: socket.socket
    first_token: str
    new_token: Callable[[], Awaitable[str]]

    async def serve_tokens(self) -> None:
        """Hand out the first token, and another whenever the process asks for one."""
        reader, writer = await asyncio.open_connection(sock=self.channel)
        try:
            writer.write(f"{self.first_token}\n".encode())
            while await reader.readline() == REQUEST:
                writer.write(f"{await self.new_token()}\n".encode())
                await writer.drain()
        except (ConnectionError, HivemeshError) as error:
            _log.info("token_not_delivered", instance=self.instance, detail=str(error))
        finally:
            writer.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Starts processes with what all of them share."""

    tokens: TokenIssuer
    records: Records
    variables: Mapping[str, str]  # the whole environment, but for what differs per process
    scratch: Path  # working folder

    async def launch(self, installed: InstalledWorker, python: Path, log: WorkerLog) -> Started:
        """Start a process; it is recorded before it can join.

        Raises:
            OSError: it cannot be started or recorded; nothing is left running then.
            HivemeshError: no token can be made.
        """
        worker, digest = installed.type.name, installed.type.digest
        instance = f"wi-{secrets.token_hex(5)}"

        async def new_token() -> str:
            return await self.tokens.create_token(worker, instance=instance, manifest_digest=digest)

        token = await new_token()
        process, channel = self._start(installed, python, log, instance)
        record = Record(
            worker=worker,
            instance=instance,
            manifest_digest=digest,
            pid=process.id.pid,
            started=process.id.started,
        )
        try:
            self.records.add(record)
        except OSError:
            process.kill()
            channel.close()
            raise
        return Started(
            process=process,
            instance=instance,
            channel=channel,
            first_token=token,
            new_token=new_token,
        )

    def _start(
        self, installed: InstalledWorker, python: Path, log: WorkerLog, instance: str
    ) -> tuple[WorkerProcess, socket.socket]:
        output = log.open()
        source = str(installed.folder)
        try:
            return processes.start(
                Launch(
                    command=[str(python), "-P", "-m", "hivemesh_sdk.cli", "run", source],
                    environment={**self.variables, "HIVEMESH_INSTANCE": instance},
                    folder=self.scratch,
                    output=output,
                    max_file_bytes=installed.type.manifest.resources.disk_mb * 1024 * 1024,
                )
            )
        finally:
            os.close(output)
