"""References to bytes, and the permission to move them."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class DataClass(StrEnum):
    """How sensitive data is; an output inherits the highest of its inputs."""

    PUBLIC = "public"
    INTERNAL = "internal"
    PERSONAL = "personal"
    SECRET = "secret"  # noqa: S105 - the name of a class of data

    @property
    def rank(self) -> int:
        """Its place in the order: 0 is the least sensitive."""
        return _RANKS[self]

    def exceeds(self, clearance: "DataClass") -> bool:
        """Whether data of this class is too sensitive for a clearance."""
        return _RANKS[self] > _RANKS[clearance]


_RANKS = {one: rank for rank, one in enumerate(DataClass)}


def highest(classes: Iterable[DataClass]) -> DataClass:
    """The most sensitive of some classes; public where there are none."""
    return max(classes, key=_RANKS.__getitem__, default=DataClass.PUBLIC)


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """Names bytes by their SHA-256; whoever holds it still needs a grant to read them."""

    sha256: str
    size: int
    media_type: str = "application/octet-stream"
    name: str | None = None


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """A directory: relative path (forward slashes) to the artifact that holds the file."""

    entries: dict[str, Artifact]


class GrantRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks where to put bytes or where to get them, on behalf of the step that is held."""

    operation: str  # "put" or "get"
    sha256: str
    size: int
    step: str  # key of the step that the caller runs
    attempt: int
    data_class: DataClass = DataClass.INTERNAL
    media_type: str = "application/octet-stream"
    name: str | None = None


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Where the bytes go or come from. A relative `url` is a path on the platform itself.

    `present` is true where the store holds the bytes already: a `put` is then not needed.
    """

    method: str
    url: str
    headers: dict[str, str]
    expires_in_s: int
    present: bool = False
