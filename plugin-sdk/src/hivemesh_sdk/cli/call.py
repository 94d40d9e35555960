"""`hivemesh-worker call`: runs one capability of the worker here, without any platform."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import msgspec

from hivemesh_sdk.errors import ConfigurationError, HivemeshError
from hivemesh_sdk.failures import INCOMPLETE, OK, show
from hivemesh_sdk.lifecycle.location import import_worker, locate
from hivemesh_sdk.safeio.documents import read_text
from hivemesh_sdk.safeio.pairs import parse_pairs
from hivemesh_sdk.safeio.yaml import parse_yaml
from hivemesh_sdk.worker.failures import problem_of
from hivemesh_sdk.worker.http import Http
from hivemesh_sdk.worker.local import run_local
from hivemesh_sdk.worker.records import Rejected


def run(options: argparse.Namespace) -> int:
    """Run the capability; 6 where records were rejected."""
    location = locate(options.worker)
    worker = import_worker(location)
    http = Http(location.manifest.permissions.egress, lambda: options.internal)
    given = parse_pairs(options.options)
    secrets = read_secrets(options.secrets)
    as_json = options.output == "json"
    report = _Report(as_json=as_json)
    with _opened(options.input) as source:
        answers = run_local(
            worker,
            options.capability,
            given,
            _lines(source),
            report=report,
            http=http,
            secrets=secrets,
        )
        try:
            rejected = _print(answers, report)
        except HivemeshError:
            raise
        except Exception as error:
            if options.verbose > 1:
                raise
            return show(problem_of(error), as_json=as_json)
    if rejected:
        sys.stderr.write(f"{rejected} rejected\n")
    return INCOMPLETE if rejected else OK


def read_secrets(path: str | None) -> dict[str, str]:
    """Read a file of secrets: a mapping of paths to values.

    Raises:
        ConfigurationError: it is none.
    """
    if path is None:
        return {}
    found = parse_yaml(read_text(Path(path)), name=path)
    if not isinstance(found, dict):
        message = f"{path!r} is no mapping; write `mail.password: VALUE` on each line"
        raise ConfigurationError(message)
    return {name: str(value) for name, value in found.items()}


def _opened(path: str | None) -> "nullcontext[BinaryIO | None] | BinaryIO":
    if path is None:
        return nullcontext(None)
    if path == "-":
        return nullcontext(sys.stdin.buffer)
    return Path(path).open("rb")


def _lines(source: BinaryIO | None) -> Iterator[bytes]:
    for line in source or ():
        if line.strip():
            yield line


def _print(answers: Iterator[bytes | Rejected], report: "_Report") -> int:
    rejected = 0
    out = sys.stdout.buffer
    for answer in answers:
        if isinstance(answer, Rejected):
            rejected += 1
            report.rejected(answer)
        else:
            out.write(answer + b"\n")
    out.flush()
    return rejected


class _Report:
    """What goes to standard error: rejected records and the capability's own log."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def rejected(self, record: Rejected) -> None:
        """A record that was refused, with its reason and place."""
        if self._as_json:
            document = {"type": "rejected", **msgspec.to_builtins(record)}
            _write(msgspec.json.encode(document).decode())
            return
        place = "" if record.position is None else f" at {record.position}"
        detail = f": {record.detail}" if record.detail else ""
        _write(f"rejected[{record.reason}]{place}{detail}")

    def progress(self, done: int, total: int, unit: str) -> None:
        """Shown on a terminal only."""
        if sys.stderr.isatty():
            of = f" of {total}" if total else ""
            sys.stderr.write(f"\r{done}{of} {unit}   ")

    def log(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """A line of the capability's log."""
        if self._as_json:
            document = {"type": "log", "level": level, "message": event, "fields": fields}
            _write(msgspec.json.encode(document).decode())
            return
        shown = " ".join(f"{name}={value!r}" for name, value in fields.items())
        _write(f"{level}: {event} {shown}".rstrip())


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
