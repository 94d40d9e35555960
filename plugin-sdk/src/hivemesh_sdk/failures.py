"""Turns errors into what a person sees: one line, why, the fix, and a documented exit code.

Both commands, `hivemesh` and `hivemesh-worker`, speak through it.
"""

import os
import sys
from collections.abc import Callable, Iterator
from errno import EDQUOT, ENOSPC

import msgspec

from hivemesh_sdk.contracts.problems import Problem, problem
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.redaction import REDACTOR

OK, FAILURE, USAGE, NOT_FOUND, DENIED, CONFLICT, INCOMPLETE, UNAVAILABLE = range(8)
INTERRUPTED, UNREAD = 130, 141

_BY_STATUS = {
    400: USAGE,
    401: DENIED,
    403: DENIED,
    404: NOT_FOUND,
    409: CONFLICT,
    422: USAGE,
    429: UNAVAILABLE,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: INCOMPLETE,
}


def guarded(command: Callable[[], int], *, as_json: bool, trace: bool) -> int:
    """Run a command and answer with its exit code; only `-vv` shows a stack trace."""
    try:
        code = command()
        sys.stdout.flush()  # what cannot be written is known here, not when the process ends
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD  # as a tool that SIGPIPE ends: the reader has seen enough
    except Exception as error:
        if trace:
            raise
        return show(document_of(error), as_json=as_json)
    return code


def document_of(error: Exception) -> Problem:
    """The problem document of any error."""
    if isinstance(error, HivemeshError):
        return error.problem()
    if isinstance(error, OSError) and error.filename:
        return problem("file-unreadable", f"{error.filename!r}: {(error.strerror or '').lower()}")
    if isinstance(error, OSError) and error.errno in {ENOSPC, EDQUOT}:
        return problem("output-unwritable", str(error.strerror).lower())
    return problem("internal", f"{type(error).__name__}: {error}; add -vv for the stack trace")


def show(document: Problem, *, as_json: bool) -> int:
    """Print a problem in words (and as JSON where asked) and answer with its exit code."""
    if as_json:
        _print(msgspec.json.encode(document).decode() + "\n")
    lines = [f"error[{document.code}]: {document.title}"]
    lines.extend(_causes(document))
    if document.remedy:
        lines.append(f"fix: {document.remedy}")
    lines.append(f"docs: docs/reference/errors.md#{document.code.lower()}")
    if document.request_id:
        lines.append(f"request: {document.request_id}")
    sys.stderr.write(REDACTOR.masked("\n".join(lines)) + "\n")
    return _BY_STATUS.get(document.status, FAILURE)


def _causes(document: Problem) -> Iterator[str]:
    """Say each thing that is wrong once: a detail may repeat, or end with, what the places say."""
    wrong = [one for one in document.errors if one.message != document.detail]
    places = [f"{one.pointer or '/'}: {one.message}" for one in wrong]
    said = document.detail
    if places:
        said = said.removesuffix("; ".join(places)).rstrip(": ")
    place = next((one.pointer for one in document.errors if one.message == said), "")
    if said:
        yield f"why: {place}: {said}" if place else f"why: {said}"
    yield from (f"  at {place}" for place in places)


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:  # standard error says it, and the exit code
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
