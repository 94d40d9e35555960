"""Runs the pipeline's three functions, the parser or the standard library alone in one process.

    one_process.py pipeline|parse|compat32|default ARCHIVE

Prints messages, wall and CPU seconds as JSON.
"""

import json
import sys
import time
from itertools import islice
from pathlib import Path

import msgspec
from standard_library import compat32, default

BATCH = 500


def pipeline(path: Path) -> int:
    """Parse, classify and sum up with the workers' own functions, batch by batch."""
    from worker_email_classifier.classify import Classifier
    from worker_email_classifier.model import shipped
    from worker_email_classifier.types import TYPES
    from worker_email_insights.message import Message
    from worker_email_insights.report import render
    from worker_email_insights.state import Archive
    from worker_email_insights.summary import summarize

    classifier, insights = Classifier(shipped()), Archive()
    decode = msgspec.json.Decoder(Message).decode
    count = 0
    records = _records(path)
    while batch := list(islice(records, BATCH)):
        labelled = classifier.records([msgspec.Raw(line) for line in batch], TYPES)
        insights.add([decode(line) for line in labelled])
        count += len(batch)
    render(summarize(insights, top=10, subjects=True), title="bench")
    return count


def parse(path: Path) -> int:
    """Parse alone."""
    return sum(1 for _ in _records(path))


def _records(path: Path):
    from worker_email_parser.archives import parse_stream

    encode = msgspec.json.Encoder().encode
    with path.open("rb") as stream:
        for record, _ in parse_stream(stream):
            yield encode(record)


def main() -> None:
    function = {one.__name__: one for one in (pipeline, parse, compat32, default)}[sys.argv[1]]
    wall, cpu = time.perf_counter(), time.process_time()
    count = function(Path(sys.argv[2]))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"messages": count, "wall_s": wall, "cpu_s": cpu}))


if __name__ == "__main__":
    main()
