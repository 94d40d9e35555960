"""The clock of a machine jumps while jobs run: small jumps are not seen, large ones lose nothing."""

import json
from pathlib import Path

import one_clock
import pytest
from chaos_figures import record
from drill import EFFECTS, Drill, drill_of
from whole_platform import Shared, until

pytestmark = pytest.mark.e2e

MINUTE = 58  # processes read the test's clock once a second, and differ by as much in between
HOUR = 3600
SLOTS = 4
JOBS = 12


def ended(drill: Drill) -> bool:
    """Whether all jobs have ended, asked by a command on the same clock."""
    answer = drill.platform.run_command("job", "list", "--limit", "100", "-o", "json")
    if answer.returncode:
        return False
    states = [one["state"] for one in json.loads(answer.stdout)]
    return len(states) > JOBS and set(states) == {"completed"}


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.chaos)])
def test_jumps_of_a_minute_are_not_seen(shared: Shared, tmp_path: Path, rounds: int) -> None:
    library = one_clock.library()
    with one_clock.on_one_clock(library, shared, tmp_path, [EFFECTS]) as (platform, clock):
        drill = drill_of(tmp_path, platform)
        drill.restart()
        before = {one.id for one in platform.instances("effects")}
        for place in (MINUTE, 0, -MINUTE, 0) * rounds:
            drill.submit(6, take_s=0.2)
            clock.write_text(f"{place:+d}\n")
            drill.await_progress()
        verdict = drill.verdict()
        gone = len(before - {one.id for one in platform.instances("effects")})
        seen = len(verdict.lost) + verdict.repeats + gone
        name = (
            f"clock: jobs lost or repeated and workers replaced in {4 * rounds} jumps of a minute"
        )
        record(name, seen, "of them", 0, holds=not seen)
        assert verdict.faults == ()
        assert verdict.repeats == 0
        assert not gone


@pytest.mark.chaos
@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_jump_of_an_hour_loses_nothing(shared: Shared, tmp_path: Path, jump: int) -> None:
    """What signs is older than a day's jump, and certificates that are early are made anew."""
    library = one_clock.library()
    with one_clock.on_one_clock(library, shared, tmp_path, [EFFECTS]) as (platform, clock):
        drill = drill_of(tmp_path, platform)
        drill.restart()
        drill.submit(JOBS, take_s=0.2)
        clock.write_text(f"{jump:+d}\n")
        drill.kills += 1
        until(lambda: ended(drill), 120, "all jobs ended on that clock")
        platform.stop()
        clock.write_text("+0\n")
        drill.restart()
        verdict = drill.verdict(per_kill=SLOTS)
        lost = len(verdict.lost)
        record(f"clock: lost by a jump of {jump:+d} s", lost, "jobs", 0, holds=not lost)
        assert verdict.faults == ()
