"""What a run that is kept may be done again from is kept with it."""

from execution_support import TESTER, core, worker
from hivemesh_platform.execution.ledger import retention_sql
from hivemesh_sdk.contracts.api import RunState


async def test_a_completed_run_names_the_batches_from_which_its_steps_are_done_again(tmp_path):
    async with core(tmp_path, worker()) as platform:
        run = await platform.run()
        assert run.state is RunState.COMPLETED
        _, named = await platform.database.read(
            lambda tx: retention_sql.named_by_batches(tx, "", 500)
        )
        given = await platform.database.read(
            lambda tx: tx.all("SELECT sha256 FROM batch WHERE run = ? AND count > 0", (run.id,))
        )
        assert {row["sha256"] for row in given} <= named
        await platform.execution.again.retry(run.id, "double", TESTER)
        assert (await platform.end(run.id)).state is RunState.COMPLETED
        assert len(await platform.records(run.id)) == 35
