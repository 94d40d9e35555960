"""Capabilities whose every effect is written down durably, with and without a key."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hivemesh_sdk import Context, Record, Worker

worker = Worker()

KILLER = "import os,sys,time; time.sleep(float(sys.argv[2])); os.kill(int(sys.argv[1]), 9)"


class Work(Record):
    """One piece of work; `die` names the place of the first attempt's death."""

    folder: str
    number: int
    die: str = ""  # effect.before, effect.after, executor, or reply:SECONDS
    take_s: float = 0.0


class Company(Record):
    """Jobs travel together where this is the same."""

    company: int = 0


class Range(Record):
    """Numbers to count, and after how many the source waits a moment."""

    count: int
    pause_every: int = 0


class Number(Record):
    """One number."""

    n: int


class Notes(Record):
    """Where the map notes its effects."""

    folder: str


@worker.call("effect.write@1")
def write(work: Work, options: Company, context: Context) -> dict[str, object]:
    """Write an un-keyed effect, then a keyed one; die on the way the first time, if asked to."""
    folder, execution = Path(work.folder), secrets.token_hex(8)
    die = work.die if work.die and _first(folder / f"died-{work.number}") else ""
    if die == "effect.before":
        _die()
    _append(folder / "begun", {"number": work.number, "key": context.key, "execution": execution})
    if die == "executor":
        os.kill(os.getpid(), signal.SIGKILL)
    if work.take_s:
        time.sleep(work.take_s)
    _keyed(folder, context.key, work.number)
    if die == "effect.after":
        _die()
    if die.startswith("reply:"):
        command = [sys.executable, "-c", KILLER, str(os.getppid()), die.partition(":")[2]]
        subprocess.Popen(command, start_new_session=True)
    return {"number": work.number, "execution": execution}


@worker.source("effect.count@1")
def count(options: Range, start: int | None, context: Context) -> Iterator[tuple[Number, int]]:
    """Count; the checkpoint is the next number."""
    for n in range(start or 0, options.count):
        yield Number(n), n + 1
        if options.pause_every and (n + 1) % options.pause_every == 0:
            time.sleep(0.02)


@worker.map("effect.note@1")
def note(records: list[Number], options: Notes, context: Context) -> list[Number]:
    """Note each number by a key of its own."""
    run = context.key.partition(".")[0]
    for record in records:
        _keyed(Path(options.folder), f"{run}.{record.n}", record.n)
    return records


def _die() -> None:
    """The whole worker, as if its machine had lost power."""
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _first(marker: Path) -> bool:
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _append(file: Path, value: object) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(value).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keyed(folder: Path, key: str, number: int) -> None:
    """An effect that happens once by its key: the link is made or was there."""
    made = folder / f"new-{secrets.token_hex(8)}"
    made.write_text(str(number))
    try:
        os.link(made, folder / "keyed" / key)
    except FileExistsError:
        pass
    finally:
        made.unlink()
