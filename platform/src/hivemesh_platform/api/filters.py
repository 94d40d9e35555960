"""Which runs and jobs a list is of: the query parameters, read once for all lists."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import Depends, Query
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.errors import InvalidError

from hivemesh_platform.execution.jobs.batches import ends_of
from hivemesh_platform.execution.ledger.batch_sql import Ends
from hivemesh_platform.execution.runs.subjects import Filters

Text = Annotated[str, Query(max_length=200)]


class ListFilters:
    """The filters as they came."""

    def __init__(  # noqa: PLR0913, PLR0917 - one parameter a filter
        self,
        state: Annotated[RunState | None, Query()] = None,
        name: Text = "",
        capability: Text = "",
        pipeline: Text = "",
        since: Text = "",
        label: Text = "",
        submitter: Text = "",
        batch: Text = "",
    ) -> None:
        self._state = "" if state is None else state.value
        self._capability = capability
        self._pipeline = pipeline
        self._name = name
        self._since = since
        self._label = label
        self._submitter = submitter
        self._batch = batch

    def of(self, kind: Literal["", "pipeline", "capability"] = "") -> Filters:
        """The filters, of runs or jobs alone where `kind` says so.

        Raises:
            InvalidError: a time or label is none.
            NotFoundError: this is no id of a batch.
        """
        ends = ends_of(self._batch) if self._batch else Ends("", "")
        if self._capability:
            kind = "capability"
        elif self._pipeline:
            kind = "pipeline"
        label, equals, value = self._label.partition("=")
        if self._label and not equals:
            message = f"a label is written NAME=VALUE, not {self._label!r}"
            raise InvalidError(message)
        return Filters(
            kind=kind,
            state=self._state,
            name=self._capability or self._pipeline or self._name,
            since=_milliseconds(self._since),
            label=label,
            label_value=value,
            submitter=self._submitter,
            batch=(ends.first, ends.last),
        )


Filtered = Annotated[ListFilters, Depends()]


def _milliseconds(text: str) -> int:
    """A time in ISO 8601, in UTC where it names no zone."""
    if not text:
        return 0
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{text!r} is no time; write it as 2026-01-31T12:00:00Z"
        raise InvalidError(message) from error
    at = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
