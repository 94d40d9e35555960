"""A laptop that sleeps for two hours: every clock is ahead at once, every certificate has expired.

In short: `tests/platform/serve/test_identity.py`.
"""

import json
from datetime import datetime, timedelta
from pathlib import Path

import one_clock
import pytest
from chaos_figures import record
from mail import write_mbox
from whole_platform import Installation, Shared, until

pytestmark = pytest.mark.e2e

AHEAD = timedelta(hours=2)
NAMES = ("email-classifier", "email-insights", "email-parser")


@pytest.fixture
def library() -> Path:
    return one_clock.library()


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
    with one_clock.on_one_clock(library, shared, tmp_path) as (installation, clock):
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
