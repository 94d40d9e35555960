"""Writes the schemas and the worker's OpenAPI document: `python -m hivemesh_sdk.contracts.generate FOLDER`."""

import json
import sys
from inspect import cleandoc
from pathlib import Path

from pydantic import JsonValue

from hivemesh_sdk.contracts.openapi import worker_openapi
from hivemesh_sdk.contracts.schemas import documents


def files() -> dict[str, str]:
    """File name to content."""
    schemas = {f"{name}.schema.json": document for name, document in documents().items()}
    return {
        name: text(value)
        for name, value in {**schemas, "worker.openapi.json": worker_openapi()}.items()
    }


def write(folder: Path) -> list[Path]:
    """Write every file into the folder and remove generated ones that have no type any more."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = files()
    for stale in folder.glob("*.json"):
        if stale.name not in wanted:
            stale.unlink()
    for name, content in wanted.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in wanted]


def text(value: JsonValue) -> str:
    """A document as its file holds it."""
    return json.dumps(_dedented(value), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _dedented(value: JsonValue) -> JsonValue:
    """Descriptions come from docstrings, with the indentation of the code."""
    if isinstance(value, dict):
        return {
            key: cleandoc(below)
            if key == "description" and isinstance(below, str)
            else _dedented(below)
            for key, below in value.items()
        }
    return [_dedented(below) for below in value] if isinstance(value, list) else value


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m hivemesh_sdk.contracts.generate FOLDER")
    write(Path(sys.argv[1]))
