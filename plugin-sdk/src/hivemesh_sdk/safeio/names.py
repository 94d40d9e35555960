"""File names that came from outside: which are allowed, and how they stay below a folder."""

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from hivemesh_sdk.errors import InvalidError, NotFoundError

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4096
MAX_SEGMENTS = 64
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# names that another system takes for a device, with or without an extension
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)


def file_name(name: str) -> str:
    """Return the name unchanged if it is one plain segment of a path.

    Raises:
        InvalidError: it is empty, too long, reserved, or could name another folder.
    """
    refusal = _refusal(name)
    if refusal is not None:
        message = f"{name[:80]!r} is no file name: {refusal}"
        raise InvalidError(message)
    return name


def segments(relative: str) -> tuple[str, ...]:
    """Split a relative path with forward slashes into checked segments.

    Raises:
        InvalidError: it is absolute, empty, too deep, or a segment is no file name.
    """
    if len(relative.encode("utf-8", "replace")) > MAX_PATH_BYTES:
        message = f"a path is longer than {MAX_PATH_BYTES} bytes"
        raise InvalidError(message)
    parts = tuple(relative.split("/"))
    if len(parts) > MAX_SEGMENTS:
        message = f"{relative[:80]!r} has more than {MAX_SEGMENTS} segments"
        raise InvalidError(message)
    return tuple(file_name(part) for part in parts)


def contained(root: Path, relative: str) -> Path:
    """The path of an existing file or folder below `root`, reached without any symbolic link.

    Raises:
        InvalidError: the path is not relative and plain, or a link stands on its way.
        NotFoundError: there is nothing.
    """
    parts = segments(relative)
    os.close(_descend(root, parts, os.O_RDONLY | os.O_NONBLOCK))
    return root.joinpath(*parts)


def open_contained(root: Path, relative: str) -> BinaryIO:
    """Open a regular file below `root` for reading; nobody can exchange it in between.

    Raises:
        InvalidError: the path is not relative and plain, or is no regular file.
        NotFoundError: there is no such file.
    """
    parts = segments(relative)
    descriptor = _descend(root, parts, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        message = f"{relative!r} is no regular file"
        raise InvalidError(message)
    return os.fdopen(descriptor, "rb")


def _refusal(name: str) -> str | None:
    rules = (
        (not name, "it is empty"),
        (name in {".", ".."}, "it names a folder"),
        ("/" in name or "\\" in name, "it holds a separator"),
        (_CONTROL.search(name), "it holds a control character"),
        (_SURROGATE.search(name), "it is no UTF-8"),
        (
            len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES,
            "it is longer than 255 bytes",
        ),
        (_DEVICES.fullmatch(name), "the name is reserved"),
    )
    return next((reason for broken, reason in rules if broken), None)


def _descend(root: Path, parts: tuple[str, ...], flags: int) -> int:
    """Open segment by segment (openat), so that no link can lead outside."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            below = _open_at(folder, part, os.O_RDONLY | os.O_DIRECTORY)
            os.close(folder)
            folder = below
        return _open_at(folder, parts[-1], flags)
    finally:
        os.close(folder)


def _open_at(folder: int, part: str, flags: int) -> int:
    try:
        return os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        if _is_link(folder, part):
            raise _link(part) from error
        message = f"there is no {part!r}"
        raise NotFoundError(message) from error
    except OSError as error:
        if _is_link(folder, part):
            raise _link(part) from error
        message = f"{part!r} cannot be opened: {error.strerror}"
        raise InvalidError(message) from error


def _is_link(folder: int, part: str) -> bool:
    try:
        os.readlink(part, dir_fd=folder)
    except OSError:
        return False
    return True


def _link(part: str) -> InvalidError:
    message = f"{part!r} is a symbolic link; links are not followed here"
    return InvalidError(message)
