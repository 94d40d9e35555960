"""File names from outside never leave their folder."""

import os

import pytest
from hivemesh_sdk.errors import InvalidError, NotFoundError
from hivemesh_sdk.safeio import contained, file_name, open_contained


@pytest.mark.parametrize("name", ["a", "a.txt", "Ärger (1).eml", ".hidden", "a..b", "x" * 255])
def test_plain_names_pass_unchanged(name):
    assert file_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a\0b",
        "a\nb",
        "x" * 256,
        "é" * 128,
        "NUL",
        "con.txt",
        "\ud800",
    ],
)
def test_names_that_are_no_plain_segment_are_refused(name):
    with pytest.raises(InvalidError):
        file_name(name)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a//b", "", "a/" * 70 + "b"])
def test_paths_that_could_leave_the_folder_are_refused(tmp_path, path):
    with pytest.raises(InvalidError):
        contained(tmp_path, path)


def test_a_file_below_the_folder_is_opened(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_bytes(b"hello")
    assert contained(tmp_path, "a/b.txt") == tmp_path / "a" / "b.txt"
    with open_contained(tmp_path, "a/b.txt") as file:
        assert file.read() == b"hello"


@pytest.mark.parametrize("path", ["link", "folder-link/x"])
def test_symbolic_links_are_not_followed(tmp_path, path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside / "x")
    (root / "folder-link").symlink_to(outside)
    with pytest.raises(InvalidError, match="symbolic link"):
        open_contained(root, path)


def test_what_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        contained(tmp_path, "nothing")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(InvalidError, match="no regular file"):
        open_contained(tmp_path, "a")


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidError, match="no regular file"):
        open_contained(tmp_path, "pipe")
