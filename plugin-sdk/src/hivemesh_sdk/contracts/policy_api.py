"""What the platform's API tells of the policy: versions, tests, differences, explanations."""

from pydantic import Field, JsonValue

from hivemesh_sdk.contracts.api import Body, View


class PolicyVersionView(View):
    """One version in the history."""

    version: int
    created_at: str
    author: str
    reason: str = ""
    rules: int
    denials: int


class PolicyView(PolicyVersionView):
    """One version with its document and the rules that consented manifests add to it."""

    document: str
    consented: list[dict[str, JsonValue]] = Field(default_factory=list)
    current: bool
    in_force_at: int = 0  # workers that decide by it, where it is the current one
    asked_by: int = 0  # workers that have asked for a policy lately


class PolicyText(Body):
    """A document, as text, to be tested or applied."""

    document: str = Field(max_length=1024 * 1024)
    name: str = Field(default="the policy", max_length=200)
    reason: str = Field(default="", max_length=500)


class PolicyTestView(View):
    """One test of a document and what came out."""

    caller: str
    callee: str
    capability: str
    expected: str
    result: str
    rule: str = ""
    reason: str = ""
    passed: bool
    detail: str = ""


class EdgeView(View):
    """A way from a caller to a capability that another document changes."""

    caller: str
    callee: str
    capability: str
    change: str  # cut, narrowed, widened, opened
    live: bool  # both ends run now
    detail: str = ""


class PolicyReview(View):
    """What a document would change, and its tests."""

    based_on: int  # the version it was compared with
    added: list[str] = Field(default_factory=list)
    removed: list[str] = Field(default_factory=list)
    changed: list[str] = Field(default_factory=list)
    edges: list[EdgeView] = Field(default_factory=list)
    tests: list[PolicyTestView] = Field(default_factory=list)
    diff: str = ""

    @property
    def passed(self) -> bool:
        """Whether no test failed."""
        return all(test.passed for test in self.tests)


class PolicyExplanation(View):
    """One decision and how another one would come about."""

    caller: str
    callee: str
    capability: str
    decision: str  # allow or deny
    rule: str = ""
    reason: str
    why: str
    version: int
    would_allow: list[str] = Field(default_factory=list)
