"""Who may read and store what: a worker only for the step that it holds."""

import hashlib
import json
from datetime import timedelta

import pytest
from hivemesh_platform.artifacts.errors import (
    ArtifactDamagedError,
    ArtifactMissingError,
    RangeInvalidError,
)
from hivemesh_platform.artifacts.kept import KeptDigests
from hivemesh_platform.artifacts.local import LocalArtifactStore
from hivemesh_platform.artifacts.model import Holding
from hivemesh_platform.artifacts.service import ArtifactService, Use
from hivemesh_sdk.contracts.artifacts import GrantRequest
from hivemesh_sdk.contracts.names import TREE_MEDIA_TYPE
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.testing.clock import ManualClock

HOLDER = "spiffe://test.hivemesh.internal/worker/parser/w1"
OTHER = "spiffe://test.hivemesh.internal/worker/parser/w2"
KEY = "run_1.parse.0"


class Holders:
    def __init__(self):
        self.steps = {}

    async def look_up(self, key):
        return

    def holding(self, key):
        return self.steps.get(key)

    def refuse_ended(self, key, attempt, identity):
        """No attempt has ended."""

    def hold(self, *digests, trees=(), attempt=1, run="run_1"):
        self.steps[KEY] = Holding(
            run=run,
            node="parse",
            seq=0,
            attempt=attempt,
            identity=HOLDER,
            digests=frozenset(digests),
            trees=frozenset(trees),
        )


@pytest.fixture
def holders():
    return Holders()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def service(tmp_path, database, holders, clock):
    async with LocalArtifactStore(tmp_path / "artifacts") as store:
        yield ArtifactService(database, store, holders, clock)


async def once(data):
    yield data


async def upload(service, data, media_type="text/plain"):
    return await service.upload(once(data), name="a", media_type=media_type, origin="operator")


async def read(service, sha256, identity=HOLDER, attempt=1, wanted=None):
    use = Use(identity=identity, step=KEY, attempt=attempt)
    content = await service.open(sha256, use=use, wanted=wanted)
    return b"".join([chunk async for chunk in content.chunks])


def asking(operation, sha256, *, attempt=1, size=3):
    return GrantRequest(operation=operation, sha256=sha256, size=size, step=KEY, attempt=attempt)


async def test_the_holder_reads_the_inputs_of_its_step(service, holders):
    info = await upload(service, b"abc")
    holders.hold(info.sha256)
    grant = await service.grant(asking("get", info.sha256), HOLDER)
    assert grant.url == f"/v1/artifacts/{info.sha256}?step={KEY}&attempt=1"
    assert await read(service, info.sha256) == b"abc"


@pytest.mark.parametrize(("identity", "attempt"), [(OTHER, 1), (HOLDER, 2), (HOLDER, 0)])
async def test_nobody_else_reads_them(service, holders, identity, attempt):
    info = await upload(service, b"abc")
    holders.hold(info.sha256)
    with pytest.raises(ArtifactMissingError):
        await service.grant(asking("get", info.sha256, attempt=attempt), identity)
    with pytest.raises(ArtifactMissingError):
        await read(service, info.sha256, identity, attempt)


async def test_what_the_step_does_not_name_looks_like_what_does_not_exist(service, holders):
    info = await upload(service, b"abc")
    holders.hold()
    with pytest.raises(ArtifactMissingError) as hidden:
        await read(service, info.sha256)
    absent = hashlib.sha256(b"nothing").hexdigest()
    holders.hold(absent)
    with pytest.raises(ArtifactMissingError) as missing:
        await read(service, absent)
    assert hidden.value.detail.replace(info.sha256, "") == missing.value.detail.replace(absent, "")


async def test_the_files_of_a_named_folder_are_readable(service, holders):
    info = await upload(service, b"abc")
    entry = {"sha256": info.sha256, "size": 3}
    tree = await upload(
        service, json.dumps({"entries": {"cur/1": entry}}).encode(), TREE_MEDIA_TYPE
    )
    holders.hold(tree.sha256, trees={tree.sha256})
    assert await read(service, info.sha256) == b"abc"


