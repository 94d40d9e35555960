"""Builds one Python environment per worker: by uv, by pip where uv cannot run.

An environment is named by a digest of everything that decides its content, so a later start finds
it ready. Building writes to the log that `hivemesh worker logs` shows.
"""

import asyncio
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from hivemesh_platform.supervisor.first_party import WorkerEnvironmentError
from hivemesh_platform.supervisor.indexes import Indexes

Builder = Literal["uv", "pip"]
COMPLETE = ".complete"
BUILD_TIMEOUT_S = 600.0
TAIL_BYTES = 4096
MAX_WORDS = 400
_CAUSE = re.compile("(?:cause|caused by): ", re.IGNORECASE)
_KEPT_PREFIXES = ("PIP_", "UV_", "SSL_", "LC_")
_KEPT = frozenset(
    {"PATH", "HOME", "LANG", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What goes into an environment: folders are installed so that edits take effect."""

    worker: str
    worker_source: Path
    sdk_source: Path

    def digest(self, python: str, builder: Builder) -> str:
        """Changes whenever the environment has to be built again."""
        hashed = hashlib.sha256()
        for part in (python, builder, str(self.worker_source), str(self.sdk_source)):
            hashed.update(part.encode() + b"\0")
        for path in (_described_by(self.worker_source), _described_by(self.sdk_source)):
            hashed.update(path.read_bytes())
        return hashed.hexdigest()[:12]

    def requirements(self) -> list[str]:
        """Arguments for `pip install`."""
        return [
            argument
            for source in (self.sdk_source, self.worker_source)
            for argument in (["-e", str(source)] if source.is_dir() else [str(source)])
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderSettings:
    """Where environments are kept and what builds them."""

    folder: Path
    cache: Path
    indexes: Indexes
    environment: Mapping[str, str]
    builder: Literal["auto", "uv", "pip"] = "auto"
    python: str = sys.executable


class _UnusableBuilderError(WorkerEnvironmentError):
    """Not even an empty environment could be made: what pip could do better than uv."""


class EnvironmentBuilder:
    """Builds environments, each at most once at a time."""

    def __init__(self, settings: BuilderSettings) -> None:
        self._settings = settings
        self._locks: dict[str, asyncio.Lock] = {}
        self._log = structlog.get_logger("hivemesh.supervisor")

    async def build(self, recipe: Recipe, log: Path) -> Path:
        """The interpreter of the worker's environment, built if it is not there.

        Raises:
            WorkerEnvironmentError: a command failed; the log has its output.
        """
        async with self._locks.setdefault(recipe.worker, asyncio.Lock()):
            builder = self._builder()
            try:
                return await self._build(recipe, log, builder)
            except WorkerEnvironmentError as error:
                if builder == "pip" or self._settings.builder == "uv":
                    raise
                if not (isinstance(error, _UnusableBuilderError) or self._has(recipe, "pip")):
                    message = f"{error.detail}; mend it, or set workers.builder: pip"
                    raise WorkerEnvironmentError(message) from error
                self._log.warning("uv_failed_taking_pip", worker=recipe.worker, why=error.detail)
                return await self._build(recipe, log, "pip")

    def prepared(self, recipe: Recipe) -> bool:
        """Whether the environment is there already."""
        return self._has(recipe, self._builder())

    def remove_others(self, recipe: Recipe) -> None:
        """Delete environments of this worker that nothing uses any more."""
        present = {self._folder(recipe, "uv"), self._folder(recipe, "pip")}
        for folder in self._settings.folder.glob(f"{recipe.worker}@*"):
            if folder not in present:
                shutil.rmtree(folder, ignore_errors=True)

    async def _build(self, recipe: Recipe, log: Path, builder: Builder) -> Path:
        folder = self._folder(recipe, builder)
        python = folder / "bin" / "python"
        if self._has(recipe, builder):
            return python
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._log.info("environment_building", worker=recipe.worker, builder=builder)
        make, install = self._commands(builder, folder, recipe)
        try:
            await self._run(make, recipe.worker, log)
        except WorkerEnvironmentError as error:
            raise _UnusableBuilderError(error.detail) from error
        await self._run(install, recipe.worker, log)
        (folder / COMPLETE).touch()
        self._log.info("environment_built", worker=recipe.worker, folder=str(folder))
        return python

    def _commands(
        self, builder: Builder, folder: Path, recipe: Recipe
    ) -> tuple[list[str], list[str]]:
        """What makes an empty environment, and what fills it."""
        base, inside = self._settings.python, str(folder / "bin" / "python")
        if builder == "uv":
            uv = [base, "-m", "uv", "--no-progress"]
            return (
                [*uv, "venv", "--no-project", "--python", base, str(folder)],
                [*uv, "pip", "install", "--python", inside, *recipe.requirements()],
            )
        return (
            [base, "-m", "venv", str(folder)],
            [inside, "-m", "pip", "install", "--no-input", *recipe.requirements()],
        )

    async def _run(self, command: Sequence[str], worker: str, log: Path) -> None:
        with log.open("ab") as output:
            output.write(f"$ {' '.join(command)}\n".encode())
            output.flush()
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=self._variables(),
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(BUILD_TIMEOUT_S):
                    code = await process.wait()
            except TimeoutError:
                code = -1
            finally:
                await _end(process)
        if code != 0:
            message = f"{worker!r}: {_last_words(log)} (log: {log})"
            raise WorkerEnvironmentError(message)

    def _variables(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in self._settings.environment.items()
            if name.startswith(_KEPT_PREFIXES) or name.upper() in _KEPT
        }
        ours = {
            "UV_CACHE_DIR": str(self._settings.cache / "uv"),
            "PIP_CACHE_DIR": str(self._settings.cache / "pip"),
            "UV_PYTHON_DOWNLOADS": "never",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        return {**self._settings.indexes.uv_variables(), **inherited, **ours}

    def _has(self, recipe: Recipe, builder: Builder) -> bool:
        return (self._folder(recipe, builder) / COMPLETE).is_file()

    def _folder(self, recipe: Recipe, builder: Builder) -> Path:
        digest = recipe.digest(f"{self._settings.python} {sys.version}", builder)
        return self._settings.folder / f"{recipe.worker}@{digest}"

    def _builder(self) -> Builder:
        if self._settings.builder == "pip":
            return "pip"
        return "uv" if _has_uv() or self._settings.builder == "uv" else "pip"


async def _end(process: asyncio.subprocess.Process) -> None:
    """Leave no builder behind, whatever ended the wait."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()


def _has_uv() -> bool:
    from importlib.util import find_spec  # noqa: PLC0415 - looked for once per build

    return find_spec("uv") is not None


def _described_by(source: Path) -> Path:
    return source / "pyproject.toml" if source.is_dir() else source


def _last_words(log: Path) -> str:
    """What a failed build says last: the error with its causes, else the last line."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    said = _paragraphs(line.strip() for line in lines)
    errors = [n for n, line in enumerate(said) if "error" in line.lower() and not _is_cause(line)]
    if not errors:
        return (said or ["the build failed"])[-1][:MAX_WORDS]
    causes = [_CAUSE.sub("", line, count=1) for line in said[errors[-1] :] if _is_cause(line)]
    return ": ".join([said[errors[-1]], *causes])[:MAX_WORDS]


def _paragraphs(lines: Iterable[str]) -> list[str]:
    """The lines that say something, each cause with those that it goes on in: up to a blank one."""
    said: list[str] = []
    goes_on = False
    for line in lines:
        if not line or line.startswith("$ "):
            goes_on = False
        elif goes_on and not _is_cause(line):
            said[-1] += f" {line}"
        else:
            said.append(line)
            goes_on = _is_cause(line)
    return said


def _is_cause(line: str) -> bool:
    """Whether uv says in a line why something failed."""
    return _CAUSE.match(line) is not None
