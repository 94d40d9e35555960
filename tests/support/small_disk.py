"""A file system of a few megabytes, and how to fill it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Mount a small file system at `place`; skips the test where this user may not."""
    place.mkdir(parents=True, exist_ok=True)
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    mounting = [str(mount), "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)]
    if (
        os.geteuid() != 0
        or unmount is None
        or subprocess.run(mounting, check=False, capture_output=True).returncode
    ):
        pytest.skip("a full disk needs a small tmpfs, and mounting one needs root")
    try:
        yield place
    finally:
        subprocess.run([unmount, "-l", str(place)], check=True)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65_536))
        except OSError:
            pass
        try:
            while True:
                file.write(b"\0")
        except OSError:
            return
