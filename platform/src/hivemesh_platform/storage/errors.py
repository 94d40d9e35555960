"""What can be wrong with the database, as errors that carry the decision."""

import errno
import sqlite3

from hivemesh_sdk.errors import ConfigurationError, ConflictError, RetryableError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class StorageFullError(RetryableError):
    """No space is left; nothing that was accepted is lost, and the work goes on by itself."""

    slug = "storage-full"


class StorageError(RetryableError):
    """The database refused a statement that should have worked."""

    slug = "internal"


class DatabaseUnreachableError(RetryableError):
    """The database server does not answer; nothing that was accepted is lost."""

    slug = "database-unreachable"


PASSING = (StorageFullError, StorageError, DatabaseUnreachableError)
"""What is waited out by a loop that has a next turn."""


class DatabaseUnsuitableError(ConfigurationError):
    """The database server answers, and cannot be used as it is."""

    slug = "database-unsuitable"


class DatabaseDamagedError(ConflictError):
    """The database file does not hold together; nothing is started on it."""

    slug = "database-damaged"


class StateIncompatibleError(ConflictError):
    """The state folder was written by another version."""

    slug = "state-incompatible"


def is_full(error: BaseException) -> bool:
    """Whether an error of the driver or the system says that the disk is full."""
    if isinstance(error, sqlite3.OperationalError):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in _FULL
