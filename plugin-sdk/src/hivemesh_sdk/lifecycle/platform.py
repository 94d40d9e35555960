"""What a worker says to its platform: register, beat, leave, and who else is there."""

from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

import msgspec

from hivemesh_sdk.contracts.instances import (
    Discovery,
    Heartbeat,
    HeartbeatReply,
    Registration,
    RegistrationReply,
)
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.errors import RemoteError
from hivemesh_sdk.lifecycle.platforms import Platforms, platforms_of
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Response, Target
from hivemesh_sdk.transport.errors import WorkerUnreachableError

DEADLINE_S = 5.0
NEXT_AFTER_S = 2.0  # without an answer to a heartbeat, where another replica can be asked

T = TypeVar("T")


class PlatformClient:
    """The platform's instance API over the mesh; raises `TransportError` and `RemoteError`."""

    def __init__(
        self,
        mesh: MeshClient,
        platform: Target | Platforms,
        told: Callable[[HeartbeatReply], None] = lambda _reply: None,
    ) -> None:
        self._mesh = mesh
        self._told = told
        self._platforms = platforms_of(platform)
        self._discovered_at: Target | None = None

    async def register(self, instance: str, registration: Registration) -> RegistrationReply:
        """Say where this instance listens and what it serves."""
        body = msgspec.json.encode(registration)
        return _decoded(await self._send("PUT", _path(instance), body), RegistrationReply)

    async def heartbeat(self, instance: str, heartbeat: Heartbeat) -> HeartbeatReply:
        """Keep the lease."""
        body = msgspec.json.encode(heartbeat)
        deadline_s = NEXT_AFTER_S if self._platforms.several else DEADLINE_S
        path = f"{_path(instance)}/heartbeat"
        answer = await self._send("POST", path, body, deadline_s=deadline_s)
        reply = _decoded(answer, HeartbeatReply)
        self._platforms.learn(reply.platforms)
        self._told(reply)
        return reply

    async def deregister(self, instance: str) -> None:
        """Give the lease back; an instance that is not known any more has none."""
        try:
            _success(await self._send("DELETE", _path(instance), deadline_s=2.0))
        except RemoteError as error:
            if error.document.status != 404:
                raise

    async def discovery(self, after: int, wait_s: float) -> Discovery:
        """All live endpoints as soon as they differ from version `after`: a `Discoverer` asks it."""

        async def ask(target: Target) -> Discovery:
            known = after if target == self._discovered_at else 0  # each counts for itself
            path = f"/v1/discovery?after={known}&wait={wait_s:g}"
            answer = await self._ask(target, "GET", path, deadline_s=wait_s + DEADLINE_S)
            found = _decoded(answer, Discovery)
            self._discovered_at = target
            return found

        return await self._platforms.ask(ask)

    async def policy(self, after: int, wait_s: float) -> str | None:
        """The signed policy as soon as it is newer than the one signed at `after`."""
        path = f"/v1/policy?after={after}&wait={wait_s:g}"
        answer = await self._send("GET", path, deadline_s=wait_s + DEADLINE_S)
        body = _success(answer)
        return body.decode("ascii", "replace") if answer.status == HTTPStatus.OK else None

    async def _send(
        self, method: str, path: str, body: bytes = b"", *, deadline_s: float = DEADLINE_S
    ) -> Response:
        return await self._platforms.ask(
            lambda target: self._ask(target, method, path, body, deadline_s=deadline_s)
        )

    async def _ask(
        self, target: Target, method: str, path: str, body: bytes = b"", *, deadline_s: float
    ) -> Response:
        headers = {"content-type": "application/json"} if body else {}
        response = await self._mesh.request(
            target, method, path, headers=headers, body=body, deadline_s=deadline_s
        )
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            _success(response)  # it raises, so that another replica is asked
        return response


def _path(instance: str) -> str:
    return f"/v1/instances/{quote(instance, safe='')}"


def _decoded(response: Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(_success(response), type=kind)
    except msgspec.DecodeError as error:
        detail = "the platform's answer cannot be read; do the versions fit?"
        raise WorkerUnreachableError(detail, sent=True) from error


def _success(response: Response) -> bytes:
    if 200 <= response.status < 300:
        return response.body
    try:
        document = msgspec.json.decode(response.body, type=Problem)
    except msgspec.DecodeError as error:
        detail = f"the platform answered {response.status} without a problem document"
        raise WorkerUnreachableError(detail, sent=True) from error
    raise RemoteError(document)
