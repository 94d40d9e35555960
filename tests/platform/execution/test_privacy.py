"""Data reaches no capability, dataset or step above whose clearance it is."""

import hashlib
import json

import msgspec
import pytest
from execution_support import TESTER, core, double, numbers
from fake_workers import (
    FakeCatalogue,
    FakeWorker,
    FakeWorkerFleet,
    caller,
    capability,
    mapper,
    source,
)
from hivemesh_platform.artifacts.service import ArtifactService, Use
from hivemesh_platform.execution.rights.classes import DataClassError, output_class
from hivemesh_platform.knowledge.service import DatasetClassError
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.contracts.api import JobRequest, RunRequest, RunState
from hivemesh_sdk.contracts.artifacts import DataClass, GrantRequest
from hivemesh_sdk.contracts.names import TREE_MEDIA_TYPE
from hivemesh_sdk.contracts.tickets import TICKET_TYPE, Ticket
from hivemesh_sdk.errors import NotFoundError
from hivemesh_sdk.trust import jws

PUBLIC, INTERNAL, PERSONAL, SECRET = DataClass
READ, DOUBLE, ECHO, MASK = "test.read@1", "test.double@1", "test.echo@1", "test.mask@1"


def catalogue(*, read=PUBLIC, double_max=PERSONAL, echo_max=PERSONAL):
    return FakeCatalogue(
        capability(READ, "source", data_class=read),
        capability(DOUBLE, "map", data_class=PUBLIC, data_class_max=double_max),
        capability(ECHO, "call", data_class=PUBLIC, data_class_max=echo_max),
        capability(MASK, "map", data_class=INTERNAL, declassifies=("personal",)),
    )


def fleet():
    return FakeWorkerFleet(
        FakeWorker(
            "w1",
            {
                READ: source(numbers(20)),
                DOUBLE: mapper(double),
                ECHO: caller(lambda value, _: value),
                MASK: mapper(double),
            },
            {READ: 1, DOUBLE: 2, ECHO: 2, MASK: 2},
        )
    )


def document(*steps, name="p"):
    found = {"read": {"use": READ, "with": {"from": "${{ parameters.from }}"}}}
    before = "read"
    for step, use in steps:
        found[step] = {"use": use, "map": before}
        before = step
    return {
        "apiVersion": "hivemesh/v1",
        "kind": "Pipeline",
        "metadata": {"name": name, "version": 1},
        "parameters": {"from": {"type": "string", "default": "here"}},
        "steps": found,
        "outputs": {"out": before},
    }


async def start(platform, found, data_class=INTERNAL):
    request = RunRequest(document=found, data_class=data_class)
    return (await platform.execution.runs.start(request, TESTER)).id


def classes_of(found):
    """The class that each ticket names, by capability."""
    claims = [
        msgspec.json.decode(jws.unverified(token, TICKET_TYPE), type=Ticket)
        for token in found.tickets
    ]
    return {one.cap: one.data_class for one in claims}


@pytest.mark.parametrize(
    ("inputs", "declared", "declassifies", "expected"),
    [
        (PUBLIC, INTERNAL, (), INTERNAL),
        (PERSONAL, INTERNAL, (), PERSONAL),
        (PERSONAL, INTERNAL, (PERSONAL,), INTERNAL),
        (SECRET, INTERNAL, (PERSONAL,), SECRET),
        (INTERNAL, PERSONAL, (), PERSONAL),
    ],
)
def test_an_output_has_the_highest_class_unless_it_is_declassified(
    inputs, declared, declassifies, expected
):
    made = capability("a.b@1", "call", data_class=declared, declassifies=declassifies)
    assert output_class(inputs, made) is expected


