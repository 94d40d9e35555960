"""What a capability may ask of its surroundings while it runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import msgspec

from hivemesh_sdk.contracts.artifacts import Artifact, Tree
from hivemesh_sdk.contracts.submits import SubmitHow
from hivemesh_sdk.worker.codec import encode
from hivemesh_sdk.worker.http import NO_HTTP, Http
from hivemesh_sdk.worker.questions import NO_CALLS, Question, StepCalls, encoded_options
from hivemesh_sdk.worker.secrets import NO_VAULT, Secrets, Vault

_EFFECTS = "5f0c1a52-7d0c-5b1e-9a43-6d2f4f1f9e77"  # namespace of `key_for`


class ArtifactReader(Protocol):
    """A forward reader of an artifact; the next block is fetched while this one is used."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, all that is left where it is negative, b"" at the end."""
        ...

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """Fill the buffer as far as possible and return the count, 0 at the end."""
        ...

    def close(self) -> None:
        """Give up the rest."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *failure: object) -> None: ...


class Artifacts(Protocol):
    """Bytes by reference: read what the step was given, store what it makes."""

    def open(self, reference: Artifact, offset: int = 0) -> ArtifactReader:
        """Read from `offset` on; what is read from 0 to the end is checked against its digest.

        Raises:
            RetryableError: the bytes are not there or are damaged.
        """
        ...

    def size(self, reference: Artifact) -> int:
        """The number of bytes."""
        ...

    def tree(self, reference: Artifact | Tree) -> dict[str, Artifact]:
        """The files of a directory: relative path to artifact, in order of the paths."""
        ...

    def put(
        self,
        data: bytes | BinaryIO,
        *,
        media_type: str = "application/octet-stream",
        name: str | None = None,
    ) -> Artifact:
        """Store bytes and return the reference; storing the same bytes again costs nothing.

        Raises:
            RetryableError: the platform does not take them at the moment.
        """
        ...


class Log(Protocol):
    """The capability's own log: an event name and fields, shown with the run."""

    def debug(self, event: str, **fields: object) -> None: ...

    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...

    def error(self, event: str, **fields: object) -> None: ...


class StepPort(Protocol):
    """What stands behind a context: the channel of an executor, the second loop, or a test."""

    def cancelled(self) -> bool: ...

    def progress(self, done: int, total: int, unit: str) -> None: ...

    def log(self, level: str, event: str, fields: Mapping[str, object]) -> None: ...

    def remaining_s(self) -> float | None: ...


class Context:
    """The surroundings of one execution of one step."""

    __slots__ = (
        "_calls",
        "_port",
        "_scratch",
        "artifacts",
        "capability",
        "http",
        "key",
        "log",
        "scratch_used",
        "secrets",
    )

    def __init__(  # noqa: PLR0913 - keyword-only parts of one execution
        self,
        *,
        key: str,
        capability: str,
        scratch: Path | str,
        artifacts: Artifacts,
        port: StepPort,
        vault: Vault = NO_VAULT,
        http: Http = NO_HTTP,
        calls: StepCalls = NO_CALLS,
    ) -> None:
        self.key = key  # the same for every attempt: use it to make effects idempotent
        self.capability = capability
        self.artifacts = artifacts
        self.http = http  # requests to the outside, limited to the manifest's egress
        self.secrets = Secrets(vault)
        self.log: Log = StepLog(port)
        self._calls = calls
        self._port = port
        self._scratch = scratch
        self.scratch_used = False

    @property
    def scratch(self) -> Path:
        """A folder of this execution alone, removed afterwards."""
        folder = Path(self._scratch)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.scratch_used = True
        return folder

    def key_for(self, effect: str) -> str:
        """A key for one effect of this step, the same for every attempt: hand it to whoever does it.

        A UUID, as payment services, mailers and unique columns take it.
        """
        import uuid  # noqa: PLC0415 - most executors never need it

        return str(uuid.uuid5(uuid.UUID(_EFFECTS), f"{self.key}\n{effect}"))

    @property
    def cancelled(self) -> bool:
        """Whether to stop: ask now and then in a long computation, and return early."""
        return self._port.cancelled()

    @property
    def deadline(self) -> float | None:
        """Seconds that are left, or None where there is no deadline."""
        return self._port.remaining_s()

    def call(
        self,
        capability: str,
        document: object = None,
        options: Mapping[str, object] | None = None,
        *,
        name: str = "",
    ) -> Any:
        """Ask another worker and wait: the answer as `json.loads` gives it.

        The manifest lists the capability under `permissions.call`. The same question gives the
        same answer for as long as the step is tried; `name` tells questions apart that are alike.

        Raises:
            RemoteError: it was refused, or ended with a problem.
        """
        question = Question(capability, encode(document), encoded_options(options), name)
        return msgspec.json.decode(self._calls.call(question))

    async def call_async(
        self,
        capability: str,
        document: object = None,
        options: Mapping[str, object] | None = None,
        *,
        name: str = "",
    ) -> Any:
        """The same in an `async def` capability."""
        question = Question(capability, encode(document), encoded_options(options), name)
        return msgspec.json.decode(await self._calls.call_async(question))

    def submit(  # noqa: PLR0913 - what may be said of a job
        self,
        capability: str,
        document: object = None,
        options: Mapping[str, object] | None = None,
        *,
        name: str = "",
        priority: int | None = None,
        labels: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
    ) -> str:
        """Have a job started and go on: its id, as `hivemesh job show` takes it.

        A pipeline is started as `pipeline/NAME@VERSION` with its parameters as options. The manifest
        lists what is started under `permissions.call`. The work is done on the step's behalf and
        outlives it. However often the step is tried, the same request is one job; `name` tells
        requests apart that are alike.

        Raises:
            RemoteError: it was refused.
        """
        how = _how(priority, labels, deadline_s)
        question = _submit(capability, document, options, name, how)
        return str(msgspec.json.decode(self._calls.call(question)))

    async def submit_async(  # noqa: PLR0913 - as above
        self,
        capability: str,
        document: object = None,
        options: Mapping[str, object] | None = None,
        *,
        name: str = "",
        priority: int | None = None,
        labels: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
    ) -> str:
        """The same in an `async def` capability."""
        how = _how(priority, labels, deadline_s)
        question = _submit(capability, document, options, name, how)
        return str(msgspec.json.decode(await self._calls.call_async(question)))

    def progress(self, done: int, total: int = 0, unit: str = "records") -> None:
        """Tell how far the step is; `total` is 0 where it is not known."""
        self._port.progress(done, total, unit)


def _submit(
    capability: str,
    document: object,
    options: Mapping[str, object] | None,
    name: str,
    how: bytes,
) -> Question:
    given = encoded_options(options)
    return Question(capability, encode(document), given, name, submit=True, how=how)


def _how(priority: int | None, labels: Mapping[str, str] | None, deadline_s: float | None) -> bytes:
    """What is said beside the input, in one form; nothing where nothing is said."""
    found = SubmitHow(priority=priority, labels=dict(labels or {}), deadline_s=deadline_s)
    return b"" if found == SubmitHow() else msgspec.json.encode(found, order="sorted")


class StepLog:
    """Sends the lines of a capability's log through the port of its step."""

    __slots__ = ("_port",)

    def __init__(self, port: StepPort) -> None:
        self._port = port

    def debug(self, event: str, **fields: object) -> None:
        """For whoever looks for a fault in the worker."""
        self._port.log("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Normal work, now and then."""
        self._port.log("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Someone should look."""
        self._port.log("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Work was lost."""
        self._port.log("error", event, fields)
