"""A folder becomes an artifact of the files that were asked for, by the client and the command."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from hivemesh_platform.app import Platform
from hivemesh_platform.cli import failures
from hivemesh_sdk.client import Client
from hivemesh_sdk.contracts.artifacts import Tree
from hivemesh_sdk.contracts.names import TREE_MEDIA_TYPE
from platform_support import ask

pytestmark = pytest.mark.integration

FILES = {"1.pdf": b"a", "2.txt": b"bb", "a/3.docx": b"ccc", "a/b/4.md": b"d", "a/b/5.exe": b"e"}
PATTERNS = ["*.pdf", "*.docx", "*.md"]
WANTED = ["1.pdf", "a/3.docx", "a/b/4.md"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "reports" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "reports"


@pytest.fixture
def put(hivemesh):
    """Run `artifact put` beside the platform that it talks to."""
    return lambda *more: hivemesh("artifact put", *map(str, more))


async def names(found: Platform, sha256: str) -> list[str]:
    """The paths that a stored folder has, each with the bytes of its file."""

    def read() -> list[str]:
        with Client.from_state(found.state_folder) as client:
            tree = msgspec.json.decode(b"".join(client.artifact(sha256)), type=Tree)
            for name, file in tree.entries.items():
                assert b"".join(client.artifact(file.sha256)) == FILES[name]
        return sorted(tree.entries)

    return await asyncio.to_thread(read)


async def test_the_client_stores_the_files_of_a_folder_that_fit(found, folder) -> None:
    view = await ask(found, "put_folder", folder, patterns=PATTERNS)
    assert (view.name, view.media_type) == ("reports", TREE_MEDIA_TYPE)
    assert await names(found, view.sha256) == WANTED
    top = await ask(found, "put_folder", folder, patterns=PATTERNS, recursive=False)
    assert await names(found, top.sha256) == ["1.pdf"]
    whole = await ask(found, "put_folder", folder, data_class="personal")
    assert await names(found, whole.sha256) == sorted(FILES)
    assert whole.data_class == "personal"


async def test_the_command_stores_the_files_of_a_folder_that_fit(found, put, folder) -> None:
    chosen = [word for pattern in PATTERNS for word in ("--pattern", pattern)]
    code, out, _ = await put(folder, *chosen)
    assert (code, await names(found, out.strip())) == (0, WANTED)
    code, out, _ = await put(folder, *chosen, "--no-recursive", "-o", "json")
    assert (code, await names(found, json.loads(out)["sha256"])) == (0, ["1.pdf"])
    code, out, _ = await put(folder)
    assert (code, await names(found, out.strip())) == (0, sorted(FILES))


async def test_the_command_says_what_to_do_where_nothing_can_be_chosen(put, folder) -> None:
    code, out, err = await put(folder, "--pattern", "*.md", "--no-recursive")
    assert (code, out) == (3, "")
    assert "none of 2 files" in err
    assert "leave out --no-recursive" in err
    code, _, err = await put(folder / "1.pdf", "--pattern", "*.pdf")
    assert code == failures.USAGE
    assert "are for a folder" in err
