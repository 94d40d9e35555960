"""Calls quick functions where their request was read.

A quick function is a plain one that runs inline. No task, thread or process stands between its
request and its answer, which is most of what a small call costs; so nothing stands between it and
the loop that serves either. One that does not keep its promise is moved to the second loop, and so
is every further attempt of a step: the first may have been lost by it.
"""

import hashlib

import structlog

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.steps import StepRequest
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.worker.execution import Control, Execution
from hivemesh_sdk.worker.failures import problem_of, refuse_secrets
from hivemesh_sdk.worker.inline import BLOCKED_S, InlineRunner, is_there
from hivemesh_sdk.worker.inline_step import Bodies
from hivemesh_sdk.worker.kinds import Capability, Job

QUICK_S = 0.001  # a call that takes longer is counted
SHARE = 0.25  # of all time that such calls of one function may take

_log = structlog.get_logger("hivemesh.inline")


class QuickRunner:
    """Answers calls of quick functions at once; hands what may take longer to the second loop."""

    def __init__(self, second: InlineRunner, clock: Clock) -> None:
        self._second = second
        self._capabilities = second.capabilities
        self._monotonic = clock.monotonic
        self._debts: dict[str, tuple[float, float]] = {}  # seconds beyond its share, and when
        self._moved: set[str] = set()  # for as long as this process runs
        self.blocked = 0

    def start(self, execution: Execution, request: StepRequest, bodies: Bodies) -> Control:
        """Answer the call, or give it to the second loop."""
        name = request.capability
        capability = self._capabilities[name]
        if (
            request.attempt > 1
            or name in self._moved
            or request.members
            or not is_there(request)
            or (request.parameters and capability.secrets_of(request.parameters))
        ):
            return self._second.start(execution, request, bodies)
        job = Job(kind=request.kind, inputs=bodies, parameters=request.parameters)  # type: ignore[arg-type]  # all are there
        try:
            options = capability.accept(job)
        except HivemeshError as error:
            execution.fail(problem_of(error), refused=True)
        except BaseException as error:  # noqa: BLE001 - options may have code of the author's
            _log.error("step_raised", key=execution.key, exception=execution.trace_of(error))
            execution.fail(problem_of(error))
        else:
            self._answer(capability, execution, job, options)
        execution.release()
        return ENDED

    def _answer(
        self, capability: Capability, execution: Execution, job: Job, options: object
    ) -> None:
        began = self._monotonic()
        try:
            result = capability.called(job, options)
            refuse_secrets(result, "the answer")
        except HivemeshError as error:
            execution.fail(problem_of(error))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the loop goes on serving
            _log.error("step_raised", key=execution.key, exception=execution.trace_of(error))
            execution.fail(problem_of(error))
        else:
            execution.succeed(result, hashlib.sha256(result).hexdigest(), ())
        seconds = self._monotonic() - began
        if seconds >= QUICK_S:
            self._took_long(capability.id, seconds)

    def _took_long(self, name: str, seconds: float) -> None:
        """Move what makes others wait: once for long, or again and again."""
        now = self._monotonic()
        debt, since = self._debts.get(name, (0.0, now))
        debt = max(0.0, debt - SHARE * (now - since)) + seconds
        self._debts[name] = debt, now
        self.blocked += seconds >= BLOCKED_S
        if debt >= BLOCKED_S:
            self._moved.add(name)
            _log.warning("inline_not_quick", capability=name, held_s=round(seconds, 3))


class _Ended:
    """The control of what has ended."""

    def cancel(self) -> None: ...

    def kill(self) -> None: ...

    def credit(self, count: int) -> None: ...

    def cpu_s(self) -> float:
        return 0.0


ENDED = _Ended()
