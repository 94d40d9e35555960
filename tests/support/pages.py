"""The blocks of code in the project's pages, for the tests that hold the pages true."""

import re
from pathlib import Path

_PROJECT = Path(__file__).parents[2]


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a language in a page, in order; the page by its path in the project."""
    text = (_PROJECT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
