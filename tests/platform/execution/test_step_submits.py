"""Steps start jobs: once for a name, on their own behalf, and nothing that they could not call."""

import dataclasses

import msgspec
import pytest
from execution_support import CAPABILITIES, PIPELINE, TESTER, core, worker
from fake_workers import FakeCatalogue, FakeWorkerFleet
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.jobs.step_submits import DEEPEST, SubmitDeniedError
from hivemesh_platform.execution.ledger.port import StaleAttemptError
from hivemesh_platform.execution.ledger.submit_sql import OtherBodyError
from hivemesh_platform.execution.plans.spec import JobSpec
from hivemesh_sdk.contracts.api import JobRequest, RunState
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.manifest import Permissions
from hivemesh_sdk.contracts.submits import SubmitHow, SubmitRequest
from hivemesh_sdk.errors import InvalidError
from hivemesh_sdk.trust.policy import Decision, Reason
from hivemesh_sdk.trust.tickets import TicketRefusedError

SUMS = "pipeline/sums@1"
ECHO, DOUBLE, SUM = "test.echo@1", "test.double@1", "test.sum@1"


class Catalogue(FakeCatalogue):
    """Doubles and echoes may start echoes."""

    def find(self, capability):
        found = super().find(capability)
        cleared = found and found.declared.model_copy(update={"data_class_max": DataClass.PERSONAL})
        found = found and dataclasses.replace(found, declared=cleared)
        if capability not in {DOUBLE, ECHO}:
            return found
        return dataclasses.replace(found, permissions=Permissions(call=(ECHO, SUMS)))


class Fleet(FakeWorkerFleet):
    """Does something while a step runs, and keeps what came of it."""

    def __init__(self, act):
        super().__init__(worker())
        self.act = act
        self.came = []

    async def put_step(self, endpoint, key, body, *, ticket, wait_s):
        act, self.act = self.act, None
        if act is not None:
            self.came.append(await act(Step(self.platform, endpoint, key, ticket)))
        return await super().put_step(endpoint, key, body, ticket=ticket, wait_s=wait_s)


@dataclasses.dataclass
class Step:
    platform: object
    endpoint: object
    key: str
    ticket: str

    async def submit(self, value=1, *, name="more", capability=ECHO, attempt=1, **fields):
        how = SubmitHow(**fields.pop("how", {}))
        request = SubmitRequest(
            step=self.key, attempt=attempt, name=name, capability=capability,
            input=msgspec.Raw(msgspec.json.encode(value)), how=how, **fields,
        )  # fmt: skip
        submits = self.platform.execution.submits
        return (await submits.submit(request, self.ticket, self.endpoint.identity)).job

    async def refused(self, error, *args, **fields):
        with pytest.raises(error):
            await self.submit(*args, **fields)


async def during(tmp_path, act, capability=DOUBLE, who=TESTER, stored=None, **fields):
    """Run a job whose step does `act`; what came of that, and the view of each job it names."""
    fleet = Fleet(act)
    async with core(tmp_path, fleet, catalogue=Catalogue(*CAPABILITIES)) as platform:
        fleet.platform = platform
        if stored is not None:
            await platform.execution.pipelines.store(stored, TESTER)
        request = JobRequest(capability=capability, input={"n": 1}, wait_s=10, **fields)
        await platform.execution.jobs.start(request, who)
        [came] = fleet.came
        jobs = came if isinstance(came, list) else []
        views = [await platform.end(job) for job in jobs]
        rows = await platform.database.read(
            lambda tx: tx.all("SELECT run, spec, submitter, priority FROM work ORDER BY run")
        )
        return came, views, {row["run"]: row for row in rows}


async def test_a_step_starts_a_job_on_its_own_behalf(tmp_path):
    async def act(step):
        return [await step.submit({"n": 7}), step.key]

    fleet = Fleet(act)
    async with core(tmp_path, fleet, catalogue=Catalogue(*CAPABILITIES)) as platform:
        fleet.platform = platform
        request = JobRequest(capability=DOUBLE, input={"n": 1}, wait_s=10)
        first = await platform.execution.jobs.start(request, TESTER)
        job, key = fleet.came[0]
        view = await platform.end(job)
        assert (first.state, view.state) == (RunState.COMPLETED, RunState.COMPLETED)
        row = await platform.database.read(
            lambda tx: tx.one("SELECT spec, submitter FROM work WHERE run = ?", (job,))
        )
    spec = msgspec.json.decode(row["spec"], type=JobSpec)
    assert (row["submitter"], spec.behalf.sub) == (TESTER.sub, TESTER.sub)
    assert (spec.submitted_by, spec.depth) == (f"{key}.more", 1)


async def test_one_name_of_a_step_is_one_job(tmp_path):
    async def act(step):
        return [await step.submit(), await step.submit(), await step.submit(name="other")]

    (first, second, other), _, rows = await during(tmp_path, act)
    assert first == second != other
    assert len(rows) == 3


async def test_one_name_is_not_used_for_two_things(tmp_path):
    async def act(step):
        await step.submit(1)
        await step.refused(OtherBodyError, 2)

    await during(tmp_path, act)


async def test_what_the_manifest_does_not_list_is_not_started(tmp_path):
    async def act(step):
        await step.refused(SubmitDeniedError, capability=DOUBLE)
        await step.refused(SubmitDeniedError, None, capability="pipeline/any@1")

    _, _, rows = await during(tmp_path, act)
    assert len(rows) == 1


