"""Who may call what: rules, denials, conditions, and the laws that hold for every document."""

import itertools

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.policy import (
    DenyList,
    DenyRule,
    PolicyDocument,
    Rule,
    SignedPolicy,
)
from hivemesh_sdk.trust.identity import covers
from hivemesh_sdk.trust.jws import SignatureInvalidError, SigningKey
from hivemesh_sdk.trust.policy import (
    CompiledPolicy,
    Facts,
    Reason,
    encode_policy,
    nothing_allowed,
    open_policy,
    raw_rules,
    signed_rules,
)
from hypothesis import given
from hypothesis import strategies as st

TD = "td.hivemesh.internal"
PLATFORM = f"spiffe://{TD}/platform/p1"
PARSER = f"spiffe://{TD}/worker/email-parser/i1"
CLASSIFIER = f"spiffe://{TD}/worker/email-classifier/i1"
TICKET = Facts(ticket=True, data_class=DataClass.INTERNAL)


def policy(document: dict, consented=(), version=1) -> CompiledPolicy:
    written = PolicyDocument.model_validate({"version": 1, **document})
    rules, deny = signed_rules(written, TD, consented)
    return CompiledPolicy(
        SignedPolicy(
            version=version, issued_at=1, trust_domain=TD, rules=raw_rules(rules), deny=deny
        )
    )


def rule(source=None, to=None, when=None, name="r"):
    return {
        "id": name,
        "from": source or {"worker": "email-parser"},
        "to": to or {"worker": "doc-converter", "capabilities": ["doc.convert@1"]},
        "when": when or {},
    }


def facts(**changes) -> Facts:
    return TICKET._replace(**changes)


@pytest.mark.parametrize(
    ("source", "caller", "allowed"),
    [
        ({"worker": "email-parser"}, PARSER, True),
        ({"worker": "email-parser"}, f"spiffe://{TD}/worker/email-parser-2/i1", False),
        ({"worker": "email-parser"}, CLASSIFIER, False),
        ({"spiffe": PARSER}, PARSER, True),
        ({"spiffe": PARSER}, f"{PARSER}1", False),
        ({"spiffe": f"spiffe://{TD}/worker/email-parser/*"}, PARSER, True),
        ({"spiffe": f"spiffe://{TD}/worker/*"}, PARSER, True),
        ({"spiffe": f"spiffe://{TD}/worker/*"}, PLATFORM, False),
        ({"spiffe": f"spiffe://{TD}/*"}, PLATFORM, True),
        ({"spiffe": "spiffe://other.hivemesh.internal/*"}, PARSER, False),
        ({"platform": "*"}, PLATFORM, True),
        ({"platform": "p1"}, PLATFORM, True),
        ({"platform": "p2"}, PLATFORM, False),
        ({"platform": "*"}, PARSER, False),
    ],
)
def test_the_caller_is_an_exact_id_or_lies_below_a_prefix(source, caller, allowed):
    compiled = policy({"rules": [rule(source)]})
    assert compiled.decide(caller, "doc-converter", "doc.convert@1", TICKET).allowed is allowed


@pytest.mark.parametrize(
    ("to", "worker", "capability", "allowed"),
    [
        ({"worker": "a", "capabilities": ["x.y@1"]}, "a", "x.y@1", True),
        ({"worker": "a", "capabilities": ["x.y@1"]}, "a", "x.y@2", False),
        ({"worker": "a", "capabilities": ["x.y@1"]}, "b", "x.y@1", False),
        ({"worker": "a", "capabilities": ["*"]}, "a", "x.z@1", True),
        ({"worker": "*", "capabilities": ["x.y@1"]}, "b", "x.y@1", True),
        ({"worker": "*", "capabilities": ["x.y@1"]}, "b", "x.z@1", False),
        ({"worker": "a"}, "a", "x.y@1", True),
    ],
)
def test_the_callee_is_a_worker_and_its_capabilities(to, worker, capability, allowed):
    compiled = policy({"rules": [rule(to=to)]})
    assert compiled.decide(PARSER, worker, capability, TICKET).allowed is allowed


