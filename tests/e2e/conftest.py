"""Installations for the drills, and who runs which drill."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from whole_platform import ROOT, Installation, Shared, installed
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

WORKERS = [
    path.parent
    for folder in ("workers", "tests/support/workers", "plugin-sdk/tests/testing")
    for path in sorted((ROOT / folder).glob("*/plugin.yaml"))
    if (path.parent / "pyproject.toml").exists()
]
Install = Callable[..., Installation]


LONGEST = (  # these begin, so that no process ends long after the others
    *("kills", "authority_away", "crash_matrix", "crash_of_replicas", "database_kills"),
    *("rotation", "replicas", "slow_instance", "failures", "clock_jumps", "partitions"),
    *("overload", "retry_storm", "jobs", "secrets", "isolation", "worker_comes_back", "bad_input"),
)


class OneByOne(LoadScopeScheduling):
    """Deals out tests singly; those of a file that keeps something for all of them go together."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if keeps(self.config.rootpath / file) else nodeid


@functools.cache
def keeps(file: Path) -> bool:
    """Whether tests of the file share a platform or the like."""
    return 'scope="module"' in file.read_text()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneByOne:
    """Drills wait more than they compute, and each is longer than a file of other tests."""
    return OneByOne(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def shared() -> Shared:
    """Environments of all workers: whoever comes first builds those that the last run did not have."""
    cache = ROOT / ".hivemesh" / "cache"
    found = Shared(cache / "tests" / "environments", cache)
    found.build(WORKERS)
    return found


@pytest.fixture
def install(tmp_path: Path, shared: Shared) -> Iterator[Install]:
    """Make installations that are stopped at the end of the test."""
    with ExitStack() as stack:

        def make(*settings: str, **options: object) -> Installation:
            folder = tmp_path / f"installation{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(installed(folder, shared, *settings, **options))

        yield make
