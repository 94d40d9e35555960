"""Makes the shared harness importable, and serves the sample worker."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from worker_harness import serving


@pytest.fixture
async def sample(tmp_path):
    async with serving(tmp_path) as running:
        yield running
