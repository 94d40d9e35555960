"""The policy between workloads: the document that people write, and the form that is signed.

Nothing is allowed that no rule allows; what a `deny` entry covers is refused whatever the rules
say. The signed form names callers by SPIFFE ID alone and carries the deny list.
"""

import re
from typing import Annotated, Literal

import msgspec
from pydantic import AfterValidator, Field, field_validator, model_validator

from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.manifest import EgressRule, Written
from hivemesh_sdk.contracts.names import CAPABILITY_ID, WORKER_NAME

POLICY_TYPE = "hivemesh-policy"
POLICY_MEDIA_TYPE = "application/jose"
ANY = "*"
MANIFEST_PREFIX = "manifest:"  # ids of rules that were made from consented manifests
STALE_S = 900.0  # a worker takes no work without a ticket under an older policy
REISSUE_S = 300.0  # the platform signs an unchanged policy again this often
MAX_RULES = 10_000

_RULE_ID = r"[a-z0-9][a-z0-9_.:@-]{0,199}"
_SPIFFE_RULE = re.compile(r"spiffe://[a-z0-9.-]+(?:/[a-z0-9-]+)*(?:/[a-z0-9-]+|/\*)")
_ROLE = re.compile(
    r"(?:[a-z0-9-]{1,40}/)?[a-z][a-z0-9_-]{0,39}"
)  # <tenant>/<role>, or of `default`


def _spiffe_rule(value: str) -> str:
    if not _SPIFFE_RULE.fullmatch(value):
        message = f"{value!r} is no SPIFFE ID and no prefix of some that ends in /*"
        raise ValueError(message)
    return value


def _worker(value: str) -> str:
    if value != ANY and not WORKER_NAME.fullmatch(value):
        message = f"{value!r} is no worker name, and not '*'"
        raise ValueError(message)
    return value


def _capability(value: str) -> str:
    if value != ANY and not CAPABILITY_ID.fullmatch(value):
        message = f"{value!r} is no capability like email.parse@1, and not '*'"
        raise ValueError(message)
    return value


def _role(value: str) -> str:
    if not _ROLE.fullmatch(value):
        message = f"{value!r} is no name of a role"
        raise ValueError(message)
    return value


RuleId = Annotated[str, Field(pattern=f"^{_RULE_ID}$")]
SpiffeRule = Annotated[str, AfterValidator(_spiffe_rule)]
WorkerRule = Annotated[str, AfterValidator(_worker)]
CapabilityRule = Annotated[str, AfterValidator(_capability)]
Role = Annotated[str, AfterValidator(_role)]


class Source(Written):
    """Who calls, in exactly one way.

    `spiffe`: an ID, or a prefix of some that ends in `/*`. `worker`: every instance of a worker.
    `platform`: a replica of the platform, or `*` for all of them.
    """

    spiffe: SpiffeRule | None = None
    worker: Annotated[str, Field(pattern=f"^{WORKER_NAME.pattern}$")] | None = None
    platform: Annotated[str, Field(pattern=r"^(\*|[a-z0-9-]{1,63})$")] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "Source":
        given = [one for one in (self.spiffe, self.worker, self.platform) if one is not None]
        if len(given) != 1:
            message = "name the caller by one of 'spiffe', 'worker' and 'platform'"
            raise ValueError(message)
        return self

    def rule(self, trust_domain: str) -> str:
        """The SPIFFE ID or prefix that this names in a trust domain."""
        if self.spiffe is not None:
            return self.spiffe
        if self.worker is not None:
            return f"spiffe://{trust_domain}/worker/{self.worker}/*"
        return f"spiffe://{trust_domain}/platform/{self.platform}"


class Destination(Written):
    """What is called: a worker (or `*`) and its capabilities (or `*`)."""

    worker: WorkerRule
    capabilities: Annotated[tuple[CapabilityRule, ...], Field(min_length=1)] = (ANY,)


class Conditions(Written):
    """What else has to hold; everything that is written here.

    `on_behalf_of_roles`: whom it is done for has one of these roles. `data_class_max`: the data
    is of this class or a lower one.
    `ticket`: the call carries a valid ticket.
    """

    on_behalf_of_roles: tuple[Role, ...] = ()
    data_class_max: DataClass | None = None
    ticket: Literal["required", "optional"] = "required"


class DenyConditions(Written):
    """Where a denial applies: to these roles, to data above this class, or both."""

    on_behalf_of_roles: tuple[Role, ...] = ()
    data_class_above: DataClass | None = None


