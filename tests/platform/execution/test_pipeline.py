"""Whole pipelines over fake workers: the order of things, and that nothing is lost or doubled."""

from execution_support import core, worker


async def test_a_pipeline_reads_maps_and_reduces_every_record_once(tmp_path):
    async with core(tmp_path, worker(records=35)) as platform:
        run = await platform.run()
        assert run.state == "completed", run
        assert [one["n"] for one in await platform.records(run.id)] == [2 * n for n in range(35)]
        assert await platform.output(run.id, "total") == str(2 * sum(range(35))).encode()
