"""Permissions, rights and principals: how a grant is written, what it covers, who has it. Pure.

A permission is `<verb>:<kind>/<name>`; a grant may end its name in `*`. The short forms are fixed:

- `read:run` is every object of that kind: `read:run/*`. The words of `KINDS` are reserved for this.
- `write:reports` is the dataset of that name: `write:dataset/reports`.
- `admin:*` (or `admin:all`) is every verb on everything; `read:*` is reading of every kind.

`admin` includes every verb on what it names, `write` includes `create`; nothing else includes
anything: who may write a dataset may not thereby read it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import InvalidError

VERBS = ("read", "write", "create", "run", "admin")
# Kind of object -> what its name is. A bare word of a grant that is none of these names a dataset.
KINDS = {
    "artifact": "SHA-256 of its bytes",
    "audit": "tenant",
    "ca": "root or issuer",
    "replica": "name of a replica",
    "capability": "id, email.parse@1",
    "config": "key of a setting",
    "dataset": "name of the dataset",
    "enrolment": "worker that may join",
    "group": "name of the group",
    "log": "worker that wrote it",
    "metrics": "",
    "package": "name of the worker",
    "pipeline": "name of the pipeline",
    "policy": "id of a rule",
    "role": "name of the role",
    "run": "its pipeline; of a job its capability",
    "secret": "path in the store, a.b.c; `run` is to use it in work, `admin` to reveal it",
    "status": "",
    "token": "id of the token",
    "user": "name of the user",
    "worker": "name of the worker",
}
EVERYTHING = "*"
_ALIASES = {"all": EVERYTHING}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@~-]{0,199}\*?|\*")
_INCLUDES = {"admin": frozenset(VERBS), "write": frozenset({"write", "create"})}

PrincipalKind = Literal["user", "pipeline", "worker", "platform"]


class GrantInvalidError(InvalidError):
    """The text is no permission; `errors` name the allowed words."""

    slug = "grant-invalid"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, errors=[FieldProblem(pointer="", message=detail)])


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One allowed verb on one kind of objects, by name, by prefix (`sales*`) or all (`*`)."""

    verb: str
    kind: str
    name: str = EVERYTHING

    @classmethod
    def parse(cls, text: str) -> "Grant":
        """Read a grant in any of its forms.

        Raises:
            GrantInvalidError: it is none; the message lists what is allowed.
        """
        verb, separator, rest = text.strip().partition(":")
        if not separator or not rest:
            message = f"{text!r} is no grant; write <verb>:<kind>/<name>"
            raise GrantInvalidError(message)
        if verb not in VERBS:
            message = f"{verb!r} is no verb; allowed are {', '.join(VERBS)}"
            raise GrantInvalidError(message)
        kind, slash, name = rest.partition("/")
        if not slash:
            return _short(verb, rest)
        if kind not in KINDS and kind != EVERYTHING:
            message = f"{kind!r} is no kind of object; allowed are {', '.join(KINDS)}"
            raise GrantInvalidError(message)
        return cls(verb, kind, _checked_name(name))

    def covers(self, verb: str, kind: str, name: str) -> bool:
        """Say whether it allows the verb on the object."""
        return (
            (verb == self.verb or verb in _INCLUDES.get(self.verb, ()))
            and self.kind in {kind, EVERYTHING}
            and _within(name, self.name)
        )

    def common(self, other: "Grant") -> "tuple[Grant, ...]":
        """What both allow."""
        kind = _narrower(self.kind, other.kind)
        if kind is None:
            return ()
        name = _shared_names(self.name, other.name)
        if name is None:
            return ()
        return tuple(Grant(verb, kind, name) for verb in _shared_verbs(self.verb, other.verb))

    def __str__(self) -> str:
        if self.kind == EVERYTHING:
            return f"{self.verb}:*" if self.name == EVERYTHING else f"{self.verb}:*/{self.name}"
        return f"{self.verb}:{self.kind}/{self.name}"


