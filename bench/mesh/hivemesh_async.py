"""Ours once more: the same worker and client, and a capability that may wait."""

import hivemesh
from hivemesh import serve

__all__ = ["Caller", "serve"]


class Caller(hivemesh.Caller):
    """Calls the `async def`."""

    capability = "bench.echo_async@1"
