"""The folder of this user alone below the system's temporary folder: health files and scratch."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.safeio.names import file_name


def private_folder() -> Path:
    """The folder, made if it is not there.

    Raises:
        ConfigurationError: it belongs to somebody else, or others may enter it.
    """
    folder = Path(tempfile.gettempdir()) / f"hivemesh-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    if not private or status.st_uid != os.getuid():
        message = f"{str(folder)!r} must be a folder that only this user may enter"
        raise ConfigurationError(message)
    return folder


def own_path(worker: str, suffix: str) -> Path:
    """A path of this process in the folder; what dead processes of the worker left is removed."""
    folder = private_folder()
    for path in folder.glob(f"{file_name(worker)}.*{suffix}"):
        pid = path.name.removesuffix(suffix).rpartition(".")[2]
        if pid.isdigit() and int(pid) != os.getpid() and not _alive(int(pid)):
            _remove(path)
    return folder / f"{worker}.{os.getpid()}{suffix}"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
