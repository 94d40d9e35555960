"""The policy at the platform: versions, consent, tests before a change counts, the signed document."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemesh_platform.access.policy_service import (
    HOLDS_S,
    Author,
    PolicyService,
    PolicyTestsFailedError,
)
from hivemesh_platform.access.policy_store import PolicyChangedError, PolicyStore, PolicyVersion
from hivemesh_platform.access.workload_policy import FIRST_DOCUMENT, InstalledWorker, Question
from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.errors import PASSING
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.policy import REISSUE_S, DenyList
from hivemesh_sdk.errors import HivemeshError, InvalidError, NotFoundError
from hivemesh_sdk.safeio.documents import parse_policy
from hivemesh_sdk.safeio.problems import MalformedError
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.trust.jws import SigningKey
from hivemesh_sdk.trust.policy import CompiledPolicy, Facts, open_policy

TD = "test.hivemesh.internal"
PLATFORM = f"spiffe://{TD}/platform/p1"
PARSER = f"spiffe://{TD}/worker/email-parser/i1"
TICKET = Facts(ticket=True, data_class=DataClass.INTERNAL)
ANNA = Author(id=f"spiffe://{TD}/user/anna", serial="0a", reason="a try")
WORKERS = (
    InstalledWorker(
        name="email-parser",
        capabilities=frozenset({"email.parse@1"}),
        calls=("doc.convert@1",),
        live=True,
    ),
    InstalledWorker(
        name="email-classifier", capabilities=frozenset({"email.classify@1"}), live=True
    ),
    InstalledWorker(name="doc-converter", capabilities=frozenset({"doc.convert@1"}), live=True),
)
ONLY_PARSER = """\
version: 1
default: deny
rules:
  - id: parser-only
    from: {platform: "*"}
    to: {worker: email-parser}
tests:
  - {caller: platform, callee: parser, capability: email.parse@1, expect: allow, rule: parser-only}
  - {caller: platform, callee: classifier, capability: email.classify@1, expect: deny}
