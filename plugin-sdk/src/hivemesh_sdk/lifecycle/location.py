"""Finds a worker: in a checkout by its plugin.yaml, or installed as `worker_<name>`."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.errors import ConfigurationError, NotFoundError
from hivemesh_sdk.safeio.documents import load_manifest
from hivemesh_sdk.worker.definition import Worker

MANIFEST_FILE = "plugin.yaml"


@dataclass(frozen=True, slots=True)
class Location:
    """A worker's folder and manifest; `source` is what has to be on the path, if anything."""

    folder: Path
    manifest: Manifest
    source: Path | None


def locate(where: str | Path | None = None) -> Location:
    """Find a worker by folder, by name, or (without either) here or as the only installed one.

    Raises:
        NotFoundError: there is no worker, or several and none was named.
        InvalidError: its plugin.yaml is not valid.
    """
    if where is None:
        return _here()
    folder = Path(where)
    if folder.is_file() and folder.name == MANIFEST_FILE:
        folder = folder.parent
    if (folder / MANIFEST_FILE).is_file():
        return _checkout(folder.resolve())
    package = f"worker_{str(where).replace('-', '_')}"
    found = [path for path in _installed() if path.name == package]
    if not found:
        message = f"no {MANIFEST_FILE} in {str(where)!r} and no installed worker of that name"
        raise NotFoundError(message)
    return _wheel(found[0])


def import_worker(location: Location) -> Worker:
    """Import the entrypoint of the manifest.

    Raises:
        ConfigurationError: the module cannot be imported or holds no `Worker`.
    """
    use_source(location)
    module_name, _, attribute = location.manifest.runtime.entrypoint.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        message = f"entrypoint module {module_name!r} cannot be imported: {reason}"
        raise ConfigurationError(message) from error
    worker = getattr(module, attribute, None)
    if not isinstance(worker, Worker):
        message = f"{module_name}:{attribute} is no Worker; write `{attribute} = Worker()`"
        raise ConfigurationError(message)
    return worker


def use_source(location: Location) -> None:
    """Let the code of a checkout that is not installed be imported."""
    if location.source is not None and str(location.source) not in sys.path:
        sys.path.insert(0, str(location.source))


def _here() -> Location:
    here = Path.cwd()
    if (here / MANIFEST_FILE).is_file():
        return _checkout(here)
    found = _installed()
    if len(found) == 1:
        return _wheel(found[0])
    names = ", ".join(sorted(path.name.removeprefix("worker_") for path in found))
    message = (
        f"several workers are installed ({names}); name one"
        if found
        else f"there is no {MANIFEST_FILE} here; name the worker's folder"
    )
    raise NotFoundError(message)


def _checkout(folder: Path) -> Location:
    source = folder / "src"
    manifest = load_manifest(folder / MANIFEST_FILE)
    return Location(folder, manifest, source if source.is_dir() else None)


def _wheel(package: Path) -> Location:
    return Location(package, load_manifest(package / MANIFEST_FILE), None)


def _installed() -> list[Path]:
    folders = [Path(entry) for entry in sys.path if entry]
    return [
        manifest.parent
        for folder in dict.fromkeys(folders)
        if folder.is_dir()
        for manifest in folder.glob(f"worker_*/{MANIFEST_FILE}")
    ]