@pytest.mark.parametrize(
    ("when", "known", "reason"),
    [
        ({}, facts(), Reason.RULE),
        ({}, Facts(), Reason.TICKET),
        ({"ticket": "optional"}, Facts(), Reason.RULE),
        ({"on_behalf_of_roles": ["analyst", "admin"]}, facts(roles=["admin"]), Reason.RULE),
        ({"on_behalf_of_roles": ["analyst"]}, facts(roles=["viewer"]), Reason.ROLE),
        ({"on_behalf_of_roles": ["analyst"]}, facts(), Reason.ROLE),
        ({"data_class_max": "internal"}, facts(), Reason.RULE),
        ({"data_class_max": "internal"}, facts(data_class=DataClass.PERSONAL), Reason.DATA_CLASS),
        ({"data_class_max": "internal"}, facts(data_class=None), Reason.DATA_CLASS),
        ({"data_class_max": "secret"}, facts(data_class=DataClass.SECRET), Reason.RULE),
    ],
)
def test_every_condition_that_is_written_has_to_hold(when, known, reason):
    decision = policy({"rules": [rule(when=when)]}).decide(
        PARSER, "doc-converter", "doc.convert@1", known
    )
    assert (decision.reason, decision.rule) == (reason, "r")
    assert decision.allowed is (reason is Reason.RULE)


def test_what_no_rule_covers_is_refused():
    decision = policy({}).decide(PARSER, "doc-converter", "doc.convert@1", TICKET)
    assert (decision.allowed, decision.rule, decision.reason) == (False, "", Reason.NO_RULE)
    assert not nothing_allowed(TD).decide(PLATFORM, "a", "x.y@1", TICKET).allowed


@pytest.mark.parametrize(
    ("denial", "known", "denied"),
    [
        ({"from": {"worker": "email-parser"}}, facts(), True),
        ({"to": {"worker": "doc-converter"}}, facts(), True),
        ({"to": {"worker": "*", "capabilities": ["doc.convert@1"]}}, facts(), True),
        ({"from": {"worker": "email-classifier"}}, facts(), False),
        ({"to": {"worker": "doc-converter", "capabilities": ["doc.other@1"]}}, facts(), False),
        (
            {"from": {"worker": "email-parser"}, "when": {"on_behalf_of_roles": ["viewer"]}},
            facts(roles=["viewer"]),
            True,
        ),
        (
            {"from": {"worker": "email-parser"}, "when": {"on_behalf_of_roles": ["viewer"]}},
            facts(roles=["admin"]),
            False,
        ),
        (
            {"from": {"worker": "email-parser"}, "when": {"data_class_above": "internal"}},
            facts(data_class=DataClass.PERSONAL),
            True,
        ),
        (
            {"from": {"worker": "email-parser"}, "when": {"data_class_above": "internal"}},
            facts(),
            False,
        ),
    ],
)
def test_a_denial_wins_over_every_rule(denial, known, denied):
    compiled = policy({"rules": [rule()], "deny": [{"id": "stop", **denial}]})
    decision = compiled.decide(PARSER, "doc-converter", "doc.convert@1", known)
    assert decision.allowed is not denied
    assert decision.rule == ("stop" if denied else "r")


def test_a_denial_covers_what_is_not_known():
    compiled = policy(
        {
            "rules": [rule(when={"ticket": "optional"})],
            "deny": [
                {
                    "id": "stop",
                    "from": {"worker": "email-parser"},
                    "when": {"on_behalf_of_roles": ["viewer"]},
                }
            ],
        }
    )
    assert compiled.decide(PARSER, "doc-converter", "doc.convert@1", Facts()).rule == "stop"


def test_a_role_that_is_not_lent_counts_for_denials_alone():
    stop = {"id": "stop", "from": {"worker": "email-parser"}}
    allow = rule(when={"on_behalf_of_roles": ["analyst", "contractor"]})
    compiled = policy(
        {"rules": [allow], "deny": [{**stop, "when": {"on_behalf_of_roles": ["contractor"]}}]}
    )

    def decide(*roles, others=()):
        known = facts(roles=roles, other_roles=others)
        return compiled.decide(PARSER, "doc-converter", "doc.convert@1", known)

    assert decide("analyst").rule == "r"
    assert decide("analyst", others=("author",)).rule == "r"
    assert decide("analyst", others=("contractor",)).rule == "stop"
    assert (
        policy({"rules": [allow]})
        .decide(PARSER, "doc-converter", "doc.convert@1", facts(other_roles=("contractor",)))
        .reason
        is Reason.ROLE
    )


