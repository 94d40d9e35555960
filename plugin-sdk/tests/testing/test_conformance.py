"""A worker with a capability of each kind passes the suite that is shipped to authors."""

from pathlib import Path

import pytest
from hivemesh_sdk.testing.conformance import WorkerConformance

TEXT_WORKER = Path(__file__).parent / "text-worker"


@pytest.mark.integration
class TestTextWorker(WorkerConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def worker_folder(cls) -> Path:
        return TEXT_WORKER
