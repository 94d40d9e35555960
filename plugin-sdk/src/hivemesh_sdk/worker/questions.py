"""Questions of a step to other workers, as the author's code asks them. Needs no network: see `calls`."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from hivemesh_sdk.contracts.names import CALL_NAME
from hivemesh_sdk.errors import ConfigurationError


class Question(NamedTuple):
    """What is asked of another worker; `document` and `options` are JSON."""

    capability: str
    document: bytes
    options: bytes
    name: str = ""  # the end of the key; made of the question where it is empty
    submit: bool = False  # the platform starts a job; nobody waits for what it gives
    how: bytes = b""  # the JSON of a `SubmitHow`, where one was given


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


def name_of(question: Question, prefix: str) -> str:
    """The end of the key: as it was given, or the same for the same question.

    Raises:
        ConfigurationError: what was given is no name.
    """
    if not question.name:
        parts = [question.capability.encode(), question.options, question.document]
        if question.how:
            parts.append(question.how)
        return f"{prefix}-{hashlib.sha256(bytes(1).join(parts)).hexdigest()[:24]}"
    if not CALL_NAME.fullmatch(question.name):
        message = f"{question.name!r} is no name of a call; use up to 40 of a-z, 0-9, _ and -"
        raise ConfigurationError(message)
    return question.name


def encoded_options(options: Mapping[str, Any] | None) -> bytes:
    """The options of a call as JSON."""
    return msgspec.json.encode(options or {}, order="sorted")


def unavailable(capability: str) -> ConfigurationError:
    message = f"{capability!r} cannot be called here: calls need a platform that gives tickets"
    return ConfigurationError(message)