"""


class Trail:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.full = False

    async def record(self, event: AuditEvent) -> None:
        if self.full:
            raise HivemeshError(slug="storage-full")
        self.events.append(event)

    def note(self, event: AuditEvent) -> None:
        self.events.append(event)


class Scene:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.key = SigningKey(Ed25519PrivateKey.generate())
        self.clock = ManualClock()
        self.trail = Trail()
        self.workers: tuple[InstalledWorker, ...] = WORKERS
        self.policies = self.service()

    def service(self) -> PolicyService:
        return PolicyService(
            PolicyStore(self.database),
            self.trail,
            self.clock,
            trust_domain=TD,
            sign=self.key.sign,
            workers=lambda: self.workers,
        )

    async def signed(self, after: int = 0):
        token = await self.policies.newer(after, 0.0)
        assert token is not None
        return open_policy(token, {self.key.public.id: self.key.public}, TD)

    async def apply(self, text: str, expected: int = 2):
        return await self.policies.apply(text, expected=expected, name="new.yaml", author=ANNA)

    def allows(self, caller: str, worker: str, capability: str) -> bool:
        return self.policies.current().decide(caller, worker, capability, TICKET).allowed


@pytest.fixture
async def scene(database):
    found = Scene(database)
    await found.policies.open()
    return found


async def test_the_first_policy_lets_the_platform_call_and_workers_what_they_asked_for(scene):
    assert scene.allows(PLATFORM, "email-classifier", "email.classify@1")
    assert scene.allows(PARSER, "doc-converter", "doc.convert@1")
    assert not scene.allows(PARSER, "email-classifier", "email.classify@1")
    without = scene.policies.current().decide(PLATFORM, "email-parser", "email.parse@1", Facts())
    assert not without.allowed
    versions = await scene.policies.versions()
    assert [one.version for one in versions] == [2, 1]
    assert (await scene.policies.version()).document == FIRST_DOCUMENT


async def test_the_rule_of_a_manifest_is_named_after_worker_and_capability(scene):
    decision = scene.policies.current().decide(PARSER, "doc-converter", "doc.convert@1", TICKET)
    assert decision.rule == "manifest:email-parser:doc.convert@1"


async def test_what_workers_read_is_what_the_platform_decides_by(scene):
    found = await scene.signed()
    assert found.version == scene.policies.current().version == 2
    compiled = CompiledPolicy(found)
    assert compiled.decide(PLATFORM, "email-parser", "email.parse@1", TICKET).allowed


async def test_an_applied_document_is_the_next_version_at_once(scene):
    view = await scene.apply(ONLY_PARSER)
    assert (view.version, view.author, view.reason) == (3, ANNA.id, "a try")
    assert scene.allows(PLATFORM, "email-parser", "email.parse@1")
    assert not scene.allows(PLATFORM, "email-classifier", "email.classify@1")
    assert (await scene.signed()).version == 3


async def test_a_change_is_written_down_before_it_counts(scene):
    scene.trail.full = True
    with pytest.raises(HivemeshError):
        await scene.apply(ONLY_PARSER)
    assert (await scene.policies.version()).version == 2
    scene.trail.full = False
    await scene.apply(ONLY_PARSER)
    last = scene.trail.events[-1]
    assert (last.actor, last.action, last.policy_version) == (ANNA.id, "policy:apply", 3)


async def test_of_two_changes_to_one_version_the_second_is_refused(scene):
    results = await asyncio.gather(
        scene.apply(ONLY_PARSER), scene.apply(FIRST_DOCUMENT), return_exceptions=True
    )
    assert [isinstance(one, PolicyChangedError) for one in results] == [False, True]


async def test_an_old_text_applied_again_is_a_new_version(scene):
    await scene.apply(ONLY_PARSER)
    old = await scene.policies.version(1)
    view = await scene.apply(old.document, expected=3)
    assert view.version == 4
    assert scene.allows(PLATFORM, "email-classifier", "email.classify@1")


async def test_a_document_whose_tests_fail_does_not_come_into_force(scene):
    text = ONLY_PARSER.replace("email.classify@1, expect: deny", "email.classify@1, expect: allow")
    with pytest.raises(PolicyTestsFailedError, match="1 of 2 tests fail") as caught:
        await scene.apply(text)
    assert caught.value.errors[0].pointer == "/tests/1"
    assert (await scene.policies.version()).version == 2


async def test_a_test_may_name_the_rule_that_has_to_decide(scene):
    review = scene.policies.review(ONLY_PARSER.replace("rule: parser-only", "rule: other"), "x")
    assert [one.passed for one in review.tests] == [False, True]
    assert "other" in review.tests[0].detail


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\nrulez: []\n", r"unknown key 'rulez'; did you mean 'rules'\? \(line 2\)"),
        ("version: 1\ndefault: allow\n", "'deny'"),
        ("version: 2\n", "version"),
        ("version: 1\nversion: 1\n", "twice"),
        ("rules: [{id: a, from: {worker: x, platform: '*'}, to: {worker: y}}]", "one of"),
        ("rules: [{id: a, from: {worker: x}, to: {worker: y, capabilities: []}}]", "at least 1"),
        ("rules: [{id: a, from: {spiffe: '*'}, to: {worker: y}}]", "no SPIFFE ID"),
        ("rules: [{id: a, from: {worker: x}, to: {worker: y, capabilities: [z]}}]", "capability"),
        (
            "rules: [{id: a, from: {worker: x}, to: {worker: y}, when: {role: [z]}}]",
            "unknown key 'role'",
        ),
        ("deny: [{id: a}]", "names 'from', 'to', or both"),
        (
            "deny: [{id: a, from: {worker: x}}, {id: a, from: {worker: y}}]",
            "ids given twice: a",
        ),
        (
            "rules: [{id: a, from: {spiffe: 'spiffe://other.internal/*'}, to: {worker: y}}]",
            "does not lie in this trust domain",
        ),
    ],
)
async def test_a_document_that_makes_no_sense_is_refused_with_its_place(scene, text, message):
    with pytest.raises((InvalidError, MalformedError), match=message):
        await scene.apply(text)


async def test_a_review_says_which_live_ways_are_cut(scene):
    review = scene.policies.review(ONLY_PARSER, "new.yaml")
    assert (review.based_on, review.added, review.removed) == (2, ["parser-only"], ["platform"])
    cut = {(one.caller, one.callee): one for one in review.edges if one.change == "cut"}
    assert set(cut) == {("platform", "email-classifier"), ("platform", "doc-converter")}
    assert all(one.live for one in cut.values())
    assert "-  - id: platform" in review.diff
    assert "+  - id: parser-only" in review.diff


async def test_a_review_tells_narrowed_from_cut(scene):
    text = FIRST_DOCUMENT.replace(
        "ticket: required", "ticket: required, on_behalf_of_roles: [analyst]"
    )
    changes = {one.change for one in scene.policies.review(text, "x").edges}
    assert changes == {"narrowed"}


async def test_a_changed_manifest_changes_the_policy_and_an_unchanged_one_does_not(scene):
    await scene.policies.consent()
    assert (await scene.policies.version()).version == 2
    scene.workers = WORKERS[1:]
    await scene.policies.consent()
    assert (await scene.policies.version()).version == 3
    assert not scene.allows(PARSER, "doc-converter", "doc.convert@1")
    assert scene.trail.events[-1].action == "policy:consent"


async def test_consent_that_cannot_be_written_down_does_not_count_and_is_tried_again(scene):
    scene.workers, scene.trail.full = WORKERS[1:], True
    await scene.policies.consent()
    assert (await scene.policies.version()).version == 2
    scene.trail.full = False
    await scene.policies.consent()
    assert (await scene.policies.version()).version == 3


@pytest.mark.parametrize("trouble", PASSING)
async def test_no_trouble_of_the_database_keeps_a_denial_from_the_workers(
    scene, monkeypatch, trouble
):
    async def fail(_self: PolicyStore, _now: object) -> int:
        raise trouble

    before = await scene.signed()
    monkeypatch.setattr(PolicyStore, "next_issue", fail)
    task = asyncio.create_task(scene.policies.run())
    scene.policies.deny(DenyList(serials=["0a"]))
    await asyncio.wait_for(scene.policies.newer(before.issued_at, 30.0), 25)
    task.cancel()
    after = await scene.signed()
    assert after.denials.serials == ["0a"]
    assert after.issued_at > before.issued_at


async def test_a_document_that_workers_could_not_read_is_refused(scene, monkeypatch):
    monkeypatch.setattr("hivemesh_platform.access.policy_service.MAX_SIGNED", 300)
    with pytest.raises(InvalidError, match="at most 300 are taken"):
        await scene.apply(ONLY_PARSER)


async def test_consent_keeps_what_people_wrote(scene):
    await scene.apply(ONLY_PARSER)
    scene.workers = WORKERS[1:]
    await scene.policies.consent()
    assert (await scene.policies.version()).document == ONLY_PARSER


async def test_a_restart_goes_on_with_the_version_in_force_and_a_later_signature(scene):
    await scene.apply(ONLY_PARSER)
    before = await scene.signed()
    scene.policies = scene.service()
    await scene.policies.open()
    after = await scene.signed()
    assert (after.version, after.rules) == (before.version, before.rules)
    assert after.issued_at > before.issued_at


async def test_of_two_replicas_that_start_at_once_both_have_the_first_version(
    scene, database, monkeypatch
):
    other, known = scene.service(), PolicyStore.newest
    unseen = iter([None])

    async def newest(store):
        return next(unseen) if unseen.__length_hint__() else await known(store)

    monkeypatch.setattr(PolicyStore, "newest", newest)
    await other.open()
    assert other.current().version == scene.policies.current().version


async def test_a_clock_set_back_does_not_make_older_signatures(scene):
    before = await scene.signed()
    scene.clock.jump(-(scene.clock.now() - scene.clock.now().replace(year=2020)))
    await scene.apply(ONLY_PARSER)
    assert (await scene.signed()).issued_at > before.issued_at


async def test_who_waits_gets_a_change_at_once(scene):
    known = (await scene.signed()).issued_at
    waiting = asyncio.create_task(scene.policies.newer(known, 30.0))
    await asyncio.sleep(0)
    await scene.apply(ONLY_PARSER)
    token = await asyncio.wait_for(waiting, 30)
    assert token is not None


async def test_without_a_change_the_wait_ends_empty(scene):
    known = (await scene.signed()).issued_at
    assert await scene.policies.newer(known, 0.0) is None


async def test_who_asks_says_what_he_has(scene):
    first = await scene.policies.newer(0, 0.0, worker="a")
    assert first is not None
    await scene.policies.newer(0, 0.0, worker="b")
    view = await scene.policies.version()
    assert (view.in_force_at, view.asked_by) == (0, 2)
    await scene.policies.newer((await scene.signed()).issued_at, 0.0, worker="a")
    view = await scene.policies.version()
    assert (view.in_force_at, view.asked_by) == (1, 2)
    scene.clock.advance(HOLDS_S + 1)
    view = await scene.policies.version()
    assert (view.in_force_at, view.asked_by) == (0, 0)


async def test_a_change_is_answered_when_every_worker_has_it(scene):
    known = (await scene.signed()).issued_at

    async def follow() -> None:
        after = known
        while token := await scene.policies.newer(after, 30.0, worker="a"):
            after = open_policy(token, {scene.key.public.id: scene.key.public}, TD).issued_at

    worker = asyncio.create_task(follow())
    await asyncio.sleep(0)
    view = await asyncio.wait_for(scene.apply(ONLY_PARSER), 30)
    assert (view.in_force_at, view.asked_by) == (1, 1)
    scene.policies.close()
    await asyncio.wait_for(worker, 30)


async def test_a_change_does_not_wait_for_a_worker_that_is_gone(scene, monkeypatch):
    monkeypatch.setattr("hivemesh_platform.access.policy_service.REACHES_S", 0.0)
    await scene.policies.newer(0, 0.0, worker="a")
    view = await scene.apply(ONLY_PARSER)
    assert (view.in_force_at, view.asked_by) == (0, 1)


async def test_the_end_of_the_platform_answers_who_waits(scene):
    known = (await scene.signed()).issued_at
    waiting = asyncio.create_task(scene.policies.newer(known, 30.0))
    await asyncio.sleep(0)
    scene.policies.close()
    assert await asyncio.wait_for(waiting, 30) is None


async def test_a_denial_is_signed_without_a_new_version(scene):
    before = await scene.signed()
    task = asyncio.create_task(scene.policies.run())
    rule = f"spiffe://{TD}/worker/email-parser/*"
    scene.policies.deny(DenyList(identities=[rule], serials=["0a"]))
    token = await asyncio.wait_for(scene.policies.newer(before.issued_at, 30.0), 25)
    task.cancel()
    after = open_policy(token, {scene.key.public.id: scene.key.public}, TD)
    assert after.version == before.version
    assert (after.denials.identities, after.denials.serials) == ([rule], ["0a"])


async def test_an_unchanged_policy_is_signed_again_before_it_looks_old(scene):
    before = await scene.signed()
    scene.clock.advance(REISSUE_S + 1)
    task = asyncio.create_task(scene.policies.run())
    await asyncio.wait_for(scene.policies.newer(before.issued_at, 30.0), 25)
    task.cancel()
    assert (await scene.signed()).issued_at >= before.issued_at + REISSUE_S * 1000


class TestExplain:
    def ask(self, scene, caller="parser", callee="classifier", capability="email.classify@1", **x):
        return scene.policies.explain(
            Question(caller=caller, callee=callee, capability=capability, **x)
        )

    async def test_short_names_are_understood(self, scene):
        found = self.ask(scene)
        assert (found.decision, found.callee) == ("deny", "email-classifier")
        assert found.caller == f"spiffe://{TD}/worker/email-parser/any"

    async def test_what_no_rule_covers_is_told_with_what_would(self, scene):
        found = self.ask(scene)
        assert (found.rule, found.reason, found.version) == ("", "no-rule", 2)
        assert "call: [email.classify@1]" in found.would_allow[0]
        assert "from: {worker: email-parser}" in found.would_allow[1]

    async def test_the_advised_rule_allows_the_call(self, scene):
        advised = self.ask(scene).would_allow[1].partition(": ")[2]
        await scene.apply(f"version: 1\nrules:\n  - {advised}\n")
        assert self.ask(scene).decision == "allow"

    async def test_an_allowed_call_names_its_rule(self, scene):
        found = self.ask(scene, caller="platform")
        assert (found.decision, found.rule, found.would_allow) == ("allow", "platform", [])

    async def test_a_call_without_a_ticket_says_so(self, scene):
        found = self.ask(scene, caller="platform", ticket=False)
        assert (found.decision, found.reason) == ("deny", "ticket")

    @pytest.mark.parametrize(
        ("when", "question", "reason"),
        [
            ("{on_behalf_of_roles: [admin]}", {"roles": ("viewer",)}, "role"),
            ("{data_class_max: public}", {}, "data-class"),
        ],
    )
    async def test_a_condition_that_fails_is_named(self, scene, when, question, reason):
        rule = "{id: a, from: {worker: email-parser}, to: {worker: email-classifier}"
        await scene.apply(f"version: 1\nrules:\n  - {rule}, when: {when}}}\n")
        found = self.ask(scene, **question)
        assert (found.decision, found.rule, found.reason) == ("deny", "a", reason)
        assert found.would_allow

    async def test_a_denial_is_named(self, scene):
        await scene.apply("version: 1\ndeny:\n  - {id: stop, from: {worker: email-parser}}\n")
        found = self.ask(scene, callee="doc-converter", capability="doc.convert@1")
        assert (found.rule, found.reason) == ("stop", "deny")

    async def test_a_capability_that_the_callee_lacks_is_told(self, scene):
        found = self.ask(scene, capability="email.parse@1")
        assert "does not serve it" in found.would_allow[0]

    async def test_an_unknown_name_gets_a_suggestion(self, scene):
        with pytest.raises(NotFoundError, match="did you mean 'email-parser'"):
            self.ask(scene, caller="emial-parser")

    async def test_a_name_of_two_workers_has_to_be_written_out(self, scene):
        with pytest.raises(InvalidError, match="email-classifier or email-parser"):
            self.ask(scene, caller="email")


async def test_internal_destinations_are_opened_to_the_worker_that_a_document_names(scene):
    opened = "\negress:\n  - {id: crm, worker: notes, allow: [crm.internal, '10.0.0.0/8:5432']}\n"
    await scene.apply(ONLY_PARSER + opened)
    compiled = CompiledPolicy(await scene.signed())
    assert compiled.egress("notes") == ("10.0.0.0/8:5432", "crm.internal")
    assert compiled.egress("email-parser") == ()


async def test_a_destination_that_names_none_is_refused_with_its_place(scene):
    with pytest.raises(InvalidError) as refused:
        await scene.apply(
            ONLY_PARSER + "\negress:\n  - {id: crm, worker: notes, allow: ['127.1']}\n"
        )
    (problem,) = refused.value.errors
    assert problem.pointer == "/egress/0/allow/0"


@pytest.mark.parametrize(
    "when",
    [
        "when: {ticket: required, tenants: same}",
        "when: {tenants: any, ticket: required}",
        "when: {tenants: same}",
        "when:\n      tenants: same\n      ticket: required",
    ],
)
async def test_documents_with_a_condition_of_earlier_versions_stay_readable(database, when):
    text = f"""version: 1
rules:
  - id: p
    from: {{platform: "*"}}
    to: {{worker: "*"}}
    {when}
"""
    store = PolicyStore(database)
    await store.add(
        PolicyVersion(
            version=1,
            document=text,
            consented="[]",
            author="a",
            reason="",
            created_at=ManualClock().now(),
        )
    )
    (found,) = await store.all()
    assert [rule.id for rule in parse_policy(found.document).rules] == ["p"]
