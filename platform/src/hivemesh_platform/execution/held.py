"""The steps that workers run for this process at the moment: who holds them and what ends them."""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from hivemesh_sdk.contracts.artifacts import DataClass, highest
from hivemesh_sdk.contracts.instances import Endpoint
from hivemesh_sdk.contracts.names import step_key
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.contracts.steps import Member

from hivemesh_platform.artifacts.model import Holding
from hivemesh_platform.execution.ahead import Ahead
from hivemesh_platform.execution.ledger.counters import ExecutionCounters
from hivemesh_platform.execution.ledger.port import Claim, Effects, StaleAttemptError
from hivemesh_platform.execution.model import JOB_NODE
from hivemesh_platform.execution.ports import Choice, Placement

ENDED_KEPT = 4096  # attempts whose late calls are told apart from those of strangers
ELSEWHERE_KEPT = 4096
EARLY = 4  # answers that are being kept while their slots are given to others: bounds memory


class Verdict(StrEnum):
    """Why an exchange is ended from outside."""

    LOST = "lost"  # the worker is gone
    STUCK = "stuck"  # the worker is there, the execution does not move
    CANCELLED = "cancelled"
    MOVED = "moved"  # another replica goes on with the execution


@dataclass(eq=False, slots=True)
class HeldStep:
    """One step at one worker. `verdict` ends the exchange before its time."""

    claim: Claim
    endpoint: Endpoint
    digests: frozenset[str]  # artifacts that its inputs and options name
    trees: frozenset[str]  # those of them that are folders
    started: float  # monotonic
    clearance: DataClass = DataClass.PERSONAL  # of its capability
    secrets: frozenset[str] = frozenset()  # paths that its options name, as they were written
    begun: bool = False  # the worker has taken it
    resumed: bool = False  # after a restart of the platform, or a take-over
    advanced: bool = False  # a batch was recorded: what failed before does not count any more
    ticket: str = ""  # the one that was last sent with a request
    members: Mapping[str, Claim] = field(default_factory=dict)  # small jobs of one request
    drop: Callable[[str], None] | None = None  # has the worker end one of them, by its key
    answered: Callable[[], None] | None = None  # told when its worker has answered well
    harmless: Callable[[], None] | None = None  # told when it is no suspect any more
    waits: bool = False  # for the steps behind it: meanwhile its worker dies of something else
    over: bool = False  # its worker has said its last, and has no rights any more
    given_back: bool = False  # its slot, because its worker has answered
    untold: list[Effects] = field(default_factory=list)  # of its end: told when it holds nothing
    storing: "asyncio.Future[None] | None" = None  # while an answer that is here is written down
    ticket_until: float = 0.0  # wall time from which another one is made
    verdict: "asyncio.Future[tuple[Verdict, Problem | None]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def end(self, verdict: Verdict, problem: Problem | None = None) -> None:
        """End the exchange; the first verdict counts."""
        if not self.verdict.done():
            self.verdict.set_result((verdict, problem))

    @property
    def is_unwanted(self) -> bool:
        """Whether nobody here wants its answer any more; of a lost worker it is still wanted."""
        done = self.verdict.done() and not self.verdict.cancelled()
        return done and self.verdict.result()[0] in {Verdict.CANCELLED, Verdict.MOVED}

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Meanwhile neither its deadline nor the end of its worker ends the exchange."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.storing = stored
        try:
            yield
        finally:
            self.storing = None
            if not stored.done():
                stored.set_result(None)


LookUp = Callable[[str, HeldStep | None], Awaitable[HeldStep | None]]


def members_of(step: HeldStep) -> list[Member]:
    """The small jobs of one request, as the worker is told of them."""
    return [Member(key=key, attempt=claim.fence.attempt) for key, claim in step.members.items()]


