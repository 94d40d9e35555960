"""Leaves out what libraries import and the platform's process never uses: 18 MiB beside its 120."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

# structlog loads rich for tracebacks on a terminal, where this process writes JSON to a file; mako,
# which migrations load, loads pygments for pages of errors; FastAPI asks for every annotation
# whether it is a model of Pydantic 1, of which there are none.
UNUSED = ("rich", "pygments", "pydantic.v1")
_POSTGRES = "psycopg"
_COMMAND = "uvicorn.main"  # with it reloading and processes; we take its HTTP protocol alone


def omit_unused() -> None:
    """Make the imports of unused libraries fail, which those who try them are prepared for."""
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None stands for "not there"
    command = ModuleType(_COMMAND)
    command.Server = command.main = command.run = None  # type: ignore[attr-defined]  # what its package names
    sys.modules.setdefault(_COMMAND, command)


@contextmanager
def without_postgres() -> Iterator[None]:
    """Within it `psycopg` is a module of its error classes alone, which nobody raises.

    DBOS imports the driver of PostgreSQL to compare errors with its classes, on SQLite too: 10 MiB.
    Afterwards an import finds the driver itself.
    """
    if _POSTGRES in sys.modules:
        yield
        return
    errors = ModuleType(f"{_POSTGRES}.errors")
    for name in ("ConnectionTimeout", "LockNotAvailable", "SerializationFailure"):
        setattr(errors, name, type(name, (Exception,), {}))
    driver = ModuleType(_POSTGRES)
    driver.errors, driver.OperationalError = errors, type("OperationalError", (Exception,), {})  # type: ignore[attr-defined]  # a module takes any attribute
    sys.modules.update({_POSTGRES: driver, errors.__name__: errors})
    try:
        yield
    finally:
        for name in (_POSTGRES, errors.__name__):
            del sys.modules[name]
