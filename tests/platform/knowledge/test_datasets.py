"""Datasets: versions with provenance, parts in order, each once."""

import pytest
from access_support import ADMIN
from hivemesh_platform.artifacts.local import LocalArtifactStore
from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.knowledge.model import NewVersion
from hivemesh_platform.knowledge.service import DatasetService, DatasetWriter
from hivemesh_platform.storage.errors import StorageError
from hivemesh_sdk.errors import NotFoundError

WRITER = DatasetWriter()


@pytest.fixture
async def store(tmp_path):
    async with LocalArtifactStore(tmp_path / "artifacts") as opened:
        yield opened


@pytest.fixture
def service(database, store):
    return DatasetService(database, store)


def opened(name="mail", run="run_1"):
    new = NewVersion(name=name, run=run, node="classify", provenance={"pipeline": "p"})
    return lambda tx: WRITER.open(tx, new, 1000)


async def added(database, store, seq, data, count=1, version=1):
    stored = await store.put(data, "")
    batch = BatchRef(stored.sha256, count, stored.size)
    await database.write(lambda tx: WRITER.add_parts(tx, "mail", version, [(seq, batch)]))


async def test_versions_are_numbered_per_name(database):
    assert [await database.write(opened()) for _ in range(3)] == [1, 2, 3]
    assert await database.write(opened("other")) == 1


async def test_records_come_in_order_of_seq_however_they_were_added(database, store, service):
    await database.write(opened())
    for seq in (3, 1, 70, 2):
        await added(database, store, seq, b'{"seq":%d}\n' % seq)
    found = await service.get("mail")
    assert (found.records, found.state) == (4, "writing")
    chunks = [chunk async for chunk in service.records(found)]
    assert b"".join(chunks) == b'{"seq":1}\n{"seq":2}\n{"seq":3}\n{"seq":70}\n'


async def test_many_parts_are_read_in_several_goes(database, store, service):
    await database.write(opened())
    for seq in range(1, 150):
        await added(database, store, seq, b"%d\n" % seq)
    chunks = [chunk async for chunk in service.records(await service.get("mail"))]
    assert chunks == [b"%d\n" % seq for seq in range(1, 150)]


async def test_a_part_is_added_once(database, store):
    await database.write(opened())
    await added(database, store, 1, b"a\n")
    with pytest.raises(StorageError, match=r"(?i)unique"):
        await added(database, store, 1, b"b\n")


async def test_without_a_number_the_newest_usable_version_is_meant(database, service):
    for state in ("complete", "partial", "abandoned"):
        version = await database.write(opened())
        await database.write(lambda tx, v=version, s=state: WRITER.close(tx, "mail", v, s))
    assert (await service.get("mail")).version == 2
    assert (await service.get("mail", 3)).state == "abandoned"


@pytest.mark.parametrize(("name", "version"), [("none", None), ("mail", 9)])
async def test_what_is_not_there(database, service, name, version):
    await database.write(opened())
    with pytest.raises(NotFoundError):
        await service.get(name, version)


async def test_of_a_version_that_is_not_there_the_newest_is_told(database, service):
    version = await database.write(opened())
    await database.write(lambda tx: WRITER.close(tx, "mail", version, "complete"))
    with pytest.raises(NotFoundError, match="no dataset 'mail' version 9; the newest is 1"):
        await service.get("mail", 9)


async def test_the_list_is_by_name_and_newest_first(database, service):
    for name in ("b", "a", "b"):
        await database.write(opened(name))
    found = [(one.name, one.version) for one in await service.page(("", 0), 10, ADMIN)]
    assert found == [("a", 1), ("b", 2), ("b", 1)]
    assert [(one.name, one.version) for one in await service.page(("b", 2), 10, ADMIN)] == [
        ("b", 1)
    ]
