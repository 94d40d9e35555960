"""A worker with one capability for each rule that needs a real executor."""

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from hivemesh_sdk import (
    Artifact,
    ConfigurationError,
    Context,
    FatalError,
    Raw,
    Record,
    Rejected,
    RetryableError,
    Secret,
    SkippedError,
    State,
    Worker,
)
from hivemesh_sdk.worker.batches import Batch
from hivemesh_sdk.worker.channel import Store

worker = Worker()


class Item(Record):
    id: int
    text: str = ""


class Size(Record):
    size: int = 10
    width: int = 1


class Flag(Record):
    path: str = ""


@worker.map("sample.upper@1")
def upper(records: list[Item]) -> list[Item | Rejected]:
    return [
        Rejected("empty", "no text") if not record.text else Item(record.id, record.text.upper())
        for record in records
    ]


@worker.map("sample.raw@1")
def raw(records: list[Raw]) -> list[Raw]:
    return records


@worker.source("sample.count@1")
def count(
    options: Size, start: int | None, context: Context
) -> Iterator[tuple[Item | Rejected, int]]:
    for number in range(start or 0, options.size):
        context.progress(number, options.size)
        yield Item(number, "x" * options.width), number + 1


@worker.source("sample.endless@1")
async def endless(start: int | None, context: Context) -> AsyncIterator[tuple[Item, int]]:
    number = start or 0
    while True:
        number += 1
        yield Item(number, "x" * 60_000), number


@worker.reducer("sample.total@1")
class Total(State):
    count: int = 0

    def add(self, records: list[Item]) -> None:
        self.count += len(records)

    def merge(self, other: "Total") -> None:
        self.count += other.count

    def result(self, options: Size) -> dict[str, int]:
        return {"total": self.count * options.width}


@worker.call("sample.fail@1")
def fail(input: dict[str, str]) -> None:  # noqa: A002
    message = input.get("message", "")
    match input["kind"]:
        case "retryable":
            raise RetryableError(message, delay_s=7)
        case "fatal":
            raise FatalError(message)
        case "skipped":
            raise SkippedError(message)
        case "configuration":
            raise ConfigurationError(message)
        case _:
            raise ValueError(message)


@worker.call("sample.crash@1")
def crash(input: str) -> None:  # noqa: A002
    os.kill(os.getpid(), int(input) if input.isdigit() else getattr(signal, input))


@worker.call("sample.stubborn@1")
def stubborn(options: Flag) -> None:
    """Hold the interpreter's lock in C code and hear nothing."""
    Path(options.path).touch()
    re.fullmatch(r"(a+)+b", "a" * 64)


@worker.call("sample.obedient@1")
def obedient(options: Flag, context: Context) -> str:
    Path(options.path).touch()
    while not context.cancelled:
        time.sleep(0.01)
    return "stopped"


@worker.call("sample.read@1")
def read(input: Artifact, context: Context) -> dict[str, int]:  # noqa: A002
    with context.artifacts.open(input) as reader:
        first = reader.read(10)
        return {"first": len(first), "rest": len(reader.read())}


@worker.call("sample.store@1")
def store(input: int, context: Context) -> Artifact:  # noqa: A002
    return context.artifacts.put(b"z" * input, name="z.bin")


@worker.call("sample.store_file@1")
def store_file(input: int, context: Context) -> Artifact:  # noqa: A002
    path = context.scratch / "made"
    path.write_bytes(b"y" * input)
    with path.open("rb") as file:
        return context.artifacts.put(file)


@worker.call("sample.surroundings@1")
def surroundings(context: Context) -> dict[str, object]:
    (context.scratch / "left").write_text("behind")
    context.log.info("looked", modules=len(sys.modules))
    print("this goes to the log")  # noqa: T201
    return {
        "environment": sorted(os.environ),
        "modules": sorted(sys.modules),
        "scratch": str(context.scratch),
        "pid": os.getpid(),
        "key": context.key,
        "parent": os.getppid(),
        "deadline": context.deadline,
    }


@worker.call("sample.grow@1")
def grow(input: int, options: Flag) -> None:  # noqa: A002
    held = bytearray(input)
    held[::4096] = b"x" * len(held[::4096])
    Path(options.path).touch()
    time.sleep(60)


@worker.call("sample.echo@1")
async def echo(input: dict[str, object]) -> dict[str, object]:  # noqa: A002
    return input


class Quick(Record):
    then: str = ""
    key: Secret | None = None

    def __post_init__(self) -> None:
        if self.then == "refuse":
            raise KeyError(self.then)
        if self.then == "leave":
            sys.exit(3)


@worker.call("sample.quick@1", run_in="inline")
def quick(input: dict[str, object], options: Quick) -> dict[str, object]:  # noqa: A002
    if options.then == "exit":
        sys.exit(3)
    if options.then == "raise":
        raise ValueError(options.then)
    if options.then == "no unicode":
        raise ValueError(NOT_UNICODE)
    if options.key is not None:
        return {"value": options.key.reveal()}
    return {**input, "thread": threading.current_thread().name}


