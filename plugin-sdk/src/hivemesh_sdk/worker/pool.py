"""The executors of this worker: starts them, gives them steps, watches them, ends them.

An executor is a fresh interpreter with one socket to this process, a clean environment and its
own process group. Whatever it does, this loop goes on answering.
"""

import shutil
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress

import psutil

from hivemesh_sdk.contracts.steps import StepRequest
from hivemesh_sdk.errors import RetryableError
from hivemesh_sdk.worker.execution import Control, Execution
from hivemesh_sdk.worker.executor_process import Executor, ExecutorSettings
from hivemesh_sdk.worker.platform import ArtifactService

DEADLY_KEPT = 1024  # keys of steps that have killed an executor

Bodies = Sequence[bytes | None]


class ExecutorPool:
    """Executors for all process capabilities; the table's slots bound how many there are."""

    def __init__(self, settings: ExecutorSettings, artifacts: ArtifactService) -> None:
        self._settings = settings
        self._artifacts = artifacts
        self._executors: set[Executor] = set()
        self._idle: list[Executor] = []
        self._deadly: OrderedDict[str, None] = OrderedDict()
        self._stopping = False
        self.crashes = 0
        self.memory_kills = 0

    def start(self, execution: Execution, request: StepRequest, bodies: Bodies) -> Control:
        """Give the execution to an idle executor, the last one that ran its capability first.

        What may kill it (it has done so here, or is part of a batch that has) takes none that
        others would miss.
        """
        apart = execution.key in self._deadly or request.limits.lines is not None
        executor = self._take(execution.capability, apart=apart)
        if executor is None:
            executor = self._spawn()
            executor.apart = apart
        executor.begin(execution, request, bodies)
        return executor

    def warm(self) -> None:
        """Start one executor before it is needed."""
        if not self._executors:
            self._idle.append(self._spawn())

    def watch(self) -> None:
        """Kill the largest executor where all together hold more memory than the manifest allows."""
        total = self.rss()
        if not self._executors or total <= self._settings.memory_bytes:
            return
        largest = max(self._executors, key=Executor.rss)
        megabytes = self._settings.memory_bytes >> 20
        self.memory_kills += 1
        largest.kill(f"the worker held {total >> 20} MiB, its manifest allows {megabytes} MiB")

    def rss(self) -> int:
        """Resident bytes of this process and its executors."""
        own = int(psutil.Process().memory_info().rss)
        return own + sum(executor.rss() for executor in self._executors)

    @property
    def processes(self) -> int:
        """How many executors there are."""
        return len(self._executors)

    async def close(self) -> None:
        """End every executor and wait until it is gone."""
        self._stopping = True
        executors = tuple(self._executors)
        for executor in executors:
            executor.kill("the worker stops")
        for executor in executors:
            await executor.gone.wait()
        shutil.rmtree(self._settings.scratch, ignore_errors=True)

    def executor_idle(self, executor: Executor) -> None:
        """An executor has ended its step."""
        self._idle.append(executor)

    def executor_gone(self, executor: Executor, *, crashed: bool, was_ready: bool) -> None:
        """An executor has ended; one that had computed, and that others may wait for, is replaced."""
        self._executors.discard(executor)
        if executor in self._idle:
            self._idle.remove(executor)
        if crashed:
            self.crashes += 1
            self._deadly[executor.last_key] = None
            if len(self._deadly) > DEADLY_KEPT:
                self._deadly.popitem(last=False)
        if not executor.last_capability or self._stopping:
            return
        with suppress(RetryableError):  # the next step tries again
            if crashed and not executor.apart:  # its last words may be lost: ready or not
                self._idle.append(self._spawn())
            elif was_ready:
                self.warm()

    def _take(self, capability: str, *, apart: bool) -> Executor | None:
        """An idle executor: its own capability's first, one that is set apart last."""
        found = [one for one in self._idle if one.apart] if apart else self._idle
        if not found:
            return None
        chosen = max(
            reversed(found), key=lambda one: (not one.apart, one.last_capability == capability)
        )
        self._idle.remove(chosen)
        return chosen

    def _spawn(self) -> Executor:
        executor = Executor(self._settings, self._artifacts, self)
        try:
            executor.spawn()
        except OSError as error:
            message = f"no executor can be started: {error.strerror}"
            raise RetryableError(message) from error
        self._executors.add(executor)
        return executor
