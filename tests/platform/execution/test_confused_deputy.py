"""Whoever may not reach a capability directly does not reach it through any other path.

The fleet decides as a worker does: by the claims of the ticket and the policy of the SDK.
"""

import dataclasses
import json

import msgspec
import pytest
from execution_support import CAPABILITIES as DECLARED
from execution_support import PIPELINE, core, worker
from fake_workers import FakeCatalogue, FakeWorkerFleet, Frame, ResultEvent
from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.behalf import NOBODY, Behalf, effective
from hivemesh_platform.execution.jobs.batches import read_inputs
from hivemesh_platform.execution.ledger.letter_sql import LetterFilter
from hivemesh_platform.execution.ports import StepRefusedError
from hivemesh_sdk.contracts.api import BatchRequest, JobRequest, RunRequest, RunState
from hivemesh_sdk.contracts.dead_letter_api import ReplayRequest
from hivemesh_sdk.contracts.manifest import Permissions
from hivemesh_sdk.contracts.policy import PolicyDocument, SignedPolicy
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.contracts.submits import SubmitRequest
from hivemesh_sdk.contracts.tickets import TICKET_TYPE, Ticket
from hivemesh_sdk.errors import NotAuthorizedError
from hivemesh_sdk.trust import jws
from hivemesh_sdk.trust.policy import CompiledPolicy, Facts, raw_rules, signed_rules

DOMAIN = "test.hivemesh.internal"
PLATFORM = f"spiffe://{DOMAIN}/platform/p1"
VIEWER = Behalf(sub=f"spiffe://{DOMAIN}/user/vi", roles=("viewer",), grants=("read:run",))
ADMIN = Behalf(sub=f"spiffe://{DOMAIN}/user/ad", roles=("admin",), grants=("admin:*",))
PRINCIPAL = Principal(id=ADMIN.sub, roles=("admin",), grants=("admin:*",))
CAPABILITIES = ["test.read@1", "test.double@1", "test.sum@1", "test.echo@1"]


class CallingCatalogue(FakeCatalogue):
    """`test.double@1` may call and start `test.echo@1`."""

    def find(self, capability):
        found = super().find(capability)
        if capability != "test.double@1":
            return found
        calls = ("test.echo@1", "pipeline/sums@1")
        return dataclasses.replace(found, permissions=Permissions(call=calls))


CATALOGUE = CallingCatalogue(*DECLARED)


def policy(guarded):
    """`guarded` is for analysts; the other capabilities are for everybody."""
    to = {"worker": "fake", "capabilities": [guarded]}
    others = [one for one in CAPABILITIES if one != guarded]
    source = {"spiffe": f"spiffe://{DOMAIN}/platform/*"}
    document = PolicyDocument.model_validate(
        {
            "rules": [
                {"id": "analysts", "from": source, "to": to, "when": {"on_behalf_of_roles": ["analyst"]}},
                {"id": "all", "from": source, "to": {"worker": "fake", "capabilities": others}},
            ]
        }
    )  # fmt: skip
    rules, deny = signed_rules(document, DOMAIN)
    return CompiledPolicy(
        SignedPolicy(version=1, issued_at=1, trust_domain=DOMAIN, rules=raw_rules(rules), deny=deny)
    )


class GuardedFleet(FakeWorkerFleet):
    """Refuses at the callee what ticket and policy do not allow."""

    def __init__(self, guarded, *workers):
        super().__init__(*workers)
        self._policy = policy(guarded)
        self.guarded = guarded
        self.reached = []  # principals for whom the guarded capability ran
        self.meanwhile = None  # what a step does, once, before it is answered

    async def put_step(self, endpoint, key, body, *, ticket, wait_s):
        claims = msgspec.json.decode(jws.unverified(ticket, TICKET_TYPE), type=Ticket)
        assert (claims.azp, claims.step) == (endpoint.identity, key)
        facts = Facts(ticket=True, roles=claims.roles, data_class=claims.data_class)
        if not self._policy.decide(PLATFORM, endpoint.worker, claims.cap, facts).allowed:
            raise StepRefusedError(problem("not-authorized", claims.cap))
        if claims.cap == self.guarded:
            self.reached.append(claims.sub)
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            await act(endpoint, key, ticket)
        return await super().put_step(endpoint, key, body, ticket=ticket, wait_s=wait_s)


async def job(platform, who):
    request = JobRequest(capability="test.echo@1", input={"n": 1}, wait_s=10)
    return await platform.execution.jobs.start(request, who)


async def batch(platform, who):
    inputs = await read_inputs([b'{"n":1}'] * 20)
    request = BatchRequest(capability="test.echo@1")
    view = await platform.execution.batches.start(request, inputs, who, "")
    return await platform.end(view.first)


