"""Finds damage of the database file and commits that are gone, before anything is built on it.

SQLite has no checksums of values: those of what must be right are kept beside it (artifacts by
their digest, the audit trail by its chain, requests of jobs by a checksum).
"""

import sqlite3
from pathlib import Path

from hivemesh_platform.storage import wal
from hivemesh_platform.storage.errors import DatabaseDamagedError

# SQLite before 3.41 says so of sound tables without rowid whose key is not made of their first columns.
_UNTRUE = "NULL value in "

# Without a number it ends after 100 lines, and those untrue ones may be the first 100.
_LOOK = "PRAGMA quick_check(2147483647)"


def refuse_damaged(file: Path) -> None:
    """Look at every page of the file, and let nobody start on one that does not hold together.

    Raises:
        DatabaseDamagedError: with the command that puts a backup in its place.
    """
    if not file.exists() or not file.stat().st_size:
        return
    refuse_incomplete(file)
    try:
        connection = sqlite3.connect(file, timeout=30.0)
        try:
            told = (row[0] for row in connection.execute(_LOOK))
            found = next((one for one in told if not one.startswith(_UNTRUE)), "ok")
        finally:
            connection.close()
    except sqlite3.OperationalError:
        raise  # it cannot be opened now: another reason, told by whoever opens it next
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        message = f"{file} is damaged: {found.splitlines()[0]}; {_backup(file)}"
        raise DatabaseDamagedError(message)


def refuse_incomplete(file: Path) -> None:
    """Let nobody open a file whose last commits are gone with its log; opening it hides that.

    Raises:
        DatabaseDamagedError: with what brings them back, and what goes on without them.
    """
    if found := wal.lost(file):
        message = (
            f"{file}-wal {found}, and with it what was committed last; put that file back, "
            f"or {_backup(file)}; or go on without: rm -f {_beside(file)}"
        )
        raise DatabaseDamagedError(message)


def set_aside(file: Path) -> str:
    """Rename a file that is damaged or incomplete, whose content is made anew; returns what was wrong."""
    try:
        refuse_damaged(file)
    except DatabaseDamagedError as error:
        for suffix in ("-shm", "-wal", ""):  # the file last: no log may stand beside another file
            part = file.with_name(f"{file.name}{suffix}")
            if part.exists():
                part.replace(file.with_name(f"{file.name}.damaged{suffix}"))
        return error.detail.partition(";")[0]
    return ""


def _backup(file: Path) -> str:
    return f"put a backup in its place: rm -f {_beside(file)}; cp BACKUP/{file.name} {file}"


def _beside(file: Path) -> str:
    return f"{file}-wal {file}-shm"
