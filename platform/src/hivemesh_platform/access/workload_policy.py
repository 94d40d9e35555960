"""What follows from a policy document: rules from manifests, tests, differences, explanations. Pure.

The decision itself is `hivemesh_sdk.trust.policy`, the same code that every worker runs.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import msgspec
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.names import CAPABILITY_ID, WORKER_NAME
from hivemesh_sdk.contracts.policy import (
    ANY,
    MANIFEST_PREFIX,
    DenyRule,
    Destination,
    PolicyDocument,
    Rule,
    SignedPolicy,
    SignedRule,
    Source,
)
from hivemesh_sdk.contracts.policy_api import (
    EdgeView,
    PolicyExplanation,
    PolicyReview,
    PolicyTestView,
)
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import InvalidError, NotFoundError
from hivemesh_sdk.trust.policy import (
    CompiledPolicy,
    Decision,
    Facts,
    Reason,
    raw_rules,
    signed_rules,
)

PLATFORM = "platform"
ANYWHERE = "test.hivemesh.internal"  # the trust domain of tests without an installation
FIRST_DOCUMENT = """\
# Who may call which capability. What no rule allows is refused; `deny` wins over every rule.
# `hivemesh policy test FILE` tries a change out, `hivemesh policy apply FILE` makes it the next version.
version: 1
default: deny
rules:
  - id: platform
    description: The platform calls every capability of the installed workers, each time with a ticket.
    from: {platform: "*"}
    to: {worker: "*", capabilities: ["*"]}
    when: {ticket: required}
deny: []
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledWorker:
    """A worker whose manifest was consented to, as far as the policy is concerned."""

    name: str
    capabilities: frozenset[str]
    calls: tuple[str, ...] = ()  # permissions.call of its manifest
    live: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A call that somebody asks about, in words that he may have shortened."""

    caller: str
    callee: str
    capability: str
    roles: tuple[str, ...] = ()
    data_class: DataClass = DataClass.INTERNAL
    ticket: bool = True

    @property
    def facts(self) -> Facts:
        """What is known of the call."""
        return Facts(self.ticket, self.roles, self.data_class)


@dataclass(frozen=True, slots=True)
class Names:
    """Finds the workers that short names mean."""

    trust_domain: str
    workers: Sequence[InstalledWorker] = field(default=())

    def caller(self, text: str) -> str:
        """The SPIFFE ID that a word stands for; `any` stands for an instance.

        Raises:
            NotFoundError, InvalidError: nobody, or several.
        """
        if text.startswith("spiffe://"):
            return text
        if text == PLATFORM:
            return f"spiffe://{self.trust_domain}/platform/p1"
        name, _, instance = text.partition("/")
        return f"spiffe://{self.trust_domain}/worker/{self.worker(name)}/{instance or 'any'}"

    def worker(self, text: str) -> str:
        """The name of the worker that a word stands for; raises as `caller`."""
        names = {worker.name for worker in self.workers}
        found = _meant(text, names)
        if len(found) > 1:
            message = f"{text!r} may be {' or '.join(found)}; write the whole name"
            raise InvalidError(message)
        if found:
            return found[0]
        close = difflib.get_close_matches(text, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        message = f"no worker {text!r} is installed{hint}"
        raise NotFoundError(message, remedy="`hivemesh worker list` shows the names")


def compiled(
    document: PolicyDocument,
    trust_domain: str,
    consented: Sequence[Rule] = (),
    *,
    version: int = 0,
) -> CompiledPolicy:
    """The document, ready to decide."""
    rules, deny = signed_rules(document, trust_domain, consented)
    return CompiledPolicy(
        SignedPolicy(
            version=version,
            issued_at=0,
            trust_domain=trust_domain,
            rules=raw_rules(rules),
            deny=deny,
        )
    )


def manifest_rules(workers: Iterable[InstalledWorker]) -> tuple[Rule, ...]:
    """The rules that consent to these manifests means: each may call what it asked for."""
    return tuple(
        Rule(
            id=f"{MANIFEST_PREFIX}{worker.name}:{capability}",
            description=f"plugin.yaml of {worker.name} asks for it under permissions.call",
            **{"from": Source(worker=worker.name)},
            to=Destination(worker=ANY, capabilities=(capability,)),
        )
        for worker in sorted(workers, key=lambda one: one.name)
        for capability in sorted(set(worker.calls))
        if CAPABILITY_ID.fullmatch(capability)
    )


def check_document(document: PolicyDocument, trust_domain: str) -> None:
    """Refuse what can never apply here.

    Raises:
        InvalidError: a rule names another trust domain.
    """
    written: tuple[tuple[str, Sequence[Rule | DenyRule]], ...] = (
        ("rules", document.rules),
        ("deny", document.deny),
    )
    problems = [
        FieldProblem(
            pointer=f"/{where}/{index}/from/spiffe",
            message=f"{rule.source.spiffe!r} does not lie in this trust domain, {trust_domain!r}",
            code="foreign-trust-domain",
        )
        for where, rules in written
        for index, rule in enumerate(rules)
        if rule.source is not None
        and rule.source.spiffe is not None
        and not rule.source.spiffe.startswith(f"spiffe://{trust_domain}/")
    ]
    if problems:
        first = f"{problems[0].pointer}: {problems[0].message}"
        raise InvalidError(first, slug="policy-invalid", errors=problems)


def run_tests(
    document: PolicyDocument, policy: CompiledPolicy, names: Names
) -> list[PolicyTestView]:
    """Decide every call that the document's `tests` describe."""
    found: list[PolicyTestView] = []
    for test in document.tests:
        detail, decision = "", Decision(False, "", Reason.NO_RULE, 0)  # noqa: FBT003 - no rule is no
        try:
            caller, callee = names.caller(test.caller), _callee(names, test.callee)
        except (NotFoundError, InvalidError) as error:
            detail = error.detail
        else:
            facts = Facts(test.ticket, test.roles, test.data_class)
            decision = policy.decide(caller, callee, test.capability, facts)
            if test.rule and test.rule != decision.rule:
                detail = f"expected rule {test.rule!r}"
        result = "allow" if decision.allowed else "deny"
        found.append(
            PolicyTestView(
                caller=test.caller,
                callee=test.callee,
                capability=test.capability,
                expected=test.expect,
                result=result,
                rule=decision.rule,
                reason=decision.reason.value,
                passed=result == test.expect and not detail,
                detail=detail,
            )
        )
    return found


