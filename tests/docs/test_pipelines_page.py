"""The pipeline of the page on pipelines runs, and gives what the page says."""

import pytest
from execution_support import FAST, core, numbers
from fake_workers import FakeCatalogue, FakeWorker, adder, caller, capability, mapper, source
from hivemesh_sdk.errors import InvalidError
from hivemesh_sdk.safeio.yaml import parse_yaml
from pages import blocks

(PRICES,) = map(parse_yaml, blocks("docs/how-to/pipelines.md", "yaml"))
CATALOGUE = FakeCatalogue(
    capability("shop.read@1", "source"),
    capability("shop.price@1", "map"),
    capability("shop.total@1", "reducer"),
    capability("shop.tell@1", "call"),
)


def open_core(folder, told=None):
    found = {
        "shop.read@1": source(numbers(10)),
        "shop.price@1": mapper(lambda record: {**record, "price": 1}),
        "shop.total@1": adder,
        "shop.tell@1": caller(lambda value, options: (told or []).append((value, options))),
    }
    worker = FakeWorker("w1", found, dict.fromkeys(found, 2))
    return core(folder, worker, catalogue=CATALOGUE, settings=FAST)


async def test_the_pipeline_of_the_page_gives_a_dataset_and_a_value(tmp_path):
    told = [None]
    async with open_core(tmp_path, told) as platform:
        run = await platform.run(PRICES, shop="north")
        assert run.state == "completed"
        assert run.outputs["priced"]["name"] == "prices.priced"
        assert await platform.output(run.id, "total") == b"45"
    assert told[1:] == [(None, {"text": "north sells for 45"})]  # a call has no input


@pytest.mark.parametrize(
    "given", [{}, {"shop": 5}, {"shop": "north", "least": "5"}, {"shop": "north", "most": 5}]
)
async def test_parameters_are_as_the_page_says(tmp_path, given):
    async with open_core(tmp_path) as platform:
        with pytest.raises(InvalidError):
            await platform.run(PRICES, **given)
