"""A worker process and a fake platform for ordinary (not asynchronous) tests.

The fake platform lives on a loop in a thread of its own, so that a test written by anybody, with
any settings of pytest, calls it like a function.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from hivemesh_sdk.contracts.artifacts import Artifact
from hivemesh_sdk.contracts.manifest import Capability, Manifest
from hivemesh_sdk.contracts.steps import ExecutionStatus, WorkerStatus
from hivemesh_sdk.safeio.documents import load_manifest
from hivemesh_sdk.testing.fake_platform import FakePlatform, Member
from hivemesh_sdk.testing.instance import InstanceUnderTest, Outcome, Page, Step
from hivemesh_sdk.testing.process import WorkerProcess
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Response
from hivemesh_sdk.trust.identity import SpiffeId

T = TypeVar("T")
Condition = Callable[[WorkerStatus], bool]

START_S = 60.0  # a cold import of a model on a busy machine
CALL_S = 120.0


class Loop:
    """An event loop in a thread."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-platform")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T], *, within_s: float = CALL_S) -> T:
        """Run a coroutine there and wait for its answer."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within_s)


class WorkerHarness:
    """One worker process that has joined one fake platform."""

    def __init__(
        self,
        folder: Path,
        *,
        command: Sequence[str] | None = None,
        variables: dict[str, str] | None = None,
        lifetime: timedelta = timedelta(hours=1),
        honest: bool = True,
    ) -> None:
        self.folder = folder
        self.manifest: Manifest = load_manifest(folder / "plugin.yaml")
        self._command = list(command or WorkerProcess.command(folder))
        self._variables = variables or {}
        self._lifetime = lifetime
        self._honest = honest
        self._stack = ExitStack()
        self._keys = 0
        self.platform: FakePlatform
        self.process: WorkerProcess
        self.member: Member

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._loop = stack.enter_context(Loop())
            self.platform = FakePlatform(lifetime=self._lifetime)
            self.run(self.platform.__aenter__())
            stack.callback(lambda: self.run(self.platform.__aexit__(None, None, None)))
            token = self.platform.new_token()
            if not self._honest:
                self.platform.withdraw(token)
            variables = {**self.platform.environment(), **self._variables}
            self.process = stack.enter_context(
                WorkerProcess(self._command, variables, token, cwd=self.folder)
            )
            self.member = self.run(self._joined(), within_s=START_S + 5)
            self._instance = self._instance_as(self.platform.client)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(self, work: Coroutine[Any, Any, T], *, within_s: float = CALL_S) -> T:
        """Run a coroutine on the fake platform's loop."""
        return self._loop.run(work, within_s=within_s)

    def key(self) -> str:
        """A step key that was not used before."""
        self._keys += 1
        return f"run_conformance.node.{self._keys}"

    def capability(self, name: str) -> Capability:
        """A capability of the manifest."""
        found = self.manifest.capability(name)
        assert found is not None, f"{name} is not in plugin.yaml"
        return found

    def put_path(self, path: Path) -> Artifact:
        """Hold a file or folder as an artifact."""
        return self.platform.put_path(path)

    def put(
        self,
        key: str,
        step: Step,
        *,
        wait_s: float = 20.0,
        acknowledge: Sequence[tuple[str, int]] = (),
    ) -> Page:
        """Create a step and take its first page; acknowledges others by key and attempt."""
        work = self._instance.put(key, step, wait_s=wait_s, acknowledge=acknowledge)
        return self.run(work)

    def events(
        self, key: str, execution: str, *, after: int, epoch: int = 1, wait_s: float = 20.0
    ) -> Page:
        """Take the next page."""
        work = self._instance.events(key, execution, after=after, epoch=epoch, wait_s=wait_s)
        return self.run(work)

    def complete(self, key: str, step: Step) -> Outcome:
        """Run a step to its end."""
        return self.run(self._instance.run(key, step))

    def delete(self, key: str, *, attempt: int = 1) -> Response:
        """Cancel or forget a step."""
        return self.run(self._instance.delete(key, attempt=attempt))

    def forget(self, key: str, *, attempt: int = 1) -> None:
        """Cancel a step if it runs, and have the worker forget it."""
        while self.delete(key, attempt=attempt).status == 202:
            pass  # a running one is ended by the first call and forgotten by the next

    def status(self) -> WorkerStatus:
        """What the worker says of itself."""
        return self.run(self._instance.status())

    def step(self, key: str) -> ExecutionStatus | None:
        """The state of one step."""
        return self.run(self._instance.step(key))

    def ticket(self, key: str, step: Step) -> str:
        """The ticket of a step, for a request that is written by hand."""
        return self.platform.tickets.for_request(self.member.peer.id, key, step.request)

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        """Send anything; underscores in header names become hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.run(self._instance.request(method, path, headers=named, body=body))

    def request_as(self, identity: SpiffeId, method: str, path: str, body: bytes = b"") -> Response:
        """Send anything with another identity of the same installation."""
        return self.run(self._request_as(identity, method, path, body))

    def until(self, condition: Condition, *, within_s: float = 60.0) -> None:
        """Wait until a condition on the worker's status holds; asks about ten times a second."""
        self.run(self._until(condition), within_s=within_s)

    def until_idle(self, capability: str) -> None:
        """Wait until no slot of the capability is taken."""
        self.until(lambda status: status.slots[capability].active == 0)

    def forget_and_wait(self, instance: str) -> None:
        """Have the fake platform lose a registration and wait until it is there again."""
        self.run(self._forget_and_wait(instance), within_s=65.0)

    def wait_for(self, condition: Callable[[FakePlatform], bool], *, within_s: float = 60) -> None:
        """Wait until a condition on the fake platform holds; looked at with each message to it."""
        self.run(self._wait_for(condition, within_s), within_s=within_s + 5)

    async def _forget_and_wait(self, instance: str) -> None:
        self.platform.forget(instance)
        await self._wait_for(
            lambda platform: (
                instance in platform.members and bool(platform.members[instance].heartbeats)
            ),
            60.0,
        )

    async def _wait_for(self, condition: Callable[[FakePlatform], bool], within_s: float) -> None:
        async with asyncio.timeout(within_s), self.platform.changed:
            await self.platform.changed.wait_for(lambda: condition(self.platform))

    async def _request_as(
        self, identity: SpiffeId, method: str, path: str, body: bytes
    ) -> Response:
        async with MeshClient(self.platform.ca.source(identity)) as client:
            return await self._instance_as(client).request(method, path, body=body)

    def _instance_as(self, client: MeshClient) -> InstanceUnderTest:
        member = self.member
        return InstanceUnderTest(client, member.target, member.peer.id, self.platform.tickets)

    async def _joined(self) -> Member:
        try:
            async with asyncio.timeout(START_S):
                while not self.platform.members:
                    await self._change()
        except TimeoutError as error:
            message = f"the worker did not join within {START_S:.0f} s:\n{self.process.log()}"
            raise AssertionError(message) from error
        return next(iter(self.platform.members.values()))

    async def _change(self) -> None:
        if not self.process.running:
            message = f"the worker ended at its start:\n{self.process.log()}"
            raise AssertionError(message)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5), self.platform.changed:
                await self.platform.changed.wait()

    async def _until(self, condition: Condition) -> None:
        while not condition(await self._instance.status()):  # noqa: ASYNC110 - a status is asked for, nobody tells it
            await asyncio.sleep(0.1)
