"""Every long drill has a short form that `make test` runs: beside it, or where its docstring says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DRILLS = sorted((ROOT / "tests" / "e2e").rglob("test_*.py"))
LONG = "mark.chaos"
SHORT = re.compile(r"^In short: ((?:`[^`]+`(?:, )?)+)\.$", re.MULTILINE)


def drills_of(tree):
    return [
        one
        for one in ast.walk(tree)
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test_")
    ]


def is_long(tree):
    """Whether all of a file is."""
    marks = [one for one in tree.body if isinstance(one, ast.Assign)]
    return any(LONG in ast.unparse(one) for one in marks if "pytestmark" in ast.unparse(one))


def has_short(tree):
    """Whether a test of a file is not marked as a whole; parameters may be."""
    marks = [[ast.unparse(mark) for mark in one.decorator_list] for one in drills_of(tree)]
    return not is_long(tree) and any(f"pytest.{LONG}" not in some for some in marks)


@pytest.mark.parametrize("file", DRILLS, ids=lambda path: path.stem)
def test_a_long_drill_has_a_short_form(file):
    text = file.read_text()
    tree = ast.parse(text)
    if has_short(tree):
        return
    found = SHORT.search(ast.get_docstring(tree) or "")
    assert found, f"{file.name}: end its docstring with “In short: `FILE`.”, or add a short test"
    for name in re.findall(r"`([^`]+)`", found[1]):
        short = ROOT / name
        assert has_short(ast.parse(short.read_text())), f"{name} has no short form"
