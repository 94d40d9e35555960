"""Dataset versions and their parts. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.steps import Encoding


class DatasetState(StrEnum):
    """What can be said of a version's completeness."""

    WRITING = "writing"
    COMPLETE = "complete"
    PARTIAL = "partial"  # some input was rejected or left out
    ABANDONED = "abandoned"  # its run failed or was cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """One version of a dataset and where it came from."""

    name: str
    version: int
    state: DatasetState
    run: str
    node: str
    records: int
    bytes: int
    created_at: int
    provenance: dict[str, Any]
    tenant: str = "default"
    data_class: DataClass = DataClass.INTERNAL


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """A version that is to be written."""

    name: str
    run: str
    node: str
    provenance: dict[str, Any]
    tenant: str = "default"
    data_class: DataClass = DataClass.INTERNAL


@dataclass(frozen=True, slots=True)
class Part:
    """A stored batch of records; `seq` gives its place."""

    seq: int
    sha256: str
    count: int
    bytes: int
    encoding: Encoding
