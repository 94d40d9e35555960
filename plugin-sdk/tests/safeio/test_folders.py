"""Files of a folder are chosen by their names, and by whether folders below count."""

from pathlib import Path

import pytest
from hivemesh_sdk.errors import ConfigurationError, NotFoundError
from hivemesh_sdk.safeio.folders import files_of

PATTERNS = ["*.pdf", "*.docx", "*.md"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("1.pdf", "2.txt", "a/3.docx", "a/b/4.md", "a/b/5.exe"):
        (tmp_path / name).touch()
    return tmp_path


def taken(folder: Path, *patterns: str, **options: bool) -> list[str]:
    return [one.relative_to(folder).as_posix() for one in files_of(folder, patterns, **options)]


def test_files_that_fit_a_pattern_are_taken_from_the_whole_tree(folder):
    assert taken(folder, *PATTERNS) == ["1.pdf", "a/3.docx", "a/b/4.md"]


def test_without_recursion_only_the_top_counts(folder):
    assert taken(folder, *PATTERNS, recursive=False) == ["1.pdf"]
    assert taken(folder, recursive=False) == ["1.pdf", "2.txt"]


def test_without_patterns_all_files_are_taken_and_no_links(folder):
    (folder / "6.pdf").symlink_to(folder / "1.pdf")
    (folder / "c").symlink_to(folder / "a")
    assert taken(folder) == ["1.pdf", "2.txt", "a/3.docx", "a/b/4.md", "a/b/5.exe"]


def test_an_empty_folder_is_one_without_files(tmp_path):
    assert taken(tmp_path) == []


@pytest.mark.parametrize(
    ("patterns", "recursive", "told"),
    [
        (["*.PDF", "*.odt"], True, r"none of 5 files in '.*' or below fits \*\.PDF or \*\.odt"),
        (["*.md"], False, r"none of 2 files in '.*' itself fits \*\.md"),
        (["a/*"], True, r"none of 5 files"),
    ],
)
def test_that_nothing_fits_is_told_with_what_to_do(folder, patterns, recursive, told):
    with pytest.raises(NotFoundError, match=told) as refused:
        files_of(folder, patterns, recursive=recursive)
    assert "names of files alone" in refused.value.remedy
    assert ("leave out --no-recursive" in refused.value.remedy) is not recursive


def test_a_top_without_files_is_told(folder):
    (folder / "only").mkdir()
    (folder / "only/below").mkdir()
    (folder / "only/below/1.pdf").touch()
    with pytest.raises(NotFoundError, match=r"no file in '.*only' itself"):
        files_of(folder / "only", recursive=False)


@pytest.mark.parametrize("name", ["1.pdf", "missing"])
def test_what_is_no_folder_is_told(folder, name):
    with pytest.raises(ConfigurationError, match="is no folder"):
        files_of(folder / name)
