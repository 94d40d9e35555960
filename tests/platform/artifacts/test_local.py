"""Artifacts in a folder: whole or absent, verified on every read, bounded by the quota."""

import asyncio
import errno
import hashlib
import math
import os
import stat
import threading

import pytest
from hivemesh_platform.artifacts.errors import (
    ArtifactDamagedError,
    ArtifactMissingError,
    DigestMismatchError,
)
from hivemesh_platform.artifacts.local import BLOCK, SMALL, LocalArtifactStore
from hivemesh_platform.storage.errors import StorageFullError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BIG = os.urandom(SMALL + BLOCK // 2)


def digest(data):
    return hashlib.sha256(data).hexdigest()


async def pieces(data, size=100_000):
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def whole(store, sha256, start, end):
    return b"".join([block async for block in store.read_range(sha256, start, end)])


@pytest.fixture
async def store(tmp_path):
    async with LocalArtifactStore(tmp_path / "artifacts") as opened:
        yield opened


def path_of(store, sha256):
    return store._folder / sha256[:2] / sha256[2:]


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


async def test_bytes_are_found_by_their_digest(store):
    stored = await store.put(b"abc", "")
    assert stored.sha256 == digest(b"abc")
    assert await store.read(stored.sha256) == b"abc"
    assert await store.size(stored.sha256) == 3


async def test_bytes_that_are_not_the_announced_ones_are_refused_and_not_kept(store):
    with pytest.raises(DigestMismatchError):
        await store.put(b"abc", digest(b"abd"))
    with pytest.raises(DigestMismatchError):
        await store.put_stream(pieces(b"abc"), digest(b"abd"))
    assert list(store.digests(float("inf"))) == []


async def test_a_stream_of_unknown_size_is_stored(store):
    stored = await store.put_stream(pieces(BIG), "")
    assert stored.size == len(BIG)
    assert await whole(store, stored.sha256, 0, len(BIG)) == BIG


async def test_a_stream_that_breaks_leaves_nothing(store):
    async def broken():
        yield b"abc"
        message = "gone"
        raise ConnectionError(message)

    with pytest.raises(ConnectionError):
        await store.put_stream(broken(), "")
    assert store.used_bytes == 0
    assert list((store._folder / "tmp").iterdir()) == []


async def test_the_same_bytes_are_stored_once(store):
    await store.put(b"abc", "")
    await store.put_stream(pieces(b"abc"), "")
    assert store.used_bytes == 3


@pytest.mark.parametrize("offset", [0, BLOCK - 1, BLOCK, len(BIG) - 1])
async def test_a_flipped_bit_is_found_in_the_block_that_holds_it(store, offset):
    stored = await store.put_stream(pieces(BIG), "")
    flip(path_of(store, stored.sha256), offset)
    with pytest.raises(ArtifactDamagedError):
        await whole(store, stored.sha256, offset, offset + 1)


async def test_a_damaged_block_is_found_before_any_byte_of_it_is_served(store):
    stored = await store.put_stream(pieces(BIG), "")
    flip(path_of(store, stored.sha256), 2 * BLOCK + 5)
    blocks = store.read_range(stored.sha256, 0, len(BIG))
    assert await anext(blocks) + await anext(blocks) == BIG[: 2 * BLOCK]
    with pytest.raises(ArtifactDamagedError):
        await anext(blocks)


async def test_a_small_damaged_artifact_is_never_served(tmp_path):
    async with LocalArtifactStore(tmp_path) as first:
        stored = await first.put(b"abc" * 1000, "")
        flip(path_of(first, stored.sha256), 1)
    async with LocalArtifactStore(tmp_path) as second:
        with pytest.raises(ArtifactDamagedError):
            await second.read(stored.sha256)
        with pytest.raises(ArtifactDamagedError):
            await whole(second, stored.sha256, 0, 10)


@pytest.mark.parametrize("data", [b"abc" * 1000, BIG])
async def test_what_was_found_damaged_can_be_stored_again(tmp_path, data):
    async with LocalArtifactStore(tmp_path) as first:
        stored = await first.put_stream(pieces(data), "")
        flip(path_of(first, stored.sha256), 1)
    async with LocalArtifactStore(tmp_path) as second:
        for _ in range(2):  # nothing is served before that, and it stays damaged, not missing
            with pytest.raises(ArtifactDamagedError):
                await whole(second, stored.sha256, 0, len(data))
        assert await second.size(stored.sha256) is None
        await second.put_stream(pieces(data), stored.sha256)
        assert await whole(second, stored.sha256, 0, len(data)) == data
        assert second.used_bytes == len(data)


@pytest.mark.parametrize("data", [b"abc" * 1000, BIG])
async def test_what_is_damaged_and_nobody_has_read_is_stored_again_too(tmp_path, data):
    async with LocalArtifactStore(tmp_path) as first:
        stored = await first.put_stream(pieces(data), "")
        flip(path_of(first, stored.sha256), len(data) - 1)
    async with LocalArtifactStore(tmp_path) as second:
        await second.put_stream(pieces(data), "")
        assert await whole(second, stored.sha256, 0, len(data)) == data
        assert second.used_bytes == len(data)
    async with LocalArtifactStore(tmp_path) as third:
        flip(path_of(third, stored.sha256), 0)
        await third.put(data, "")
        assert path_of(third, stored.sha256).read_bytes() == data


async def test_sums_that_were_lost_are_written_again_with_the_bytes(store):
    stored = await store.put_stream(pieces(BIG), "")
    os.truncate(path_of(store, stored.sha256).with_suffix(".sums"), 0)
    with pytest.raises(ArtifactDamagedError):
        await whole(store, stored.sha256, 0, len(BIG))
    await store.put_stream(pieces(BIG), stored.sha256)
    assert await whole(store, stored.sha256, 0, len(BIG)) == BIG


async def test_streams_that_are_stored_at_once_share_the_quota(tmp_path):
    async def slowly(data, go):
        yield data
        await go.wait()

    async with LocalArtifactStore(tmp_path, quota_bytes=3 * BLOCK) as store:
        go = asyncio.Event()
        streams = [slowly(bytes([n]) * 2 * BLOCK, go) for n in range(2)]
        uploads = [asyncio.ensure_future(store.put_stream(one, "")) for one in streams]
        done, _ = await asyncio.wait(uploads, return_when=asyncio.FIRST_COMPLETED)
        assert [type(one.exception()) for one in done] == [StorageFullError]
        go.set()
        ends = await asyncio.gather(*uploads, return_exceptions=True)
        assert [type(one) for one in ends].count(StorageFullError) == 1
        await store.put(b"x" * BLOCK, "")  # what was refused holds nothing back


async def test_what_is_used_is_counted_while_another_replica_removes(tmp_path, monkeypatch):
    async with LocalArtifactStore(tmp_path, replica="p1") as store:
        kept = await store.put(b"kept", "")
        monkeypatch.setattr(
            store, "_files", lambda: [path_of(store, kept.sha256), tmp_path / "gone"]
        )
        await store.count_again()
        assert store.used_bytes == 4


async def test_a_truncated_artifact_is_found(store):
    stored = await store.put_stream(pieces(BIG), "")
    path = path_of(store, stored.sha256)
    os.truncate(path, len(BIG) - 7)
    with pytest.raises(ArtifactDamagedError):
        await whole(store, stored.sha256, 0, len(BIG))


@pytest.mark.parametrize("name", ["", "x", "../../etc/passwd", "A" * 64, "0" * 63])
async def test_what_is_no_digest_is_not_there(store, name):
    assert await store.size(name) is None
    with pytest.raises(ArtifactMissingError):
        await store.read(name)


async def test_the_quota_refuses_new_bytes_and_frees_with_deletion(tmp_path):
    async with LocalArtifactStore(tmp_path, quota_bytes=1000) as store:
        first = await store.put(b"a" * 800, "")
        with pytest.raises(StorageFullError):
            await store.put(b"b" * 300, "")
        with pytest.raises(StorageFullError):
            await store.put_stream(pieces(b"b" * 300), "")
        await store.put(b"a" * 800, "")  # is there already
        assert await store.delete(first.sha256, older_than=math.inf)
        await store.put(b"b" * 300, "")
        assert store.used_bytes == 300


async def test_what_was_stored_again_is_not_collected(store):
    stored = await store.put(b"abc", "")
    path = path_of(store, stored.sha256)
    os.utime(path, (1000, 1000))
    assert list(store.digests(2000)) == [stored.sha256]
    await store.put(b"abc", "")
    assert not await store.delete(stored.sha256, older_than=2000)
    assert await store.read(stored.sha256) == b"abc"


async def test_a_full_disk_is_told_as_such(store, monkeypatch):
    """Only the write is played: a small file system needs rights that tests do not have."""

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError):
        await store.put(b"a" * 10_000, "")
    monkeypatch.undo()
    await store.put(b"a" * 10_000, "")
    assert store.used_bytes == 10_000


