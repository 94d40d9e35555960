"""Calls of a step to other workers, with the step's own ticket; nothing goes through the platform.

Only what the manifest lists under `permissions.call` can be called. A call has the key
`<step>.<name>`, so it is answered once however often its step is tried.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import msgspec

from hivemesh_sdk.contracts.names import (
    DEADLINE_HEADER,
    EXECUTION_HEADER,
    PAGE_MEDIA_TYPE,
    TICKET_HEADER,
)
from hivemesh_sdk.contracts.pages import decode_page, encode_request
from hivemesh_sdk.contracts.problems import Problem, slug_of
from hivemesh_sdk.contracts.steps import (
    MAX_WAIT_S,
    InputPart,
    ProblemEvent,
    ResultEvent,
    StepRequest,
)
from hivemesh_sdk.contracts.tickets import ExchangeReply, ExchangeRequest
from hivemesh_sdk.contracts.unreadable import UNREADABLE
from hivemesh_sdk.errors import FatalError, HivemeshError, RemoteError, RetryableError
from hivemesh_sdk.pauses import around, no_sooner
from hivemesh_sdk.transport.balance import Caller
from hivemesh_sdk.transport.connection import Response, Target
from hivemesh_sdk.worker.access import Right
from hivemesh_sdk.worker.questions import Question, name_of

MARGIN_S = 10.0  # above the time that a long poll may take
LONGEST_S = 3600.0  # of a call without a deadline of its step
MAX_ANSWER = 64 * 1024 * 1024
EXCHANGED = 1024  # tickets that are kept
RETRY_S = 0.25

_decode_problem = msgspec.json.Decoder(Problem).decode


class Asking(Protocol):
    """The step that calls."""

    key: str
    attempt: int
    capability: str
    right: Right


class Exchange(Protocol):
    """Gives a ticket of one's own for one that was shown by a caller."""

    async def exchange(self, request: ExchangeRequest) -> ExchangeReply:
        """Ask the platform.

        Raises:
            HivemeshError: it is refused, or the platform cannot be reached.
        """
        ...


class OwnTickets:
    """The ticket under which a step may ask others: its own, or one exchanged for its caller's."""

    def __init__(self, exchange: Exchange, now: Callable[[], float]) -> None:
        self._exchange = exchange
        self._now = now
        self._kept: dict[tuple[str, int], tuple[float, str]] = {}

    async def of(self, step: Asking) -> str:
        """The ticket; exchanged once in half of its life."""
        if not step.right.from_worker:
            return step.right.ticket
        name = (step.key, step.attempt)
        kept = self._kept.get(name)
        if kept is not None and self._now() < kept[0]:
            return kept[1]
        request = ExchangeRequest(
            ticket=step.right.ticket, step=step.key, capability=step.capability
        )
        reply = await self._exchange.exchange(request)
        while len(self._kept) >= EXCHANGED:
            del self._kept[next(iter(self._kept))]
        self._kept[name] = (self._now() + reply.expires_in_s / 2, reply.ticket)
        return reply.ticket


