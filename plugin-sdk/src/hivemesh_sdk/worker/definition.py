"""The `Worker` object and its decorators: they collect what a worker can do and change nothing."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from hivemesh_sdk.contracts.names import CAPABILITY_ID
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.worker.records import State
from hivemesh_sdk.worker.signature import Kind, Signature, Where, introspect

F = TypeVar("F", bound=Callable[..., object])
S = TypeVar("S", bound=State)


@dataclass(frozen=True, slots=True)
class Definition:
    """One capability as the code defines it."""

    id: str
    kind: Kind
    run_in: Where
    target: Callable[..., object]

    def signature(self) -> Signature:
        """Types and parameters, read from the annotations.

        Raises:
            ConfigurationError: the signature is none of its kind.
        """
        signature = introspect(self.id, self.kind, self.target)
        if self.quick and "context" in signature.roles.values():
            message = (
                f"{self.id}: a plain function that runs inline takes no context, because nothing "
                "in it may wait; write `async def`, or use run_in='process'"
            )
            raise ConfigurationError(message)
        return signature

    @property
    def quick(self) -> bool:
        """Whether it is a plain function that runs inline, which promises to be quick."""
        return self.run_in == "inline" and not waits(self.target)


class Worker:
    """Collects the capabilities of one worker; `hivemesh-worker` finds it by the manifest."""

    def __init__(self) -> None:
        self._definitions: dict[str, Definition] = {}

    @property
    def capabilities(self) -> Mapping[str, Definition]:
        """What the decorators collected, by capability id."""
        return self._definitions

    def call(self, capability: str, *, run_in: Where | None = None) -> Callable[[F], F]:
        """`f(input, options, context) -> answer`."""
        return self._collector(capability, "call", run_in)

    def map(self, capability: str, *, run_in: Where | None = None) -> Callable[[F], F]:
        """`f(records, options, context) -> one answer or Rejected per record, by position`."""
        return self._collector(capability, "map", run_in)

    def source(self, capability: str, *, run_in: Where | None = None) -> Callable[[F], F]:
        """`f(options, start, context)` yields `(record or Rejected, checkpoint valid after it)`."""
        return self._collector(capability, "source", run_in)

    def reducer(self, capability: str) -> Callable[[type[S]], type[S]]:
        """A `State` with `add(records)`, `merge(other)` and `result(options)`."""
        return self._collector(capability, "reducer", "process")

    def declared_schemas(self) -> dict[str, dict[str, dict[str, object] | None]]:
        """JSON Schemas of input, output and options per capability, from the annotations."""
        return {name: one.signature().schemas() for name, one in self._definitions.items()}

    def _collector(self, capability: str, kind: Kind, run_in: Where | None) -> Callable[[F], F]:
        if not CAPABILITY_ID.fullmatch(capability):
            message = f"{capability!r} is no capability id; write it like email.parse@1"
            raise ConfigurationError(message)
        if capability in self._definitions:
            message = f"{capability!r} is defined twice"
            raise ConfigurationError(message)

        def collect(target: F) -> F:
            place = _place(capability, kind, target, run_in)
            self._definitions[capability] = Definition(capability, kind, place, target)
            return target

        return collect


def waits(target: Callable[..., object]) -> bool:
    """Whether it is an `async def`, which may wait."""
    return inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target)


def _place(
    capability: str, kind: Kind, target: Callable[..., object], run_in: Where | None
) -> Where:
    if waits(target):
        return run_in or "inline"
    if run_in == "inline" and kind != "call":
        message = (
            f"{capability!r} cannot run inline: of plain functions only a quick call can; "
            "write `async def`, or use run_in='process'"
        )
        raise ConfigurationError(message)
    return run_in or "process"
