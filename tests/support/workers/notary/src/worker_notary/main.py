"""Capabilities that another worker calls."""

from pathlib import Path

from hivemesh_sdk import Artifact, Context, Record, Worker

worker = Worker()


class Counted(Record):
    """Where to note a call."""

    file: str
    number: int


class Given(Record):
    """The options of a step of a pipeline."""

    sheet: Artifact


@worker.call("sheet.stamp@1")
def stamp(sheet: Artifact, context: Context) -> dict[str, object]:
    """Read the sheet and store a stamp for it; both need a ticket of one's own."""
    with context.artifacts.open(sheet) as reader:
        length = len(reader.read())
    stored = context.artifacts.put(b"stamp of %d bytes" % length, name="stamp.txt")
    return {"length": length, "stamp": stored.sha256, "key": context.key}


@worker.call("sheet.count@1")
def count(counted: Counted) -> int:
    """Note the call in a file that the test looks at."""
    with Path(counted.file).open("a") as file:
        file.write(f"{counted.number}\n")
    return counted.number


@worker.call("sheet.size@1")
def size(_: None, options: Given, context: Context) -> dict[str, int]:
    """Read the sheet, as a step of a pipeline."""
    with context.artifacts.open(options.sheet) as reader:
        return {"length": len(reader.read())}
