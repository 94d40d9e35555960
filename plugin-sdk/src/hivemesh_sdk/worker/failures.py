"""Turns what the author's code raised into the problem that the platform acts on."""

import traceback
from collections.abc import Iterator
from contextlib import suppress

from hivemesh_sdk.contracts.problems import FieldProblem, Problem, problem
from hivemesh_sdk.errors import (
    FatalError,
    HivemeshError,
    RemoteError,
    RetryableError,
    SkippedError,
)
from hivemesh_sdk.redaction import REDACTOR
from hivemesh_sdk.worker.texts import said

_MAX_DETAIL = 2000
_MAX_CHAIN = 100  # exceptions of which one stack trace tells


class StepCancelledError(Exception):
    """The step is not wanted any more; raised where it next gives or asks something."""


def problem_of(error: BaseException, *, request_id: str = "") -> Problem:
    """The problem document of an exception.

    Retryable are `RetryableError` and everything that is none of ours: such an error may come
    from a full disk or a broken connection, and the ledger counts the attempts.
    """
    if isinstance(error, StepCancelledError):
        return problem("cancelled", request_id=request_id)
    if isinstance(error, RemoteError):
        return error.document
    if isinstance(error, HivemeshError):
        with suppress(AttributeError, KeyError):  # else a class or a slug of the author's own
            return _of_ours(error, request_id)
    detail = f"{type(error).__name__}: {said(error, _MAX_DETAIL)}"
    return problem(
        "step-failed",
        detail[:_MAX_DETAIL],
        request_id=request_id,
        retryable=_retryable(error),
    )


def trace_of(error: BaseException, *, withheld: bool) -> str:
    """The stack trace for the worker's log; where `withheld`, types and frames without messages."""
    lines = _bare(error) if withheld else traceback.format_exception(error)
    return "".join(lines).rstrip()


class SecretCheck:
    """`refuse_secrets` for bytes that come in pieces: a secret may lie across two of them."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._before = b""

    def pass_on(self, piece: bytes) -> None:
        """Look at the next piece; raises what `refuse_secrets` does."""
        if REDACTOR.seeks_any:
            joined = self._before + piece
            refuse_secrets(joined, self._what)
            self._before = joined[-REDACTOR.longest :]


def refuse_secrets(data: bytes, what: str) -> None:
    """Keep what holds a secret inside: an answer is stored, shown and passed on.

    Raises:
        FatalError: the bytes hold a secret that was lent to a step of this process.
    """
    if REDACTOR.seeks_any and REDACTOR.finds(data):
        message = f"{what} holds a secret that the step was lent"
        raise FatalError(message, slug="secret-in-answer")


def _bare(error: BaseException) -> Iterator[str]:
    """Types and frames of an exception, after those of its causes and its members."""
    found: dict[int, BaseException] = {}
    left: list[BaseException | None] = [error]
    while left and len(found) < _MAX_CHAIN:
        one = left.pop()
        if one is None or id(one) in found:
            continue
        found[id(one)] = one
        left.append(one.__cause__ or (None if one.__suppress_context__ else one.__context__))
        left += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
    for one in reversed(found.values()):
        yield from traceback.format_tb(one.__traceback__)
        yield f"{type(one).__qualname__}: (message withheld)\n"


def _of_ours(error: HivemeshError, request_id: str) -> Problem:
    errors = [
        FieldProblem(
            pointer=said(one.pointer, _MAX_DETAIL),
            message=said(one.message, _MAX_DETAIL),
            code=one.code,
        )
        for one in error.errors
    ]
    return problem(
        error.slug,
        said(error.detail, _MAX_DETAIL),
        errors=errors,
        request_id=request_id,
        retry_after_s=error.retry_after_s,
        retryable=_retryable(error),
    )


def _retryable(error: BaseException) -> bool | None:
    if isinstance(error, RetryableError):
        return True
    return False if isinstance(error, FatalError | SkippedError) else None
