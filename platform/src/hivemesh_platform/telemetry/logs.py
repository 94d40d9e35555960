"""Where the platform's log goes: JSON lines in a file that is rotated by size.

structlog and the standard library's logging (uvicorn, DBOS, asyncio) end in the same file.
"""

import logging
import logging.handlers
import sys
from pathlib import Path
from typing import Any

import structlog
from hivemesh_sdk.redaction import REDACTOR

_NOISY = ("alembic", "uvicorn.error", "uvicorn.asgi", "asyncio")
_SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(path: Path | None, *, level: str, max_bytes: int, files: int) -> logging.Handler:
    """Send every log of this process to `path`, or to standard error where it is None."""
    handler = _handler(path, max_bytes, files)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
                _masked,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.raiseExceptions = False  # a full disk must not stop the platform
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    return handler


def _masked(_: object, __: str, line: Any) -> str:
    """Leave no secret in a line that this process knows."""
    return REDACTOR.masked(str(line))


def _handler(path: Path | None, max_bytes: int, files: int) -> logging.Handler:
    if path is None:
        return logging.StreamHandler(sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600, exist_ok=True)
    return logging.handlers.RotatingFileHandler(
        path, maxBytes=max_bytes, backupCount=files, encoding="utf-8"
    )


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
