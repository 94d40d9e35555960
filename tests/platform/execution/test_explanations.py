"""What waits is explained as it stands now: who could take it, what each lacks, and the reason."""

import asyncio

import pytest
from execution_support import TESTER, core, worker
from fake_workers import Frame, ProblemEvent
from hivemesh_platform.execution.ledger import store
from hivemesh_platform.settings import ExecutionSettings
from hivemesh_sdk.contracts.api import JobRequest, LimitRequest
from hivemesh_sdk.contracts.policy import SignedPolicy
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.trust.policy import CompiledPolicy, raw_rules
from storage_support import DIALECTS, choose

ECHO = "test.echo@1"


class NothingAllowed:
    """Policies by which the platform may call nobody."""

    stale = False
    refused = 0

    def current(self):
        return CompiledPolicy(
            SignedPolicy(version=1, issued_at=1, trust_domain="", rules=raw_rules([]), deny=[])
        )


async def job_of(running, **fields):
    request = JobRequest(capability=ECHO, input=1, **fields)
    return (await running.execution.jobs.start(request, TESTER)).id


async def waiting(running, job, says):
    """The last line of what is explained, as soon as it says that."""
    async with asyncio.timeout(60):
        while True:
            found = await running.execution.runs.explain(job, 0, 10)
            if found and found[-1].chosen is None and says in found[-1].reason:
                return found[-1]
            await asyncio.sleep(0.01)


def unmet(found):
    return {one["instance"]: one["unmet"] for one in found.candidates}


@pytest.fixture(params=DIALECTS)
def folder(request, tmp_path):
    """A state folder with one kind of database, then with the other."""
    choose(request, tmp_path)
    return tmp_path


@pytest.fixture
async def full(tmp_path):
    """A platform whose two workers have no slot free."""
    async with core(tmp_path, worker("w1", slots=0), worker("w2", slots=0)) as found:
        yield found


async def test_a_job_that_was_never_placed_shows_every_candidate_as_of_now(full):
    job = await job_of(full)
    found = await waiting(full, job, "all slots are taken")
    assert (found.key, found.chosen, found.not_listed) == (f"{job}.job.0", None, 0)
    assert [one["score"] for one in found.candidates] == [0.1, 0.1]
    assert all(set(one["parts"]) == {"cpu", "memory", "active"} for one in found.candidates)
    assert unmet(found) == {"w1": "free slot", "w2": "free slot"}
    full.fleet.workers["w1"].dead = True
    assert unmet(await waiting(full, job, "all slots")) == {"w2": "free slot"}


async def test_where_nobody_serves_it_there_is_no_candidate_but_the_reason(full):
    for one in full.fleet.workers.values():
        one.dead = True
    found = await waiting(full, await job_of(full), "no live instance serves")
    assert (found.candidates, found.reason) == ([], f"no live instance serves {ECHO}")


async def test_a_limit_that_holds_it_back_is_the_reason_and_unmet_by_all(tmp_path):
    async with core(tmp_path, worker()) as running:
        limits = running.execution.limits
        await limits.set(f"capability:{ECHO}", LimitRequest(rate="1/h"), "default", "tester")
        await running.end(await job_of(running))
        found = await waiting(running, await job_of(running), "limit")
        assert found.reason == f"limit {ECHO}: 1/h"
        assert unmet(found) == {"w1": found.reason}


async def test_a_limit_of_its_key_is_the_reason(tmp_path):
    async with core(tmp_path, worker()) as running:
        await running.execution.limits.set(
            "key:customer-7", LimitRequest(rate="1/h"), "default", "tester"
        )
        await running.end(await job_of(running, concurrency_key="customer-7"))
        job = await job_of(running, concurrency_key="customer-7")
        found = await waiting(running, job, "limit customer-7")
        assert unmet(found) == {"w1": "limit customer-7: 1/h"}


async def test_what_waits_again_has_its_attempts_and_then_the_time_of_the_next(folder):
    def fails(_request, _inputs):
        yield Frame(
            ProblemEvent(no=1, problem=problem("step-failed", "it broke", retry_after_s=200.0))
        )

    settings = ExecutionSettings(status_interval_s=0.05)
    broken = worker(behaviours={ECHO: fails})
    async with core(folder, broken, settings=settings) as running:
        job = await job_of(running)
        found = await waiting(running, job, "tried again at")
        assert found.reason.endswith(": it broke")
        assert unmet(found) == {"w1": ""}
        first, last = await running.execution.runs.explain(job, 0, 10)
        assert (first.chosen, first.reason) == ("w1", "the first free one")
        assert (first.attempt, last.attempt) == (1, 1)
        assert [last] == await running.execution.runs.explain(job, 1, 10)
        assert await running.execution.runs.explain(job, 2, 10) == []
        assert await running.database.read(store.pending) == {"high": 0, "background": 1}


async def test_what_the_policy_forbids_is_unmet(tmp_path):
    async with core(tmp_path, worker(), policies=NothingAllowed()) as running:
        running.placement.free_slots = dict  # nothing is claimed
        found = await waiting(running, await job_of(running), "it is queued")
        assert unmet(found)["w1"].startswith("policy: worker 'fake' refuses: caller 'platform'")


async def test_rows_of_a_run_that_wait_are_explained_each(full):
    run = await full.start()
    found = await waiting(full, run, "all slots are taken")
    assert (found.key, unmet(found)) == (f"{run}.read.0", {"w1": "free slot", "w2": "free slot"})
