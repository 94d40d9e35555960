"""Makes the shared harness importable, and serves the sample worker."""

import sys
from pathlib import Path

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent / "support"))

from worker_harness import serving


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}  # as a worker's process


@pytest.fixture
async def sample(tmp_path):
    async with serving(tmp_path) as running:
        yield running
