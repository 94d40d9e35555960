"""Looks for a secret in every form in everything that an installation keeps, says or starts."""

import base64
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import zstandard


def shapes(value: str) -> dict[str, bytes]:
    """The value raw, in base64 (three alignments), as part of a URL, and in hexadecimal."""
    raw = value.encode()
    found = {
        "raw": raw,
        "url": quote(value, safe="").encode(),
        "hexadecimal": raw.hex().encode(),
        "HEXADECIMAL": raw.hex().upper().encode(),
    }
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw)
        found[f"base64 + {offset}"] = encoded[4 if offset else 0 : -4]
    return found


def where(value: str, pieces: Iterator[tuple[str, bytes]]) -> list[str]:
    """Name the pieces that hold the value, with the form in which they do."""
    looked_for = shapes(value)
    return [
        f"{name}: {form}"
        for name, data in pieces
        for form, shape in looked_for.items()
        if shape in data
    ]


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, as it is and unpacked where it is packed."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or "environments" in path.parts:
            continue
        with suppress(OSError):
            data = path.read_bytes()
            yield str(path), data
            yield from unpacked(str(path), data)
            if path.suffix == ".db":
                yield from rows(path)


def unpacked(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """What stands in compressed bytes."""
    with suppress(zstandard.ZstdError, zlib.error, EOFError):
        if data[:4] == b"\x28\xb5\x2f\xfd":
            yield f"{name} (zstd)", zstandard.ZstdDecompressor().stream_reader(data).read()
        elif data[:2] == b"\x1f\x8b":
            yield f"{name} (gzip)", zlib.decompress(data, wbits=31)


def rows(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every value of every table, whatever way it lies in the file."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - names of our own tables
                for value in row:
                    data = value if isinstance(value, bytes) else str(value).encode()
                    yield f"{path}:{table}", data
                    yield from unpacked(f"{path}:{table}", data)


def processes(pids: Iterator[int]) -> Iterator[tuple[str, bytes]]:
    """The command lines and environments of processes."""
    for pid in pids:
        for what in ("cmdline", "environ"):
            with suppress(OSError):
                yield f"{pid} {what}", Path(f"/proc/{pid}/{what}").read_bytes()


def descendants(pid: int) -> list[int]:
    """A process and all that it and its children have started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found