class Calls:
    """Makes the calls of one worker's steps."""

    def __init__(self, caller: Caller, tickets: OwnTickets, allowed: Collection[str]) -> None:
        self._caller = caller
        self._tickets = tickets
        self._allowed = frozenset(allowed)
        self.given_up: set[asyncio.Task[Response]] = set()

    async def call(self, step: Asking, question: Question, left_s: float | None) -> bytes:
        """The JSON that the capability answers.

        Raises:
            FatalError: the manifest does not ask for the capability.
            RemoteError: the callee refused, or its execution ended with a problem.
            TransportError: nobody serves it, or the connection broke.
        """
        capability, document, options = question.capability, question.document, question.options
        if capability not in self._allowed:
            message = f"{capability!r} is not listed under permissions.call of plugin.yaml"
            raise FatalError(message, slug="not-authorized")
        seconds = LONGEST_S if left_s is None else left_s
        request = StepRequest(
            capability=capability,
            kind="call",
            attempt=step.attempt,
            epoch=1,
            inputs=[InputPart(bytes=len(document), count=1)],
            parameters=msgspec.json.decode(options, type=dict[str, object]),
            deadline_ms=round(seconds * 1000),
        )
        made = _Call(self, step, request, f"{step.key}.{name_of(question, 'call')}")
        try:
            async with asyncio.timeout(seconds):
                return await made.answer(encode_request(request, [document]))
        except TimeoutError as error:
            message = f"{capability} did not answer within {seconds:.3g} s"
            raise RetryableError(message, slug="deadline-exceeded") from error

    async def send(
        self, call: "_Call", method: str, path: str, body: Sequence[bytes] = ()
    ) -> Response:
        """One request to an instance that serves the capability, or to the one that began."""
        deadline_s = MAX_WAIT_S + MARGIN_S
        headers = {
            TICKET_HEADER: await self._tickets.of(call.step),
            DEADLINE_HEADER: str(round(deadline_s * 1000)),
            "prefer": f"wait={MAX_WAIT_S:g}",
        }
        if body:
            headers["content-type"] = PAGE_MEDIA_TYPE
        _, response = await self._caller.reach(
            call.capability,
            method,
            path,
            at=call.target,
            headers=headers,
            body=body,
            deadline_s=deadline_s,
            max_body=MAX_ANSWER,
            shared=method == "PUT",
            asking=call.asks,
        )
        return response


class _Call:
    """One call, from its request to its last page."""

    def __init__(self, calls: Calls, step: Asking, request: StepRequest, key: str) -> None:
        self._calls = calls
        self.step = step
        self.capability = request.capability
        self._path = f"/v1/steps/{key}"
        self.target: Target | None = None

    async def answer(self, body: list[bytes]) -> bytes:
        """Create the execution and read it to its end."""
        try:
            response = await self._begin(body)
            execution = response.headers.get(EXECUTION_HEADER, "")
            last = 0
            while True:
                for frame in decode_page(response.body):
                    last = frame.event.no
                    if isinstance(frame.event, ProblemEvent):
                        raise self._failed(frame.event.problem)
                    if isinstance(frame.event, ResultEvent):
                        return _result(frame.event, frame.body)
                query = f"execution={execution}&epoch=1&after={last}"
                response = _good(await self._send("GET", f"{self._path}/events?{query}"))
        except asyncio.CancelledError:
            await self._give_up()
            raise

    async def _begin(self, body: list[bytes]) -> Response:
        """A callee without a free slot is asked again, as the platform would do it."""
        while True:
            response = await self._send("PUT", self._path, body)
            try:
                return _good(response)
            except RemoteError as error:
                if slug_of(error.document) not in {"overloaded", "draining"}:
                    raise
                self.target = None
                await asyncio.sleep(pause(error.document))

    def _failed(self, document: Problem) -> HivemeshError:
        """What the caller's step ends with: a callee's crash is none of its own."""
        if slug_of(document) != "executor-crashed":
            return RemoteError(document)
        return RetryableError(f"{self.capability}: {document.title}: {document.detail}")

    async def _give_up(self) -> None:
        """The step is not wanted any more, so its call is not either."""
        if self.target is not None:
            path = f"{self._path}?attempt={self.step.attempt}"
            task = asyncio.ensure_future(self._send("DELETE", path))
            self._calls.given_up.add(task)
            task.add_done_callback(self._calls.given_up.discard)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _send(self, method: str, path: str, body: Sequence[bytes] = ()) -> Response:
        return await self._calls.send(self, method, path, body)

    def asks(self, target: Target) -> None:
        """Note who is asked, before the answer: a long poll may be given up."""
        self.target = target


def pause(refusal: Problem) -> float:
    """How long a callee is let be that has no free slot."""
    named = min(refusal.retry_after_s or 0.0, LONGEST_S)
    return no_sooner(named) if named > 0 else around(RETRY_S)


def _result(event: ResultEvent, body: bytes) -> bytes:
    if event.artifact is not None:
        message = "the answer is an artifact; call it from a pipeline"
        raise FatalError(message, slug="too-large")
    return body


def _good(response: Response) -> Response:
    if response.status < 300:
        return response
    try:
        raise RemoteError(_decode_problem(response.body))
    except UNREADABLE as error:
        message = f"the worker answered {response.status}"
        raise RetryableError(message) from error
