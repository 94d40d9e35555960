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
    cleared: Mapping[str, DataClass] = field(default_factory=dict)  # `data_class_max`
    most: DataClass = DataClass.INTERNAL

    def withheld(self, speaker: Speaker) -> DataClass | None:
        """The class of its data where that is above `most`, so that no text may be written.

        The ticket of another worker tells the class of that worker's inputs alone, and an ended
        execution of the platform's has none: the data may then be all that the capability takes.
        """
        right = speaker.right
        made = self.made.get(speaker.capability, DataClass.PUBLIC)
        given = right.claims.data_class
        if right.from_worker or not right.ticket:
            given = highest((given, self.cleared.get(speaker.capability, DataClass.SECRET)))
        touched = highest((given, made))
        return touched if touched.exceeds(self.most) else None

    def write(
        self, speaker: Speaker, level: str, message: str, fields: Mapping[str, object]
    ) -> None:
        """Write one line; a full disk ends no step."""
        said: dict[str, object] = {"step": speaker.key}
        if (touched := self.withheld(speaker)) is not None:
            message = f"(withheld: the data may be {touched}; see execution.log_class_max)"
        elif fields:
            said["fields"] = fields
        with contextlib.suppress(OSError):
            _log.log(_LEVELS.get(level, logging.INFO), message, **said)
