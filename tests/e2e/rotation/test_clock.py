"""A laptop that sleeps for two hours: every clock is ahead at once, every certificate has expired."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from chaos_figures import record
from mail import write_mbox
from whole_platform import Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

AHEAD = timedelta(hours=2)
NAMES = ("email-classifier", "email-insights", "email-parser")
LIBRARIES = "lib/*/faketime/libfaketimeMT.so.1"


@pytest.fixture
def library() -> Path:
    found = next(Path("/usr").glob(LIBRARIES), None)
    if found is None:
        pytest.skip("no libfaketime here; `apt-get install faketime` installs it")
    return found


def variables_of(library: Path, clock: Path) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # it stands still while a machine sleeps
        "NO_FAKE_STAT": "1",
    }


def environments_with(variables: dict[str, str], shared: Shared, folder: Path) -> Shared:
    """The workers' environments again, with these variables: workers get none of the platform's."""
    shutil.copytree(shared.environments, folder, symlinks=True)
    for python in folder.glob("*/bin/python"):
        real = python.with_name("python-on-time")
        python.rename(real)
        words = " ".join(f"'{name}={value}'" for name, value in variables.items())
        python.write_text(f'#!/bin/sh\nexec env {words} "{real}" "$@"\n')
        python.chmod(0o755)
    return Shared(folder, shared.cache)


@contextmanager
def on_one_clock(
    library: Path, shared: Shared, folder: Path
) -> Iterator[tuple[Installation, Path]]:
    clock = folder / "clock"
    clock.write_text("+0\n")
    variables = variables_of(library, clock)
    environments = environments_with(variables, shared, folder / "environments")
    with installed(folder / "installation", environments, variables=variables) as found:
        yield found, clock


def seen(installation: Installation) -> dict[str, datetime]:
    """The live instances and when their certificates expire, asked by a command on their clock."""
    answer = installation.run_command("worker", "list", "-o", "json")
    if answer.returncode:
        return {}
    rows = [row for worker in json.loads(answer.stdout) for row in worker["instances"]]
    return {
        row["id"]: datetime.fromisoformat(row["certificate_expires_at"])
        for row in rows
        if row["state"] == "live"
    }


@pytest.mark.chaos
def test_workers_come_back_when_every_clock_is_two_hours_ahead(
    library: Path, shared: Shared, tmp_path: Path
) -> None:
    with on_one_clock(library, shared, tmp_path) as (installation, clock):
        installation.start()
        until(lambda: len(seen(installation)) == len(NAMES), 60, "all workers live")
        expired = max(seen(installation).values())
        clock.write_text(f"+{AHEAD.total_seconds():.0f}\n")

        def back() -> bool:
            now = seen(installation)
            return len(now) == len(NAMES) and min(now.values()) > expired + AHEAD / 2

        until(back, 90, "all workers live with new certificates")
        mbox = write_mbox(tmp_path / "mail.mbox", 300)
        answer = installation.run_command(
            *("pipeline", "run", "email-insights", "-p", f"archive=@{mbox}", "-o", "json"),
            within_s=120,
        )
        assert answer.returncode == 0, answer.stderr
        assert json.loads(answer.stdout)["state"] == "completed"
    record("rotation: workers back, every clock 2 h ahead", len(NAMES), "workers", 3, holds=True)
