"""Artifacts as plain files: references to paths on this machine, for runs without a platform."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from hivemesh_sdk.contracts.artifacts import Artifact, Tree
from hivemesh_sdk.contracts.names import TREE_MEDIA_TYPE
from hivemesh_sdk.errors import ConfigurationError, FatalError
from hivemesh_sdk.safeio.folders import files_of
from hivemesh_sdk.worker.codec import artifact_fields

_decode_tree = msgspec.json.Decoder(Tree).decode


class LocalArtifacts:
    """An `Artifacts` over files; what is stored goes into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: dict[str, Path] = {}

    def add(self, path: Path) -> Artifact:
        """Name a file, or a folder with all files below it.

        Raises:
            ConfigurationError: there is nothing at the path.
        """
        if path.is_dir():
            entries = {
                one.relative_to(path).as_posix(): self._add_file(one) for one in files_of(path)
            }
            tree = msgspec.json.encode(Tree(entries=entries))
            return self.put(tree, media_type=TREE_MEDIA_TYPE, name=path.name)
        if not path.is_file():
            message = f"{str(path)!r} is no file and no folder"
            raise ConfigurationError(message, slug="file-unreadable")
        return self._add_file(path)

    def open(self, reference: Artifact, offset: int = 0) -> "LocalReader":
        """Read from `offset` on."""
        return LocalReader(self.path(reference), offset)

    def path(self, reference: Artifact) -> Path:
        """The file that holds an artifact.

        Raises:
            FatalError: it was neither added nor stored here.
        """
        path = self._paths.get(reference.sha256)
        if path is None:
            message = f"artifact {reference.sha256} is not on this machine"
            raise FatalError(message, slug="artifact-missing")
        return path

    def size(self, reference: Artifact) -> int:
        """The number of bytes."""
        return reference.size

    def tree(self, reference: Artifact | Tree) -> dict[str, Artifact]:
        """The files of a directory, in order of their paths."""
        if isinstance(reference, Artifact):
            reference = _decode_tree(self.path(reference).read_bytes())
        return dict(sorted(reference.entries.items()))

    def put(
        self,
        data: bytes | BinaryIO,
        *,
        media_type: str = "application/octet-stream",
        name: str | None = None,
    ) -> Artifact:
        """Store bytes and return the reference."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "incoming"
        with path.open("wb") as file:
            if isinstance(data, bytes | bytearray | memoryview):
                file.write(data)
            else:
                shutil.copyfileobj(data, file)
        reference = _describe(path, media_type, name)
        self._paths[reference.sha256] = path.rename(self._folder / reference.sha256)
        return reference

    def _add_file(self, path: Path) -> Artifact:
        reference = _describe(path, "application/octet-stream", path.name)
        self._paths[reference.sha256] = path
        return reference


class LocalReader:
    """A forward reader of a file."""

    def __init__(self, path: Path, offset: int) -> None:
        self._file = path.open("rb")
        self._file.seek(offset)

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, all that is left where it is negative, b"" at the end."""
        return self._file.read(size)

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """Fill the buffer as far as possible and return the count, 0 at the end."""
        return self._file.readinto(buffer)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def with_artifacts(
    options: Mapping[str, object], declared: object, artifacts: LocalArtifacts
) -> dict[str, object]:
    """Turn paths into references where the options declare an `Artifact`.

    Raises:
        ConfigurationError: there is nothing at a path.
    """
    names = artifact_fields(declared)
    return {
        name: _referenced(value, artifacts) if name in names else value
        for name, value in options.items()
    }


def _referenced(value: object, artifacts: LocalArtifacts) -> object:
    if isinstance(value, str):
        return msgspec.to_builtins(artifacts.add(Path(value)))
    if isinstance(value, list):
        return [_referenced(one, artifacts) for one in value]
    return value


def _describe(path: Path, media_type: str, name: str | None) -> Artifact:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return Artifact(sha256=digest, size=size, media_type=media_type, name=name)
