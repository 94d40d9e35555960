"""Decides by the policy who may call which capability: pure, the same at the platform and at every worker.

A document is compiled once; a decision is then one look into a dictionary and the conditions of
the few rules that cover the call. The order of rules has no meaning.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.policy import (
    ANY,
    POLICY_TYPE,
    DenyRule,
    PolicyDocument,
    Rule,
    SignedConditions,
    SignedDestination,
    SignedPolicy,
    SignedRule,
)
from hivemesh_sdk.trust.jws import SignatureInvalidError, VerifyKey, verify

MAX_REMEMBERED = 4096  # callers are verified identities, so there are as many as instances
_CLASSES = tuple(DataClass)  # from the lowest to the highest


class Reason(StrEnum):
    """Why a decision came out as it did; all but the first refuse."""

    RULE = "rule"  # the rule allows it
    DENY = "deny"  # the denial refuses it
    NO_RULE = "no-rule"  # nothing covers the call
    TICKET = "ticket"  # the rule asks for a ticket
    ROLE = "role"  # the rule asks for another role
    DATA_CLASS = "data-class"  # the data is above the rule's class


_CONDITIONS = (Reason.TICKET, Reason.ROLE, Reason.DATA_CLASS)  # told in this order


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says to one call; `rule` is the id that decided, or came nearest."""

    allowed: bool
    rule: str
    reason: Reason
    version: int


class Facts(NamedTuple):
    """What is known of a call besides who calls what; nothing is known without a ticket."""

    ticket: bool = False
    roles: Sequence[str] = ()
    data_class: DataClass | None = None
    other_roles: Sequence[str] = ()  # not lent to the work: only denials ask for them


NOTHING_KNOWN = Facts()


class Policies(Protocol):
    """Where a process has its policy from."""

    def current(self) -> "CompiledPolicy":
        """The last good policy; one that allows nothing where there was none yet."""
        ...

    @property
    def refused(self) -> int:
        """How many documents were refused: changed on the way, or older."""
        ...

    @property
    def stale(self) -> bool:
        """Whether nobody has confirmed it for so long that nothing begins for other workers."""
        ...


class _Allow:
    """A compiled rule."""

    __slots__ = ("classes", "decision", "roles", "ticket", "unmet")

    def __init__(self, rule: SignedRule, version: int) -> None:
        when = rule.when
        self.roles = frozenset(when.on_behalf_of_roles)
        self.classes = _up_to(when.data_class_max)
        self.ticket = when.ticket == "required"
        self.decision = Decision(allowed=True, rule=rule.id, reason=Reason.RULE, version=version)
        self.unmet = {
            reason: Decision(allowed=False, rule=rule.id, reason=reason, version=version)
            for reason in _CONDITIONS
        }

    def missing(self, facts: Facts) -> Reason | None:
        """The first condition that does not hold."""
        if self.ticket and not facts.ticket:
            return Reason.TICKET
        if self.roles and self.roles.isdisjoint(facts.roles):
            return Reason.ROLE
        if self.classes is not None and facts.data_class not in self.classes:
            return Reason.DATA_CLASS
        return None


class _Deny:
    """A compiled denial. What is not known is taken as if the denial covered it."""

    __slots__ = ("below", "decision", "roles")

    def __init__(self, rule: SignedRule, version: int) -> None:
        self.roles = frozenset(rule.when.on_behalf_of_roles)
        self.below = _up_to(rule.when.data_class_above)
        self.decision = Decision(allowed=False, rule=rule.id, reason=Reason.DENY, version=version)

    @property
    def is_unconditional(self) -> bool:
        """Whether it refuses every call that it covers."""
        return not self.roles and self.below is None

    def applies(self, facts: Facts) -> bool:
        """Whether it refuses the call."""
        if (
            self.roles
            and facts.ticket
            and self.roles.isdisjoint(facts.roles)
            and self.roles.isdisjoint(facts.other_roles)
        ):
            return False
        return self.below is None or facts.data_class not in self.below


_Key = tuple[str, str, str]  # caller rule, worker or *, capability or *
_Found = tuple[tuple[_Deny, ...], tuple[_Allow, ...]]


class CompiledPolicy:
    """One version of the policy, ready to decide."""

    def __init__(self, policy: SignedPolicy) -> None:
        self.version = policy.version
        self.issued_at = policy.issued_at
        self.trust_domain = policy.trust_domain
        self._egress = {worker: tuple(found) for worker, found in policy.egress.items()}
        self.unreadable = 0  # rules of a newer form, which allow nothing here
        self._allow: dict[_Key, list[_Allow]] = {}
        self._deny: dict[_Key, list[_Deny]] = {}
        for allowing in sorted(self._readable(policy.rules), key=lambda one: one.id):
            compiled = _Allow(allowing, policy.version)
            for key in _keys(allowing):
                self._allow.setdefault(key, []).append(compiled)
        for denying in sorted(policy.deny, key=lambda one: one.id):
            denial = _Deny(denying, policy.version)
            for key in _keys(denying):
                self._deny.setdefault(key, []).append(denial)
        self._remembered: dict[_Key, _Found] = {}
        self._nothing = Decision(
            allowed=False, rule="", reason=Reason.NO_RULE, version=policy.version
        )

    def decide(
        self, caller: str, worker: str, capability: str, facts: Facts = NOTHING_KNOWN
    ) -> Decision:
        """Say whether `caller` (a verified SPIFFE ID) may call a capability of a worker."""
        denials, rules = self._remembered.get((caller, worker, capability)) or self._find(
            (caller, worker, capability)
        )
        for denial in denials:
            if denial.applies(facts):
                return denial.decision
        nearest = self._nothing
        for rule in rules:
            missing = rule.missing(facts)
            if missing is None:
                return rule.decision
            if nearest is self._nothing or _nearer(missing, nearest.reason):
                nearest = rule.unmet[missing]
        return nearest

    def may(self, caller: str, worker: str, capability: str) -> bool:
        """Say whether a call may be allowed when its conditions hold; for what is shown to whom."""
        key = (caller, worker, capability)
        denials, rules = self._remembered.get(key) or self._find(key)
        return bool(rules) and not any(denial.is_unconditional for denial in denials)

    def egress(self, worker: str) -> tuple[str, ...]:
        """The internal destinations that are open to a worker, as `safeio.egress` reads them."""
        return self._egress.get(worker, ()) + self._egress.get(ANY, ())

    def _readable(self, rules: Iterable[msgspec.Raw]) -> Iterable[SignedRule]:
        for raw in rules:
            try:
                yield msgspec.json.decode(raw, type=SignedRule)
            except msgspec.DecodeError:
                self.unreadable += 1

    def _find(self, key: _Key) -> _Found:
        caller, worker, capability = key
        keys = [
            (source, called, what)
            for source in _sources(caller)
            for called in (worker, ANY)
            for what in (capability, ANY)
        ]
        denials = {id(one): one for key in keys for one in self._deny.get(key, ())}
        rules = {id(one): one for key in keys for one in self._allow.get(key, ())}
        found = (
            tuple(sorted(denials.values(), key=lambda one: one.decision.rule)),
            tuple(sorted(rules.values(), key=lambda one: one.decision.rule)),
        )
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = found
        return found


