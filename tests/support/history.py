"""Decides from what was written down during a drill whether anything was lost, doubled or stale.

`check` is a pure function over three independent accounts: the submitter's own log of what the
platform has acknowledged, the ledger of effects that a worker has written, and the platform's
final answers. Logs are files of JSON lines, each line on the disk before anything else happens.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Accepted:
    """The platform has acknowledged this job for this piece of work."""

    number: int
    job: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A worker has begun (and with that repeated, from the second time on) an un-keyed effect."""

    number: int
    key: str
    execution: str


@dataclass(frozen=True, slots=True)
class Final:
    """What the platform says in the end; `execution` is the one whose result it has accepted."""

    job: str
    state: str
    execution: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """Everything that was written down."""

    accepted: tuple[Accepted, ...] = ()
    begun: tuple[Begun, ...] = ()  # in the order in which they began
    keyed: Mapping[str, int] = field(default_factory=dict)  # key of an effect -> piece of work
    finals: tuple[Final, ...] = ()
    kills: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found; `faults` is empty where the history is a good one."""

    jobs: int
    repeats: int
    lost: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()  # results without an effect, effects without a submitter
    too_many_repeats: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[str, ...]:
        """Each fault in words."""
        return (
            *self.lost,
            *self.duplicates,
            *self.stale,
            *self.invented,
            *self.too_many_repeats,
        )


def check(history: History, *, per_kill: int = 1) -> Verdict:
    """Judge a history.

    `per_kill` is how many un-keyed effects one kill may repeat: those that were running at once
    in what was killed.
    """
    by_job = _begun_by_job(history.begun)
    repeats = sum(len(executions) - 1 for executions in by_job.values())
    allowed = history.kills * per_kill
    return Verdict(
        jobs=len({one.job for one in history.accepted}),
        repeats=repeats,
        lost=tuple(_lost(history)),
        duplicates=tuple(_duplicates(history)),
        stale=tuple(_stale(history, by_job)),
        invented=tuple(_invented(history, by_job)),
        too_many_repeats=(f"{repeats} repeats, {allowed} allowed",) if repeats > allowed else (),
    )


def _lost(history: History) -> Iterable[str]:
    states = {one.job: one.state for one in history.finals}
    done = set(history.keyed.values())
    for one in sorted(set(history.accepted), key=lambda one: one.number):
        state = states.get(one.job)
        if state is None:
            yield f"{one.number}: {one.job} was acknowledged and is unknown"
        elif state != "completed":
            yield f"{one.number}: {one.job} was acknowledged and is {state}"
        elif one.number not in done:
            yield f"{one.number}: {one.job} is completed without its effect"


def _duplicates(history: History) -> Iterable[str]:
    for number, count in sorted(Counter(history.keyed.values()).items()):
        if count > 1:
            yield f"{number}: {count} keyed effects"
    jobs: dict[int, set[str]] = defaultdict(set)
    for one in history.accepted:
        jobs[one.number].add(one.job)
    for number, names in sorted(jobs.items()):
        if len(names) > 1:
            yield f"{number}: acknowledged as {len(names)} jobs"


def _stale(history: History, by_job: Mapping[str, list[str]]) -> Iterable[str]:
    """An attempt is superseded as soon as another has begun, so the last one's result must count."""
    seen: dict[str, set[str]] = defaultdict(set)
    for one in history.finals:
        if one.execution:
            seen[one.job].add(one.execution)
    for job, executions in sorted(seen.items()):
        if len(executions) > 1:
            yield f"{job}: its result has changed after its end"
        elif by_job.get(job, ["?"])[-1] not in executions:
            yield f"{job}: the result is not that of its last attempt"


def _invented(history: History, by_job: Mapping[str, list[str]]) -> Iterable[str]:
    wanted = {one.number for one in history.accepted}
    for key, number in sorted(history.keyed.items()):
        if number not in wanted:
            yield f"{number}: an effect by {key}, and nobody was told that it is accepted"
    for one in history.finals:
        if one.execution and one.execution not in by_job.get(one.job, ()):
            yield f"{one.job}: a result of an execution that never began"


def _begun_by_job(begun: Iterable[Begun]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for one in begun:
        found[one.key.partition(".")[0]].append(one.execution)
    return dict(found)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The files of one drill, as submitter and workers write them."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> "Ledger":
        """Make the folder."""
        (folder / "keyed").mkdir(parents=True)
        return cls(folder)

    def accept(self, number: int, job: str) -> None:
        """Note that the platform has acknowledged a job."""
        append(self.folder / "accepted", {"number": number, "job": job})

    def numbers(self) -> set[int]:
        """The pieces of work that were acknowledged."""
        return {one["number"] for one in lines(self.folder / "accepted")}

    def history(self, finals: Iterable[Final], kills: int) -> History:
        """What was written down, with the final answers of the platform."""
        return History(
            accepted=tuple(Accepted(**one) for one in lines(self.folder / "accepted")),
            begun=tuple(Begun(**one) for one in lines(self.folder / "begun")),
            keyed={file.name: int(file.read_text()) for file in (self.folder / "keyed").iterdir()},
            finals=tuple(finals),
            kills=kills,
        )


def append(file: Path, value: Mapping[str, object]) -> None:
    """Add a line and wait until it is on the disk."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(value).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lines(file: Path) -> list[dict[str, object]]:
    """The whole lines of a log; a cut last one was never acknowledged to anybody."""
    if not file.exists():
        return []
    whole, _, _ = file.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]
