"""Raw readers of what strangers send stand in safeio alone, however they are imported."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("platform/src", "plugin-sdk/src", "workers")
    for path in (ROOT / folder).rglob("*.py")
    if not {".venv", "tests", "safeio"} & set(path.parts)
)
MODULES = {
    "zipfile",
    "tarfile",
    "gzip",
    "bz2",
    "lzma",
    "xml",
    "lxml",
    "pickle",
    "marshal",
    "shelve",
}
MODULES |= {"httpx", "httpx2", "httpcore2", "aiohttp", "requests", "urllib3", "dill", "joblib"}
CALLS = {"eval", "exec", "unpack_archive", "extractall", "import_module"}
ALLOWED = {
    # numpy raises its error class; the file is the worker's own
    ("model.py", "zipfile"),
    # the entrypoint that the manifest names
    ("executor.py", "import_module"),
    ("location.py", "import_module"),
    # commands are loaded by name from a fixed table
    ("main.py", "import_module"),
}


def raw_forms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name.partition(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in CALLS:
                yield name
            if any(
                word.arg == "shell" and getattr(word.value, "value", False)
                for word in node.keywords
            ):
                yield "shell"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_uses_no_raw_form(path):
    found = set(raw_forms(path)) & (MODULES | CALLS | {"shell"})
    assert {(path.name, form) for form in found} <= ALLOWED


def test_sources_are_found():
    assert len(SOURCES) > 200


def waits(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) == ("asyncio", "wait_for"):
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "asyncio":
            yield from (node.lineno for one in node.names if one.name == "wait_for")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_waits_by_a_timeout_that_loses_no_cancel(path):
    """`asyncio.wait_for` of 3.11 loses a cancel that meets its result; then a stop never ends."""
    assert list(waits(path)) == []
