"""A step may read what its run was given or has stored, and nothing that an answer merely names."""

from execution_support import core, worker
from fake_workers import caller

GIVEN = {"sha256": "a" * 64, "size": 1}
FOREIGN = {"sha256": "f" * 64, "size": 1}
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


async def test_an_artifact_that_only_an_answer_names_is_not_granted(tmp_path):
    seen = []

    def answer(_value, options):
        if "named" in options:
            held = next(iter(seen[0].execution.held.at("w1")))
            seen.append(held.digests)
        return {"file": FOREIGN}

    async with core(tmp_path, worker(behaviours={"test.echo@1": caller(answer)})) as platform:
        seen.append(platform)
        run = await platform.run(DOCUMENT, file=GIVEN)
        assert run.state == "completed"
    assert seen[1] == {GIVEN["sha256"]}
