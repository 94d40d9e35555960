"""The steps that workers run for this process at the moment: who holds them and what ends them."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from hivemesh_sdk.contracts.instances import Endpoint
from hivemesh_sdk.contracts.problems import Problem

from hivemesh_platform.artifacts.model import Holding
from hivemesh_platform.execution.ledger import Claim


class Verdict(StrEnum):
    """Why an exchange is ended from outside."""

    LOST = "lost"  # the worker is gone
    STUCK = "stuck"  # the worker is there, the execution does not move
    CANCELLED = "cancelled"


@dataclass(eq=False, slots=True)
class HeldStep:
    """One step at one worker. `verdict` ends the exchange before its time."""

    claim: Claim
    endpoint: Endpoint
    digests: frozenset[str]  # artifacts that its inputs and options name
    trees: frozenset[str]  # those of them that are folders
    started: float  # monotonic
    verdict: "asyncio.Future[tuple[Verdict, Problem | None]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def end(self, verdict: Verdict, problem: Problem | None = None) -> None:
        """End the exchange; the first verdict counts."""
        if not self.verdict.done():
            self.verdict.set_result((verdict, problem))


class HeldSteps:
    """All steps that run for this process, by key and by instance."""

    def __init__(self) -> None:
        self._by_key: dict[str, HeldStep] = {}
        self._by_instance: defaultdict[str, set[str]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, step: HeldStep) -> None:
        """A step has been placed."""
        key = str(step.claim.key)
        self._by_key[key] = step
        self._by_instance[step.endpoint.instance].add(key)

    def remove(self, step: HeldStep) -> None:
        """A step has ended, for whatever reason."""
        key = str(step.claim.key)
        if self._by_key.get(key) is not step:
            return
        del self._by_key[key]
        keys = self._by_instance[step.endpoint.instance]
        keys.discard(key)
        if not keys:
            del self._by_instance[step.endpoint.instance]

    def find(self, key: str) -> HeldStep | None:
        """Return the step with this key, if it runs."""
        return self._by_key.get(key)

    def endpoints(self) -> list[Endpoint]:
        """Return the instances that run steps."""
        return [steps[0].endpoint for steps in map(self.at, tuple(self._by_instance)) if steps]

    def at(self, instance: str) -> list[HeldStep]:
        """Return the steps that an instance runs."""
        return [self._by_key[key] for key in self._by_instance.get(instance, ())]

    def holding(self, key: str) -> Holding | None:
        """Return who holds the step and what it may read (the port of artifacts)."""
        step = self._by_key.get(key)
        if step is None:
            return None
        claim = step.claim
        return Holding(
            run=claim.key.run,
            node=claim.key.node,
            seq=claim.key.seq,
            attempt=claim.fence.attempt,
            identity=step.endpoint.identity,
            digests=step.digests,
            trees=step.trees,
        )

    def of_run(self, run: str) -> Iterator[HeldStep]:
        """Yield the steps of a run."""
        return (step for step in tuple(self._by_key.values()) if step.claim.key.run == run)
