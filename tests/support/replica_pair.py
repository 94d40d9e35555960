"""Two replicas of a platform on one PostgreSQL; the first runs the workers."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from drill import EFFECTS, SETTINGS, Drill, drill_of
from hivemesh_platform.replicas.model import BEAT_S, SILENT_BEATS
from postgres import Postgres
from whole_platform import Installation, Shared, installed, until

NAMES = ("p1", "p2")
BEATS = 3  # a replica sees the other by its own, and tells the worker at the next
TAKEN_OVER_S = SILENT_BEATS * BEAT_S + 2.0
_HELD = "SELECT count(*) FROM work WHERE state = 'running' AND replica = '{0}'"
_LIVE = "SELECT count(*) FROM replica WHERE state = 'live' AND id = '{0}'"


@contextmanager
def two_replicas(folder: Path, shared: Shared, *databases: str) -> Iterator[Drill]:
    """Both run; each has its own address of the database, or the same."""
    with ExitStack() as stack:
        found = []
        more = ((), ("workers.supervise=false",))
        for name, special, database in zip(NAMES, more, databases * 2, strict=False):
            settings = (
                f"database.url={database}",
                f"replica.id={name}",
                f"replica.shared_folder={folder / 'common'}",
                *SETTINGS,
                *special,
            )
            one = installed(folder / name, shared, *settings, workers=[EFFECTS])
            found.append(stack.enter_context(one))
            found[-1].start()
        found[0].until_live()
        knows_of_two(found[0])
        yield drill_of(folder, *found)


def knows_of_two(platform: Installation) -> None:
    """Wait until the worker has been told of both replicas: by answers to heartbeats."""
    beats = 0
    age = 0.0

    def told() -> bool:
        nonlocal beats, age
        before, age = age, platform.instances("effects")[0].heartbeat_age_s
        beats += age < before
        return beats >= BEATS

    until(told, 60, "heartbeats")


def name_of(installation: Installation) -> str:
    """A replica's own name."""
    return installation.state.parent.name


def until_taken_over(drill: Drill, server: Postgres, database: str) -> float:
    """Speak to the other replica from now on; how long the one that has just died held work."""
    began, gone = time.monotonic(), name_of(drill.platform)
    drill.installations.reverse()

    def count(sql: str) -> int:
        text = server.query(sql.format(gone), password="root-password", database=database)
        return int(text)

    until(lambda: not count(_LIVE) and not count(_HELD), 60, f"{gone} was taken over")
    return time.monotonic() - began
