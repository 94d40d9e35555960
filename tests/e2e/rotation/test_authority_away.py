"""The authority is away for half a lifetime: calls between workers go on, and nobody overruns it afterwards."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from chaos_figures import record
from fleet import Fleet, fleet
from hivemesh_sdk.contracts.api import RunState
from whole_platform import ROOT, Installation, until

pytestmark = pytest.mark.e2e

WORKERS = [ROOT / "tests" / "support" / "workers" / name for name in ("converter", "notary")]
WIDE, WIDE_WHEN_DUE = 0.1, 0.06  # of a lifetime: the renewals after the return take at least this
SHARE = 0.5  # at most this part of them falls into one tenth of the time they are spread over
CALL_EVERY_S = 0.1


class Drill:
    """An installation whose platform goes away, and what was seen of the renewals after it came back."""

    def __init__(self, installation: Installation, seconds: int, calls: Path) -> None:
        self.installation, self.seconds, self.calls = installation, seconds, calls
        self.life = timedelta(seconds=seconds)
        self.back = datetime.now(UTC)
        self.away = timedelta()

    def call_all_the_time(self) -> str:
        """Have one worker call another until the drill is over, and well behind it."""
        self.calls.touch()
        times = round(1.2 * self.seconds / CALL_EVERY_S)
        many = {"file": str(self.calls), "times": times, "pause_s": CALL_EVERY_S}
        with self.installation.client() as client:
            run = client.call("sheet.convert_many@1", many, wait_s=0)
        until(lambda: self.called() >= 3, 60, "the first calls between workers")
        return run.id

    def called(self) -> int:
        """Calls of the real workers so far."""
        return self.calls.read_text().count("\n")

    def go_away(self, found: Fleet) -> None:
        """Kill the platform for half a life; everybody goes on calling, and nobody is renewed."""
        gone = datetime.now(UTC)
        self.installation.kill()
        before = found.calls, self.called()
        until(
            lambda: datetime.now(UTC) - gone >= self.life / 2, self.seconds, "half a life is over"
        )
        assert found.calls - before[0] > len(found.members)
        assert self.called() > before[1]
        late = gone + timedelta(seconds=5)  # what was signed before may be on its way for a while
        assert not [moment for moment in found.renewals() if moment > late]
        self.back = datetime.now(UTC)
        self.installation.start()
        self.away = datetime.now(UTC) - gone

    def spread(self, found: Fleet) -> tuple[float, float]:
        """How wide the first renewals lie, in lifetimes, and which part of them is in one tenth of that."""

        def all_renewed() -> bool:
            return all(one.first_after(self.back) for one in found.members)

        until(all_renewed, 2 * self.seconds, "everybody has renewed")
        late = [one.first_after(self.back) for one in found.members]
        assert all(moment < svid.not_after for moment, svid in filter(None, late))
        moments = sorted(moment for moment, _ in filter(None, late))
        width = moments[-1] - self.back
        counts = [sum(start <= one < start + width / 10 for one in moments) for start in moments]
        return width / self.life, max(counts) / len(moments)


def drill(
    installation: Installation, calls: Path, *, seconds: int, size: int, aged: float = 0.0
) -> tuple[float, ...]:
    """One absence, from an age of the certificates on; the width, the share, the calls, the seconds."""
    one = Drill(installation, seconds, calls)
    installation.start()
    installation.until_live(within_s=180)
    with fleet(installation, "notary", size) as found:
        run = one.call_all_the_time()
        due = min(each.source.svid().not_after for each in found.members) - one.life * (1 - aged)
        until(lambda: datetime.now(UTC) >= due, seconds, "the first are nearly due")
        one.go_away(found)
        width, share = one.spread(found)
        assert not found.wrong, found.wrong[:5]
        assert found.calls
        numbers = [int(line) for line in calls.read_text().split()]
        assert numbers == list(range(len(numbers)))  # each call once and none left out
        assert installation.run(run).state in {RunState.RUNNING, RunState.COMPLETED}
        return width, share, found.calls + len(numbers), one.away.total_seconds()


def test_calls_go_on_without_the_authority_and_renewals_are_spread(install, tmp_path) -> None:
    installation = install(
        "trust.svid_lifetime_s=60", "trust.issuer_lifetime_s=1200", workers=WORKERS
    )
    width, share, *_ = drill(installation, tmp_path / "calls", seconds=60, size=30)
    assert width >= WIDE, (width, share)
    assert share <= SHARE, (width, share)


@pytest.mark.chaos
def test_a_hundred_identities_whose_renewal_is_due_when_the_authority_goes_away(
    install, tmp_path
) -> None:
    installation = install(
        "trust.svid_lifetime_s=300",
        "trust.issuer_lifetime_s=1200",
        "workers.alone_s=600",
        workers=WORKERS,
    )
    calls_file = tmp_path / "calls"
    width, share, calls, away = drill(installation, calls_file, seconds=300, size=100, aged=0.3)
    title = "authority away for half a life"
    record(f"{title}: seconds", away, "s", 150, holds=away >= 150)
    record(f"{title}: calls between workers, none of them failed", calls, "calls", 1, holds=True)
    wide = width >= WIDE_WHEN_DUE
    record(f"{title}: width of the renewals, of a life", width, "", WIDE_WHEN_DUE, holds=wide)
    record(f"{title}: of them in one tenth of that", share, "", SHARE, holds=share <= SHARE)
    assert width >= WIDE_WHEN_DUE
    assert share <= SHARE
