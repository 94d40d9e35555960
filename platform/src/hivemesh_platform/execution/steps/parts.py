"""What dispatch is made of, and how a change of the ledger wakes whom it concerns."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog
from hivemesh_sdk.clock import Clock

from hivemesh_platform.artifacts.ports import ArtifactStore
from hivemesh_platform.artifacts.trees import Trees
from hivemesh_platform.execution.held import HeldStep, HeldSteps
from hivemesh_platform.execution.ledger.counters import ExecutionCounters
from hivemesh_platform.execution.ledger.port import Claim, Effects, Ledger, milliseconds
from hivemesh_platform.execution.ledger.signals import RunSignals, Signal
from hivemesh_platform.execution.ports import Placement, StepTransport
from hivemesh_platform.execution.rights.secrets import SecretGate
from hivemesh_platform.execution.rights.tickets import TicketMint
from hivemesh_platform.execution.steps.ends import Ends
from hivemesh_platform.execution.wakes import Wakes
from hivemesh_platform.settings import ExecutionSettings
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.errors import StorageFullError
from hivemesh_platform.storage.transaction import Transaction

T = TypeVar("T")

LONGEST_DELAY_S = 7 * 86_400.0  # that a row is put off: a worker may answer any number
FULL_S = 5.0  # before what found the disk full is written again

_log = structlog.get_logger("hivemesh.execution")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What dispatch is made of."""

    database: Database
    ledger: Ledger
    artifacts: ArtifactStore
    trees: Trees
    placement: Placement
    transport: StepTransport
    tickets: TicketMint
    secrets: SecretGate
    settings: ExecutionSettings
    clock: Clock
    held: HeldSteps
    wakes: Wakes
    work: Signal  # there may be rows to claim
    runs: RunSignals
    ends: Ends
    counters: ExecutionCounters
    has_others: Callable[[], bool]  # whether other replicas live

    def now(self) -> int:
        """Wall time as the ledger writes it."""
        return milliseconds(self.clock)

    def after(self, delay_s: float) -> int:
        """Wall time so many seconds from now; what is no length of time is none."""
        delay_s = min(delay_s, LONGEST_DELAY_S) if delay_s > 0.0 else 0.0
        return self.now() + round(delay_s * 1000)

    async def surely(self, work: Callable[[Transaction], T]) -> T:
        """Write as soon as there is space: a row whose attempt has ended must not stay held."""
        return await self.with_space(lambda: self.database.write(work))

    async def with_space(self, store: Callable[[], Awaitable[T]]) -> T:
        """Do something repeatable as soon as there is space for it."""
        while True:
            try:
                return await store()
            except StorageFullError as error:
                self.counters.pauses += 1
                _log.error("storage_full", detail=error.detail)
                await asyncio.sleep(FULL_S)

    def end_rights(self, step: HeldStep) -> None:
        """Its worker has said its last: it may ask for nothing more, and loses what it was lent."""
        if not step.over:
            self.held.end_rights(step)
            self.secrets.step_ended(str(step.claim.key), step.claim.fence.attempt)

    def wake(self, claim: Claim, effects: Effects) -> None:
        """Wake those who wait for what a row's change has set free or ended."""
        self.wakes.tell(claim.key.run, effects, claim.key)
        if claim.limited:  # its slot was free at the answer, but only now its limit has room
            self.work.give()
