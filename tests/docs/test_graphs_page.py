"""The pipelines of the page on graphs run, and end as it says."""

from execution_support import FAST, TESTER, core, numbers
from fake_workers import (
    FakeCatalogue,
    FakeWorker,
    adder,
    caller,
    capability,
    failing,
    mapper,
    source,
)
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.safeio.yaml import parse_yaml
from pages import blocks

CHOOSE, TOLERANT, WEEKLY = map(parse_yaml, blocks("docs/how-to/graphs.md", "yaml"))
CATALOGUE = FakeCatalogue(
    capability("doc.read@1", "source"),
    capability("doc.tag@1", "map"),
    capability("doc.count@1", "reducer"),
    capability("doc.report@1", "call"),
    capability("doc.send@1", "call"),
)
SOON = FAST.model_copy(update={"optional_wait_s": 0.05})


def open_core(folder, **others):
    found = {
        "doc.read@1": source(numbers(10)),
        "doc.tag@1": mapper(lambda record: {**record, "tag": "x"}),
        "doc.count@1": adder,
        "doc.report@1": caller(lambda _value, options: options),
        "doc.send@1": caller(lambda _value, options: options),
        **others,
    }
    found = {name: behaviour for name, behaviour in found.items() if behaviour is not None}
    one = FakeWorker("w1", found, dict.fromkeys(found, 2))
    return core(folder, one, catalogue=CATALOGUE, settings=SOON)


def states(run):
    return {node.name: node.state.value for node in run.nodes}


async def test_a_condition_chooses(tmp_path):
    async with open_core(tmp_path) as platform:
        full, brief = await platform.run(CHOOSE), await platform.run(CHOOSE, mode="brief")
        assert (full.state, brief.state) == ("completed", "completed")
        assert (states(full)["full"], states(full)["brief"]) == ("completed", "skipped")
        assert (states(brief)["full"], states(brief)["brief"]) == ("skipped", "completed")
        assert states(full)["send"] == states(brief)["send"] == "completed"


async def test_a_tolerant_run_goes_on_without_what_fails(tmp_path):
    broken = failing(problem("step-fatal", "no mail server"))
    async with open_core(tmp_path, **{"doc.tag@1": None, "doc.send@1": broken}) as platform:
        run = await platform.run(TOLERANT)
        assert (run.state, run.missing) == ("partial", ["tag"])
        assert (states(run)["notify"], states(run)["mend"]) == ("failed", "completed")
        assert len(await platform.records(run.id)) == 10


async def test_a_pipeline_runs_another_one(tmp_path):
    async with open_core(tmp_path) as platform:
        await platform.execution.pipelines.store(TOLERANT, TESTER)
        run = await platform.run(WEEKLY)
        assert run.state == "completed"
        assert b'"total":45' in await platform.output(run.id, "part")