async def inline_pipeline(platform, who):
    view = await platform.execution.runs.start(RunRequest(document=PIPELINE), who)
    return await platform.end(view.id)


async def stored_pipeline(platform, who):
    await platform.execution.pipelines.store(PIPELINE, ADMIN)
    view = await platform.execution.runs.start(RunRequest(pipeline="sums"), who)
    return await platform.end(view.id)


async def letter_of_an_admin(platform):
    """A job that an admin has submitted and that was given up."""
    platform.fleet.refuse = [problem("step-fatal")]
    view = await job(platform, ADMIN)
    platform.fleet.reached.clear()
    [letter] = await platform.execution.letters.page(PRINCIPAL, LetterFilter(), "", 1)
    return view.id, letter


async def replay(platform, who):
    run, letter = await letter_of_an_admin(platform)
    await platform.execution.letters.retry(letter, who)
    return await platform.end(run)


async def edited(platform, who):
    _, letter = await letter_of_an_admin(platform)
    found = await platform.execution.letters.edit(letter, ReplayRequest(input={"n": 2}), who)
    return await platform.end(found)


async def nested_pipeline(platform, who):
    await platform.execution.pipelines.store(PIPELINE, ADMIN)
    outer = {
        **PIPELINE,
        "metadata": {"name": "outer", "version": 1},
        "steps": {"part": {"use": "pipeline/sums@1"}},
        "outputs": {},
    }
    view = await platform.execution.runs.start(RunRequest(document=outer), who)
    return await platform.end(view.id)


async def retried_run(platform, who):
    view = await inline_pipeline(platform, who)
    await platform.execution.again.retry(view.id, "double", who)
    return await platform.end(view.id)


async def submitted_by_a_step(platform, who, capability="test.echo@1", value=b"1"):
    """A job of another capability runs for `who`, and starts the guarded one."""
    answers = []

    async def submit(endpoint, key, ticket):
        wanted = SubmitRequest(
            step=key, attempt=1, name="more", capability=capability, input=msgspec.Raw(value)
        )
        try:
            reply = await platform.execution.submits.submit(wanted, ticket, endpoint.identity)
            answers.append(reply.job)
        except NotAuthorizedError:
            answers.append(None)

    platform.fleet.meanwhile = submit
    request = JobRequest(capability="test.double@1", input={"n": 1}, wait_s=10)
    first = await platform.execution.jobs.start(request, who)
    [job] = answers
    if job is None:
        return first.model_copy(update={"state": RunState.FAILED})
    return await platform.end(job)


async def pipeline_by_a_step(platform, who):
    await platform.execution.pipelines.store(PIPELINE, ADMIN)
    return await submitted_by_a_step(platform, who, "pipeline/sums@1", b"null")


async def retried_batch(platform, who):
    """A batch that an admin has submitted, and cancelled before any of it has run."""
    [instance] = platform.fleet.workers.values()
    instance.dead = True
    inputs = await read_inputs([b'{"n":1}'] * 3)
    batches = platform.execution.batches
    view = await batches.start(BatchRequest(capability="test.echo@1"), inputs, ADMIN, "")
    await batches.cancel(view.id)
    instance.dead = False
    await batches.retry(view.id, {"cancelled"}, who)
    return await platform.end(view.first)


PATHS = {  # which capability is guarded, and how it is tried to reach it
    "a direct call": ("test.echo@1", job),
    "jobs that travel together": ("test.echo@1", batch),
    "a job that a step starts": ("test.echo@1", submitted_by_a_step),
    "a pipeline that a step starts": ("test.read@1", pipeline_by_a_step),
    "the batch of an admin that is retried": ("test.echo@1", retried_batch),
    "a source of a pipeline": ("test.read@1", inline_pipeline),
    "the children of a map": ("test.double@1", inline_pipeline),
    "the tree of a reduce": ("test.sum@1", inline_pipeline),
    "a pipeline that an admin stored": ("test.double@1", stored_pipeline),
    "a pipeline within a pipeline": ("test.double@1", nested_pipeline),
    "a run that is done again": ("test.sum@1", retried_run),
    "the dead letter of an admin": ("test.echo@1", replay),
    "the dead letter of an admin, edited": ("test.echo@1", edited),
}


@pytest.mark.parametrize("path", PATHS)
async def test_a_viewer_reaches_through_no_path_what_is_for_analysts(tmp_path, path):
    guarded, go = PATHS[path]
    fleet = GuardedFleet(guarded, worker())
    async with core(tmp_path, fleet, catalogue=CATALOGUE) as platform:
        view = await go(platform, VIEWER)
        assert view.state is not RunState.COMPLETED
        assert fleet.reached == []


