"""Shared by the tests of this worker: artifacts in memory, the place of the real mail."""

import hashlib
import io
import os
from pathlib import Path

import msgspec
import pytest
from hivemesh_sdk import Artifact
from hivemesh_sdk.contracts.names import TREE_MEDIA_TYPE

DATA = Path(__file__).parent / "data"


class MemoryArtifacts:
    """The artifacts of a context, kept in memory."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def put(self, data, *, media_type="application/octet-stream", name=None) -> Artifact:
        data = data if isinstance(data, bytes) else data.read()
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return Artifact(sha256=digest, size=len(data), media_type=media_type, name=name)

    def put_tree(self, files: dict[str, bytes]) -> Artifact:
        entries = {path: self.put(data) for path, data in files.items()}
        return self.put(msgspec.json.encode(entries), media_type=TREE_MEDIA_TYPE)

    def open(self, reference: Artifact, offset: int = 0) -> io.BytesIO:
        return io.BytesIO(self.blobs[reference.sha256][offset:])

    def size(self, reference: Artifact) -> int:
        return reference.size

    def tree(self, reference: Artifact) -> dict[str, Artifact]:
        return msgspec.json.decode(self.blobs[reference.sha256], type=dict[str, Artifact])


@pytest.fixture
def artifacts() -> MemoryArtifacts:
    return MemoryArtifacts()


@pytest.fixture(scope="session")
def mail_data() -> Path:
    """The folder with the real mail."""
    root = os.environ.get("HIVEMESH_TEST_DATA")
    if not root:
        pytest.skip("HIVEMESH_TEST_DATA is not set: no real mail")
    return Path(root) / "email"
