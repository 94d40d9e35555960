"""Platform and workers on a clock that a test sets, or the workers on one of their own, by libfaketime."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hivemesh_platform.supervisor.environment import COMPLETE
from whole_platform import Installation, Shared, installed

LIBRARIES = "lib/*/faketime/libfaketimeMT.so.1"


def library() -> Path:
    """The library, or the test is skipped."""
    found = next(Path("/usr").glob(LIBRARIES), None)
    if found is None:
        pytest.skip("no libfaketime here; `apt-get install faketime` installs it")
    return found


def variables_of(library: Path, clock: Path) -> dict[str, str]:
    """What a process needs to live on the clock in a file."""
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # it stands still while a machine sleeps
        "NO_FAKE_STAT": "1",
    }


def environments_with(
    variables: dict[str, str], shared: Shared, folder: Path, workers: Sequence[Path]
) -> Shared:
    """These workers' environments (without any: all) with variables: they get none of the platform's."""
    names = {worker.name for worker in workers}
    unfinished = shutil.ignore_patterns("*.pyc.*")  # others import from it meanwhile
    with shared.locked():
        for one in shared.environments.glob("*/" + COMPLETE):
            if not names or one.parent.name.partition("@")[0] in names:
                copy = folder / one.parent.name
                shutil.copytree(one.parent, copy, symlinks=True, ignore=unfinished)
    for python in folder.glob("*/bin/python"):
        real = python.with_name("python-on-time")
        python.rename(real)
        words = " ".join(f"'{name}={value}'" for name, value in variables.items())
        python.write_text(f'#!/bin/sh\nexec env {words} "{real}" "$@"\n')
        python.chmod(0o755)
    return Shared(folder, shared.cache)


@contextmanager
def on_one_clock(
    library: Path,
    shared: Shared,
    folder: Path,
    workers: Sequence[Path] = (),
    *,
    apart: bool = False,
) -> Iterator[tuple[Installation, Path]]:
    """An installation and the file that says how far its clock is off, or `apart` its workers' alone."""
    clock = folder / "clock"
    clock.write_text("+0\n")
    variables = variables_of(library, clock)
    environments = environments_with(variables, shared, folder / "environments", workers)
    own = None if apart else variables
    with installed(folder / "installation", environments, workers=workers, variables=own) as found:
        yield found, clock