class HeldSteps:
    """All steps that run for this process, by key and by instance."""

    def __init__(self, counters: ExecutionCounters) -> None:
        self._counters = counters
        self._by_key: dict[str, HeldStep] = {}
        self._ended: OrderedDict[tuple[str, int, str], None] = OrderedDict()
        self._by_instance: defaultdict[str, set[HeldStep]] = defaultdict(set)
        self._elsewhere: OrderedDict[str, HeldStep] = OrderedDict()  # as they were looked up last
        self._look_up: LookUp | None = None
        self._by_member: dict[str, HeldStep] = {}  # small jobs that travel with others
        self._early = 0
        self.ahead = Ahead()

    def follow(self, look_up: LookUp) -> None:
        """Have steps that are not held here looked up among those of other replicas."""
        self._look_up = look_up

    async def look_up(self, key: str) -> None:
        """Learn how a step stands now, wherever it is held; `find` and `holding` then tell it."""
        known = self._elsewhere.pop(key, None)
        if self._look_up is None or key in self._by_key or key in self._by_member:
            return
        found = await self._look_up(key, known)
        if found is not None:
            self._elsewhere[key] = found
            self._elsewhere[str(found.claim.key)] = found  # the request with which it travels
        while len(self._elsewhere) > ELSEWHERE_KEPT:
            self._elsewhere.popitem(last=False)

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, step: HeldStep) -> None:
        """A step has been placed."""
        key = str(step.claim.key)
        self._by_key[key] = step
        self._by_instance[step.endpoint.instance].add(step)
        self._by_member.update(dict.fromkeys(step.members, step))

    def remove(self, step: HeldStep) -> None:
        """A step has ended, for whatever reason."""
        self._early -= step.given_back
        key = str(step.claim.key)
        for member in step.members:
            if self._by_member.get(member) is step:
                del self._by_member[member]
        self.end_rights(step)
        if self._by_key.get(key) is step:  # else its next attempt is held already
            del self._by_key[key]
        steps = self._by_instance[step.endpoint.instance]
        steps.discard(step)
        if not steps:
            del self._by_instance[step.endpoint.instance]

    def end_rights(self, step: HeldStep) -> None:
        """Its worker has said its last: what it stores or asks for from now on is refused."""
        step.over = True
        self._ended[str(step.claim.key), step.claim.fence.attempt, step.endpoint.identity] = None
        if len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)

    def give_back(self, step: HeldStep, placement: Placement, choice: Choice) -> None:
        """Its worker has answered: let another step have its slot while the answer is kept."""
        if not step.given_back and self._early < EARLY and placement.give_back(choice):
            step.given_back = True
            self._early += 1

    def find(self, key: str) -> HeldStep | None:
        """Return the step with this key, if it runs here or was looked up."""
        return self._by_key.get(key) or self._elsewhere.get(key)

    def find_active(self, key: str) -> HeldStep | None:
        """Return the step with this key while its worker may ask for something in its name."""
        step = self.find(key)
        return None if step is None or step.over else step

    def with_member(self, key: str) -> HeldStep | None:
        """Return the request with which a small job travels, if it does."""
        held = self._by_member.get(key) or self._elsewhere.get(key)
        return held if held is not None and key in held.members else None

    def drop_job(self, run: str) -> None:
        """Have its worker end a small job that travels with others."""
        key = step_key(run, JOB_NODE, 0)
        step = self._by_member.get(key)
        if step is not None and step.drop is not None:
            step.drop(key)

    def holds(self, key: str, attempt: int) -> bool:
        """Whether an attempt runs here, alone or with others."""
        step = self._by_key.get(key)
        if step is not None and step.claim.fence.attempt == attempt:
            return True
        step = self._by_member.get(key)
        if step is not None:
            return step.members[key].fence.attempt == attempt
        return self.ahead.holds(key, attempt)

    def endpoints(self) -> list[Endpoint]:
        """Return the instances that run steps."""
        return [next(iter(steps)).endpoint for steps in self._by_instance.values()]

    def at(self, instance: str) -> list[HeldStep]:
        """Return the steps that an instance runs."""
        return list(self._by_instance.get(instance, ()))

    def holding(self, key: str) -> Holding | None:
        """Return who holds the step and what it may read (the port of artifacts)."""
        step = self._by_member.get(key) or self.find(key)
        if step is None or step.over:
            return None
        claim = step.members.get(key, step.claim)
        return Holding(
            run=claim.key.run,
            node=claim.key.node,
            seq=claim.key.seq,
            attempt=claim.fence.attempt,
            identity=step.endpoint.identity,
            digests=step.digests,
            trees=step.trees,
            clearance=step.clearance,
            output_class=claim.output_class,
            ceiling=highest((claim.data_class, claim.output_class)),
        )

    def count_stale(self) -> None:
        """Something was asked for an attempt that is over."""
        self._counters.stale_results += 1

    def refuse_ended(self, key: str, attempt: int, identity: str) -> None:
        """Refuse what an instance asks for an attempt that it held and lost; others get no hint.

        Raises:
            StaleAttemptError: the attempt has ended here.
        """
        if (key, attempt, identity) in self._ended:
            self._counters.stale_results += 1
            message = (
                f"attempt {attempt} of {key!r} has ended; what it stores or asks for is refused"
            )
            raise StaleAttemptError(message)

    def all(self) -> list[HeldStep]:
        """Return every step that is held here."""
        return list(self._by_key.values())

    def of_run(self, run: str) -> Iterator[HeldStep]:
        """Yield the steps of a run."""
        return (step for step in tuple(self._by_key.values()) if step.claim.key.run == run)