class FolderSyncs:
    """Holds what syncs a folder until it is let go, and counts it."""

    def __init__(self, monkeypatch):
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Event()
        self._sync = os.fsync
        monkeypatch.setattr(os, "fsync", self._fsync)

    async def begin(self):
        assert await asyncio.to_thread(self.begun.acquire, timeout=30)

    def _fsync(self, descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self.begun.release()
            assert self.let_go.wait(30)
        self._sync(descriptor)


async def second_put_waits(one, other, syncs):
    path_of(one, digest(b"abc")).parent.mkdir()
    async with asyncio.TaskGroup() as group:
        group.create_task(one.put(b"abc", ""))
        await syncs.begin()
        again = group.create_task(other.put(b"abc", ""))
        await syncs.begin()
        assert not again.done()
        syncs.let_go.set()


async def test_bytes_whose_name_is_not_on_the_disk_yet_are_not_stored_yet(store, monkeypatch):
    await second_put_waits(store, store, FolderSyncs(monkeypatch))


async def test_a_replica_does_not_rely_on_what_another_has_just_begun_to_store(
    tmp_path, monkeypatch
):
    async with (
        LocalArtifactStore(tmp_path, replica="a") as one,
        LocalArtifactStore(tmp_path, replica="b") as other,
    ):
        await second_put_waits(one, other, FolderSyncs(monkeypatch))


async def test_temporary_files_of_a_killed_process_are_removed_at_the_start(tmp_path):
    async with LocalArtifactStore(tmp_path):
        pass
    (tmp_path / "tmp" / "left").write_bytes(b"half")
    async with LocalArtifactStore(tmp_path) as store:
        assert list((tmp_path / "tmp").iterdir()) == []
        assert store.used_bytes == 0


async def test_usage_is_known_after_a_restart(tmp_path):
    async with LocalArtifactStore(tmp_path) as store:
        await store.put(b"abc", "")
        await store.put_stream(pieces(BIG), "")
    async with LocalArtifactStore(tmp_path) as store:
        assert store.used_bytes == 3 + len(BIG)


async def test_files_belong_to_their_owner_alone(store):
    stored = await store.put(b"abc", "")
    assert path_of(store, stored.sha256).stat().st_mode & 0o077 == 0


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, len(BIG)), st.integers(0, len(BIG)))
async def test_any_range_is_a_slice(store, first, second):
    start, end = sorted((first, second))
    stored = await store.put(BIG, "")
    assert await whole(store, stored.sha256, start, end) == BIG[start:end]
