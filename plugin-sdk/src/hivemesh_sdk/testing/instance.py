"""Drives the steps of one running instance, as the platform's dispatcher would."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from hivemesh_sdk.contracts.acknowledged import acknowledgement
from hivemesh_sdk.contracts.names import ACKNOWLEDGE_HEADER, EXECUTION_HEADER, TICKET_HEADER
from hivemesh_sdk.contracts.pages import Frame, decode_page, encode_request
from hivemesh_sdk.contracts.problems import Problem, slug_of
from hivemesh_sdk.contracts.steps import (
    ExecutionStatus,
    InputPart,
    Limits,
    ProblemEvent,
    RecordsEvent,
    RejectedEvent,
    ResultEvent,
    StepKind,
    StepRequest,
    WorkerStatus,
)
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Response, Target
from hivemesh_sdk.trust.identity import SpiffeId

SLOT_S = 30.0  # a slot is free again when the code of a cancelled step has stopped
MARGIN_S = 10.0  # above the wait that was asked for: a busy machine is no failure


@dataclass(frozen=True, slots=True)
class Page:
    """One answer with events, or with a problem."""

    status: int
    execution: str = ""
    frames: tuple[Frame, ...] = ()
    problem: Problem | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The slug of the problem, "" where there is none."""
        return slug_of(self.problem) if self.problem else ""

    @property
    def last(self) -> int:
        """Number of the last event, 0 where there is none."""
        return self.frames[-1].event.no if self.frames else 0

    @property
    def ended(self) -> bool:
        """Whether the last event ends the execution."""
        return bool(self.frames) and isinstance(self.frames[-1].event, ResultEvent | ProblemEvent)


@dataclass(frozen=True, slots=True)
class Step:
    """A step request and its inline inputs."""

    request: StepRequest
    bodies: tuple[bytes, ...] = ()

    @classmethod
    def of(
        cls,
        capability: str,
        kind: StepKind,
        *,
        parameters: dict[str, object] | None = None,
        bodies: Sequence[bytes] = (),
        limits: Limits | None = None,
    ) -> "Step":
        """The first attempt of a step."""
        inputs = [InputPart(bytes=len(body), count=body.count(b"\n")) for body in bodies]
        request = StepRequest(
            capability=capability,
            kind=kind,
            attempt=1,
            epoch=1,
            inputs=inputs,
            parameters=parameters or {},
            limits=limits or Limits(),
        )
        return cls(request, tuple(bodies))

    def but(self, **changes: object) -> "Step":
        """The same step with other fields in its request."""
        return Step(msgspec.structs.replace(self.request, **changes), self.bodies)


@dataclass(slots=True)
class Outcome:
    """Everything one execution gave."""

    execution: str
    frames: list[Frame] = field(default_factory=list)

    @property
    def end(self) -> ResultEvent | ProblemEvent:
        """The last event."""
        event = self.frames[-1].event
        assert isinstance(event, ResultEvent | ProblemEvent), f"the last event is {event}"
        return event

    @property
    def problem(self) -> Problem | None:
        """What ended it badly."""
        return self.end.problem if isinstance(self.end, ProblemEvent) else None

    @property
    def result(self) -> bytes:
        """The JSON of a unary result."""
        assert self.problem is None, f"ended with {self.problem}"
        return self.frames[-1].body

    @property
    def batches(self) -> list[tuple[RecordsEvent, bytes]]:
        """The batches in order."""
        return [
            (frame.event, frame.body)
            for frame in self.frames
            if isinstance(frame.event, RecordsEvent)
        ]

    @property
    def lines(self) -> list[bytes]:
        """All records, one JSON document each."""
        return [line for _, body in self.batches for line in body.splitlines()]

    @property
    def rejected(self) -> list[RejectedEvent]:
        """The records that were refused."""
        return [one.event for one in self.frames if isinstance(one.event, RejectedEvent)]


