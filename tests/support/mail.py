"""Mailboxes of any size, always the same, from the shipped permissive sample."""

import re
from itertools import cycle, islice
from pathlib import Path
from typing import BinaryIO

from hivemesh_sdk.client import Client
from pydantic import JsonValue
from whole_platform import SAMPLE, Installation

_SEPARATOR = re.compile(rb"^From ", re.MULTILINE)


def write_mbox(path: Path, messages: int) -> Path:
    """Write so many messages; each is one of the sample's, told apart by a header."""
    whole = SAMPLE.read_bytes()
    starts = [found.start() for found in _SEPARATOR.finditer(whole)]
    ends = [*starts[1:], len(whole)]
    sample = [whole[start:end] for start, end in zip(starts, ends, strict=True)]
    with path.open("wb") as file:
        for number, message in enumerate(islice(cycle(sample), messages)):
            separator, _, rest = message.partition(b"\n")
            file.write(b"%b\nX-Copy: %d\n%b" % (separator, number, rest))
    return path


def put(client: Client, file: BinaryIO) -> dict[str, JsonValue]:
    """Store a mailbox; returns the parameters of a run over it."""
    stored = client.put_artifact(file, name="mail.mbox")
    return {"archive": {"sha256": stored.sha256, "size": stored.size, "name": stored.name}}


def submit(installation: Installation, mbox: Path) -> str:
    """Start a run of the shipped pipeline; returns its id."""
    with installation.client() as client, mbox.open("rb") as file:
        return client.start_run("email-insights", put(client, file)).id
