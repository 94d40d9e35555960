"""Compares a worker's manifest, code and files: what `hivemesh-worker check` reports.

Nothing is started; the entrypoint is imported, which runs the author's module level code.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from packaging.version import Version

from hivemesh_sdk import __version__
from hivemesh_sdk.contracts.manifest import Capability
from hivemesh_sdk.contracts.references import takes_secrets
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.lifecycle.location import Location, import_worker
from hivemesh_sdk.worker.definition import Definition

SCHEMAS = ("input", "output", "options")


class Level(StrEnum):
    """How a finding counts: only errors fail the check."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    fix: str = ""


def check(location: Location) -> list[Finding]:
    """Look at everything and report it, good or bad, in a fixed order."""
    return [*_manifest(location), *_code(location), *_files(location)]


def _manifest(location: Location) -> Iterator[Finding]:
    manifest = location.manifest
    yield _ok(f"plugin.yaml describes {manifest.metadata.name} {manifest.metadata.version}")
    if not manifest.accepts_platform(__version__):
        yield _error(
            f"platform: {manifest.platform!r} excludes {__version__}, the version of this SDK",
            "widen the range in plugin.yaml, or install the SDK that it names",
        )
    for name in ("publisher", "description", "license"):
        if not getattr(manifest.metadata, name):
            yield _warning(f"metadata.{name} is empty", f"write metadata.{name} in plugin.yaml")


def _code(location: Location) -> Iterator[Finding]:
    try:
        worker = import_worker(location)
    except ConfigurationError as error:
        yield _error(error.detail, "correct runtime.entrypoint, or what it imports")
        return
    yield _ok(f"{location.manifest.runtime.entrypoint} is imported")
    declared = {one.id: one for one in location.manifest.capabilities}
    for name in sorted(declared.keys() - worker.capabilities.keys()):
        yield _error(
            f"{name} is declared in plugin.yaml and not defined in the code",
            f"decorate a function with @worker.{declared[name].kind}({name!r}), "
            "or remove the entry",
        )
    for name in sorted(worker.capabilities.keys() - declared.keys()):
        yield _error(
            f"{name} is defined in the code and not declared in plugin.yaml",
            f"add to capabilities: {{id: {name}, kind: {worker.capabilities[name].kind}, "
            f"run_in: {worker.capabilities[name].run_in}}}",
        )
    for name in sorted(declared.keys() & worker.capabilities.keys()):
        yield from _capability(declared[name], worker.capabilities[name])


def _capability(declared: Capability, defined: Definition) -> Iterator[Finding]:
    same = True
    for name in ("kind", "run_in"):
        written, real = getattr(declared, name), getattr(defined, name)
        if written != real:
            same = False
            yield _error(
                f"{declared.id}: {name} is {written!r} in plugin.yaml and {real!r} in the code",
                f"write {name}: {real} in plugin.yaml, or change the code",
            )
    try:
        schemas = defined.signature().schemas()
    except ConfigurationError as error:
        yield _error(error.detail, "correct the annotations of the function")
        return
    differing = list(_schemas(declared, schemas))
    if declared.options is None and takes_secrets(schemas["options"]):
        yield _error(
            f"{declared.id}: its options take a secret and plugin.yaml does not say so",
            f"add the `options` that `hivemesh-worker schema {declared.id}` prints, and name the "
            "secrets under permissions.secrets",
        )
    yield from differing
    if same and not differing:
        yield _ok(f"{declared.id} ({declared.kind}, {declared.run_in}) is as declared")


def _schemas(declared: Capability, real: Mapping[str, object]) -> Iterator[Finding]:
    for name in SCHEMAS:
        written = getattr(declared, name)
        if written is not None and written != real[name]:
            place = "/".join(_difference(written, real[name]))
            yield _error(
                f"{declared.id}: the schema of {name} differs from the code at /{place}",
                f"remove `{name}` from plugin.yaml (it is derived), "
                f"or take the one that `hivemesh-worker schema {declared.id}` prints",
            )


def _difference(written: object, real: object) -> list[str]:
    """Path to the first place where two documents differ."""
    if isinstance(written, dict) and isinstance(real, dict):
        for key in sorted(written.keys() | real.keys()):
            if written.get(key) != real.get(key):
                return [key, *_difference(written.get(key), real.get(key))]
    return []


def _files(location: Location) -> Iterator[Finding]:
    project = location.folder / "pyproject.toml"
    if not project.is_file():
        return  # installed: there is no checkout to look at
    yield from _project(location, project)
    yield from _dockerfile(location.folder / "Dockerfile")
    for name in ("README.md", "tests/"):
        if not (location.folder / name).exists():
            yield _warning(f"{name} is missing", f"add {name} to the worker's folder")


def _project(location: Location, path: Path) -> Iterator[Finding]:
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        yield _error(f"pyproject.toml cannot be read: {error}", "correct its syntax")
        return
    metadata = location.manifest.metadata
    version = str(project.get("version", metadata.version))
    if Version(version) != Version(metadata.version):
        yield _error(
            f"version is {metadata.version} in plugin.yaml and {version} in pyproject.toml",
            "write the same version in both",
        )
    requirements = [str(one) for one in project.get("dependencies", [])]
    if not any(re.match(r"hivemesh[-_.]sdk\b", one) for one in requirements):
        yield _error(
            "pyproject.toml does not depend on hivemesh-sdk",
            f'add "hivemesh-sdk=={__version__}" to dependencies',
        )


def _dockerfile(path: Path) -> Iterator[Finding]:
    if not path.is_file():
        yield _warning("Dockerfile is missing", "add one that ends with a non-root USER")
        return
    users = re.findall(r"^\s*USER\s+(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    if not users or users[-1].split(":")[0] in {"root", "0"}:
        yield _error("the image runs as root", "end the Dockerfile with a USER that is not root")
    else:
        yield _ok(f"the image runs as {users[-1]}")


def _ok(what: str) -> Finding:
    return Finding(level=Level.OK, what=what)


def _warning(what: str, fix: str) -> Finding:
    return Finding(level=Level.WARNING, what=what, fix=fix)


def _error(what: str, fix: str) -> Finding:
    return Finding(level=Level.ERROR, what=what, fix=fix)