class InstanceUnderTest:
    """One instance, called with the identity of the fake platform (or another client)."""

    def __init__(
        self, client: MeshClient, target: Target, holder: SpiffeId, tickets: ThrowawayTickets
    ) -> None:
        self._client = client
        self.target = target
        self._holder = holder
        self._tickets = tickets
        self._steps: dict[str, StepRequest] = {}  # as they were last requested

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Sequence[bytes] = b"",
        deadline_s: float = MARGIN_S,
    ) -> Response:
        """Send anything."""
        return await self._client.request(
            self.target, method, path, headers=headers or {}, body=body, deadline_s=deadline_s
        )

    async def put(
        self,
        key: str,
        step: Step,
        *,
        wait_s: float = 20,
        acknowledge: Sequence[tuple[str, int]] = (),
    ) -> Page:
        """Create a step and take its first page; waits for a slot, as the ledger would."""
        async with asyncio.timeout(SLOT_S + wait_s + MARGIN_S):
            while True:
                page = await self.put_once(key, step, wait_s=wait_s, acknowledge=acknowledge)
                if page.slug != "overloaded":
                    return page
                await asyncio.sleep(0.1)

    async def put_once(
        self,
        key: str,
        step: Step,
        *,
        wait_s: float = 20,
        acknowledge: Sequence[tuple[str, int]] = (),
    ) -> Page:
        """Create a step; an overloaded worker refuses it."""
        self._steps[key] = step.request
        response = await self.request(
            "PUT",
            f"/v1/steps/{key}",
            headers={
                "prefer": f"wait={wait_s:g}",
                "content-type": "application/octet-stream",
                TICKET_HEADER: self._tickets.fresh(self._holder, key, step.request),
                **({ACKNOWLEDGE_HEADER: acknowledgement(acknowledge)} if acknowledge else {}),
            },
            body=encode_request(step.request, step.bodies),
            deadline_s=wait_s + MARGIN_S,
        )
        return _page(response)

    async def events(
        self, key: str, execution: str, *, after: int, epoch: int = 1, wait_s: float = 20
    ) -> Page:
        """Acknowledge up to `after` and take the next page."""
        response = await self.request(
            "GET",
            f"/v1/steps/{key}/events?execution={execution}&epoch={epoch}&after={after}",
            headers={"prefer": f"wait={wait_s:g}", TICKET_HEADER: self.ticket(key)},
            deadline_s=wait_s + MARGIN_S,
        )
        return _page(response)

    def ticket(self, key: str) -> str:
        """The ticket of a step that was requested here."""
        request = self._steps.get(key)
        if request is None:
            return self._tickets.of(self._holder, key, "unknown.step@1")
        return self._tickets.for_request(self._holder, key, request)

    async def delete(self, key: str, *, attempt: int = 1) -> Response:
        """Cancel a running execution, or forget an ended one."""
        return await self.request("DELETE", f"/v1/steps/{key}?attempt={attempt}")

    async def status(self) -> WorkerStatus:
        """What the worker says of itself."""
        response = await self.request("GET", "/v1/status")
        assert response.status == 200, response
        return msgspec.json.decode(response.body, type=WorkerStatus)

    async def step(self, key: str) -> ExecutionStatus | None:
        """The state of one step, None where the worker does not know it."""
        response = await self.request("GET", f"/v1/steps/{key}")
        if response.status == 404:
            return None
        assert response.status == 200, response
        return msgspec.json.decode(response.body, type=ExecutionStatus)

    async def run(self, key: str, step: Step) -> Outcome:
        """Run a step to its end, acknowledging every page, and forget it."""
        page = await self.put(key, step)
        assert page.problem is None, f"refused: {page.problem}"
        outcome = Outcome(page.execution, list(page.frames))
        last = page.last
        while not page.ended:
            page = await self.events(key, page.execution, after=last, epoch=step.request.epoch)
            assert page.problem is None, f"refused: {page.problem}"
            outcome.frames += page.frames
            last = page.last or last
        await self.delete(key, attempt=step.request.attempt)
        return outcome


def _page(response: Response) -> Page:
    if response.status != 200:
        return Page(
            response.status,
            problem=msgspec.json.decode(response.body, type=Problem),
            headers=response.headers,
        )
    return Page(
        200,
        response.headers.get(EXECUTION_HEADER, ""),
        tuple(decode_page(response.body)),
        headers=response.headers,
    )
