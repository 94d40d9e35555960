"""Measures the reducer: `python -m worker_email_insights.measure RECORDS.ndjson`.

RECORDS holds message records, one a line, as `email.parse@1` or `email.classify@1` give them.
"""

import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from worker_email_insights.message import Message
from worker_email_insights.report import render
from worker_email_insights.state import Archive
from worker_email_insights.summary import summarize

BATCH = 500  # records, as the platform cuts them


def main(path: Path) -> None:
    """Print the cost of a message, the size of the state and the memory it took."""
    decode = msgspec.json.Decoder(Message).decode_lines
    archive = Archive()
    start = time.process_time()
    for batch in _batches(path):
        archive.add(decode(batch))
    spent = time.process_time() - start
    messages = archive.volumes.messages
    state = msgspec.json.encode(archive)
    start = time.process_time()
    page = render(summarize(archive, top=10, subjects=True), title="Measured")
    answering = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(  # noqa: T201 - a command
        f"{messages:,} messages, {1e6 * spent / max(1, messages):.1f} us each; "
        f"state {len(state):,} bytes; answer {1e3 * answering:.0f} ms, page {len(page):,} bytes; "
        f"peak {peak} MiB"
    )


def _batches(path: Path) -> Iterator[bytes]:
    lines: list[bytes] = []
    with path.open("rb") as file:
        for line in file:
            lines.append(line)
            if len(lines) == BATCH:
                yield b"".join(lines)
                lines = []
    yield b"".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m worker_email_insights.measure RECORDS.ndjson")
    main(Path(sys.argv[1]))
