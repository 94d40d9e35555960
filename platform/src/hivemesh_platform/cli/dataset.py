"""`hivemesh dataset`: named, versioned sets of records and where they came from."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from hivemesh_platform.cli import output, session

app = typer.Typer(no_args_is_help=True)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The dataset's name, as `dataset list` shows it.")
]
Version = Annotated[int | None, typer.Option("--version", min=1, help="Default: the newest.")]

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute these


@app.command("list")
def list_(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show the datasets, newest version of each.

    Example:  hivemesh dataset list
    """
    with session.client(state) as client:
        output.show_list(
            client.datasets(),
            [
                ("name", "name"),
                ("version", "version"),
                ("state", "state"),
                ("records", "records"),
                ("bytes", "bytes"),
                ("created", "created_at"),
                ("run", "run"),
            ],
            fmt,
            wide=[("step", "node"), ("provenance", "provenance")],
            empty="no datasets yet; a pipeline's outputs become datasets",
        )


@app.command()
def show(
    name: Name, version: Version = None, fmt: output.Format = "table", state: session.State = None
) -> None:
    """Show one dataset version with its provenance.

    Example:  hivemesh dataset show email-insights.messages
    """
    with session.client(state) as client:
        output.show_one(client.dataset(name, version), fmt, name="name")


@app.command()
def export(
    name: Name,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Write to this file instead of stdout.")
    ] = None,
    as_: Annotated[
        Literal["ndjson", "json", "csv"], typer.Option("--as", help="The format of the file.")
    ] = "ndjson",
    version: Version = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Write the records of a dataset as NDJSON, JSON or CSV.

    Example:  hivemesh dataset export email-insights.messages --as csv --file messages.csv
    """
    with session.client(state) as client:
        blocks: Iterator[bytes] = client.records(name, version)
        if as_ != "ndjson":
            blocks = _converted(_lines(blocks), as_)
        output.save(blocks, file, fmt)


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from (line for line in whole if line)
    if rest:
        yield rest


def _converted(lines: Iterator[bytes], kind: str) -> Iterator[bytes]:
    if kind == "json":
        yield b"["
        for number, line in enumerate(lines):
            yield (b",\n" if number else b"\n") + line
        yield b"\n]\n"
        return
    row = io.StringIO(newline="")
    writer: csv.DictWriter[str] | None = None
    for line in lines:
        record = json.loads(line)
        if writer is None:
            writer = csv.DictWriter(row, fieldnames=list(record), extrasaction="ignore")
            writer.writeheader()
        writer.writerow({key: _csv_cell(value) for key, value in record.items()})
        yield row.getvalue().encode()
        row.seek(0)
        row.truncate()


def _csv_cell(value: object) -> object:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(FORMULA_STARTS) and isinstance(value, str) else text