class Rule(Written):
    """Allows one kind of caller some capabilities."""

    id: RuleId
    description: str = ""
    source: Annotated[Source, Field(alias="from")]
    to: Destination
    when: Conditions = Conditions()


class DenyRule(Written):
    """Refuses what it covers, whatever the rules allow. Without `from`: everybody."""

    id: RuleId
    description: str = ""
    source: Annotated[Source | None, Field(alias="from")] = None
    to: Destination | None = None
    when: DenyConditions = DenyConditions()

    @model_validator(mode="after")
    def _is_bounded(self) -> "DenyRule":
        if self.source is None and self.to is None:
            message = "a denial names 'from', 'to', or both"
            raise ValueError(message)
        return self


class Opening(Written):
    """Opens internal destinations to a worker (or `*`), which its manifest must declare as well.

    Each is `host:port`, an address or a network like `10.0.0.0/8:5432`; 443 without a port.
    """

    id: RuleId
    description: str = ""
    worker: WorkerRule
    allow: Annotated[tuple[EgressRule, ...], Field(min_length=1, max_length=100)]


class Expectation(Written):
    """One test of the document: who calls whom, and what must come out.

    `caller` is a worker's name, `platform`, or a SPIFFE ID.
    """

    caller: Annotated[str, Field(min_length=1, max_length=300)]
    callee: Annotated[str, Field(min_length=1, max_length=40)]
    capability: Annotated[str, Field(pattern=f"^{CAPABILITY_ID.pattern}$")]
    roles: tuple[Role, ...] = ()
    data_class: DataClass = DataClass.INTERNAL
    ticket: bool = True
    expect: Literal["allow", "deny"]
    rule: str = ""  # the id that must have decided; empty: any


Named = Rule | DenyRule | Opening


class PolicyDocument(Written):
    """The whole document. `version` is the version of this form; `default` cannot be another."""

    version: Literal[1] = 1
    default: Literal["deny"] = "deny"
    rules: Annotated[tuple[Rule, ...], Field(max_length=MAX_RULES)] = ()
    deny: Annotated[tuple[DenyRule, ...], Field(max_length=MAX_RULES)] = ()
    egress: Annotated[tuple[Opening, ...], Field(max_length=MAX_RULES)] = ()
    tests: Annotated[tuple[Expectation, ...], Field(max_length=MAX_RULES)] = ()

    @field_validator("rules", "deny", "egress")
    @classmethod
    def _ids_differ(cls, value: tuple[Named, ...]) -> tuple[Named, ...]:
        ids = [one.id for one in value]
        if len(set(ids)) == len(ids):
            return value
        twice = sorted({name for name in ids if ids.count(name) > 1})
        message = f"ids given twice: {', '.join(twice)}"
        raise ValueError(message)


# The signed form


class SignedDestination(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A worker or `*`, and capabilities or `*`."""

    worker: str
    capabilities: list[str]


class SignedConditions(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The conditions of a rule; what is absent is no condition."""

    on_behalf_of_roles: list[str] = []
    data_class_max: DataClass | None = None
    data_class_above: DataClass | None = None
    ticket: Literal["required", ""] = ""


class SignedRule(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename={"source": "from"},
):
    """A rule or a denial: `from` is a SPIFFE ID, a prefix that ends in `/*`, or `*`."""

    id: str
    source: str
    to: SignedDestination
    when: SignedConditions = SignedConditions()


class DenyList(msgspec.Struct, frozen=True, kw_only=True):
    """Who is refused before anything else is looked at.

    `serials` are those of certificates in hexadecimal, `identities` SPIFFE IDs or prefixes that
    end in `/*`, `packages` the SHA-256 of manifests.
    """

    serials: list[str] = []
    identities: list[str] = []
    packages: list[str] = []


class SignedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of the signed document (JWS, `typ` hivemesh-policy).

    `version` rises with each change of rules or denials of the document, `issued_at` (milliseconds
    since 1970) with each signature, a change of the deny list included. A reader keeps the highest
    of both and refuses what is older.
    """

    version: int
    issued_at: int
    trust_domain: str
    rules: list[msgspec.Raw]  # of SignedRule: one that cannot be read allows nothing
    deny: list[SignedRule]
    denials: DenyList = DenyList()
    egress: dict[str, list[str]] = {}  # worker or `*` to internal destinations
