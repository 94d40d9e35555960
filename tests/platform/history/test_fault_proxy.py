"""The fault proxy breaks connections in the way that was asked for, and heals them."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from fault_proxy import proxy_to


@asynccontextmanager
async def echo():
    async def answer(reader, writer):
        while block := await reader.read(4096):
            writer.write(block)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with proxy_to("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        try:
            yield proxy
        finally:
            proxy.reset()
            server.close()


async def asked(proxy, what: bytes = b"here"):
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(what)
    return reader, writer


async def silent(reader) -> bool:
    """Whether nothing comes, looked at over many turns of the loop."""
    try:
        async with asyncio.timeout(0.1):
            await reader.readexactly(1)
    except TimeoutError:
        return True
    return False


async def test_what_is_well_passes():
    async with echo() as proxy:
        reader, writer = await asked(proxy)
        assert await reader.readexactly(4) == b"here"
        writer.close()
        assert proxy.accepted == 1


async def test_a_stalled_connection_goes_on_after_it_heals():
    async with echo() as proxy:
        proxy.stall()
        reader, writer = await asked(proxy)
        assert await silent(reader)
        proxy.heal()
        assert await reader.readexactly(4) == b"here"
        writer.close()


async def test_one_way_may_be_cut_and_the_connection_is_reset_after_it():
    async with echo() as proxy:
        proxy.back.dropped = True
        reader, writer = await asked(proxy)
        assert await silent(reader)
        proxy.heal()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(4)
        writer.close()


async def test_slow_bytes_all_arrive():
    async with echo() as proxy:
        proxy.there.slow_bytes, proxy.there.delay_s = 1, 0.001
        reader, writer = await asked(proxy, b"slowly")
        assert await reader.readexactly(6) == b"slowly"
        writer.close()


async def test_a_refusing_proxy_resets_new_connections():
    async with echo() as proxy:
        proxy.refuses = True
        reader, writer = await asked(proxy)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(4)
        writer.close()