async def test_the_class_goes_with_the_batches_and_ends_where_it_is_declassified(tmp_path):
    workers = fleet()
    async with core(tmp_path, workers, catalogue=catalogue(read=PERSONAL)) as platform:
        run = await start(platform, document(("mask", MASK), ("double", DOUBLE)), PUBLIC)
        assert (await platform.end(run)).state is RunState.COMPLETED
    assert classes_of(workers) == {READ: PUBLIC, MASK: PERSONAL, DOUBLE: INTERNAL}


async def test_a_pipeline_above_a_clearance_is_refused_before_anything_runs(tmp_path):
    workers = fleet()
    low = catalogue(read=PERSONAL, double_max=INTERNAL)
    async with core(tmp_path, workers, catalogue=low) as platform:
        with pytest.raises(DataClassError, match="data class personal exceeds internal") as caught:
            await start(platform, document(("double", DOUBLE)))
        assert [one.pointer for one in caught.value.errors] == ["/steps/double"]
    assert workers.puts == []


async def test_parameters_of_a_class_reach_no_capability_below_it(tmp_path):
    workers = fleet()
    async with core(tmp_path, workers, catalogue=catalogue()) as platform:
        with pytest.raises(DataClassError, match="data class secret exceeds personal"):
            await start(platform, document(("double", DOUBLE)), SECRET)
    assert workers.puts == []


async def test_a_call_above_the_clearance_is_refused(tmp_path):
    workers = fleet()
    async with core(tmp_path, workers, catalogue=catalogue(echo_max=INTERNAL)) as platform:
        request = JobRequest(capability=ECHO, input={"n": 1}, data_class=PERSONAL)
        with pytest.raises(DataClassError):
            await platform.execution.jobs.start(request, TESTER)
    assert workers.puts == []


async def uploaded(platform, data, data_class):
    files = ArtifactService(
        platform.database, platform.artifacts, platform.execution.held, SystemClock()
    )

    async def chunks():
        yield data

    info = await files.upload(
        chunks(), name=None, media_type="text/plain", origin="tester", data_class=data_class
    )
    return files, {"sha256": info.sha256, "size": info.size}


async def test_an_artifact_carries_its_class_into_every_call(tmp_path):
    workers = fleet()
    async with core(tmp_path, workers, catalogue=catalogue(echo_max=INTERNAL)) as platform:
        _, reference = await uploaded(platform, b"mail", PERSONAL)
        request = JobRequest(capability=ECHO, input=reference)
        with pytest.raises(DataClassError):
            await platform.execution.jobs.start(request, TESTER)


async def test_the_class_of_known_bytes_only_rises(tmp_path):
    async with core(tmp_path, fleet(), catalogue=catalogue(echo_max=INTERNAL)) as platform:
        await uploaded(platform, b"mail", PERSONAL)
        _, reference = await uploaded(platform, b"mail", PUBLIC)
        with pytest.raises(DataClassError):
            await platform.execution.jobs.start(
                JobRequest(capability=ECHO, input=reference), TESTER
            )


async def test_an_artifact_above_the_clearance_is_not_handed_out(tmp_path):
    """Its class may have risen after the step was placed."""
    workers = fleet()
    workers.workers["w1"].hang_once.add(ECHO)
    async with core(tmp_path, workers, catalogue=catalogue(echo_max=INTERNAL)) as platform:
        files, reference = await uploaded(platform, b"mail", INTERNAL)
        job = (
            await platform.execution.jobs.start(
                JobRequest(capability=ECHO, input=reference), TESTER
            )
        ).id
        await platform.until(lambda: workers.puts)
        key = workers.puts[0][1]
        identity = workers.workers["w1"].endpoint().identity
        asked = GrantRequest(
            operation="get", sha256=reference["sha256"], size=4, step=key, attempt=1,
            media_type="", name=None,
        )  # fmt: skip
        assert (await files.grant(asked, identity)).method == "GET"
        await uploaded(platform, b"mail", PERSONAL)
        with pytest.raises(NotFoundError):
            await files.grant(asked, identity)
        await platform.execution.runs.cancel(job)


