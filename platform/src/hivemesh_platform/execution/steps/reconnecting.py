"""A short break of the connection to a worker costs a step nothing."""

import asyncio
from collections.abc import Awaitable, Callable

from hivemesh_sdk.pauses import around

from hivemesh_platform.execution.ports import Page, UnreachableError

RECONNECTS = 3  # of one request to the same worker; what is not back then is lost
RECONNECT_S = 0.25  # doubled each time, more or less by half


async def reconnecting(ask: Callable[[], Awaitable[Page]]) -> Page:
    """Repeat an idempotent request to the same worker while the connection breaks.

    Raises:
        UnreachableError: it is not back in time.
    """
    sent = False  # after it a refused connection does not mean that nothing has begun
    for waited in range(RECONNECTS):
        try:
            return await ask()
        except UnreachableError as error:
            sent = sent or error.sent
            await asyncio.sleep(around(RECONNECT_S * 2**waited))
    try:
        return await ask()
    except UnreachableError as error:
        error.sent = error.sent or sent
        raise