@worker.call("sample.block@1")
async def block(options: Flag) -> None:
    """Block until the flag is taken away, and for as long as counts as blocking."""
    Path(options.path).touch()  # noqa: ASYNC240 - blocking is what it shows
    time.sleep(0.5)  # noqa: ASYNC251 - as above
    while Path(options.path).exists():  # noqa: ASYNC240 - as above
        time.sleep(0.01)  # noqa: ASYNC251 - as above


@worker.call("sample.unyielding@1", run_in="inline")
async def unyielding(options: Flag) -> None:
    """Hear nothing of a cancel."""
    Path(options.path).touch()  # noqa: ASYNC240 - what the test waits for
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


@worker.map("sample.poisoned@1")
def poisoned(records: list[Item]) -> list[Item | Rejected]:
    """Die of the text "poison", and refuse records without a text."""
    if any(record.text == "poison" for record in records):
        os.kill(os.getpid(), signal.SIGKILL)
    return [record if record.text else Rejected("empty") for record in records]


@worker.call("sample.sleep@1")
def sleep() -> None:
    time.sleep(60)


_NEXT_STEP, _SAID = threading.Event(), threading.Event()
_raised: dict[str, str] = {}


@worker.call("sample.outlive@1")
def outlive(context: Context) -> None:
    """Leave a thread behind that speaks while the next step runs."""

    def speak() -> None:
        _NEXT_STEP.wait()
        for name, say in (
            ("log", lambda: context.log.info("late")),
            ("progress", lambda: context.progress(1, 1)),
        ):
            try:
                say()
            except BaseException as error:  # noqa: BLE001 - which one is what the test asks for
                _raised[name] = type(error).__name__
        _SAID.set()

    threading.Thread(target=speak, daemon=True).start()


@worker.call("sample.after@1")
def after() -> dict[str, str]:
    _NEXT_STEP.set()
    _SAID.wait()
    return _raised


@worker.call("sample.litter@1")
def litter(context: Context) -> None:
    (context.scratch / "left").write_text("behind")
    os.kill(os.getpid(), signal.SIGKILL)


@worker.source("sample.slow@1")
def slow(options: Flag, start: int | None) -> Iterator[tuple[Item, int]]:
    yield Item(1), 1
    while not Path(options.path).exists():
        time.sleep(0.01)
    yield Item(2), 2


@worker.call("sample.wait@1")
async def wait(options: Flag, context: Context) -> None:
    """Wait for ever, without blocking the loop."""
    Path(options.path).touch()  # noqa: ASYNC240 - one file, once
    try:
        await asyncio.Event().wait()
    finally:
        context.log.info("stopped")


@worker.call("sample.inline_surroundings@1")
async def inline_surroundings(context: Context) -> dict[str, object]:
    (context.scratch / "left").write_text("behind")
    context.progress(1, 2)
    thread = threading.current_thread().name
    return {"thread": thread, "scratch": str(context.scratch), "key": context.key}


@worker.call("sample.from_thread@1")
async def from_thread(context: Context) -> None:
    """Log from a thread that belongs to no loop."""
    await asyncio.to_thread(context.log.info, "from a thread")


@worker.call("sample.inline_fail@1")
async def inline_fail(input: str) -> None:  # noqa: A002 - the contract's word
    raise ValueError(input)


@worker.call("sample.inline_artifact@1")
async def inline_artifact(input: Artifact, context: Context) -> None:  # noqa: A002 - as above
    context.artifacts.open(input)


@worker.map("sample.inline_map@1")
async def inline_map(records: list[Item]) -> list[Item | Rejected]:
    await asyncio.sleep(0)
    return [Rejected("odd") if one.id % 2 else one for one in records]


@worker.call("sample.steal@1")
def steal(options: Flag, context: Context) -> None:
    """Ask the front to store one of its own files, as hostile code would."""
    line = context.artifacts._line
    secret = Artifact(sha256="0" * 64, size=1)
    line.wait(line.ask(Store(call=line.next_call(), artifact=secret, path=options.path)))


@worker.call("sample.babble@1")
def babble(input: str, context: Context) -> None:  # noqa: A002 - the contract's word
    """Speak to the front as hostile code could."""
    step = context._port
    match input:
        case "garbage":
            step._line._socket.sendall(b"\x04\0\0\0\0\0\0\0junk")
        case "huge":
            step._line._socket.sendall(b"\xff" * 8)
        case "flood":
            step._unacknowledged = -(10**12)
            while True:
                step.send_batch(Batch(b"x" * 4_000_000, 1), None)
    time.sleep(60)


class Key(Record):
    key: Secret
    how: str = ""


