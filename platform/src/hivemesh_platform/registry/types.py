"""Which worker types are installed: the manifests in the configured folders, read again when changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.safeio.documents import load_manifest

from hivemesh_platform.registry.model import WorkerType

MANIFEST = "plugin.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledWorker:
    """A worker type and the folder it was found in."""

    type: WorkerType
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenWorker:
    """A folder whose manifest cannot be used, and why."""

    name: str
    folder: Path
    reason: str


class WorkerTypes:
    """The installed worker types. What lies in the operator's folders counts as consented."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._workers: dict[str, InstalledWorker] = {}
        self._broken: dict[str, BrokenWorker] = {}
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._log = structlog.get_logger("hivemesh.registry")

    def refresh(self) -> bool:
        """Read manifests that are new or changed; returns whether anything is different."""
        found = {path: _stamp(path) for path in self._manifests()}
        if found == self._stamps:
            return False
        self._stamps = found
        self._workers, self._broken = {}, {}
        for path in found:
            self._read(path)
        return True

    def all(self) -> Sequence[InstalledWorker]:
        """Installed workers by name."""
        return tuple(self._workers[name] for name in sorted(self._workers))

    def broken(self) -> Sequence[BrokenWorker]:
        """Folders whose manifest cannot be used."""
        return tuple(self._broken[name] for name in sorted(self._broken))

    def get(self, name: str) -> InstalledWorker | None:
        """One installed worker."""
        return self._workers.get(name)

    def _read(self, path: Path) -> None:
        try:
            manifest = load_manifest(path)
        except HivemeshError as error:
            self._refuse(path, error.detail)
            return
        name = manifest.metadata.name
        if name in self._workers:
            self._refuse(path, f"{name!r} is installed from {self._workers[name].folder} already")
            return
        worker = WorkerType(manifest=manifest, digest=manifest.digest())
        self._workers[name] = InstalledWorker(type=worker, folder=path.parent)

    def _refuse(self, path: Path, reason: str) -> None:
        name = path.parent.name
        self._broken[name] = BrokenWorker(name=name, folder=path.parent, reason=reason)
        self._log.warning("worker_not_installed", folder=str(path.parent), reason=reason)

    def _manifests(self) -> list[Path]:
        """A configured folder is a worker itself, or holds one worker per subfolder."""
        manifests: list[Path] = []
        for folder in self._folders:
            if (folder / MANIFEST).is_file():
                manifests.append(folder / MANIFEST)
            elif folder.is_dir():
                manifests += sorted(folder.glob(f"*/{MANIFEST}"))
        return manifests


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size