def nothing_allowed(trust_domain: str) -> CompiledPolicy:
    """The policy before there is one."""
    empty = SignedPolicy(version=0, issued_at=0, trust_domain=trust_domain, rules=[], deny=[])
    return CompiledPolicy(empty)


def signed_rules(
    document: PolicyDocument, trust_domain: str, consented: Sequence[Rule] = ()
) -> tuple[list[SignedRule], list[SignedRule]]:
    """The rules and denials of a document in the form that is signed, by id.

    `consented` are those made from manifests; one that is written under the same id replaces it.
    """
    rules = {rule.id: rule for rule in (*consented, *document.rules)}
    return (
        [_signed_rule(rules[name], trust_domain) for name in sorted(rules)],
        [
            _signed_denial(rule, trust_domain)
            for rule in sorted(document.deny, key=lambda one: one.id)
        ],
    )


def signed_egress(document: PolicyDocument) -> dict[str, list[str]]:
    """The internal destinations of a document by worker."""
    found: dict[str, set[str]] = {}
    for opening in document.egress:
        found.setdefault(opening.worker, set()).update(opening.allow)
    return {worker: sorted(found[worker]) for worker in sorted(found)}


def open_policy(token: str, keys: Mapping[str, VerifyKey], trust_domain: str) -> SignedPolicy:
    """Verify and read a signed policy.

    Raises:
        SignatureInvalidError: it was changed, is none, or belongs to another installation.
    """
    payload = verify(token, keys, POLICY_TYPE)
    try:
        policy = msgspec.json.decode(payload, type=SignedPolicy)
    except msgspec.DecodeError as error:
        message = "the signed document is no policy that this version can read"
        raise SignatureInvalidError(message) from error
    if policy.trust_domain != trust_domain:
        message = f"the policy is one of {policy.trust_domain!r}, this is {trust_domain!r}"
        raise SignatureInvalidError(message)
    return policy


def encode_policy(policy: SignedPolicy) -> bytes:
    """The canonical JSON that is signed."""
    return msgspec.json.encode(policy, order="sorted")


def raw_rules(rules: Iterable[SignedRule]) -> list[msgspec.Raw]:
    """Rules as `SignedPolicy` carries them."""
    return [msgspec.Raw(msgspec.json.encode(rule, order="sorted")) for rule in rules]


def _signed_rule(rule: Rule, trust_domain: str) -> SignedRule:
    when = rule.when
    return SignedRule(
        id=rule.id,
        source=rule.source.rule(trust_domain),
        to=SignedDestination(rule.to.worker, sorted(rule.to.capabilities)),
        when=SignedConditions(
            on_behalf_of_roles=sorted(when.on_behalf_of_roles),
            data_class_max=when.data_class_max,
            ticket="required" if when.ticket == "required" else "",
        ),
    )


def _signed_denial(rule: DenyRule, trust_domain: str) -> SignedRule:
    to = rule.to
    return SignedRule(
        id=rule.id,
        source=ANY if rule.source is None else rule.source.rule(trust_domain),
        to=SignedDestination(ANY, [ANY])
        if to is None
        else SignedDestination(to.worker, sorted(to.capabilities)),
        when=SignedConditions(
            on_behalf_of_roles=sorted(rule.when.on_behalf_of_roles),
            data_class_above=rule.when.data_class_above,
        ),
    )


def _keys(rule: SignedRule) -> Iterable[_Key]:
    return ((rule.source, rule.to.worker, name) for name in rule.to.capabilities)


def _sources(caller: str) -> list[str]:
    """The ID and every rule that covers it: its prefixes below the trust domain, and `*`."""
    found = [caller, ANY]
    prefix = caller
    while prefix.count("/") > 3:  # spiffe://td/kind has three
        prefix = prefix.rpartition("/")[0]
        found.append(f"{prefix}/*")
    found.append(f"{prefix.rpartition('/')[0]}/*")
    return found


def _up_to(highest: DataClass | None) -> frozenset[DataClass] | None:
    return None if highest is None else frozenset(_CLASSES[: _CLASSES.index(highest) + 1])


def _nearer(one: Reason, other: Reason) -> bool:
    return _CONDITIONS.index(one) < _CONDITIONS.index(other)
