"""An installation with the worker `noop`, on SQLite or on a PostgreSQL server of its own."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import installation
from corpus import ROOT, WORK
from hivemesh_sdk.client import Client

sys.path.append(str(ROOT / "tests" / "support"))

WORKER = ROOT / "bench" / "peers" / "noop"


@contextmanager
def server() -> Iterator[object]:
    """A PostgreSQL that syncs each commit, or None where there is none."""
    import pytest
    from postgres import postgres

    with ExitStack() as stack:
        try:
            found = stack.enter_context(postgres(options=""))
        except pytest.skip.Exception as reason:
            print(reason)
            found = None
        yield found


@contextmanager
def running(database: str = "") -> Iterator[Client]:
    """A new installation; its rows are at the address, or in SQLite."""
    settings = [f"database.url={database}"] if database else []
    with in_folder(*settings) as (client, _):
        yield client


@contextmanager
def in_folder(*settings: str) -> Iterator[tuple[Client, Path]]:
    """A new installation with these settings, and its state folder."""
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        state = Path(folder) / "state"
        own = [f'workers.folders=["{WORKER}"]', "execution.in_flight_batches=16"]
        with (
            installation.running(*own, *settings, state=state),
            Client.from_state(state, timeout_s=120) as client,
        ):
            yield client, state
