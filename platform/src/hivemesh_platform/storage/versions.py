"""The version of a whole state folder: told, and brought to this platform's."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from hivemesh_platform.storage import migrate

DATABASE = "platform.db"
_BESIDE = ("", "-wal", "-shm")  # the files of one SQLite database


@dataclass(frozen=True, slots=True)
class FolderVersion:
    """The schema that a folder has (None: no database yet) and the one this platform needs."""

    version: str | None
    needed: str


def describe(folder: Path) -> FolderVersion:
    """Tell the version of a state folder.

    Raises:
        StateIncompatibleError: its database is none of ours.
    """
    return FolderVersion(migrate.schema_version(folder / DATABASE), migrate.HEAD)


def upgrade(folder: Path, *, dry_run: bool) -> list[str]:
    """Bring a folder that no platform uses to this version; returns what is (or would be) done.

    Raises:
        StateIncompatibleError: a newer platform wrote it.
    """
    found = describe(folder)
    if found.version is None or found.version == found.needed:
        return []
    migrate.check_known(found.version)
    copy = f"{DATABASE}.{found.version}"
    steps = [
        f"copy {DATABASE} to {copy}",
        f"bring {DATABASE} from schema {found.version} to {found.needed}",
    ]
    if not dry_run:
        for suffix in _BESIDE:
            if (folder / (DATABASE + suffix)).exists():
                shutil.copy2(folder / (DATABASE + suffix), folder / (copy + suffix))
        migrate.upgrade(folder / DATABASE)
    return steps
