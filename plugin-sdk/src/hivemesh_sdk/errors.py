"""Errors that carry the decision: repeat it, give up, skip it, or mend the configuration.

A worker's author raises these; the platform acts on their class, never on their text.
"""

from collections.abc import Sequence
from math import isnan

from hivemesh_sdk.contracts.problems import FieldProblem, Problem, problem

MAX_DELAY_S = 7 * 24 * 3600.0  # that whoever fails may ask to be left alone


class HivemeshError(Exception):
    """Base of every error of ours: `slug` names its row in the catalogue of problems.

    A raiser that knows better than the catalogue what to do says it in `remedy`.
    """

    slug = "internal"

    def __init__(
        self,
        detail: str = "",
        *,
        slug: str | None = None,
        remedy: str = "",
        errors: Sequence[FieldProblem] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s
        if slug is not None:
            self.slug = slug

    def problem(self, *, instance: str = "", request_id: str = "") -> Problem:
        """The problem document that people and programs see."""
        return problem(
            self.slug,
            self.detail,
            remedy=self.remedy,
            errors=self.errors,
            instance=instance,
            request_id=request_id,
            retry_after_s=self.retry_after_s,
        )


class RetryableError(HivemeshError):
    """It may work later; `delay_s` is the least time to wait, if the raiser knows it.

    It is kept within 0 and 7 days.

    Raises:
        TypeError: `delay_s` is no number.
        ValueError: it is not a number (NaN).
    """

    slug = "step-failed"

    def __init__(
        self, detail: str = "", *, delay_s: float | None = None, slug: str | None = None
    ) -> None:
        self.delay_s = None if delay_s is None else _within(delay_s)
        super().__init__(detail, slug=slug, retry_after_s=self.delay_s)


def _within(delay_s: float) -> float:
    if isnan(delay_s):
        message = "delay_s is not a number; give seconds, or leave it out"
        raise ValueError(message)
    return min(max(delay_s, 0.0), MAX_DELAY_S)


class FatalError(HivemeshError):
    """It will never work with this input; retries are useless."""

    slug = "step-fatal"


class SkippedError(HivemeshError):
    """There is nothing to do for this input; the step counts as skipped, not as failed."""

    slug = "skipped"


class ConfigurationError(HivemeshError):
    """An option or setting is wrong; `errors` point at it."""

    slug = "configuration"


class NotFoundError(FatalError):
    """No such object, or it is not visible to the caller."""

    slug = "not-found"


class ConflictError(FatalError):
    """The object is in a state that does not allow this."""

    slug = "conflict"


class InvalidError(FatalError):
    """What was sent does not have the right shape; `errors` point at it."""

    slug = "invalid"


class NotAuthorizedError(FatalError):
    """The caller may not do this."""

    slug = "not-authorized"


class RemoteError(HivemeshError):
    """Another party answered with a problem document, kept in `document`."""

    def __init__(self, document: Problem) -> None:
        super().__init__(document.detail or document.title)
        self.document = document

    def problem(self, *, instance: str = "", request_id: str = "") -> Problem:
        """The document as it was received."""
        return self.document
