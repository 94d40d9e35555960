"""References to stored batches, and who holds a step. Pure."""

from dataclasses import dataclass

import msgspec
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.steps import Encoding


class BatchRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stored batch or state: its digest, how many records, how many bytes."""

    sha256: str
    count: int = 0
    bytes: int = 0
    encoding: Encoding = "identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A step that a worker runs at the moment, and the artifacts that its request names."""

    run: str
    node: str
    seq: int
    attempt: int
    identity: str
    digests: frozenset[str]
    trees: frozenset[str]
    clearance: DataClass = DataClass.PERSONAL  # of the capability: the highest it may read
    output_class: DataClass = DataClass.INTERNAL  # of what it stores
    ceiling: DataClass = DataClass.INTERNAL  # what its inputs and outputs were taken for


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactInfo:
    """What is known of an artifact beside its bytes."""

    sha256: str
    size: int
    media_type: str
    name: str | None
    created_at: int
    data_class: DataClass = DataClass.INTERNAL
