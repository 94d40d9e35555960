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


def scratch_folder(worker: str) -> Path:
    """A scratch folder for this process; those of dead processes of the worker are removed."""
    folder = private_folder()
    for path in folder.glob(f"{file_name(worker)}.*.scratch"):
        pid = path.name.split(".")[-2]
        if pid.isdigit() and int(pid) != os.getpid() and not _alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
    return folder / f"{worker}.{os.getpid()}.scratch"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
