"""Which files of a folder are taken: by patterns of their names, with or without what is below."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from hivemesh_sdk.errors import ConfigurationError, NotFoundError


def files_of(folder: Path, patterns: Sequence[str] = (), *, recursive: bool = True) -> list[Path]:
    """The files whose names fit one of the patterns, in order; without a pattern, all of them.

    A pattern is as `*.pdf`, and upper case is not lower case. Links are passed over.

    Raises:
        ConfigurationError: this is no folder.
        NotFoundError: no file of it fits what was asked for.
    """
    if not folder.is_dir():
        message = f"{str(folder)!r} is no folder"
        raise ConfigurationError(message, slug="file-unreadable")
    found = sorted(
        one
        for one in (folder.rglob("*") if recursive else folder.iterdir())
        if one.is_file() and not one.is_symlink()
    )
    taken = [
        one for one in found if not patterns or any(fnmatchcase(one.name, fit) for fit in patterns)
    ]
    if taken or (recursive and not patterns):  # an empty folder is a folder too
        return taken
    where = f"in {str(folder)!r} {'or below' if recursive else 'itself'}"
    message = f"no file {where}"
    if found:
        message = f"none of {len(found)} files {where} fits {' or '.join(patterns)}"
    remedy = "a pattern is compared with names of files alone, as '*.pdf', case included"
    if not recursive:
        remedy += "; files of folders below are passed over: leave out --no-recursive"
    raise NotFoundError(message, remedy=remedy)
