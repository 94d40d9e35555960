"""Questions of a step to other workers, as the author's code asks them. Needs no network: see `calls`."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from hivemesh_sdk.errors import ConfigurationError


class Question(NamedTuple):
    """What is asked of another worker; `document` and `options` are JSON."""

    capability: str
    document: bytes
    options: bytes
    name: str = ""  # the end of the key; made of the question where it is empty


class StepCalls(Protocol):
    """What `Context.call` uses."""

    def call(self, question: Question) -> bytes:
        """Ask and wait; in an executor."""
        ...

    async def call_async(self, question: Question) -> bytes:
        """Ask and wait; on the second loop."""
        ...


class _NoCalls:
    """Where there is no platform that would give tickets."""

    def call(self, question: Question) -> bytes:
        raise unavailable(question.capability)

    async def call_async(self, question: Question) -> bytes:
        raise unavailable(question.capability)


NO_CALLS = _NoCalls()


def encoded_options(options: Mapping[str, Any] | None) -> bytes:
    """The options of a call as JSON."""
    return msgspec.json.encode(options or {}, order="sorted")


def unavailable(capability: str) -> ConfigurationError:
    message = f"{capability!r} cannot be called here: calls need a platform that gives tickets"
    return ConfigurationError(message)