async def test_artifacts_and_secrets_are_those_of_the_step(tmp_path):
    async def act(step):
        foreign = {"sha256": "a" * 64, "size": 1}
        await step.refused(SubmitDeniedError, {"file": foreign})
        await step.refused(SubmitDeniedError, options={"key": "{{ vault.mail.key }}"})

    _, _, rows = await during(tmp_path, act)
    assert len(rows) == 1


async def test_the_job_has_the_class_of_what_its_step_was_given(tmp_path):
    async def act(step):
        return [await step.submit()]

    [job], _, rows = await during(tmp_path, act, data_class=DataClass.PERSONAL)
    assert msgspec.json.decode(rows[job]["spec"], type=JobSpec).data_class is DataClass.PERSONAL


async def test_a_superseded_or_foreign_attempt_starts_nothing(tmp_path):
    async def act(step):
        await step.refused(TicketRefusedError, attempt=2)
        stranger = dataclasses.replace(
            step,
            endpoint=dataclasses.make_dataclass("Other", ["identity"])("spiffe://x/worker/o/1"),
        )
        await stranger.refused(TicketRefusedError)
        await step.platform.database.write(
            lambda tx: tx.execute("UPDATE work SET attempt = attempt + 1")
        )
        await step.refused(StaleAttemptError)
        await step.platform.database.write(
            lambda tx: tx.execute("UPDATE work SET attempt = attempt - 1")
        )

    _, _, rows = await during(tmp_path, act)
    assert len(rows) == 1


async def test_jobs_that_start_jobs_come_to_an_end(tmp_path):
    async def act(step):
        held = step.platform.execution.held.find(step.key)
        spec = msgspec.json.decode(held.claim.spec, type=JobSpec)
        deep = msgspec.structs.replace(spec, depth=DEEPEST)
        held.claim = msgspec.structs.replace(held.claim, spec=msgspec.json.encode(deep).decode())
        await step.refused(InvalidError)

    _, _, rows = await during(tmp_path, act)
    assert len(rows) == 1


async def test_priority_labels_and_deadline_are_those_that_the_step_says(tmp_path):
    async def act(step):
        how = {"priority": 9, "labels": {"team": "a"}, "deadline_s": 7.0}
        return [await step.submit(how=how), await step.submit(name="plain")]

    [job, plain], [view, other], rows = await during(tmp_path, act)
    spec = msgspec.json.decode(rows[job]["spec"], type=JobSpec)
    assert (rows[job]["priority"], spec.deadline_ms, view.labels) == (9, 7000, {"team": "a"})
    assert view.submitted_by.endswith(".more")
    assert (rows[plain]["priority"], other.labels) == (5, {})


async def test_a_priority_and_a_label_are_within_their_bounds(tmp_path):
    async def act(step):
        await step.refused(InvalidError, how={"priority": 11})
        await step.refused(InvalidError, how={"labels": {"a=b": "c"}})
        await step.refused(InvalidError, how={"deadline_s": -1.0})

    _, _, rows = await during(tmp_path, act)
    assert len(rows) == 1


async def test_a_step_starts_a_pipeline_once_for_a_name(tmp_path):
    async def act(step):
        how = {"labels": {"team": "a"}, "priority": 8}
        fields = {"capability": SUMS, "options": {"from": "there"}, "how": how}
        return [await step.submit(None, **fields), await step.submit(None, **fields)]

    (first, again), (view, _), _ = await during(tmp_path, act, stored=PIPELINE)
    assert first == again
    assert (view.pipeline, view.state, view.submitter) == ("sums", RunState.COMPLETED, TESTER.sub)
    assert (view.labels, view.parameters) == ({"team": "a"}, {"from": "there"})


@pytest.mark.parametrize(
    "grants",
    [
        ("run:capability",),
        ("run:capability/test.double@1", "run:pipeline/sums"),
        ("run:capability", "run:pipeline/other"),
    ],
)
async def test_a_step_starts_no_pipeline_that_its_principal_may_not_run(tmp_path, grants):
    async def act(step):
        await step.refused(SubmitDeniedError, None, capability=SUMS)

    who = Behalf(sub="clerk", grants=grants)
    _, _, rows = await during(tmp_path, act, who=who, stored=PIPELINE)
    assert len(rows) == 1


async def test_a_pipeline_takes_parameters_that_it_has_and_artifacts_of_the_step(tmp_path):
    async def act(step):
        foreign = {"sha256": "a" * 64, "size": 1}
        await step.refused(SubmitDeniedError, None, capability=SUMS, options={"from": foreign})
        await step.refused(InvalidError, None, capability=SUMS, options={"until": 1})
        await step.refused(InvalidError, None, capability=SUMS)
        await step.refused(InvalidError, {"from": "x"}, capability=SUMS)
        await step.refused(InvalidError, None, capability=SUMS, how={"deadline_s": 1.0})

    await during(tmp_path, act, stored={**PIPELINE, "parameters": {"from": {"type": "artifact"}}})


async def test_the_names_of_a_step_are_one_for_jobs_and_pipelines(tmp_path):
    async def act(step):
        await step.submit()
        await step.refused(OtherBodyError, None, capability=SUMS)

    await during(tmp_path, act, stored=PIPELINE)


class NoDoubling:
    """The policy does not let the worker call `test.double@1`."""

    def current(self):
        return self

    def decide(self, caller, callee, capability, facts):
        return Decision(allowed=capability != DOUBLE, reason=Reason.NO_RULE, rule="", version=1)


async def test_a_pipeline_reaches_nothing_that_the_policy_keeps_from_the_worker(tmp_path):
    async def act(step):
        step.platform.execution.submits._policies = NoDoubling()
        await step.refused(SubmitDeniedError, None, capability=SUMS)
        await step.submit()

    await during(tmp_path, act, stored=PIPELINE)