async def test_a_dataset_takes_nothing_above_its_class(tmp_path):
    workers = fleet()
    async with core(tmp_path, workers, catalogue=catalogue()) as platform:
        await platform.end(await start(platform, document(("double", DOUBLE))))
        found = await platform.execution.datasets.get("p.out")
        assert found.data_class is INTERNAL
        with pytest.raises(DatasetClassError, match="exceeds internal of the dataset"):
            await start(platform, document(("double", DOUBLE)), PERSONAL)


async def test_rejected_records_carry_the_class_of_their_input(tmp_path):
    workers = fleet()
    workers.workers["w1"].behaviours[DOUBLE] = mapper(lambda _: None)
    async with core(tmp_path, workers, catalogue=catalogue(read=PERSONAL)) as platform:
        run = await start(platform, document(("double", DOUBLE)))
        await platform.end(run)
        rejected = await platform.execution.runs.rejected(run, 0, 10)
        assert {one.data_class for one in rejected} == {PERSONAL}


async def hanging(platform, workers, reference, data_class=INTERNAL):
    """A job whose step is held and never answers; its key and who holds it."""
    workers.workers["w1"].hang_once.add(ECHO)
    request = JobRequest(capability=ECHO, input=reference, data_class=data_class)
    job = (await platform.execution.jobs.start(request, TESTER)).id
    await platform.until(lambda: workers.puts)
    return job, workers.puts[-1][1], workers.workers["w1"].endpoint().identity


async def test_what_a_step_stores_has_the_class_of_its_output(tmp_path):
    workers = fleet()
    async with core(tmp_path, workers, catalogue=catalogue()) as platform:
        files, reference = await uploaded(platform, b"mail", PERSONAL)
        job, key, identity = await hanging(platform, workers, reference)

        async def chunks():
            yield b"made of mail"

        digest = hashlib.sha256(b"made of mail").hexdigest()
        use = Use(identity=identity, step=key, attempt=1)
        info = await files.put(chunks(), digest, use, name=None, media_type="text/plain")
        assert info.data_class is PERSONAL
        await platform.execution.runs.cancel(job)


async def test_a_ticket_that_does_not_name_an_artifact_does_not_open_it(tmp_path):
    workers = fleet()
    async with core(tmp_path, workers, catalogue=catalogue()) as platform:
        files, reference = await uploaded(platform, b"mail", INTERNAL)
        job, key, identity = await hanging(platform, workers, reference)
        [token] = workers.tickets
        named = await platform.execution.tickets.check(token, identity, key, 1)
        asked = GrantRequest(
            operation="get", sha256=reference["sha256"], size=4, step=key, attempt=1,
            media_type="", name=None,
        )  # fmt: skip
        assert named.artifacts == [reference["sha256"], "run"]
        assert (await files.grant(asked, identity, named)).method == "GET"
        narrowed = msgspec.structs.replace(named, artifacts=[])
        with pytest.raises(NotFoundError):
            await files.grant(asked, identity, narrowed)
        await platform.execution.runs.cancel(job)


async def test_a_part_of_a_dataset_has_its_class(tmp_path):
    workers = fleet()
    low = catalogue(read=PERSONAL, echo_max=INTERNAL)
    async with core(tmp_path, workers, catalogue=low) as platform:
        await platform.end(await start(platform, document(("double", DOUBLE))))
        parts = await platform.database.read(
            lambda tx: tx.all("SELECT sha256, bytes FROM dataset_part")
        )
        reference = {"sha256": parts[0]["sha256"], "size": parts[0]["bytes"]}
        with pytest.raises(DataClassError):
            await platform.execution.jobs.start(
                JobRequest(capability=ECHO, input=reference), TESTER
            )


async def a_folder_of_mail(platform):
    _, entry = await uploaded(platform, b"mail", PERSONAL)
    tree = json.dumps({"entries": {"cur/1": entry}}).encode()
    files, reference = await uploaded(platform, tree, INTERNAL)
    return files, {**reference, "media_type": TREE_MEDIA_TYPE}, entry["sha256"]


