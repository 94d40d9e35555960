"""What the folders among the artifacts hold; the listings that were read last are remembered."""

from collections import OrderedDict

import msgspec
from hivemesh_sdk.contracts.artifacts import Tree

from hivemesh_platform.artifacts.errors import ArtifactMissingError
from hivemesh_platform.artifacts.ports import ArtifactStore

MAX_TREE_BYTES = 64 * 1024 * 1024
TREES_KEPT = 16

_decode = msgspec.json.Decoder(Tree).decode


class Trees:
    """Reads folders."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._known: OrderedDict[str, frozenset[str]] = OrderedDict()

    async def entries(self, tree: str) -> frozenset[str]:
        """Return the digests of what a folder holds; nothing where it is none.

        Raises:
            ArtifactDamagedError: nobody knows what it holds.
        """
        known = self._known.get(tree)
        if known is not None:
            return known
        size = await self._artifacts.size(tree)
        if size is not None and size > MAX_TREE_BYTES:
            return frozenset()
        try:
            content = _decode(await self._artifacts.read(tree))
        except (ArtifactMissingError, msgspec.DecodeError, RecursionError):
            return frozenset()
        entries = frozenset(one.sha256 for one in content.entries.values())
        self._known[tree] = entries
        if len(self._known) > TREES_KEPT:
            self._known.popitem(last=False)
        return entries
