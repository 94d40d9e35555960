from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from whole_platform import ROOT, Installation, Shared, installed

SHIPPED = tuple(sorted(path.parent for path in (ROOT / "workers").glob("*/plugin.yaml")))
Install = Callable[..., Installation]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    folder = tmp_path_factory.mktemp("shared")
    found = Shared(folder / "environments", folder / "cache")
    found.build(SHIPPED)
    return found


@pytest.fixture
def install(tmp_path: Path, shared: Shared) -> Iterator[Install]:
    """Make installations that are stopped at the end of the test."""
    with ExitStack() as stack:

        def make(*settings: str, **options: object) -> Installation:
            folder = tmp_path / f"installation{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(installed(folder, shared, *settings, **options))

        yield make
