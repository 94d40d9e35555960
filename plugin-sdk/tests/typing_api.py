"""The types of the public API: checked by mypy, never run."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import msgspec
from hivemesh_sdk import (
    Artifact,
    ConfigurationError,
    Context,
    FatalError,
    Raw,
    Record,
    Rejected,
    RetryableError,
    SkippedError,
    State,
    Worker,
)

worker = Worker()


class Message(Record):
    id: str
    text: str = ""


class Options(Record):
    archive: Artifact
    types: list[str] = msgspec.field(default_factory=list)


@dataclass
class Offset:
    byte: int


@worker.source("mail.parse@1", run_in="process")
def parse(
    options: Options, start: Offset | None, context: Context
) -> Iterator[tuple[Message | Rejected, Offset]]:
    with context.artifacts.open(options.archive, start.byte if start else 0) as reader:
        data: bytes = reader.read(10)
    context.progress(len(data), options.archive.size, "bytes")
    yield Message(data.hex()), Offset(10)
    yield Rejected("truncated", position=10), Offset(20)


@worker.source("mail.watch@1")
async def watch(start: int | None) -> AsyncIterator[tuple[Message, int]]:
    yield Message("1"), 1


@worker.map("mail.classify@1")
def classify(records: list[Message], options: Options, context: Context) -> list[Raw | Rejected]:
    if context.cancelled or context.deadline == 0:
        return []
    context.log.info("classified", count=len(records))
    return [Raw(b"{}") for _ in records]


@worker.reducer("mail.count@1")
class Count(State):
    total: int = 0

    def add(self, records: list[Message]) -> None:
        self.total += len(records)

    def merge(self, other: "Count") -> None:
        self.total += other.total

    def result(self, options: Options) -> dict[str, int]:
        return {"total": self.total}


@worker.call("mail.fail@1")
def fail(input: int, context: Context) -> Artifact:  # noqa: A002 - the contract's word
    match input:
        case 1:
            raise RetryableError("busy", delay_s=3.0)
        case 2:
            raise FatalError("never")
        case 3:
            raise SkippedError("nothing to do")
        case 4:
            raise ConfigurationError("wrong")
    (context.scratch / "file").write_text(context.key)
    reference: Artifact = context.artifacts.put(b"data", media_type="text/plain", name="a")
    return reference


@worker.call("mail.echo@1")
async def echo(input: Message) -> Message:  # noqa: A002 - as above
    return input


messages: list[Raw | Rejected] = classify([], Options(Artifact(sha256="", size=0)), None)  # type: ignore[arg-type] # the decorated function keeps its types
count: int = Count(total=3).total
