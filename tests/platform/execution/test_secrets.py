"""Secrets in plans and dispatch: refused in words, waited for while sealed, given back at the end."""

from dataclasses import replace

import pytest
from execution_support import TESTER, core, worker
from fake_workers import FakeCatalogue, caller, capability, failing
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.rights.borrowers import Borrowers
from hivemesh_platform.execution.steps.pages import INLINE_ANSWER
from hivemesh_sdk.contracts.api import JobRequest, RunRequest
from hivemesh_sdk.contracts.manifest import Permissions
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.contracts.tickets import Ticket
from hivemesh_sdk.errors import InvalidError

REF = "{{ vault.mail.password }}"
OPTIONS = {
    "type": "object",
    "properties": {
        "key": {"type": "string", "format": "secret", "writeOnly": True},
        "text": {"type": "string"},
        "server": {
            "type": "object",
            "properties": {
                "host": {"type": "string"},
                "key": {"type": "string", "format": "secret", "writeOnly": True},
            },
        },
    },
}
SEALED_NOW = "sealed by hand"


class Catalogue(FakeCatalogue):
    permissions = Permissions(secrets=("mail.*",))

    def find(self, name):
        found = super().find(name)
        return None if found is None else replace(found, permissions=self.permissions)


class Changing(Catalogue):
    """The worker of a capability is replaced by one that takes secrets."""

    later = None

    def find(self, name):
        found = super().find(name)
        return self.later if self.later and name == self.later.declared.id else found


CATALOGUE = Catalogue(
    capability("test.echo@1", "call", options=OPTIONS), capability("test.plain@1", "call")
)


class Secrets:
    """Both ports of execution: what is stored, whether it can be read, which steps have ended."""

    def __init__(self, *known):
        self.known = set(known)
        self.sealed = ""
        self.ended = []

    async def unknown(self, paths, tenant):
        return frozenset() if self.sealed else frozenset(paths - self.known)

    def step_ended(self, key, attempt):
        self.ended.append((key, attempt))


def document(**options):
    return {
        "apiVersion": "hivemesh/v1",
        "kind": "Pipeline",
        "metadata": {"name": "mail", "version": 1},
        "parameters": {"password": {"type": "string", "default": REF}},
        "steps": {
            "before": {"use": "test.plain@1"},
            "use": {"use": "test.echo@1", "with": options},
        },
        "outputs": {"answer": "use"},
    }


def opened(tmp_path, secrets, answer=None):
    behaviour = answer or caller(lambda _value, options: {"options": options})
    found = worker(behaviours={"test.echo@1": behaviour, "test.plain@1": behaviour})
    return core(tmp_path, found, catalogue=CATALOGUE, secrets=secrets, leases=secrets)


async def refused(platform, options, behalf=TESTER):
    with pytest.raises(InvalidError) as caught:
        await platform.execution.runs.start(RunRequest(document=document(**options)), behalf)
    return [(one.pointer, one.code) for one in caught.value.errors]


async def test_the_worker_is_sent_the_reference_and_never_a_value(tmp_path):
    secrets = Secrets("mail.password")
    async with opened(tmp_path, secrets) as platform:
        run = await platform.run(document(key=REF))
        assert run.state == "completed"
        assert b"{{ vault.mail.password }}" in await platform.output(run.id, "answer")
        assert set(secrets.ended) == {(f"{run.id}.{name}.0", 1) for name in ("before", "use")}


@pytest.mark.parametrize(
    ("options", "code", "place"),
    [
        ({"key": "hunter2"}, "secret-literal", "/steps/use/with/key"),
        ({"key": "${{ parameters.password }}"}, "secret-literal", "/steps/use/with/key"),
        ({"key": "${{ before.password }}"}, "secret-literal", "/steps/use/with/key"),
        ({"server": "${{ before.server }}"}, "secret-templated", "/steps/use/with/server"),
        ({"server": "${{ parameters.password }}"}, "secret-templated", "/steps/use/with/server"),
        ({"text": REF}, "secret-misplaced", "/steps/use/with/text"),
        ({"text": f"a {REF}"}, "secret-misplaced", "/steps/use/with/text"),
        ({"key": "{{ vault.google.id }}"}, "secret-not-permitted", "/steps/use/with/key"),
        ({"key": "{{ vault.mail.other }}"}, "secret-unknown", "/steps/use/with/key"),
    ],
)
async def test_a_plan_says_what_is_wrong_with_a_secret(tmp_path, options, code, place):
    async with opened(tmp_path, Secrets("mail.password")) as platform:
        assert await refused(platform, options) == [(place, code)]


