"""Tells a change of the ledger to those whom it concerns: who waits, and steps that nobody needs."""

from dataclasses import dataclass

from hivemesh_platform.execution.held import HeldSteps, Verdict
from hivemesh_platform.execution.ledger.counters import ExecutionCounters
from hivemesh_platform.execution.ledger.port import Effects
from hivemesh_platform.execution.ledger.signals import RunSignals, Signal
from hivemesh_platform.execution.model import WorkKey


@dataclass(frozen=True, slots=True)
class Wakes:
    """Whoever has written effects hands them over here, once they are committed."""

    work: Signal
    runs: RunSignals
    held: HeldSteps
    counters: ExecutionCounters

    def tell(self, run: str, effects: Effects, own: WorkKey | None = None) -> None:
        """Wake who waits for the run or for rows, and end the steps of what has ended.

        `own` is the row whose step has brought the change: that one ends by itself.
        """
        if effects.queued:
            self.work.give()
        if not effects.ended_nodes and not effects.ended_runs:
            self.runs.give(run)
            return
        self.counters.open_runs.difference_update(effects.ended_runs)
        self.runs.give_end(run)
        ended = set(effects.ended_nodes)
        for one in {*effects.ended_runs, *(of for of, _ in ended)}:
            self.held.ahead.forget(
                one,
                None if one in effects.ended_runs else {node for of, node in ended if of == one},
            )
            if one != run:  # a nested run that was ended with its step
                self.runs.give_end(one)
            for step in self.held.of_run(one):
                key = step.claim.key
                if key != own and (one in effects.ended_runs or (one, key.node) in ended):
                    step.end(Verdict.CANCELLED)
