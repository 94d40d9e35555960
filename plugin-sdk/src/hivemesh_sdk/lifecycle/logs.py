"""Logging of a worker process: one JSON line per event on standard error."""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict

from hivemesh_sdk.redaction import REDACTOR

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


def _masked(_: object, __: str, line: Any) -> str:
    """Leave no secret in a line that this process knows."""
    return REDACTOR.masked(str(line))


def configure_logs(level: str = "info", *, worker: str) -> None:
    """Set up structlog for this process; every line names the worker."""

    def named(_: object, __: str, event: EventDict) -> EventDict:
        return {"worker": worker, **event}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            named,
            structlog.processors.JSONRenderer(),
            _masked,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS.get(level, logging.INFO)),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