async def test_what_a_step_stores_is_readable_by_steps_of_its_run_alone(service, holders):
    holders.hold()
    use = Use(identity=HOLDER, step=KEY, attempt=1)
    sha256 = hashlib.sha256(b"abc").hexdigest()
    assert not (await service.grant(asking("put", sha256), HOLDER)).present
    await service.put(once(b"abc"), sha256, use, name=None, media_type="text/plain")
    assert await read(service, sha256) == b"abc"
    assert (await service.grant(asking("put", sha256), HOLDER)).present
    holders.hold(run="run_2")
    with pytest.raises(ArtifactMissingError):
        await read(service, sha256)


async def test_a_put_grant_does_not_tell_what_others_have_stored(service, holders):
    info = await upload(service, b"abc")
    holders.hold()
    grant = await service.grant(asking("put", info.sha256), HOLDER)
    assert not grant.present


async def test_what_a_step_has_and_stores_again_counts_as_stored_by_its_run(service, holders):
    info = await upload(service, b"abc")
    holders.hold(info.sha256)
    assert (await service.grant(asking("put", info.sha256), HOLDER)).present
    holders.hold()  # a later step, which may now name it
    assert await read(service, info.sha256) == b"abc"


async def test_nobody_stores_without_a_step(service):
    use = Use(identity=HOLDER, step=KEY, attempt=1)
    with pytest.raises(ArtifactMissingError):
        await service.put(once(b"abc"), "", use, name=None, media_type="text/plain")


async def test_another_operation_is_refused_with_words(service, holders):
    holders.hold()
    with pytest.raises(HivemeshError, match="either 'get' or 'put'"):
        await service.grant(asking("delete", "0" * 64), HOLDER)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((0, 0), b"0"),
        ((2, 4), b"234"),
        ((7, None), b"789"),
        ((None, 2), b"89"),
        ((5, 99), b"56789"),
    ],
)
async def test_ranges(service, wanted, expected):
    info = await upload(service, b"0123456789")
    content = await service.open(info.sha256, use=None, wanted=wanted)
    assert b"".join([chunk async for chunk in content.chunks]) == expected


@pytest.mark.parametrize("wanted", [(10, None), (5, 4), (None, 0)])
async def test_ranges_outside_are_refused(service, wanted):
    info = await upload(service, b"0123456789")
    with pytest.raises(RangeInvalidError):
        await service.open(info.sha256, use=None, wanted=wanted)


async def test_an_empty_artifact_can_be_read(service):
    info = await upload(service, b"")
    content = await service.open(info.sha256, use=None)
    assert b"".join([chunk async for chunk in content.chunks]) == b""


async def test_what_nothing_refers_to_is_collected_once_it_is_old(service, clock):
    kept = await upload(service, b"kept")
    loose = await service._artifacts.put(b"a batch of a run that ended", "")
    clock.jump(timedelta(days=3))
    assert await service.collect(86_400, KeptDigests()) == 1
    assert await service._artifacts.size(kept.sha256) == 4
    assert await service._artifacts.size(loose.sha256) is None


async def test_young_artifacts_are_not_collected(service):
    loose = await service._artifacts.put(b"a batch", "")
    assert await service.collect(86_400 * 365 * 100, KeptDigests()) == 0
    assert await service._artifacts.size(loose.sha256) == 7


async def test_every_reader_is_told_that_an_artifact_is_damaged(tmp_path, service):
    sha256 = hashlib.sha256(b"hello").hexdigest()
    file = tmp_path / "artifacts" / sha256[:2] / sha256[2:]
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"jello")
    for _ in range(2):
        with pytest.raises(ArtifactDamagedError):
            await service.open(sha256, use=None)
    with pytest.raises(ArtifactMissingError):
        await service.open("0" * 64, use=None)
