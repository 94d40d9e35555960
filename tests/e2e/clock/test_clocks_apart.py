"""Platform and workers have different times: a minute is not seen, ten are refused by name.

In short: `tests/platform/registry/test_service.py`, `tests/platform/routing/test_service.py`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import one_clock
import pytest
from chaos_figures import record
from drill import EFFECTS, Drill, drill_of
from whole_platform import Installation, Shared, until

pytestmark = [pytest.mark.e2e, pytest.mark.chaos]

MINUTE = 50  # nearly: a message may take some seconds, and processes read their clock once a second
TEN_MINUTES = 600
JOBS = 12


def said(platform: Installation) -> str:
    """What the worker writes about itself."""
    log = platform.state / "logs" / "worker-effects.log"
    return log.read_text() if log.exists() else ""


@pytest.fixture
def apart(shared: Shared, tmp_path: Path) -> Iterator[tuple[Drill, Path]]:
    """A drill, and the file that says how far its worker's clock is off the platform's."""
    library = one_clock.library()
    with one_clock.on_one_clock(library, shared, tmp_path, [EFFECTS], apart=True) as (found, clock):
        yield drill_of(tmp_path, found), clock


@pytest.mark.parametrize("off", [MINUTE, -MINUTE])
def test_a_minute_between_platform_and_worker_is_not_seen(
    apart: tuple[Drill, Path], off: int
) -> None:
    drill, clock = apart
    clock.write_text(f"{off:+d}\n")
    drill.restart()
    for place in (0, off, 0, off):
        drill.submit(JOBS, take_s=0.2)
        clock.write_text(f"{place:+d}\n")
        drill.await_progress()
    verdict = drill.verdict()
    seen = len(verdict.lost) + verdict.repeats
    name = f"clock: jobs lost or repeated at a worker that is {off:+d} s off"
    record(name, seen, "jobs", 0, holds=not seen)
    assert verdict.faults == ()
    assert verdict.repeats == 0


@pytest.mark.parametrize(
    ("off", "why"),
    [
        (TEN_MINUTES, r"HM-1306: the clock of .* is 600 s ahead of the platform's"),
        (-TEN_MINUTES, "it begins in"),
    ],
)
def test_a_worker_ten_minutes_off_is_refused_by_name_and_taken_when_it_is_right(
    apart: tuple[Drill, Path], off: int, why: str
) -> None:
    drill, clock = apart
    clock.write_text(f"{off:+d}\n")
    drill.platform.start()
    drill.submit(JOBS)
    until(lambda: re.search(why, said(drill.platform)), 60, "the difference is named")
    if off > 0:  # who is behind holds the platform's certificate for one of the future
        with drill.platform.client() as client:
            until(lambda: "HM-1306" in client.worker("effects").reason, 60, "people are told")
            (waits,) = client.runs(limit=1)
            until(lambda: "HM-1306" in client.explain(waits.id)[-1].reason, 60, "its jobs too")
    clock.write_text("+0\n")
    drill.await_progress()
    clock.write_text(f"{off:+d}\n")
    drill.submit(JOBS, take_s=0.2)
    until(lambda: not drill.platform.instances("effects"), 60, "nothing more is given to it")
    clock.write_text("+0\n")
    verdict = drill.verdict()
    lost = len(verdict.lost)
    name = f"clock: jobs lost at a worker that was {off:+d} s off"
    record(name, lost, "jobs", 0, holds=not lost)
    assert verdict.faults == ()
    assert verdict.repeats == 0
