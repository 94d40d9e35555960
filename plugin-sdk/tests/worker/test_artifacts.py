"""Artifacts through executor and front: blocks, digests, grants, direct batches."""

import json
import threading
from hashlib import sha256

import msgspec
import pytest
import zstandard
from hivemesh_sdk.contracts.artifacts import Artifact
from hivemesh_sdk.contracts.steps import InputPart
from hivemesh_sdk.errors import RetryableError
from hivemesh_sdk.worker.channel import BLOCK_BYTES
from hivemesh_sdk.worker.remote_artifacts import BlockReader

pytestmark = pytest.mark.integration


def document(reference: Artifact) -> list[bytes]:
    return [msgspec.json.encode(reference)]


async def test_an_artifact_is_read_block_by_block_with_one_grant(sample):
    size = 2 * BLOCK_BYTES + 17
    reference = sample.platform.add(b"x" * size)
    answer = await sample.put("sample.read@1", inputs=document(reference))
    assert answer.result == {"first": 10, "rest": size - 10}
    assert sample.platform.sent == [
        (0, BLOCK_BYTES),
        (BLOCK_BYTES, BLOCK_BYTES),
        (2 * BLOCK_BYTES, 17),
    ]
    assert [grant.operation for grant in sample.platform.granted] == ["get"]


async def test_a_grant_is_asked_for_the_step_that_is_held(sample):
    reference = sample.platform.add(b"x")
    await sample.put("sample.read@1", key="run.read.7", attempt=3, inputs=document(reference))
    grant = sample.platform.granted[0]
    assert (grant.step, grant.attempt, grant.sha256) == ("run.read.7", 3, reference.sha256)


async def test_damaged_bytes_are_noticed(sample):
    reference = sample.platform.add(b"x" * 100)
    (sample.platform.folder / reference.sha256).write_bytes(b"y" * 100)
    answer = await sample.put("sample.read@1", inputs=document(reference))
    assert answer.failure.type.endswith(":artifact-damaged")
    assert answer.failure.retryable


async def test_damage_in_an_earlier_block_is_noticed_before_the_last_one_is_read(sample):
    content = b"x" * (2 * BLOCK_BYTES + 17)
    reference = sample.platform.add(content)
    (sample.platform.folder / reference.sha256).write_bytes(b"y" + content[1:])
    answer = await sample.put("sample.read@1", inputs=document(reference))
    assert answer.failure.type.endswith(":artifact-damaged")


@pytest.mark.parametrize("damaged", [False, True])
def test_where_no_more_threads_are_allowed_blocks_are_checked_in_place(monkeypatch, damaged):
    blocks = [b"x" * BLOCK_BYTES, b"y" * BLOCK_BYTES, b"z"]
    reference = Artifact(sha256=sha256(b"".join(blocks)).hexdigest(), size=2 * BLOCK_BYTES + 1)
    if damaged:
        blocks[0] = b"w" + blocks[0][1:]

    def refuse(thread):
        message = "can't start new thread"
        raise RuntimeError(message)

    class Line:
        def next_call(self):
            return 1

        def ask(self, question):
            return question.offset // BLOCK_BYTES

        def wait(self, number):
            return blocks[number]

    monkeypatch.setattr(threading.Thread, "start", refuse)
    reader = BlockReader(Line(), reference, 0)
    if damaged:
        with pytest.raises(RetryableError, match="arrived damaged"):
            reader.read()
    else:
        assert reader.read() == b"".join(blocks)


async def test_an_empty_artifact_is_read(sample):
    reference = sample.platform.add(b"")
    answer = await sample.put("sample.read@1", inputs=document(reference))
    assert answer.result == {"first": 0, "rest": 0}


async def test_a_missing_artifact_is_the_platforms_problem(sample):
    reference = Artifact(sha256="0" * 64, size=5)
    answer = await sample.put("sample.read@1", inputs=document(reference))
    assert answer.failure.type.endswith(":artifact-missing")


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
@pytest.mark.parametrize("capability", ["sample.store@1", "sample.store_file@1"])
async def test_what_is_stored_is_named_by_its_digest(sample, capability, size):
    answer = await sample.put(capability, inputs=[str(size).encode()])
    reference = msgspec.convert(answer.result, Artifact)
    assert len(sample.platform.content(reference)) == size
    assert [one.sha256 for one in answer.frames[-1].event.artifacts] == [reference.sha256]


async def test_an_input_comes_by_reference(sample):
    reference = sample.platform.add(b'{"id":1,"text":"a"}\n')
    parts = [InputPart(artifact=reference, count=1)]
    answer = await sample.put_parts("sample.upper@1", "map", parts)
    assert answer.frames[0].body == b'{"id":1,"text":"A"}\n'


async def test_an_input_comes_compressed(sample):
    data = zstandard.compress(b'{"id":1,"text":"a"}\n')
    parts = [InputPart(artifact=sample.platform.add(data), count=1, encoding="zstd")]
    answer = await sample.put_parts("sample.upper@1", "map", parts)
    assert answer.frames[0].body == b'{"id":1,"text":"A"}\n'


async def test_what_is_not_zstd_is_a_problem(sample):
    parts = [InputPart(artifact=sample.platform.add(b"not zstd"), count=1, encoding="zstd")]
    answer = await sample.put_parts("sample.upper@1", "map", parts)
    assert answer.failure.type.endswith(":input-invalid")


async def test_direct_batches_are_stored_and_named(sample):
    first = await sample.put(
        "sample.count@1", "source", key="r.s.0", parameters={"size": 600}, bodies="direct"
    )
    frames = await sample.read_all("r.s.0", first)
    batches = [frame for frame in frames if hasattr(frame.event, "checkpoint")]
    assert [frame.event.count for frame in batches] == [500, 100]
    for frame in batches:
        assert frame.body == b""
        content = sample.platform.content(frame.event.artifact)
        lines = decoded(content, frame.event.encoding).splitlines()
        assert len(lines) == frame.event.count
    assert json.loads(lines[-1])["id"] == 599


def decoded(data: bytes, encoding: str) -> bytes:
    return zstandard.decompress(data) if encoding == "zstd" else data


async def test_only_the_scratch_folder_is_stored_by_path(sample):
    secret = sample.folder / "secret"
    secret.write_text("of the front")
    answer = await sample.put("sample.steal@1", parameters={"path": str(secret)})
    assert answer.failure.type.endswith(":artifact-unavailable")


async def test_a_file_that_is_gone_fails_the_step_at_once(sample, tmp_path):
    gone = tmp_path / "scratch" / "gone"
    answer = await sample.put("sample.steal@1", parameters={"path": str(gone)})
    assert answer.failure.type.endswith(":step-failed")
    assert "No such file" in answer.failure.detail
