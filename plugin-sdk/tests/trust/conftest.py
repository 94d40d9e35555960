"""Authorities and strange servers of the trust tests."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from hivemesh_sdk.testing.pki import ThrowawayCA


@pytest.fixture(scope="session")
def ca():
    return ThrowawayCA()


@pytest.fixture
def strange_server():
    """A TCP server that behaves as told; everything of it is closed at the end."""

    @asynccontextmanager
    async def opened(behaviour):
        handlers = set()

        async def handle(reader, writer):
            handlers.add(asyncio.current_task())
            try:
                await behaviour(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for handler in handlers:
                handler.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)

    return opened
