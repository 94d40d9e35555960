"""Loops that run beside the requests: an error that one did not expect neither ends it nor others."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from hivemesh_sdk.errors import HivemeshError

AGAIN_S = 1.0

_log = structlog.get_logger("hivemesh.loops")


async def forever(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop, and start it again after an error, until it returns or is cancelled."""
    while True:
        try:
            return await loop()
        except HivemeshError as error:  # such as a full disk: the next turn goes on
            _log.error("loop_interrupted", loop=name, code=error.slug, detail=error.detail)
        except Exception:  # noqa: BLE001 - logged, and the loop goes on
            _log.exception("loop_broken", loop=name)
        await asyncio.sleep(AGAIN_S)
