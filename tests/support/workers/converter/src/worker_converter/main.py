"""Capabilities that call another worker."""

import time

from hivemesh_sdk import Artifact, Context, Record, Worker

worker = Worker()


class Many(Record):
    """How often to call, with which pause between."""

    file: str
    times: int
    pause_s: float


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
