"""A platform, and command lines that run beside it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hivemesh_platform.app import Platform
from hivemesh_platform.cli import failures, session
from hivemesh_platform.cli.main import build
from platform_support import install, platform
from registry_support import manifest


class Said(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _new_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a command line of its own."""
    monkeypatch.setattr(session, "_chosen", {})


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[Platform]:
    """A running platform with one worker installed."""
    install(tmp_path, manifest())
    async with platform(tmp_path) as running:
        yield running


@pytest.fixture
def hivemesh(
    found: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., "asyncio.Future[Said]"]:
    """Run a command line in a thread, beside the platform that it talks to."""
    monkeypatch.setenv("HIVEMESH_STATE__FOLDER", str(found.state_folder))

    def run(line: str, *more: str) -> Said:
        words = session.take_remote([*line.split(), *more])
        monkeypatch.setattr(sys, "argv", ["hivemesh", *words])
        code = failures.run_guarded(
            lambda: build(words)(words, prog_name="hivemesh", standalone_mode=False)
        )
        seen = capsys.readouterr()
        return Said(code, seen.out, seen.err)

    return lambda line, *more: asyncio.to_thread(run, line, *more)