def offline_tests(document: PolicyDocument) -> list[PolicyTestView]:
    """Run the document's tests for the workers that it names itself, without an installation."""
    rules: tuple[Rule | DenyRule, ...] = (*document.rules, *document.deny)
    written = {rule.source.worker for rule in rules if rule.source is not None}
    written |= {rule.to.worker for rule in rules if rule.to is not None}
    names = {name for name in written if name not in {None, ANY}}
    for test in document.tests:
        called = () if "/" in test.caller or test.caller == PLATFORM else (test.caller,)
        names |= {name for name in (*called, test.callee) if not _meant(name, names)}
    workers = [InstalledWorker(name=name, capabilities=frozenset()) for name in names]
    policy = compiled(document, ANYWHERE)
    return run_tests(document, policy, Names(ANYWHERE, workers))


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison."""

    text: str
    document: PolicyDocument
    policy: CompiledPolicy
    rules: Sequence[SignedRule]


def side(text: str, document: PolicyDocument, trust_domain: str, consented: Sequence[Rule]) -> Side:
    """Prepare a document for a comparison."""
    rules, deny = signed_rules(document, trust_domain, consented)
    policy = compiled(document, trust_domain, consented)
    return Side(text, document, policy, [*rules, *deny])


def review(
    before: Side, after: Side, names: Names, *, based_on: int, name: str = "the policy"
) -> PolicyReview:
    """What the second document changes, for rules, for live edges, and its tests."""
    old = {rule.id: rule for rule in before.rules}
    new = {rule.id: rule for rule in after.rules}
    lines = difflib.unified_diff(
        before.text.splitlines(),
        after.text.splitlines(),
        f"version {based_on}",
        name,
        lineterm="",
        n=2,
    )
    return PolicyReview(
        based_on=based_on,
        added=sorted(new.keys() - old.keys()),
        removed=sorted(old.keys() - new.keys()),
        changed=sorted(one for one in old.keys() & new.keys() if old[one] != new[one]),
        edges=list(_edges(before, after, names)),
        tests=run_tests(after.document, after.policy, names),
        diff="\n".join(lines),
    )


def explain(question: Question, policy: CompiledPolicy, names: Names) -> PolicyExplanation:
    """The decision on one call, why it came out so, and what would allow it.

    Raises:
        NotFoundError, InvalidError: a name that stands for nobody, or for several.
    """
    caller, callee = names.caller(question.caller), names.worker(question.callee)
    decision = policy.decide(caller, callee, question.capability, question.facts)
    served = next(one.capabilities for one in names.workers if one.name == callee)
    advice: list[str] = []
    if not decision.allowed:
        advice = list(_advice(question, decision, caller, callee))
    if question.capability not in served:
        advice.insert(0, f"{callee} does not serve it; it serves {', '.join(sorted(served))}")
    return PolicyExplanation(
        caller=caller,
        callee=callee,
        capability=question.capability,
        decision="allow" if decision.allowed else "deny",
        rule=decision.rule,
        reason=decision.reason.value,
        why=_why(decision, question, caller, callee),
        version=policy.version,
        would_allow=advice,
    )


def effective_rules(consented: Sequence[Rule]) -> list[dict[str, object]]:
    """Rules from manifests in the form in which they would be written."""
    return [
        rule.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        for rule in consented
    ]


def encode_rules(rules: Sequence[Rule]) -> str:
    """Rules from manifests as they are stored."""
    return msgspec.json.encode(effective_rules(rules)).decode()


def decode_rules(text: str) -> tuple[Rule, ...]:
    """The rules that `encode_rules` wrote."""
    return tuple(Rule.model_validate(one) for one in msgspec.json.decode(text))


def _meant(text: str, names: Iterable[str]) -> list[str]:
    """The names that a word stands for: itself, or those of which it is a part."""
    known = set(names)
    return [text] if text in known else sorted(one for one in known if f"-{text}-" in f"-{one}-")


def _callee(names: Names, text: str) -> str:
    """Tests may name workers that are not installed here."""
    try:
        return names.worker(text)
    except NotFoundError:
        if not WORKER_NAME.fullmatch(text):
            raise
        return text


def _edges(before: Side, after: Side, names: Names) -> Iterator[EdgeView]:
    roles = sorted(
        {
            role
            for one in (before, after)
            for rule in one.rules
            for role in rule.when.on_behalf_of_roles
        }
    )
    cases = [
        Facts(ticket, ([role] if role else []), data_class)
        for ticket, role, data_class in product((True, False), ("", *roles), DataClass)
    ]
    callers = [(PLATFORM, True), *((one.name, one.live) for one in names.workers)]
    for (caller, caller_lives), callee in product(callers, names.workers):
        if caller == callee.name:
            continue
        identity = names.caller(caller)
        for capability in sorted(callee.capabilities):

            def allowed(
                policy: CompiledPolicy,
                identity: str = identity,
                callee: str = callee.name,
                capability: str = capability,
            ) -> set[int]:
                return {
                    number
                    for number, facts in enumerate(cases)
                    if policy.decide(identity, callee, capability, facts).allowed
                }

            change = _change(allowed(before.policy), allowed(after.policy))
            if change:
                yield EdgeView(
                    caller=caller,
                    callee=callee.name,
                    capability=capability,
                    change=change,
                    live=caller_lives and callee.live,
                )


def _change(before: set[int], after: set[int]) -> str:
    if before == after:
        return ""
    if not after:
        return "cut"
    if not before:
        return "opened"
    return "narrowed" if before - after else "widened"


def _why(decision: Decision, question: Question, caller: str, callee: str) -> str:
    asked = f"{_spoken(caller)} -> {callee} {question.capability}"
    texts: dict[Reason, Callable[[], str]] = {
        Reason.RULE: lambda: f"rule {decision.rule!r} allows {asked}",
        Reason.DENY: lambda: f"denial {decision.rule!r} refuses {asked}; no rule can overrule it",
        Reason.NO_RULE: lambda: f"no rule covers {asked}, and what no rule allows is refused",
        Reason.TICKET: lambda: f"rule {decision.rule!r} covers it but asks for a ticket",
        Reason.ROLE: lambda: (
            f"rule {decision.rule!r} covers it but not for "
            f"{' or '.join(question.roles) or 'somebody without a role'}"
        ),
        Reason.DATA_CLASS: lambda: (
            f"rule {decision.rule!r} covers it but not for {question.data_class.value} data"
        ),
    }
    return texts[decision.reason]()


def _advice(question: Question, decision: Decision, caller: str, callee: str) -> Iterator[str]:
    rule = decision.rule
    match decision.reason:
        case Reason.DENY:
            yield f"remove the denial {rule!r} from the document"
        case Reason.TICKET:
            yield "make the call within a step: the platform then gives it a ticket"
        case Reason.ROLE:
            yield f"have it done for somebody whose role rule {rule!r} lists, or add the role there"
        case Reason.DATA_CLASS:
            yield f"raise data_class_max of rule {rule!r}, or send data of a lower class"
        case _:
            yield from _missing_rule(question.capability, caller, callee)


def _missing_rule(capability: str, caller: str, callee: str) -> Iterator[str]:
    kind, _, name = _short(caller).partition("/")
    worker = name.partition("/")[0]
    if kind == "worker":
        yield (
            f"`permissions: {{call: [{capability}]}}` in plugin.yaml of {worker}, when it is "
            "installed again; consent makes the rule"
        )
        source = f"{{worker: {worker}}}"
    else:
        source = f'{{spiffe: "{caller}"}}' if kind != PLATFORM else '{platform: "*"}'
    yield (
        "this rule in the document: "
        f"{{id: {worker or kind}-{callee}, from: {source}, "
        f"to: {{worker: {callee}, capabilities: [{capability}]}}}}"
    )


def _short(identity: str) -> str:
    return identity.removeprefix("spiffe://").partition("/")[2].removesuffix("/any")


def _spoken(identity: str) -> str:
    """A caller as people call it: the worker's name, `platform`, or the ID's path."""
    kind, _, rest = _short(identity).partition("/")
    return PLATFORM if kind == PLATFORM else rest if kind == "worker" else f"{kind}/{rest}"
