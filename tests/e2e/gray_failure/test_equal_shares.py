"""Equal instances of real workers take equal shares of equal jobs."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from whole_platform import ROOT, Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

GAUGE = ROOT / "tests" / "support" / "workers" / "gauge"
INSTANCES = 4
CAPABILITY = "gauge.take@1"


@dataclass(slots=True)
class Fleet:
    """Four instances, and the jobs so far in their order."""

    platform: Installation
    jobs: list[str] = field(default_factory=list)

    def submit(self, count: int) -> list[str]:
        """Submit jobs that do not travel together, and wait until they have ended well."""
        new: list[str] = []
        with self.platform.client() as client:
            for _ in range(count):
                number = len(self.jobs) + len(new)
                options = {"company": number}
                new.append(client.call(CAPABILITY, {"number": number}, options, wait_s=0.0).id)
            open_ = set(new)

            def ended() -> bool:
                open_.difference_update([one for one in open_ if client.run(one).state.ended])
                return not open_

            until(ended, 120, "all jobs ended")
            assert {client.run(one).state.value for one in new} == {"completed"}
        self.jobs += new
        return new

    def out(self) -> dict[str, str]:
        """How the circuits stand that are not closed, by instance."""
        return {
            one.id: one.circuits[CAPABILITY]
            for one in self.platform.instances("gauge")
            if CAPABILITY in one.circuits
        }

    def taken(self, jobs: list[str]) -> Counter[str]:
        """How many of the jobs each instance had, by their attempts."""
        with self.platform.client() as client:
            return Counter(one.instance for job in jobs for one in client.attempts(job))


@contextmanager
def four(shared: Shared, folder: Path) -> Iterator[Fleet]:
    shared.build([GAUGE])
    settings = (f'workers.instances={{"gauge": {INSTANCES}}}', "routing.ejected_s=5")
    with installed(folder / "one", shared, *settings, workers=[GAUGE]) as platform:
        platform.start()
        platform.until_live()
        fleet = Fleet(platform)
        fleet.submit(2 * INSTANCES * 2)  # each has served its first
        until(lambda: not fleet.out(), 60, "all circuits closed")
        yield fleet


def test_equal_instances_take_equal_shares(shared: Shared, tmp_path: Path) -> None:
    with four(shared, tmp_path) as fleet:
        taken = fleet.taken(fleet.submit(100))
        assert len(taken) == INSTANCES
        assert all(20 <= count <= 30 for count in taken.values()), taken