@worker.call("sample.lent@1")
def secret(options: Key, context: Context) -> dict[str, object]:
    """Use a secret, and let it out in the way that is asked for."""
    value = options.key.reveal()
    match options.how:
        case "answer":
            return {"value": value}
        case "artifact":
            context.artifacts.put(value.encode())
        case "large artifact":
            context.artifacts.put(io.BytesIO(b"x" * 5_000_000 + value.encode()))
        case "artifact across blocks":
            context.artifacts.put(io.BytesIO(b"x" * (1024 * 1024 - 3) + value.encode()))
        case "log":
            context.log.info(f"key {value}", key=value)  # noqa: G004 - as authors do
        case "raise":
            raise FatalError(value)
    again = context.secrets.get(options.key.path).reveal()
    return {"length": len(value), "same": again == value, "shown": repr(options)}


@worker.call("sample.inline.lent@1", run_in="inline")
async def secret_inline(options: Key, context: Context) -> dict[str, object]:
    if options.how == "answer":
        return {"value": options.key.reveal()}
    if options.how:
        return {"length": len(context.secrets.get(options.how).reveal())}
    return {"length": len(options.key.reveal()), "shown": repr(options)}


@worker.map("sample.map.lent@1")
def secret_map(records: list[Item], options: Key) -> list[Item | Rejected]:
    value = options.key.reveal()
    if options.how == "records":
        return [Item(one.id, value) for one in records]
    return [Rejected(value, value, {"position": value}) for one in records]


@worker.call("sample.talk@1")
def talk(context: Context) -> None:
    for number in range(2000):
        context.log.info("line", number=number)
    context.log.error("large", data="x" * 1_000_000)


@worker.call("sample.inline.looked@1", run_in="inline")
async def looked_inline(context: Context) -> None:
    context.log.info("looked")


@worker.call("sample.inline.talk@1", run_in="inline")
async def talk_inline(context: Context) -> None:
    for number in range(2000):
        context.log.info("line", number=number)


@worker.source("sample.picky@1")
def picky(start: int | None) -> Iterator[tuple[Item | Rejected, int]]:
    yield Rejected("r" * 1000, "d" * 10_000, {object}), 1
    yield Rejected("large", "", "p" * 2_000_000), 2
    yield Item(3), 3


@worker.call("sample.fork@1")
def fork(options: Flag) -> None:
    """Leave a child behind, and die."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(options.path).write_text(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)


NOT_UNICODE = "caf\udce9"  # as Python reads a file name in Latin-1


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError


class OwnError(FatalError):
    """Says nothing of itself to ours, and has a slug of its own."""

    def __init__(self) -> None:
        self.slug = "own"


RAISED: dict[str, BaseException] = {
    "raise": ValueError(NOT_UNICODE),
    "fatal": FatalError(ValueError(NOT_UNICODE)),  # type: ignore[arg-type]  # as authors do
    "unprintable": UnprintableError(),
    "own": OwnError(),
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "cancelled": asyncio.CancelledError(),
}


def misbehave(how: str, context: Context) -> object:
    """Say or do what Python takes and nothing that is sent can hold."""
    if how in RAISED:
        raise RAISED[how]
    match how:
        case "log":
            context.log.info(NOT_UNICODE, **{NOT_UNICODE: NOT_UNICODE, "many": [1]})
        case "progress":
            context.progress(2**70, 2**70, NOT_UNICODE)
        case "print":
            print(NOT_UNICODE)  # noqa: T201 - the worker's log
        case "answer":
            return {"name": NOT_UNICODE}
    return how


@worker.call("sample.misbehave@1")
def misbehave_apart(input: str, context: Context) -> object:  # noqa: A002 - the contract's word
    return misbehave(input, context)


@worker.call("sample.inline.misbehave@1", run_in="inline")
async def misbehave_inline(input: str, context: Context) -> object:  # noqa: A002 - as above
    return misbehave(input, context)


async def leave() -> None:
    sys.exit(3)


@worker.call("sample.inline.leave@1", run_in="inline")
async def leave_inline(input: str) -> None:  # noqa: A002 - as above
    """End the loop, in a task of its own or at once."""
    if input == "stop":
        asyncio.get_running_loop().stop()
    else:
        await asyncio.create_task(leave())


def reject(records: list[Item]) -> list[Item | Rejected]:
    """Refuse the first in words that are no Unicode, and answer the second with them."""
    position = {"at": NOT_UNICODE}
    return [Rejected("bad", NOT_UNICODE, position), Item(2, NOT_UNICODE), *records[2:]]


@worker.map("sample.reject@1")
def reject_apart(records: list[Item]) -> list[Item | Rejected]:
    return reject(records)


@worker.map("sample.inline.reject@1", run_in="inline")
async def reject_inline(records: list[Item]) -> list[Item | Rejected]:
    return reject(records)
