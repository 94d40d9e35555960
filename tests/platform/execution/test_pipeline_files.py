"""Pipelines that lie in a folder: a file with a mistake is told and concerns no other one."""

import pytest
from execution_support import CAPABILITIES, PIPELINE
from fake_workers import FakeCatalogue
from hivemesh_platform.execution.runs.pipelines import PipelineService
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.errors import InvalidError, NotFoundError
from storage_support import opened_in
from yaml import safe_dump


@pytest.fixture
async def service(tmp_path):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "sums.yaml").write_text(safe_dump(PIPELINE))
    (folder / "broken.yaml").write_text("steps: [")
    (folder / "wrong.yaml").write_text(safe_dump({**PIPELINE, "step": {}}))
    mistyped = {"n": {"type": "integer", "default": "three"}}
    (folder / "mistyped.yaml").write_text(safe_dump({**PIPELINE, "parameters": mistyped}))
    async with opened_in(tmp_path) as database:
        yield PipelineService(
            database, FakeCatalogue(*CAPABILITIES), (folder,), SystemClock(), None
        )


async def test_the_others_are_there(service):
    assert [one.document.metadata.name for one in await service.newest()] == ["sums"]
    assert (await service.get("sums")).document.metadata.version == 1


async def test_what_is_wrong_is_told_by_file(service):
    found = {one.name: one.view() for one in service.broken()}
    assert found.keys() == {"broken", "mistyped", "wrong"}
    assert "step" in found["wrong"].problem
    assert "'n' is no integer" in found["mistyped"].problem
    with pytest.raises(InvalidError, match="step"):
        await service.get("wrong")
    with pytest.raises(NotFoundError):
        await service.get("nothing")
