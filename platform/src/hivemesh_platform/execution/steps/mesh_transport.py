"""Speaks the step protocol over the mesh client."""

from collections import deque

import msgspec
from hivemesh_sdk.contracts.acknowledged import MOST, acknowledgement
from hivemesh_sdk.contracts.instances import Endpoint
from hivemesh_sdk.contracts.names import (
    ACKNOWLEDGE_HEADER,
    DEADLINE_HEADER,
    EXECUTION_HEADER,
    PAGE_MEDIA_TYPE,
    TICKET_HEADER,
)
from hivemesh_sdk.contracts.problems import Problem, problem
from hivemesh_sdk.contracts.steps import ExecutionStatus, WorkerStatus
from hivemesh_sdk.contracts.unreadable import UNREADABLE
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Response, Target
from hivemesh_sdk.transport.errors import TransportError
from hivemesh_sdk.trust.identity import SpiffeId

from hivemesh_platform.execution.ports import Page, Place, StepRefusedError, UnreachableError

MARGIN_S = 10.0  # above the time that a long poll may take: to send the page
DELETE_S = 5.0
TARGETS = 4096
WAITING = 256  # acknowledgements to one instance; an older one is lost and expires there
MAX_PAGE = 24 * 1024 * 1024  # a page of 8 MiB, or one event that is larger than a page

_decode_problem = msgspec.json.Decoder(Problem).decode
_decode_execution = msgspec.json.Decoder(ExecutionStatus).decode
_decode_status = msgspec.json.Decoder(WorkerStatus).decode


class MeshStepTransport:
    """One mesh client, any number of workers."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._targets: dict[tuple[str, int, str], Target] = {}
        self._recorded: dict[str, deque[tuple[str, int]]] = {}  # by the identity that answered
        self._taken: dict[str, deque[tuple[str, int]]] = {}  # the last that requests took along

    async def put_step(
        self, endpoint: Endpoint, key: str, body: list[bytes], *, ticket: str, wait_s: float
    ) -> Page:
        """Create the step and return its first page; acknowledges others."""
        headers = self._acknowledging(endpoint) | {
            "content-type": PAGE_MEDIA_TYPE,
            "prefer": f"wait={wait_s:g}",
            TICKET_HEADER: ticket,
        }
        path = f"/v1/steps/{key}"
        return _page(await self._ask(endpoint, "PUT", path, wait_s + MARGIN_S, headers, body))

    async def get_events(
        self,
        endpoint: Endpoint,
        key: str,
        place: Place,
        *,
        ticket: str,
        wait_s: float,
    ) -> Page:
        """Acknowledge events up to the place and return the next page; empty where none came."""
        execution, epoch, after = place
        path = f"/v1/steps/{key}/events?execution={execution}&epoch={epoch}&after={after}"
        headers = self._acknowledging(endpoint) | {
            "prefer": f"wait={wait_s:g}",
            TICKET_HEADER: ticket,
        }
        return _page(await self._ask(endpoint, "GET", path, wait_s + MARGIN_S, headers))

    async def delete_step(self, endpoint: Endpoint, key: str, attempt: int) -> None:
        """Cancel a running execution; acknowledge and forget an ended one."""
        await self._ask(endpoint, "DELETE", f"/v1/steps/{key}?attempt={attempt}", DELETE_S)

    def acknowledge(self, endpoint: Endpoint, key: str, attempt: int) -> None:
        """Have the next request about a step there say that the answer to this one was recorded.

        One that gets lost costs the worker some memory for a quarter of an hour, and nothing else.
        """
        recorded = self._recorded.get(endpoint.identity)
        if recorded is None:
            if len(self._recorded) >= TARGETS:
                self._recorded.clear()
                self._taken.clear()
            recorded = self._recorded[endpoint.identity] = deque(maxlen=WAITING)
            self._taken[endpoint.identity] = deque(maxlen=WAITING)
        recorded.append((key, attempt))

    def take_back(self, endpoint: Endpoint, key: str, attempt: int) -> bool:
        """Have no request take an acknowledgement along; False where one has."""
        one, identity = (key, attempt), endpoint.identity
        if one in self._recorded.get(identity, ()):
            self._recorded[identity].remove(one)
            return True
        return one not in self._taken.get(identity, ())

    @property
    def unsent_acknowledgements(self) -> int:
        """How many wait for a request that takes them along."""
        return sum(map(len, self._recorded.values()))

    def _acknowledging(self, endpoint: Endpoint) -> dict[str, str]:
        """The header that acknowledges what was recorded since the last request."""
        recorded = self._recorded.get(endpoint.identity)
        if not recorded:
            return {}
        named = [recorded.popleft() for _ in range(min(MOST, len(recorded)))]
        self._taken[endpoint.identity].extend(named)
        return {ACKNOWLEDGE_HEADER: acknowledgement(named)}

    async def step_status(self, endpoint: Endpoint, key: str) -> ExecutionStatus:
        """Ask how the execution of a key stands."""
        response = await self._ask(endpoint, "GET", f"/v1/steps/{key}", DELETE_S)
        try:
            return _decode_execution(response.body)
        except UNREADABLE as error:
            message = f"{endpoint.instance} answered no status of a step: {error}"
            raise UnreachableError(message) from error

    async def status(self, endpoint: Endpoint, *, timeout_s: float) -> WorkerStatus:
        """Ask what the instance does; the client takes a connection that carries nothing else."""
        response = await self._ask(endpoint, "GET", "/v1/status", timeout_s)
        try:
            return _decode_status(response.body)
        except UNREADABLE as error:
            message = f"{endpoint.instance} answered no status: {error}"
            raise UnreachableError(message) from error

    async def _ask(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        deadline_s: float,
        headers: dict[str, str] | None = None,
        body: list[bytes] | None = None,
    ) -> Response:
        sent = {DEADLINE_HEADER: str(round(deadline_s * 1000)), **(headers or {})}
        try:
            response = await self._client.request(
                self._target(endpoint),
                method,
                path,
                headers=sent,
                body=body or b"",
                deadline_s=deadline_s,
                max_body=MAX_PAGE,
            )
        except TransportError as error:
            message = f"{endpoint.instance}: {error.detail}"
            raise UnreachableError(message, sent=error.sent) from error
        if response.status >= 400:
            raise StepRefusedError(_problem(response))
        return response

    def _target(self, endpoint: Endpoint) -> Target:
        name = (endpoint.host, endpoint.port, endpoint.identity)
        target = self._targets.get(name)
        if target is None:
            if len(self._targets) >= TARGETS:
                self._targets.clear()
            identity = SpiffeId.parse(endpoint.identity)
            target = Target.instance(endpoint.host, endpoint.port, identity)
            self._targets[name] = target
        return target


def _page(response: Response) -> Page:
    return Page(response.headers.get(EXECUTION_HEADER, ""), response.body)


def _problem(response: Response) -> Problem:
    """The worker's own document, or one for an answer that is none."""
    try:
        document = _decode_problem(response.body)
    except UNREADABLE:
        detail = f"the worker answered {response.status} without a problem document"
        document = problem("step-failed", detail, retryable=response.status >= 500)
    after = response.headers.get("retry-after", "")
    if document.retry_after_s is None and after.isascii() and after.isdigit():
        document = msgspec.structs.replace(document, retry_after_s=float(after))
    return document
