"""No space is left: that is said within a second, what was taken is kept, and it goes on by itself.

In short: `tests/platform/execution/test_storage_full.py`.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from pathlib import Path

import pytest
from chaos_figures import record
from drill import EFFECTS, MOVES_S, Drill, drill_of
from hivemesh_sdk.errors import RemoteError
from postgres import postgres
from small_disk import fill, small_disk
from whole_platform import Shared, installed

pytestmark = [pytest.mark.e2e, pytest.mark.chaos]

SIZE = "64m"
ROUNDS, REFUSALS = 5, 10  # how often the disk is full, and how many are told so each time
ACCEPTED = 12  # jobs under way when it fills
LARGE = "x" * 400_000  # more than what is free in pages that were written before
SAID_S = 1.0


@dataclass(slots=True)
class FullDisk:
    """A drill on a disk that is filled now and then; what it answered, and how fast."""

    drill: Drill
    disk: Path
    numbers: Iterator[int] = field(default_factory=lambda: count(100_000))
    said_s: list[float] = field(default_factory=list)
    taken: int = 0  # while the disk was full
    moves_s: float = 0.0

    @property
    def ballast(self) -> Path:
        """What fills it."""
        return self.disk / "ballast"

    def strike(self, *, stores_files: bool) -> None:
        """Fill it while jobs run, ask for more until that was refused often, and make room."""
        self.drill.submit(ACCEPTED, take_s=0.2)
        self.drill.start_run()
        fill(self.ballast)
        refused = len(self.said_s) + REFUSALS
        while len(self.said_s) < refused:
            self._submit()
        if stores_files:
            self._upload()
        assert self.drill.platform.run_command("status").returncode == 0
        self.ballast.unlink()
        began = time.monotonic()
        self.drill.await_progress()
        self.moves_s = max(self.moves_s, time.monotonic() - began)
        self.drill.await_runs()

    def _submit(self) -> None:
        """One large job more; it is accepted, or the disk is full."""
        number = next(self.numbers)
        work = {"folder": str(self.drill.ledger.folder), "number": number, "more": LARGE}
        with self.drill.platform.client() as client:
            began = time.monotonic()
            try:
                job = client.call(self.drill.capability, work, {"company": number}, wait_s=0.0)
            except RemoteError as error:
                self._refused(error, began)
            else:
                self.drill.ledger.accept(number, job.id)
                self.taken += 1

    def _upload(self) -> None:
        with self.drill.platform.client() as client:
            began = time.monotonic()
            with pytest.raises(RemoteError) as refused:
                client.put_artifact(BytesIO(str(next(self.numbers)).encode() * 100_000))
        self._refused(refused.value, began)

    def _refused(self, error: RemoteError, began: float) -> None:
        self.said_s.append(time.monotonic() - began)
        assert (error.document.status, error.document.code) == (507, "HM-1504"), error


@pytest.fixture(params=["sqlite", "postgresql"])
def full(request: pytest.FixtureRequest, tmp_path: Path, shared: Shared) -> Iterator[FullDisk]:
    """The state folder is on the small disk, or the tables of the database are."""
    with ExitStack() as stack:
        settings: tuple[str, ...] = ()
        if request.param == "sqlite":
            disk = folder = stack.enter_context(small_disk(tmp_path / "disk", SIZE))
        else:
            server = stack.enter_context(postgres())
            disk, folder = stack.enter_context(small_disk(server.folder / "disk", SIZE)), tmp_path
            settings = (f"database.url={server.address(server.database_in(disk / 'tables'))}",)
        platform = stack.enter_context(
            installed(folder / "one", shared, *settings, workers=[EFFECTS])
        )
        platform.start()
        platform.until_live()
        yield FullDisk(drill_of(tmp_path / "drill", platform), disk)


def test_a_full_disk_is_told_in_a_second_and_loses_nothing(
    full: FullDisk, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.params["full"]
    process = full.drill.platform.process
    for _ in range(ROUNDS):
        full.strike(stores_files=kind == "sqlite")
    verdict = full.drill.verdict()
    assert process is not None
    assert process.poll() is None
    name = f"disk full, {kind}"
    slowest, moves = max(full.said_s), full.moves_s
    lost, doubled = len(verdict.lost), len(verdict.duplicates)
    refusals = ROUNDS * REFUSALS
    record(f"{name}: refused with 507", len(full.said_s), "requests", refusals, holds=True)
    record(f"{name}: longest until a refusal", slowest, "s", SAID_S, holds=slowest <= SAID_S)
    record(f"{name}: jobs accepted", verdict.jobs, "jobs", ROUNDS * ACCEPTED, holds=True)
    record(f"{name}: lost", lost, "jobs", 0, holds=not lost)
    record(f"{name}: doubled keyed effects", doubled, "effects", 0, holds=not doubled)
    record(f"{name}: repeats", verdict.repeats, "effects", 0, holds=not verdict.repeats)
    record(f"{name}: work moves again", moves, "s", MOVES_S, holds=moves <= MOVES_S)
    assert verdict.faults == ()
