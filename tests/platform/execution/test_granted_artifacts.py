"""A step may read what its run was given or has stored, and nothing that an answer merely names."""

import json

import pytest
from execution_support import core, worker
from fake_workers import caller
from hivemesh_platform.artifacts.service import ArtifactService
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.names import TREE_MEDIA_TYPE

STEPS = {
    "first": {"use": "test.echo@1"},
    "second": {
        "use": "test.echo@1",
        "with": {"own": "${{ parameters.file }}", "named": "${{ first.file }}"},
    },
}
DOCUMENT = {
    "apiVersion": "hivemesh/v1",
    "kind": "Pipeline",
    "metadata": {"name": "names", "version": 1},
    "parameters": {"file": {"type": "artifact"}},
    "steps": STEPS,
    "outputs": {"answer": "second"},
}


async def stored(platform, data, *, tenant="default", media_type="text/plain", **more):
    files = ArtifactService(
        platform.database, platform.artifacts, platform.execution.held, SystemClock()
    )

    async def chunks():
        yield data

    info = await files.upload(
        chunks(), name=None, media_type=media_type, origin="tester", tenant=tenant, **more
    )
    return {"sha256": info.sha256, "size": info.size, "media_type": media_type}


async def folder(platform, *entries):
    found = {str(number): entry for number, entry in enumerate(entries)}
    tree = json.dumps({"entries": found}).encode()
    return await stored(platform, tree, media_type=TREE_MEDIA_TYPE)


@pytest.fixture
async def platform(tmp_path):
    found = {}

    def answer(_value, options):
        if "named" in options:
            found["held"] = next(iter(found["platform"].execution.held.at("w1")))
        return {"file": found.get("answer")}

    async with core(tmp_path, worker(behaviours={"test.echo@1": caller(answer)})) as platform:
        found["platform"] = platform
        platform.found = found
        yield platform


async def held(platform, given, answer, document=DOCUMENT):
    """The second step, of a run that was given one artifact and whose first step names another."""
    platform.found["answer"] = answer
    assert (await platform.run(document, file=given)).state == "completed"
    return platform.found["held"]


async def test_an_artifact_that_only_an_answer_names_is_not_granted(platform):
    given, foreign = await stored(platform, b"mine"), await stored(platform, b"another")
    step = await held(platform, given, foreign)
    assert step.digests == {given["sha256"]}


async def test_bytes_that_only_another_tenant_has_are_not_granted(platform):
    given = await stored(platform, b"theirs", tenant="acme")
    assert (await held(platform, given, None)).digests == frozenset()


async def test_a_folder_that_an_answer_calls_one_is_not_opened(platform):
    """Nobody has looked into it: the parameter said that it is a text."""
    tree = await folder(platform, await stored(platform, b"another"))
    step = await held(platform, {**tree, "media_type": "text/plain"}, tree)
    assert (step.digests, step.trees) == ({tree["sha256"]}, frozenset())


async def test_a_folder_whose_media_type_an_answer_completes_is_not_opened(platform):
    tree = await folder(platform, await stored(platform, b"another"))
    reference = {**tree, "media_type": "${{ first.file }}"}
    steps = {**STEPS, "second": {"use": "test.echo@1", "with": {"named": reference}}}
    document = {**DOCUMENT, "parameters": {"file": {"type": "object"}}, "steps": steps}
    assert not (await held(platform, {}, TREE_MEDIA_TYPE, document)).trees


async def test_a_folder_that_was_given_is_opened(platform):
    tree = await folder(platform, await stored(platform, b"mine"))
    assert (await held(platform, tree, None)).trees == {tree["sha256"]}


async def test_nothing_above_the_class_of_its_inputs_is_granted_by_a_name(platform):
    """An answer names what the run was given for another step: its class was not counted here."""
    mail = await stored(platform, b"mail", data_class=DataClass.PERSONAL)
    steps = {
        "first": {"use": "test.echo@1"},
        "second": {"use": "test.echo@1", "with": {"named": "${{ first.file }}"}},
        "third": {"use": "test.echo@1", "with": {"own": "${{ parameters.file }}"}},
    }
    step = await held(platform, mail, mail, {**DOCUMENT, "steps": steps})
    assert step.digests == frozenset()