@pytest.mark.parametrize("path", PATHS)
async def test_an_admin_reaches_it_through_each_of_them(tmp_path, path):
    guarded, go = PATHS[path]
    fleet = GuardedFleet(guarded, worker())
    async with core(tmp_path, fleet, catalogue=CATALOGUE) as platform:
        assert (await go(platform, ADMIN)).state is RunState.COMPLETED
        assert set(fleet.reached) == {ADMIN.sub}


async def test_a_pipeline_lends_nothing_that_its_author_has_not(tmp_path):
    fleet = GuardedFleet("test.double@1", worker())
    async with core(tmp_path, fleet) as platform:
        await platform.execution.pipelines.store(PIPELINE, VIEWER)
        view = await platform.execution.runs.start(RunRequest(pipeline="sums"), ADMIN)
        assert (await platform.end(view.id)).state is RunState.FAILED
        assert fleet.reached == []


async def test_a_retry_asks_with_the_rights_of_the_first_attempt(tmp_path):
    fleet = GuardedFleet("test.echo@1", worker())
    fleet.refuse = [problem("step-failed", retryable=True)]
    async with core(tmp_path, fleet) as platform:
        view = await job(platform, VIEWER)
        assert view.state is RunState.FAILED
        assert view.problem["type"].endswith("not-authorized")
        assert fleet.reached == []


async def test_what_a_restart_goes_on_with_keeps_the_rights_of_who_submitted_it(tmp_path):
    fleet = GuardedFleet("test.sum@1", worker())
    blocked = GuardedFleet("test.sum@1")  # nobody is live
    async with core(tmp_path, blocked) as platform:
        view = await platform.execution.runs.start(RunRequest(document=PIPELINE), VIEWER)
    async with core(tmp_path, fleet) as platform:
        assert (await platform.end(view.id)).state is RunState.FAILED
    assert fleet.reached == []
    for token in fleet.tickets:
        claims = json.loads(jws.unverified(token, TICKET_TYPE))
        assert (claims["sub"], claims["roles"]) == (VIEWER.sub, ["viewer"])


def splicing(sha256):
    """A worker whose answer goes on where the value ends in the document that its row keeps."""
    reference = json.dumps({"sha256": sha256, "count": 0, "bytes": 1}).encode()

    def run(_request, _inputs):
        body = b'1,"artifact":' + reference
        yield Frame(ResultEvent(no=1, bytes=len(body)), body)

    return run


@pytest.mark.parametrize("together", [False, True], ids=["alone", "with others"])
async def test_no_answer_names_an_artifact_that_its_step_may_not_read(tmp_path, together):
    one = worker()
    async with core(tmp_path, one) as platform:
        foreign = await platform.artifacts.put(b'{"of": "another tenant"}', "")
        one.behaviours["test.echo@1"] = splicing(foreign.sha256)
        view = await (batch if together else job)(platform, VIEWER)
        assert view.state is RunState.FAILED
        assert view.problem["type"].endswith("output-invalid")
        assert view.outputs == {}


# `effective` is what every path asks, those that are added later too.

ANALYST = Behalf(
    sub="a", roles=("analyst",), grants=("run:pipeline", "read:dataset/sales", "read:dataset/hr")
)
AUTHOR = Behalf(sub="b", roles=("author",), grants=("run:pipeline", "read:dataset/sales"))


def test_roles_are_those_of_the_lower_one():
    assert effective(ADMIN, ANALYST).roles == ("viewer", "analyst")
    assert effective(ANALYST, ADMIN).roles == ("viewer", "analyst")
    assert effective(VIEWER, ADMIN).roles == ("viewer",)


def test_grants_are_those_that_both_have():
    assert set(effective(ANALYST, AUTHOR).grants) == {
        "run:pipeline/*", "read:dataset/sales",
    }  # fmt: skip
    assert set(effective(ADMIN, AUTHOR).grants) == {"run:pipeline/*", "read:dataset/sales"}


def test_the_subject_is_who_submits_and_never_the_author():
    assert effective(ANALYST, ADMIN).sub == "a"


def test_another_tenants_author_gives_nothing():
    other = msgspec.structs.replace(ADMIN, tenant="b")
    found = effective(ADMIN, other)
    assert (found.roles, found.grants) == ((), ())


def test_a_role_that_nobody_knows_is_itself_alone():
    auditor = Behalf(sub="x", roles=("auditor",))
    assert effective(auditor).roles == ("auditor",)
    assert effective(auditor, ADMIN).roles == ()


def test_rows_without_a_principal_have_no_role():
    assert effective(NOBODY).roles == ()
