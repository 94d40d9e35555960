"""The end of a chain of workers is down: it meets its load and a little more, not a multiple of it.

In short: `tests/platform/execution/test_budget.py`.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chaos_figures import record
from whole_platform import ROOT, Installation, Shared, installed, until

pytestmark = [pytest.mark.e2e, pytest.mark.chaos]

WORKERS = [ROOT / "tests" / "support" / "chaos_workers" / name for name in ("relay", "relay-next")]
JOBS = 300
OUTAGE_S = 15.0
RETRIES = 30  # more than an outage of that length can use up
FREE_PER_S = 10.0  # retries that the budget always grants, beside a fifth of the load
PER_HOP, PER_CHAIN = 1.1, 1.2


@dataclass(frozen=True, slots=True)
class Chain:
    """Three workers' capabilities, one behind the other; the last one may be down."""

    platform: Installation
    folder: Path

    def submit(self) -> list[str]:
        with self.platform.client() as client:
            return [
                client.submit(
                    "relay.first@1",
                    {"folder": str(self.folder), "number": number},
                    {"company": number},
                    max_retries=RETRIES,
                ).id
                for number in range(JOBS)
            ]

    def arrivals(self, place: str) -> int:
        """How many requests have come to a place of the chain."""
        file = self.folder / place
        return len(file.read_bytes().splitlines()) if file.exists() else 0


@pytest.fixture
def chain(tmp_path: Path, shared: Shared) -> Iterator[Chain]:
    folder = tmp_path / "arrivals"
    folder.mkdir()
    with installed(tmp_path / "one", shared, workers=WORKERS) as platform:
        platform.start()
        platform.until_live()
        yield Chain(platform, folder)


def test_a_total_outage_is_retried_at_one_place_and_within_its_budget(chain: Chain) -> None:
    down = chain.folder / "down"
    down.touch()
    began = time.monotonic()
    jobs = chain.submit()
    until(lambda: chain.arrivals("third") >= JOBS, 120, "each has arrived once")
    most = 0.0

    def over() -> bool:
        nonlocal most
        arrived, passed = chain.arrivals("third"), time.monotonic() - began
        most = max(most, (arrived - FREE_PER_S * (passed + 1.0)) / JOBS)
        return passed > OUTAGE_S

    until(over, 120, "an outage of that length")
    last, before, first = map(chain.arrivals, ("third", "second", "first"))
    down.unlink()
    with chain.platform.client() as client:
        open_ = set(jobs)

        def ended() -> bool:
            open_.difference_update([job for job in open_ if client.run(job).state.ended])
            return not open_

        until(ended, 240, "all have ended")
        assert {client.run(job).state.value for job in jobs} == {"completed"}
    hop = max(last / before, before / first)
    name = "retry storm"
    record(f"{name}: amplification of a hop", hop, "x", PER_HOP, holds=hop <= PER_HOP)
    record(
        f"{name}: of a chain of three beside 10 a second", most, "x", PER_CHAIN,
        holds=most <= PER_CHAIN,
    )  # fmt: skip
    assert hop <= PER_HOP
    assert most <= PER_CHAIN
