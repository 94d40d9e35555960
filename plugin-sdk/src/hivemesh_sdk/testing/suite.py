"""The conformance suite against a worker that has no test of its own: `hivemesh-worker conformance`."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from hivemesh_sdk.testing.conformance import WorkerConformance

FOLDER = pytest.StashKey[Path]()
COMMAND = pytest.StashKey[Sequence[str] | None]()


class TestWorker(WorkerConformance):
    """Takes folder and command from the command line."""

    @pytest.fixture(scope="class")
    @classmethod
    def worker_folder(cls, request: pytest.FixtureRequest) -> Path:
        """The folder that was named."""
        return request.config.stash[FOLDER]

    @pytest.fixture(scope="class")
    @classmethod
    def worker_command(cls, request: pytest.FixtureRequest) -> Sequence[str] | None:
        """The command that was given, if any."""
        return request.config.stash[COMMAND]