async def test_data_that_brings_a_reference_names_no_secret(tmp_path):
    """The schema may say what takes secrets only when the plan was checked already."""
    asked = []

    def answer(_value, options):
        if not options:
            return {"server": {"host": "h", "key": "{{ vault.mail.other }}"}}
        (step,) = platform.execution.held.at("w1")
        asked.append((options["server"]["key"], step.secrets))
        return {}

    plain, *others = (CATALOGUE.find(name) for name in ("test.echo@1", "test.plain@1"))
    old = {"type": "object", "properties": {"server": {"type": "object"}, "key": {}}}
    catalogue = Changing(
        capability("test.echo@1", "call", options=old), *(one.declared for one in others)
    )
    found = worker(behaviours=dict.fromkeys(("test.echo@1", "test.plain@1"), caller(answer)))
    secrets = Secrets("mail.password", "mail.other")
    async with core(
        tmp_path, found, catalogue=catalogue, secrets=secrets, leases=secrets
    ) as platform:
        run = await platform.start(document(server="${{ before.server }}"))
        catalogue.later = plain
        assert (await platform.end(run)).state == "completed"
    assert asked == [("{{ vault.mail.other }}", frozenset())]


async def test_nobody_uses_through_a_pipeline_what_he_may_not_use(tmp_path):
    """And which secrets there are is not told to whom may use none: both look alike."""
    analyst = Behalf(sub="ann", roles=("analyst",), grants=("run:pipeline", "run:capability"))
    granted = Behalf(sub="ann", grants=("run:pipeline", "run:secret/mail.password"))
    async with opened(tmp_path, Secrets("mail.password")) as platform:
        for reference in (REF, "{{ vault.mail.other }}"):
            wrong = await refused(platform, {"key": reference}, analyst)
            assert wrong == [("/steps/use/with/key", "secret-not-granted")]
        request = RunRequest(document=document(key=REF))
        assert (await platform.execution.runs.start(request, granted)).id


async def test_the_author_lends_no_secret_to_the_runner_nor_the_runner_to_the_author(tmp_path):
    author = Behalf(sub="ann", grants=("run:pipeline", "run:secret/*"))
    runner = Behalf(sub="bob", grants=("run:pipeline",))
    async with opened(tmp_path, Secrets("mail.password")) as platform:
        await platform.execution.pipelines.store(document(key=REF), author)
        for behalf, allowed in ((runner, False), (author, True)):
            request = RunRequest(pipeline="mail")
            if allowed:
                await platform.execution.runs.start(request, behalf)
            else:
                with pytest.raises(InvalidError, match="run:secret"):
                    await platform.execution.runs.start(request, behalf)
        with pytest.raises(InvalidError, match="run:secret"):
            await platform.execution.pipelines.store(document(key=REF, text="x"), runner)


@pytest.mark.parametrize(
    ("options", "code"),
    [({"key": "hunter2"}, "secret-literal"), ({"key": "{{ vault.mail.x }}"}, "secret-unknown")],
)
async def test_a_job_is_checked_as_a_step_is(tmp_path, options, code):
    async with opened(tmp_path, Secrets("mail.password")) as platform:
        with pytest.raises(InvalidError) as caught:
            await platform.execution.jobs.start(
                JobRequest(capability="test.echo@1", options=options), TESTER
            )
        assert caught.value.slug == "options-invalid"
        assert [(one.pointer, one.code) for one in caught.value.errors] == [("/options/key", code)]
        assert "hunter2" not in str(caught.value.errors)


