"""Prints what a command found: a table for people, JSON or YAML with stable keys for programs."""

import json
import os
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    Column = tuple[str, str | Callable[[Any], str]]

Format = Annotated[
    Literal["table", "wide", "json", "yaml", "name"],
    typer.Option("--output", "-o", help="table, wide, json, yaml or name.", show_default=False),
]


def show_list(
    items: "Sequence[BaseModel]",
    columns: "Sequence[Column]",
    output: str,
    *,
    wide: "Sequence[Column]" = (),
    empty: str = "nothing here",
) -> None:
    """Print items; `columns` are (title, attribute or function) pairs, the first one the name.

    `empty` tells the next command where there is nothing to list.
    """
    if output in {"json", "yaml"}:
        _dump([item.model_dump(mode="json") for item in items], output)
    elif output == "name":
        for item in items:
            typer.echo(_cell_of(item, columns[0][1]))
    elif not items:
        typer.echo(empty, err=True)
    else:
        shown = [*columns, *wide] if output == "wide" else columns
        rows = [[_cell_of(item, which) for _, which in shown] for item in items]
        typer.echo(table([title for title, _ in shown], rows))


def show_one(
    item: "BaseModel", output: str, *, name: str = "id", without: Collection[str] = ()
) -> None:
    """Print one object: for people its fields as lines, but for empty ones and those in `without`."""
    if output in {"json", "yaml"}:
        _dump(item.model_dump(mode="json"), output)
    elif output == "name":
        typer.echo(getattr(item, name))
    else:
        for field, value in item.model_dump(mode="json").items():
            if field not in without and not _absent(value):
                _show_field(field, value)


def show_document(document: object, output: str) -> None:
    """Print a JSON document; the formats for people show it as YAML."""
    _dump(document, output if output in {"json", "yaml"} else "yaml")


def show_done(said: str, document: object, output: str) -> None:
    """Say what was done; for programs, what is so now."""
    if output in {"json", "yaml"}:
        _dump(document, output)
    else:
        typer.echo(said)


def save(blocks: Iterable[bytes], file: Path | None, output: str) -> None:
    """Write bytes to standard output, or to a file and say how much.

    The file is there once all of it has come; until then, and where that fails, it is what it was.
    """
    if file is None:
        sys.stdout.buffer.writelines(blocks)
        sys.stdout.buffer.flush()
        return
    size = write(blocks, file)
    if output in {"json", "yaml"}:
        _dump({"file": str(file), "bytes": size}, output)
    else:
        typer.echo(f"{file}: {size_text(size)}", err=True)


def write(blocks: Iterable[bytes], file: Path) -> int:
    """Write beside the file and rename at the end; returns the size."""
    target = file.resolve()  # a link stays one
    if target.exists() and not target.is_file():
        return _pour(
            blocks, target, "wb"
        )  # a device or a pipe, which nothing can be put in place of
    beside = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
    try:
        size = _pour(blocks, beside, "xb")
        if target.exists():
            beside.chmod(target.stat().st_mode & 0o7777)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return size


def _pour(blocks: Iterable[bytes], file: Path, mode: Literal["wb", "xb"]) -> int:
    with file.open(mode) as target:
        return sum(target.write(block) for block in blocks)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns by two blanks; the last column is not padded."""
    lines = [[title.upper() for title in titles], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def cell(value: object) -> str:
    """One value as it stands in a table."""
    if _absent(value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list | tuple):
        return printable(",".join(str(one) for one in value))
    if isinstance(value, dict):
        return printable(",".join(f"{key}={one}" for key, one in value.items()))
    text = printable(str(value))
    return local_time(text) if _looks_like_time(text) else text


def printable(text: str) -> str:
    """Text of workers and of what they read, without characters that command a terminal."""
    return "".join("\ufffd" if unicodedata.category(one) in {"Cc", "Cf"} else one for one in text)


def brief(value: object) -> str:
    """A value on one line: an artifact by name and size, a flat object as its fields."""
    if isinstance(value, dict) and "sha256" in value:
        size = size_text(value.get("size", 0))
        return f"{value.get('name') or 'artifact'}, {size}, sha256 {value['sha256'][:12]}…"
    if isinstance(value, dict) and not any(isinstance(one, dict | list) for one in value.values()):
        return ", ".join(f"{key}={cell(one)}" for key, one in value.items())
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else cell(value)


def local_time(text: str) -> str:
    """An ISO time in the zone of the reader."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age(text: str | None) -> str:
    """How long ago an ISO time was."""
    if text is None:
        return "-"
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"


def size_text(count: float) -> str:
    """A number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def colour_allowed() -> bool:
    """Colour and moving lines only on a terminal whose owner did not refuse them."""
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ


def _cell_of(item: object, which: "str | Callable[[Any], str]") -> str:
    return cell(getattr(item, which)) if isinstance(which, str) else which(item)


def _absent(value: object) -> bool:
    return value is None or value in ("", [], {})


def _show_field(field: str, value: object) -> None:
    title = field.replace("_", " ")
    if isinstance(value, list) and value and isinstance(value[0], dict):
        typer.echo(f"{title}:")
        columns = [key for key, one in value[0].items() if not isinstance(one, dict | list)]
        rows = [[cell(row.get(key)) for key in columns] for row in value]
        columns = [key.replace("_", " ") for key in columns]
        for line in table(columns, rows).splitlines():
            typer.echo(f"  {line}")
    elif isinstance(value, dict) and value:
        typer.echo(f"{title}:")
        for key, one in value.items():
            typer.echo(f"  {key}: {brief(one)}")
    else:
        typer.echo(f"{title}: {cell(value)}")


def _looks_like_time(text: str) -> bool:
    return len(text) >= 19 and text[4:5] == "-" and text[10:11] == "T" and text[13:14] == ":"


def _dump(document: object, output: str) -> None:
    if output == "yaml":
        import yaml

        typer.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)
    else:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