def test_a_missing_ticket_is_told_before_any_other_condition():
    compiled = policy(
        {
            "rules": [
                rule(name="a", when={"on_behalf_of_roles": ["admin"], "ticket": "optional"}),
                rule(name="b"),
            ]
        }
    )
    decision = compiled.decide(PARSER, "doc-converter", "doc.convert@1", Facts())
    assert (decision.rule, decision.reason) == ("b", Reason.TICKET)


def test_a_written_rule_replaces_the_one_from_the_manifest():
    made = Rule.model_validate(rule(name="manifest:email-parser:doc.convert@1"))
    narrower = rule(name="manifest:email-parser:doc.convert@1", when={"data_class_max": "public"})
    assert policy({}, [made]).decide(PARSER, "doc-converter", "doc.convert@1", TICKET).allowed
    compiled = policy({"rules": [narrower]}, [made])
    assert not compiled.decide(PARSER, "doc-converter", "doc.convert@1", TICKET).allowed


def test_a_rule_of_a_newer_form_allows_nothing():
    rules, _ = signed_rules(PolicyDocument.model_validate({"rules": [rule()]}), TD)
    newer = msgspec.json.decode(msgspec.json.encode(rules[0]))
    newer["when"]["weekdays"] = ["monday"]
    compiled = CompiledPolicy(
        SignedPolicy(
            version=1,
            issued_at=1,
            trust_domain=TD,
            rules=[msgspec.Raw(msgspec.json.encode(newer))],
            deny=[],
        )
    )
    assert compiled.unreadable == 1
    assert not compiled.decide(PARSER, "doc-converter", "doc.convert@1", TICKET).allowed


def test_more_callers_than_are_remembered_get_the_same_answer(monkeypatch):
    monkeypatch.setattr("hivemesh_sdk.trust.policy.MAX_REMEMBERED", 3)
    compiled = policy({"rules": [rule()]})
    for _, number in itertools.product(range(2), range(8)):
        caller = f"spiffe://{TD}/worker/email-parser/i{number}"
        assert compiled.decide(caller, "doc-converter", "doc.convert@1", TICKET).allowed


KEY = SigningKey(Ed25519PrivateKey.generate())
KEYS = {KEY.public.id: KEY.public}


class TestSignature:
    def signed(self, trust_domain=TD, typ="hivemesh-policy") -> str:
        content = SignedPolicy(
            version=3,
            issued_at=7,
            trust_domain=trust_domain,
            rules=[],
            deny=[],
            denials=DenyList(serials=["0a"]),
        )
        return KEY.sign(encode_policy(content), typ)

    def test_what_was_signed_is_read(self):
        found = open_policy(self.signed(), KEYS, TD)
        assert (found.version, found.issued_at, found.denials.serials) == (3, 7, ["0a"])

    def test_another_kind_of_document_is_refused(self):
        with pytest.raises(SignatureInvalidError):
            open_policy(self.signed(typ="hivemesh-ticket"), KEYS, TD)

    def test_the_policy_of_another_installation_is_refused(self):
        with pytest.raises(SignatureInvalidError, match="other"):
            open_policy(self.signed("other.hivemesh.internal"), KEYS, TD)

    def test_a_changed_byte_is_refused(self):
        token = self.signed()
        head, payload, signature = token.split(".")
        other = payload[:-2] + ("AA" if payload[-2:] != "AA" else "BB")
        with pytest.raises(SignatureInvalidError):
            open_policy(f"{head}.{other}.{signature}", KEYS, TD)

    def test_a_document_of_another_shape_is_refused(self):
        with pytest.raises(SignatureInvalidError):
            open_policy(KEY.sign(b'{"version": "x"}', "hivemesh-policy"), KEYS, TD)


# Laws

