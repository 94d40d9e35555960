"""Capabilities that call another worker."""

import time
from pathlib import Path

from hivemesh_sdk import Artifact, Context, Record, RetryableError, Worker

worker = Worker()


class Many(Record):
    """How often to call, with which pause between."""

    file: str
    times: int
    pause_s: float


class Filed(Record):
    """A sheet, and where to note that it was tried once."""

    sheet: Artifact
    file: str


@worker.call("sheet.convert@1")
def convert(sheet: Artifact, context: Context) -> dict[str, object]:
    """Have the sheet stamped."""
    return {"stamp": context.call("sheet.stamp@1", sheet)}


@worker.call("sheet.convert_many@1")
def convert_many(many: Many, context: Context) -> int:
    """Call again and again, whether the platform is there or not."""
    for number in range(many.times):
        context.call("sheet.count@1", {"file": many.file, "number": number})
        time.sleep(many.pause_s)
    return many.times


@worker.call("sheet.file@1")
def file(filed: Filed, context: Context) -> dict[str, str]:
    """Have the sheet stamped and measured later, by a job and by a pipeline; fail after that at the first attempt."""
    said = {"labels": {"filed": "yes"}, "priority": 9}
    job = context.submit("sheet.stamp@1", filed.sheet, **said)
    run = context.submit("pipeline/sizes@1", options={"sheet": filed.sheet}, **said)
    with Path(filed.file).open("a") as note:
        note.write(f"{job} {run}\n")
    if len(Path(filed.file).read_text().splitlines()) == 1:
        message = "the first attempt always fails"
        raise RetryableError(message)
    return {"job": job, "run": run}
