"""Moves artifacts and borrows secrets over the mesh, on behalf of the steps of this worker."""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from hivemesh_sdk.contracts.artifacts import Grant, GrantRequest
from hivemesh_sdk.contracts.names import TICKET_HEADER
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.contracts.secrets import SecretLease, SecretRequest
from hivemesh_sdk.contracts.submits import SubmitReply, SubmitRequest
from hivemesh_sdk.contracts.tickets import ExchangeReply, ExchangeRequest
from hivemesh_sdk.errors import RemoteError, RetryableError
from hivemesh_sdk.lifecycle.platforms import Platforms, platforms_of
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Chunk, Response, Target

GRANTS_PATH = "/v1/artifacts/grants"
EXCHANGE_PATH = "/v1/tickets/exchange"
SECRETS_PATH = "/v1/secrets/resolve"
SUBMITS_PATH = "/v1/submits"
DEADLINE_S = 10.0
SLOWEST = 1024 * 1024  # bytes per second that a transfer is given time for
BLOCK = 1024 * 1024
MAX_SECRET = 1024 * 1024  # of an answer: a value of 64 KiB as JSON writes it


class GrantedArtifacts:
    """The `PlatformPort` of a running worker; every failure is one that a retry may mend."""

    def __init__(self, mesh: MeshClient, platform: Target | Platforms) -> None:
        self._mesh = mesh
        self._platforms = platforms_of(platform)

    async def grant(self, request: GrantRequest, *, ticket: str) -> Grant:
        """Ask where bytes go or come from; raises `RemoteError` where it is refused."""
        headers = {"content-type": "application/json"}
        if ticket:
            headers[TICKET_HEADER] = ticket
        body = msgspec.json.encode(request)
        response = await self._send("POST", GRANTS_PATH, headers, body, DEADLINE_S)
        try:
            return msgspec.json.decode(response.body, type=Grant)
        except msgspec.DecodeError as error:
            message = "the grant cannot be read"
            raise RetryableError(message, slug="artifact-unavailable") from error

    async def get(self, grant: Grant, offset: int, length: int) -> bytes:
        """Read a part of an artifact."""
        headers = {**grant.headers, "range": f"bytes={offset}-{offset + length - 1}"}
        path = _own_path(grant)
        response = await self._send(grant.method, path, headers, b"", _deadline(length), length)
        if response.status == 200:  # the server does not do ranges
            return response.body[offset : offset + length]
        return response.body

    async def put(self, grant: Grant, data: bytes | Path, size: int) -> None:
        """Store an artifact: bytes, or the content of a file."""
        headers = {"content-type": "application/octet-stream", **grant.headers}
        path, deadline_s = _own_path(grant), _deadline(size)
        if isinstance(data, bytes) or size == 0:
            body = data if isinstance(data, bytes) else b""
            await self._send(grant.method, path, headers, body, deadline_s)
            return
        with data.open(
            "rb"
        ) as file:  # mapped until the last view is gone; nothing is read before it is sent
            view = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        blocks = [view[start : start + BLOCK] for start in range(0, len(view), BLOCK)]
        await self._send(grant.method, path, headers, blocks, deadline_s)

    async def lend(self, request: SecretRequest, *, ticket: str) -> SecretLease:
        """Ask for a secret; raises `RemoteError` where it is refused."""
        headers = {"content-type": "application/json"}
        if ticket:
            headers[TICKET_HEADER] = ticket
        body = msgspec.json.encode(request)
        response = await self._send("POST", SECRETS_PATH, headers, body, DEADLINE_S, MAX_SECRET)
        try:
            return msgspec.json.decode(response.body, type=SecretLease)
        except msgspec.DecodeError as error:
            message = "the platform's answer to a request for a secret cannot be read"
            raise RetryableError(message) from error

    async def submit(self, request: SubmitRequest, *, ticket: str) -> SubmitReply:
        """Have a job started; raises `RemoteError` where it is refused."""
        headers = {"content-type": "application/json", TICKET_HEADER: ticket}
        body = msgspec.json.encode(request)
        response = await self._send("POST", SUBMITS_PATH, headers, body, DEADLINE_S)
        try:
            return msgspec.json.decode(response.body, type=SubmitReply)
        except msgspec.DecodeError as error:
            message = "the platform's answer to a submit cannot be read"
            raise RetryableError(message) from error

    async def exchange(self, request: ExchangeRequest) -> ExchangeReply:
        """Ask for a ticket of one's own; raises `RemoteError` where it is refused."""
        headers = {"content-type": "application/json"}
        body = msgspec.json.encode(request)
        response = await self._send("POST", EXCHANGE_PATH, headers, body, DEADLINE_S)
        try:
            return msgspec.json.decode(response.body, type=ExchangeReply)
        except msgspec.DecodeError as error:
            message = "the ticket cannot be read"
            raise RetryableError(message, slug="ticket-invalid") from error

    async def _send(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | Sequence[Chunk],
        deadline_s: float,
        length: int = 0,
    ) -> Response:
        async def ask(target: Target) -> Response:
            response = await self._mesh.request(
                target,
                method,
                path,
                headers=headers,
                body=body,
                deadline_s=deadline_s,
                max_body=max(length, 64 * 1024),
            )
            if response.status >= 300:
                _refused(response)
            return response

        return await self._platforms.ask(ask)


def _refused(response: Response) -> NoReturn:
    """Raise what a refusal says."""
    try:
        raise RemoteError(msgspec.json.decode(response.body, type=Problem))
    except msgspec.DecodeError as error:
        message = f"the platform answered {response.status}"
        raise RetryableError(message, slug="artifact-unavailable") from error


def _own_path(grant: Grant) -> str:
    if not grant.url.startswith("/"):
        message = "the grant names another store; this version moves bytes through the platform"
        raise RetryableError(message, slug="artifact-unavailable")
    return grant.url


def _deadline(size: int) -> float:
    return DEADLINE_S + size / SLOWEST