WORKERS = ["a", "b"]
CAPABILITIES = ["x.y@1", "x.z@1"]
CALLERS = [PLATFORM, *(f"spiffe://{TD}/worker/{name}/i1" for name in WORKERS)]
ROLES = ["viewer", "analyst"]
sources = st.sampled_from(
    [
        *({"worker": name} for name in WORKERS),
        {"platform": "*"},
        {"spiffe": f"spiffe://{TD}/worker/*"},
        {"spiffe": f"spiffe://{TD}/*"},
        {"spiffe": CALLERS[1]},
    ]
)
destinations = st.fixed_dictionaries(
    {
        "worker": st.sampled_from([*WORKERS, "*"]),
        "capabilities": st.lists(
            st.sampled_from([*CAPABILITIES, "*"]), min_size=1, max_size=2, unique=True
        ),
    }
)
roles = st.lists(st.sampled_from(ROLES), max_size=2, unique=True)
classes = st.sampled_from(list(DataClass))
rules = st.builds(
    lambda source, to, when: {"from": source, "to": to, "when": when},
    sources,
    destinations,
    st.fixed_dictionaries(
        {},
        optional={
            "on_behalf_of_roles": roles,
            "data_class_max": classes,
            "ticket": st.sampled_from(["required", "optional"]),
        },
    ),
)
denials = st.builds(
    lambda source, to, when: {"from": source, "to": to, "when": when},
    sources,
    destinations,
    st.fixed_dictionaries({}, optional={"on_behalf_of_roles": roles, "data_class_above": classes}),
)
questions = st.tuples(
    st.sampled_from(CALLERS),
    st.sampled_from(WORKERS),
    st.sampled_from(CAPABILITIES),
    st.builds(Facts, st.booleans(), roles, st.none() | classes),
)


def numbered(entries, prefix):
    return [{"id": f"{prefix}{number}", **one} for number, one in enumerate(entries)]


def covered(entry, caller, worker, capability) -> bool:
    """The plain reading of `from` and `to`, as a second opinion."""
    source = DenyRule.model_validate({"id": "x", **entry, "when": {}}).source.rule(TD)
    to = entry["to"]
    return (
        covers(source, caller)
        and to["worker"] in {worker, "*"}
        and bool({capability, "*"} & set(to["capabilities"]))
    )


@given(st.lists(rules, max_size=4), st.lists(denials, max_size=3), questions)
def test_allowed_is_only_what_a_rule_covers_and_no_denial_does(allow, deny, question):
    compiled = policy({"rules": numbered(allow, "r"), "deny": numbered(deny, "d")})
    caller, worker, capability, known = question
    decision = compiled.decide(caller, worker, capability, known)
    if decision.allowed:
        assert covered(allow[int(decision.rule[1:])], caller, worker, capability)
        assert not any(covered(one, caller, worker, capability) and not one["when"] for one in deny)
    if not any(covered(one, caller, worker, capability) for one in allow):
        assert not decision.allowed


@given(st.lists(rules, max_size=4), st.lists(denials, max_size=3), denials, questions)
def test_another_denial_never_allows_more(allow, deny, added, question):
    before = policy({"rules": numbered(allow, "r"), "deny": numbered(deny, "d")})
    after = policy({"rules": numbered(allow, "r"), "deny": numbered([*deny, added], "d")})
    if after.decide(*question).allowed:
        assert before.decide(*question).allowed


@given(st.lists(rules, max_size=4), st.lists(denials, max_size=3), questions, st.randoms())
def test_the_order_of_rules_means_nothing(allow, deny, question, random):
    rules_of, denials_of = numbered(allow, "r"), numbered(deny, "d")
    one = policy({"rules": rules_of, "deny": denials_of})
    random.shuffle(rules_of)
    random.shuffle(denials_of)
    assert policy({"rules": rules_of, "deny": denials_of}).decide(*question) == one.decide(
        *question
    )


@given(st.lists(rules, max_size=4), questions)
def test_knowing_less_never_allows_more(allow, question):
    compiled = policy({"rules": numbered(allow, "r")})
    caller, worker, capability, known = question
    if compiled.decide(caller, worker, capability, Facts()).allowed:
        full = known._replace(ticket=True)
        assert compiled.decide(caller, worker, capability, full).allowed