async def test_a_folder_has_the_class_of_what_it_holds(tmp_path):
    workers = fleet()
    async with core(tmp_path, workers, catalogue=catalogue(echo_max=INTERNAL)) as platform:
        _, tree, _ = await a_folder_of_mail(platform)
        with pytest.raises(DataClassError):
            await platform.execution.jobs.start(JobRequest(capability=ECHO, input=tree), TESTER)
        call = {"use": ECHO, "with": {"folder": tree}}
        found = {**document(), "steps": {"call": call}, "outputs": {"out": "call"}}
        with pytest.raises(DataClassError):
            await start(platform, found)
        given = {"folder": {"type": "artifact", "default": tree}}
        call = {"use": ECHO, "with": {"folder": "${{ parameters.folder }}"}}
        with pytest.raises(DataClassError):
            await start(platform, {**found, "parameters": given, "steps": {"call": call}})


async def test_the_class_of_bytes_counts_though_a_parameter_completes_their_name(tmp_path):
    workers = fleet()
    async with core(tmp_path, workers, catalogue=catalogue(echo_max=INTERNAL)) as platform:
        _, mail = await uploaded(platform, b"mail", PERSONAL)
        digest = {"digest": {"type": "string", "default": mail["sha256"]}}
        named = {**mail, "sha256": "${{ parameters.digest }}"}
        found = {
            **document(),
            "parameters": digest,
            "steps": {"call": {"use": ECHO, "with": {"file": named}}},
            "outputs": {"out": "call"},
        }
        with pytest.raises(DataClassError):
            await start(platform, found)


async def test_what_a_folder_holds_is_not_handed_out_above_the_class_of_the_step(tmp_path):
    """The class of the file may have risen after the step was placed."""
    workers = fleet()
    async with core(tmp_path, workers, catalogue=catalogue()) as platform:
        _, entry = await uploaded(platform, b"mail", INTERNAL)
        tree = json.dumps({"entries": {"cur/1": entry}}).encode()
        files, reference = await uploaded(platform, tree, INTERNAL)
        job, key, identity = await hanging(
            platform, workers, {**reference, "media_type": TREE_MEDIA_TYPE}
        )
        asked = GrantRequest(
            operation="get", sha256=entry["sha256"], size=4, step=key, attempt=1,
            media_type="", name=None,
        )  # fmt: skip
        assert (await files.grant(asked, identity)).method == "GET"
        await uploaded(platform, b"mail", PERSONAL)
        with pytest.raises(NotFoundError):
            await files.grant(asked, identity)
        await platform.execution.runs.cancel(job)


async def test_a_narrowed_ticket_does_not_open_what_the_run_has_stored(tmp_path):
    workers = fleet()
    async with core(tmp_path, workers, catalogue=catalogue()) as platform:
        files, reference = await uploaded(platform, b"mail", INTERNAL)
        job, key, identity = await hanging(platform, workers, reference)
        named = await platform.execution.tickets.check(workers.tickets[0], identity, key, 1)

        async def chunks():
            yield b"made of mail"

        digest = hashlib.sha256(b"made of mail").hexdigest()
        use = Use(identity=identity, step=key, attempt=1, ticket=named)
        await files.put(chunks(), digest, use, name=None, media_type="text/plain")
        asked = GrantRequest(
            operation="get", sha256=digest, size=12, step=key, attempt=1, media_type="", name=None
        )
        assert (await files.grant(asked, identity, named)).method == "GET"
        for artifacts in ([], ["*"], [reference["sha256"]]):
            narrowed = msgspec.structs.replace(named, artifacts=artifacts)
            with pytest.raises(NotFoundError):
                await files.grant(asked, identity, narrowed)
        await platform.execution.runs.cancel(job)
