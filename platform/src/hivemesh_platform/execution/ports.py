"""What execution needs of its neighbours: where work runs, how steps are spoken, what exists.

Adapters are named by `app.py`; `tests/support` has a fake per port.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.instances import Endpoint
from hivemesh_sdk.contracts.manifest import Capability, Permissions
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.contracts.steps import ExecutionStatus, WorkerStatus
from hivemesh_sdk.errors import RetryableError
from pydantic import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What a row asks of the instance that takes it."""

    capability: str
    labels: Mapping[str, str] = field(default_factory=dict)
    data_class: DataClass = DataClass.PUBLIC  # of the inputs
    avoid: frozenset[str] = frozenset()  # instances that are taken only if no other is free
    records: int = 0  # that it would be given; 0: its time will say nothing of the instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An instance that was chosen, with a slot held there, and why (all candidates' scores)."""

    endpoint: Endpoint
    capability: str
    explanation: Mapping[str, JsonValue]
    number: int = 0  # of the decision; 0: none was made


@dataclass(frozen=True, slots=True)
class NoCandidate:
    """Nobody can take it at the moment; `reason` is a sentence for people."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Every instance that serves a capability as it stands now, best first."""

    reason: str  # why none of them could take a step; "" where one could
    candidates: Sequence[Mapping[str, JsonValue]]
    not_listed: int = 0


class Outcome(StrEnum):
    """How an exchange with an instance ended, as outlier ejection counts it."""

    COMPLETED = "completed"
    FAILED = "failed"  # the capability said so: not the instance's fault
    OVERLOADED = "overloaded"  # 429 or 503: the slots were not free after all
    UNREACHABLE = "unreachable"
    LOST = "lost"  # three status questions without an answer
    CANCELLED = "cancelled"


class Placement(Protocol):
    """Chooses instances. Called from the event loop, answers at once, does no I/O."""

    def free_slots(self) -> Mapping[str, int]:
        """Return per capability how many steps could be placed now (choices held are not free)."""
        ...

    def choose(self, requirement: Requirement) -> Choice | NoCandidate:
        """Choose an instance and hold one slot there until `report`."""
        ...

    def survey(self, requirement: Requirement) -> Survey:
        """Say what each instance would be for it, and choose none."""
        ...

    def give_back(self, choice: Choice) -> bool:
        """Give the slot back before `report`, as the instance has answered; False if not yet."""
        ...

    def report(
        self, choice: Choice, outcome: Outcome, seconds: float, *, given_back: bool = False
    ) -> None:
        """Tell how it went, and give the slot back unless that was done."""
        ...

    def beats(self, instance: str) -> bool:
        """Say whether the instance has sent a heartbeat a moment ago."""
        ...

    def tells_time(self, instance: str) -> bool:
        """Say whether the instance tells its clock: it gets nothing while that is off."""
        ...

    def absent(self, capability: str) -> str:
        """Say why nothing serves the capability; "" where live instances are merely busy."""
        ...

    async def wait_for_change(self) -> None:
        """Return when instances or slots have changed since the last return."""
        ...


NO_PERMISSIONS = Permissions()


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCapability:
    """A capability as an installed manifest declares it."""

    worker: str
    version: str
    declared: Capability
    permissions: Permissions = NO_PERMISSIONS  # of its worker


class Catalogue(Protocol):
    """The capabilities of the installed workers, live or not."""

    def find(self, capability: str) -> KnownCapability | None:
        """Return the capability, or None where no installed manifest declares it."""
        ...

    def names(self) -> list[str]:
        """Return the ids of all installed capabilities."""
        ...


class UnreachableError(RetryableError):
    """No answer came: refused, reset, timed out, or the peer is not who it should be.

    `sent` says whether the worker may have seen the request.
    """

    slug = "worker-unreachable"

    def __init__(self, detail: str = "", *, sent: bool = True) -> None:
        super().__init__(detail)
        self.sent = sent


class StepRefusedError(RetryableError):
    """The worker answered with a problem document instead of a page."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title)
        self.document = problem

    def problem(self, *, instance: str = "", request_id: str = "") -> Problem:
        """The document as it was received."""
        return self.document


@dataclass(frozen=True, slots=True)
class Page:
    """A page of events as it came, with the execution that it belongs to."""

    execution: str
    body: bytes


class Place(NamedTuple):
    """Up to which event of which execution a reader has read, and on whose turn."""

    execution: str
    epoch: int
    after: int


class StepTransport(Protocol):
    """Speaks the step protocol with one instance.

    Every method raises UnreachableError where no answer came and StepRefusedError where the
    answer is a problem document.
    """

    async def put_step(
        self, endpoint: Endpoint, key: str, body: list[bytes], *, ticket: str, wait_s: float
    ) -> Page:
        """Create the step and return its first page."""
        ...

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
        ...

    async def delete_step(self, endpoint: Endpoint, key: str, attempt: int) -> None:
        """Cancel a running execution; acknowledge and forget an ended one."""
        ...

    def acknowledge(self, endpoint: Endpoint, key: str, attempt: int) -> None:
        """Have the next request about a step there say that the answer to this one was recorded."""
        ...

    def take_back(self, endpoint: Endpoint, key: str, attempt: int) -> bool:
        """Have no request take an acknowledgement along; False where one has."""
        ...

    async def step_status(self, endpoint: Endpoint, key: str) -> ExecutionStatus:
        """Ask how the execution of a key stands."""
        ...

    async def status(self, endpoint: Endpoint, *, timeout_s: float) -> WorkerStatus:
        """Ask what the instance does, on a connection of its own."""
        ...
