"""Turns what the author's code raised into the problem that the platform acts on."""

from hivemesh_sdk.contracts.problems import Problem, problem
from hivemesh_sdk.errors import (
    FatalError,
    HivemeshError,
    RemoteError,
    RetryableError,
    SkippedError,
)

_MAX_DETAIL = 2000


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
        return problem(
            error.slug,
            error.detail[:_MAX_DETAIL],
            errors=error.errors,
            request_id=request_id,
            retry_after_s=error.retry_after_s,
            retryable=_retryable(error),
        )
    detail = f"{type(error).__name__}: {error}"[:_MAX_DETAIL]
    return problem("step-failed", detail, request_id=request_id)


def _retryable(error: HivemeshError) -> bool | None:
    if isinstance(error, RetryableError):
        return True
    return False if isinstance(error, FatalError | SkippedError) else None
