"""Says of a name that is not found which command lists the others, and which of them are near."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

import msgspec
from hivemesh_sdk.contracts.problems import CATALOGUE, Problem
from hivemesh_sdk.errors import HivemeshError

from hivemesh_platform.cli import session

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client

NAMES: "dict[str, Callable[[Client], list[str]]]" = {
    "worker": lambda client: [one.name for one in client.workers()],
    "capability": lambda client: [one.id for one in client.capabilities()],
    "pipeline": lambda client: [one.name for one in client.pipelines()],
    "run": lambda client: [one.id for one in client.runs(limit=100)],
    "job": lambda client: [one.id for one in client.jobs(limit=100)],
    "dataset": lambda client: [one.name for one in client.datasets()],
    "dead-letter": lambda client: [one.id for one in client.dead_letters(limit=100)],
    "secret": lambda client: [one.path for one in client.secrets()],
    "job batch": lambda client: [one.id for one in client.batches(limit=100)],
    "limit": lambda client: [one.target for one in client.limits()],
    "auth role": lambda client: [one.name for one in client.roles()],
    "auth group": lambda client: [one.name for one in client.groups()],
    "token": lambda client: [one.id for one in client.api_tokens()],
    "worker credential": lambda client: [one.id for one in client.credentials()],
}
_NOT_FOUND = CATALOGUE["not-found"].code
_ABSENT = {_NOT_FOUND, CATALOGUE["secret-missing"].code}
_UNKNOWN_CAPABILITY = CATALOGUE["unknown-capability"].code


def with_near(document: Problem, words: Sequence[str]) -> Problem:
    """Add the names near the one in the command line that the problem calls absent."""
    kind = _kind(document.code, words)
    wanted = next((word for word in words[1:] if repr(word) in document.detail), "")
    if not kind or not wanted:
        return document
    names = list(dict.fromkeys(_names(kind)))
    if wanted in names:
        return document  # it is there, and something of it is not
    near = get_close_matches(wanted, names, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return msgspec.structs.replace(document, remedy=hint + _lists(document, kind))


def _lists(document: Problem, kind: str) -> str:
    """The remedy of the platform; of a run it cannot know whether a job was meant."""
    if document.code == _NOT_FOUND:
        return f"`hivemesh {kind} list` shows those that you may see"
    return document.remedy


def _kind(code: str, words: Sequence[str]) -> str:
    """The group of commands whose list has the name; empty where none has."""
    if code == _UNKNOWN_CAPABILITY:
        return "capability"
    return words[0] if code in _ABSENT and words and words[0] in NAMES else ""


def _names(kind: str) -> list[str]:
    try:
        with session.again(timeout_s=2) as client:
            return NAMES[kind](client)
    except HivemeshError:
        return []  # the error that is shown is the first one
