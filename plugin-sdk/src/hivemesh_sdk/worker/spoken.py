"""What capabilities say, as lines of the worker's own log beside what the platform is told."""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from hivemesh_sdk.contracts.artifacts import DataClass, highest
from hivemesh_sdk.worker.access import Right

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_log = structlog.get_logger("hivemesh.capability")


class Speaker(Protocol):
    """The execution that says it."""

    key: str
    capability: str
    right: Right


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenLines:
    """Writes them; of data above `most` only that a line came, as the platform's log does."""

    made: Mapping[str, DataClass] = field(default_factory=dict)  # `data_class` by capability
    most: DataClass = DataClass.INTERNAL

    def write(
        self, speaker: Speaker, level: str, message: str, fields: Mapping[str, object]
    ) -> None:
        """Write one line; a full disk ends no step."""
        made = self.made.get(speaker.capability, DataClass.PUBLIC)
        touched = highest((speaker.right.claims.data_class, made))
        said: dict[str, object] = {"step": speaker.key}
        if touched.exceeds(self.most):
            message = f"(withheld: the data is {touched}; see execution.log_class_max)"
        elif fields:
            said["fields"] = fields
        with contextlib.suppress(OSError):
            _log.log(_LEVELS.get(level, logging.INFO), message, **said)
