"""Sets runs and jobs going again that have ended badly; what is recorded of them is kept."""

from collections.abc import Sequence

import structlog
from hivemesh_sdk.contracts.api import RunView
from hivemesh_sdk.errors import ConflictError

from hivemesh_platform.execution.behalf import Behalf, effective
from hivemesh_platform.execution.held import HeldStep, Verdict
from hivemesh_platform.execution.ledger.port import Effects, Turn, milliseconds
from hivemesh_platform.execution.runs.service import RunParts, RunService

_log = structlog.get_logger("hivemesh.execution")


class JobNotFailedError(ConflictError):
    """The job has not failed and was not cancelled."""

    slug = "nothing-to-retry"


class RunsAgain:
    """What the API offers on runs and jobs that are to be done again."""

    def __init__(self, parts: RunParts, runs: RunService) -> None:
        self._parts = parts
        self._runs = runs

    async def retry(self, run: str, first: str, by: Behalf) -> RunView:
        """Set the failed, blocked and cancelled steps of a run going again.

        With `first` that step and all behind it are done afresh. The rights are those of who
        submitted the run, less what `by` may not.

        Raises:
            NothingToRetryError: nothing has failed, and no step is named.
            InputReplayedError: an input of what has failed is done by a job of its own.
            NotFoundError: there is no such run or step.
        """
        await self._runs.get(run)
        now, before = milliseconds(self._parts.clock), self._parts.held.all()
        turns, effects = await self._parts.database.write(
            lambda tx: self._parts.ledger.run_again(tx, run, first, effective(by), now)
        )
        for turn in turns:
            self._end(before, turn)
        self._wake(run, effects)
        for turn in turns:
            _log.info("run_retried", run_id=turn.run, steps=turn.steps)
            await self._runs.submit(turn.run, turn.steps, turn.number)
        return await self._runs.get(run)

    async def retry_job(self, job: str, by: Behalf) -> RunView:
        """Queue a job that has failed or was cancelled once more.

        Raises:
            JobNotFailedError: it has not.
            NotFoundError: there is no such job.
        """
        view = await self._runs.get(job)
        now = milliseconds(self._parts.clock)
        done = await self._parts.database.write(
            lambda tx: self._parts.ledger.job_again(tx, job, effective(by), now)
        )
        if not done:
            message = f"{job} is {view.state}; only what has failed or was cancelled is retried"
            remedy = "submit it once more with `hivemesh job submit`"
            raise JobNotFailedError(message, remedy=remedy)
        _log.info("job_retried", run_id=job)
        self._parts.work.give()
        self._parts.runs.give(job)
        return await self._runs.get(job)

    async def process(self, job: str) -> RunView:
        """Let a queued job that waits for its time be tried at once.

        Raises:
            NotFoundError: there is no such job.
        """
        await self._runs.get(job)
        await self._parts.database.write(lambda tx: self._parts.ledger.hurry_job(tx, job))
        self._parts.work.give()
        return await self._runs.get(job)

    def _end(self, before: Sequence[HeldStep], turn: Turn) -> None:
        """What is done afresh is not waited for where it still ran."""
        for step in before:
            if step.claim.key.run == turn.run and step.claim.key.node in turn.steps:
                step.end(Verdict.CANCELLED)

    def _wake(self, run: str, effects: Effects) -> None:
        self._parts.wakes.tell(run, effects)
        self._parts.work.give()