async def test_only_capabilities_that_take_secrets_wait_while_they_are_sealed(tmp_path):
    secrets = Secrets("mail.password")
    async with opened(tmp_path, secrets) as platform:
        secrets.sealed = SEALED_NOW
        run = await platform.start(document(key=REF))
        plain = JobRequest(capability="test.plain@1", wait_s=20)
        assert (await platform.execution.jobs.start(plain, TESTER)).state == "completed"
        async for view in changes(platform, run):
            before = next(node for node in view.nodes if node.name == "before")
            if view.reason and before.state == "completed":
                break
        assert (view.state, before.state) == ("waiting", "completed")
        assert view.reason == f"secrets sealed: {SEALED_NOW}"
        secrets.sealed = ""
        platform.execution.work.give()
        ended = await platform.end(run)
        assert ended.state == "completed"
        assert next(node for node in ended.nodes if node.name == "use").attempts == 1


async def changes(platform, run):
    version = 0
    for _ in range(50):
        version, view = await platform.execution.runs.changes(run, version, 5.0)
        yield view


async def test_a_step_that_finds_its_secret_sealed_is_no_failed_attempt(tmp_path):
    secrets = Secrets("mail.password")
    calls = []

    def sealed_once(request, inputs):
        calls.append(request.attempt)
        if request.parameters and len(calls) < 3:
            secrets.sealed = SEALED_NOW
            yield from failing(problem("secrets-sealed", SEALED_NOW, retryable=True))(
                request, inputs
            )
            return
        yield from caller(lambda _value, _options: {})(request, inputs)

    async with opened(tmp_path, secrets, sealed_once) as platform:
        run = await platform.start(document(key=REF))
        async for view in changes(platform, run):
            if view.reason:
                break
        secrets.sealed = ""
        platform.execution.work.give()
        ended = await platform.end(run)
        assert ended.state == "completed"
        assert platform.execution.counters.attempts_failed == 0


async def test_a_worker_cannot_make_a_row_wait_for_ever_by_a_lie(tmp_path):
    lie = failing(problem("secrets-sealed", "so it says", retryable=True))
    async with opened(tmp_path, Secrets("mail.password"), lie) as platform:
        one = document(key=REF)
        del one["steps"]["before"]
        one["steps"]["use"]["retry"] = {"max_retries": 2, "base_s": 0.01}
        ended = await platform.run(one)
        assert ended.state == "failed"
        assert platform.execution.counters.attempts_failed == 2


async def test_a_borrower_is_who_holds_the_step_until_its_worker_has_said_its_last(
    tmp_path, monkeypatch
):
    """Also while there is no space for the answer: whoever sees the end finds no rights left."""
    monkeypatch.setattr("hivemesh_platform.execution.steps.parts.FULL_S", 0.01)
    held_by, may_borrow, secrets = [], [], Secrets("mail.password")

    def ask():
        (step,) = held_by
        claim, identity = step.claim, step.endpoint.identity
        ticket = Ticket(
            iss="", aud=[], azp=identity, sub="", iat=0, exp=0, jti="", run=claim.key.run,
            step=str(claim.key), attempt=1, cap="test.echo@1", secrets=["mail.password"],
        )  # fmt: skip
        borrowers = Borrowers(platform.execution.held, CATALOGUE)
        may_borrow.append(borrowers.secrets_of(ticket) is not None)

    def answer(_value, options):
        if options:
            steps = platform.execution.held.at("w1")
            held_by.extend(step for step in steps if step.claim.key.node == "use")
            platform.artifacts._quota = 1
            ask()
            return "x" * 2 * INLINE_ANSWER
        return {}

    async with opened(tmp_path, secrets, caller(answer)) as platform:
        run = await platform.start(document(key=REF))
        await platform.until(lambda: platform.execution.counters.pauses)
        assert held_by[0] in platform.execution.held.all()
        assert (f"{run}.use.0", 1) in secrets.ended
        ask()
        platform.artifacts._quota = 0
        assert (await platform.end(run)).state == "completed"
        ask()
    assert may_borrow == [True, False, False]
