"""Where a worker gets the secret it enrols with: its supervisor's pipe or a mounted file.

A supervisor writes one line per token: the first at the start, another whenever one is asked for.
Asked for means: where the descriptor is a socket, the worker writes the line `token`; where it is
a pipe, it reads on. A closed pipe means that nobody will ever send another one.
"""

import asyncio
import os
import socket
import stat
from pathlib import Path
from typing import Protocol

from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.keys import read_private_file
from hivemesh_sdk.trust.tokens import Token

REQUEST = b"token\n"
MAX_LINE = 4096


class NoTokenError(ConfigurationError):
    """No token came, and none will."""


class Tokens(Protocol):
    """A source of enrolment secrets."""

    async def next(self) -> Token:
        """The secret for one enrolment.

        Raises:
            NoTokenError: there is none any more.
        """
        ...

    def close(self) -> None:
        """Give the source up."""
        ...


class FileCredential:
    """A deployment credential: one file, many uses, read again each time because it may rotate."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def next(self) -> Token:
        """Read the file; raises `ConfigurationError` where others may read it too."""
        text = await asyncio.to_thread(read_private_file, self._path)
        secret = text.decode("ascii", "replace").strip()
        if not secret:
            message = f"{str(self._path)!r} is empty; write the credential into it"
            raise NoTokenError(message)
        return Token.parse(secret)

    def close(self) -> None:
        """Nothing is held."""


class SupervisorTokens:
    """Tokens that the supervisor writes into an inherited descriptor; never on disk."""

    def __init__(self, descriptor: int) -> None:
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError as error:
            message = f"descriptor {descriptor} of the token pipe is not open"
            raise ConfigurationError(message) from error
        if stat.S_ISREG(mode):
            message = f"descriptor {descriptor} is a file; tokens come over a pipe or a socket"
            raise ConfigurationError(message)
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - takes no keywords
        self._descriptor = descriptor
        self._asks = stat.S_ISSOCK(mode)
        self._first = True
        self._reader: asyncio.StreamReader | None = None
        self._transport: asyncio.BaseTransport | None = None

    async def next(self) -> Token:
        """Read the next line; asks for one first, except for the token of the start."""
        reader = await self._open()
        if self._asks and not self._first:
            self._ask()
        self._first = False
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            line = error.partial
        except asyncio.LimitOverrunError as error:
            message = "the supervisor sent something that is no token"
            raise NoTokenError(message) from error
        secret = line.decode("ascii", "replace").strip()
        if not secret:
            message = "the supervisor closed the pipe; it will start this worker again"
            raise NoTokenError(message)
        return Token.parse(secret)

    def close(self) -> None:
        """Close the descriptor."""
        if self._transport is not None:
            self._transport.close()

    async def _open(self) -> asyncio.StreamReader:
        if self._reader is not None:
            return self._reader
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_LINE)
        protocol = asyncio.StreamReaderProtocol(reader)
        if self._asks:
            sock = socket.socket(fileno=self._descriptor)
            sock.setblocking(False)  # noqa: FBT003 - takes no keywords
            self._transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
        else:
            file = os.fdopen(self._descriptor, "rb", buffering=0)
            self._transport, _ = await loop.connect_read_pipe(lambda: protocol, file)
        self._reader = reader
        return reader

    def _ask(self) -> None:
        if self._asks and self._transport is not None:
            channel: asyncio.WriteTransport = self._transport  # type: ignore[assignment]  # uvloop's are no subclasses
            channel.write(REQUEST)
