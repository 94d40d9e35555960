"""One platform per state folder: a lock that the kernel gives back however the process ends."""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hivemesh_sdk.errors import ConflictError

FILE = "lock"
_FLOCK = "hhqqi"  # type, whence, start, length, pid: struct flock of 64-bit Linux


class StateInUseError(ConflictError):
    """Another platform uses the state folder."""

    slug = "state-in-use"


def holder(folder: Path) -> int | None:
    """The process that holds the lock of a state folder, or None."""
    try:
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
    finally:
        os.close(descriptor)
    kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else pid


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock. Do not call `holder` on the same folder from inside: closing drops the lock.

    Raises:
        StateInUseError: another process holds it.
    """
    descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = f"a platform (pid {holder(folder)}) uses {str(folder)!r}"
            raise StateInUseError(message) from error
        yield
    finally:
        os.close(descriptor)