class Rights:
    """What a set of grants allows; made once, asked often."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self.grants = _minimal(grants)
        self._exact: dict[tuple[str, str, str], Grant] = {}
        self._wild: dict[tuple[str, str], list[Grant]] = {}
        for grant in self.grants:
            for verb in _INCLUDES.get(grant.verb, (grant.verb,)):
                if grant.name.endswith(EVERYTHING):
                    self._wild.setdefault((verb, grant.kind), []).append(grant)
                else:
                    self._exact[verb, grant.kind, grant.name] = grant

    def find(self, verb: str, kind: str, name: str) -> Grant | None:
        """Return a grant that allows the verb on the object, or None."""
        for which in (kind, EVERYTHING):
            for grant in self._wild.get((verb, which), ()):
                if _within(name, grant.name):
                    return grant
            exact = self._exact.get((verb, which, name))
            if exact is not None:
                return exact
        return None

    def allows(self, verb: str, kind: str, name: str) -> bool:
        """Say whether the verb is allowed on the object."""
        return self.find(verb, kind, name) is not None

    def any(self, verb: str, kind: str) -> bool:
        """Say whether the verb is allowed on some object of the kind."""
        return any(
            (verb == grant.verb or verb in _INCLUDES.get(grant.verb, ()))
            and grant.kind in {kind, EVERYTHING}
            for grant in self.grants
        )

    def everywhere(self, verb: str, kind: str) -> bool:
        """Say whether the verb is allowed on every object of the kind."""
        return self.allows(verb, kind, EVERYTHING)

    def include(self, other: "Rights") -> bool:
        """Say whether everything that the other allows is allowed here too."""
        return all(any(_covers(own, one) for own in self.grants) for one in other.grants)

    def common(self, other: "Rights") -> "Rights":
        """What both allow."""
        return Rights(
            shared for one in self.grants for two in other.grants for shared in one.common(two)
        )

    def texts(self) -> tuple[str, ...]:
        """The grants as text, sorted."""
        return tuple(str(grant) for grant in self.grants)


@dataclass(frozen=True)
class Principal:
    """Who acts: with every grant in force, those of the roles included.

    `id` is `spiffe://<td>/user/<name>`, `pipeline:<name>`, or the SPIFFE ID of a process. A token
    acts as its owner, with the grants that the token and the owner have in common.
    """

    id: str
    kind: PrincipalKind = "user"
    tenant: str = "default"
    roles: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    serial: str = ""  # of the certificate it showed, hexadecimal
    token_id: str = ""
    groups: tuple[str, ...] = ()
    other_roles: tuple[str, ...] = ()  # of a token's owner, not lent: only denials ask for them
    sources: tuple[tuple[str, str], ...] = field(default=(), compare=False)  # grant -> where from

    @cached_property
    def rights(self) -> Rights:
        """The grants, ready to be asked."""
        return Rights(Grant.parse(text) for text in self.grants)

    @property
    def name(self) -> str:
        """The user's name, or what else tells principals of a kind apart."""
        return self.id.rpartition("/user/")[2] if self.kind == "user" else self.id

    @property
    def actor(self) -> str:
        """How the audit trail calls it."""
        return f"token:{self.token_id}" if self.token_id else self.id


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision with its reason: `rule` is the grant that allows it, or empty."""

    allowed: bool
    rule: str = ""
    reason: str = ""


def decide(principal: Principal, verb: str, kind: str, name: str) -> Verdict:
    """Decide whether the principal may do the verb on the object, and say why."""
    grant = principal.rights.find(verb, kind, name)
    if grant is None:
        missing = Grant(verb, kind, name)
        return Verdict(allowed=False, reason=f"no role or grant of {principal.id} has {missing}")
    text = str(grant)
    origin = ", ".join(sorted({where for rule, where in principal.sources if rule == text}))
    return Verdict(allowed=True, rule=text, reason=f"{origin or 'grant'} allows {text}")


def _short(verb: str, word: str) -> Grant:
    word = _ALIASES.get(word, word)
    if word == EVERYTHING or word in KINDS:
        return Grant(verb, word)
    if word.endswith("s") and word[:-1] in KINDS:
        message = f"{word!r} is no kind of object; write {word[:-1]!r}, or dataset/{word}"
        raise GrantInvalidError(message)
    return Grant(verb, "dataset", _checked_name(word))


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        message = f"{name!r} is no name; use letters, digits and _.@~-, and * at the end only"
        raise GrantInvalidError(message)
    return name


def _within(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith(EVERYTHING) else name == pattern


def _covers(own: Grant, other: Grant) -> bool:
    """Say whether everything that the other allows is allowed by our own."""
    verbs = _INCLUDES.get(own.verb, frozenset({own.verb}))
    return (
        _INCLUDES.get(other.verb, frozenset({other.verb})) <= verbs
        and own.kind in {other.kind, EVERYTHING}
        and _shared_names(own.name, other.name) == other.name
    )


def _narrower(one: str, two: str) -> str | None:
    if one == EVERYTHING:
        return two
    return one if two in {one, EVERYTHING} else None


def _shared_names(one: str, two: str) -> str | None:
    """Prefixes form a tree: two of them share the longer one, or nothing."""
    if _within(two.removesuffix(EVERYTHING), one) and (one.endswith(EVERYTHING) or one == two):
        return two
    if _within(one.removesuffix(EVERYTHING), two) and two.endswith(EVERYTHING):
        return one
    return None


def _shared_verbs(one: str, two: str) -> tuple[str, ...]:
    both = _INCLUDES.get(one, frozenset({one})) & _INCLUDES.get(two, frozenset({two}))
    for verb in ("admin", "write"):
        if verb in both:
            return (verb,) if verb == "admin" else tuple(sorted(both - {"create"}))
    return tuple(sorted(both))


def _minimal(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """Without those that another one covers."""
    found = sorted(set(grants))
    return tuple(one for one in found if not any(_covers(two, one) for two in found if two != one))
