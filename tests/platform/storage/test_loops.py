"""What the platform does again and again goes on after a database that was away or full."""

import asyncio
from types import SimpleNamespace

import pytest
from hivemesh_platform import app
from hivemesh_platform.execution.losses import unheld
from hivemesh_platform.execution.retention import Retention
from hivemesh_platform.execution.steps.survivors import Survivors
from hivemesh_platform.registry import shared
from hivemesh_platform.replicas import service as replicas
from hivemesh_platform.storage.errors import (
    DatabaseUnreachableError,
    StorageError,
    StorageFullError,
)
from hivemesh_sdk.testing.clock import ManualClock
from replica_support import replica


def survivors(_monkeypatch, turn):
    found = Survivors(SimpleNamespace(settings=SimpleNamespace(status_interval_s=0)))
    found.look = turn
    return found.run()


def unheld_rows(monkeypatch, turn):
    monkeypatch.setattr(unheld, "EVERY_S", 0)
    found = unheld.UnheldRows(None, None)
    found.look = turn
    return found.run()


def retention(_monkeypatch, turn):
    settings = SimpleNamespace(every_s=0)
    found = Retention(None, None, None, settings, ManualClock(), lambda: True)
    found.sweep = lambda _check: turn()
    return found.run()


def heartbeats(monkeypatch, turn):
    monkeypatch.setattr(replicas, "BEAT_S", 0)
    found = replica(None, "a")
    found.tick = turn
    return found.run()


def directory(monkeypatch, turn):
    monkeypatch.setattr(shared, "EXCHANGE_S", 0)
    found = shared.SharedDirectory(ManualClock(), None)
    found.exchange = turn
    return found.keep_exchanging()


def in_step(monkeypatch, turn):
    monkeypatch.setattr(app, "IN_STEP_S", 0)
    platform = SimpleNamespace(
        replicas=SimpleNamespace(alone=False),
        people=SimpleNamespace(access=SimpleNamespace(changed=lambda: None)),
        revocation=SimpleNamespace(follow=turn),
    )
    return app._keep_in_step(platform, None)


@pytest.mark.parametrize("error", [StorageError, StorageFullError, DatabaseUnreachableError])
@pytest.mark.parametrize(
    "loop", [survivors, unheld_rows, retention, heartbeats, directory, in_step]
)
async def test_a_loop_takes_its_next_turn_after_a_database_that_was_away(monkeypatch, loop, error):
    turns = iter([error("away"), error("away"), asyncio.CancelledError()])

    async def turn():
        raise next(turns)

    with pytest.raises(asyncio.CancelledError):
        await loop(monkeypatch, turn)
    assert list(turns) == []


@pytest.mark.parametrize("error", [StorageError, StorageFullError, DatabaseUnreachableError])
async def test_heartbeats_that_could_not_be_written_are_written_later(error):
    async def away(_work):
        raise error("away")

    found = shared.SharedDirectory(ManualClock(), SimpleNamespace(write=away))
    found._unwritten = {"i1": "load"}
    with pytest.raises(error):
        await found.exchange()
    assert found._unwritten == {"i1": "load"}
