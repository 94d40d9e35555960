"""Requirements, the load score, and what a decision records. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hivemesh_sdk.contracts.artifacts import DataClass
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ACTIVE_UNIT = 10  # active steps are counted in tens


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much each part of the load counts."""

    cpu: float = 0.4
    memory: float = 0.3
    active: float = 0.3


@dataclass(frozen=True, slots=True)
class Load:
    """The load of one instance: fractions of its own limits, and its active steps."""

    cpu: float
    memory: float
    active: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a step asks of an instance. Hashable: it names a pool of matching instances."""

    capability: str
    labels: tuple[tuple[str, str], ...] = ()
    version: str = ""  # a version range such as ">=1.2,<2", or "" for any
    data_class: DataClass = DataClass.PUBLIC  # of what it would be given


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What of an instance decides whether it fits."""

    capabilities: frozenset[str]
    labels: Mapping[str, str]
    version: str
    clearances: Mapping[str, DataClass] = field(default_factory=dict)  # by capability


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One instance that serves the capability, as it stood at the decision."""

    instance: str
    score: float
    cpu: float
    memory: float
    active: int
    free: int
    ejected: str = ""  # "open" or "half-open": slower or failing more than the others
    misses: str = ""  # the requirement that it does not meet

    def parts(self, weights: Weights) -> dict[str, float]:
        """The three terms of the score."""
        return load_parts(Load(self.cpu, self.memory, self.active), weights)

    @property
    def unmet(self) -> str:
        """Why it cannot be chosen, or an empty text."""
        if self.misses:
            return self.misses
        return f"circuit {self.ejected}" if self.ejected else "" if self.free else "free slot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which instance was chosen among which, and why; `chosen` is None where none could be."""

    chosen: str | None
    reason: str
    candidates: tuple[Candidate, ...] = field(repr=False)  # the best that fitted, then the others
    not_listed: int = 0  # further ones


def requirements(
    capability: str,
    labels: Mapping[str, str] | None = None,
    version: str = "",
    data_class: DataClass = DataClass.PUBLIC,
) -> Requirements:
    """Put requirements into their one form."""
    ordered = tuple(sorted((labels or {}).items()))
    return Requirements(
        capability=capability, labels=ordered, version=version, data_class=data_class
    )


def load_parts(load: Load, weights: Weights) -> dict[str, float]:
    """The three terms of the load score."""
    return {
        "cpu": weights.cpu * load.cpu,
        "memory": weights.memory * load.memory,
        "active": weights.active * load.active / ACTIVE_UNIT,
    }


def load_score(load: Load, weights: Weights) -> float:
    """The load score; the lowest is chosen."""
    return (
        weights.cpu * load.cpu
        + weights.memory * load.memory
        + weights.active * load.active / ACTIVE_UNIT
    )


def unmet(features: Features, wanted: Requirements) -> str:
    """The first requirement that an instance does not meet, in words, or ""."""
    if wanted.capability not in features.capabilities:
        return wanted.capability
    clearance = features.clearances.get(wanted.capability, DataClass.SECRET)
    if wanted.data_class.exceeds(clearance):
        return f"data class {wanted.data_class}, which exceeds {clearance} of {wanted.capability}"
    for name, value in wanted.labels:
        if features.labels.get(name) != value:
            return f"{name}={value}"
    if wanted.version and not _in_range(features.version, wanted.version):
        return f"version {wanted.version}"
    return ""


def why_none(instances: list[Features], wanted: Requirements) -> str:
    """Say why no instance fits, naming the requirement that the nearest ones miss."""
    serving = [one for one in instances if wanted.capability in one.capabilities]
    if not serving:
        return f"no live instance serves {wanted.capability}"
    missed = sorted({unmet(one, wanted) for one in serving} - {""})
    return f"no live instance satisfies {' or '.join(missed)}"


def _in_range(version: str, wanted: str) -> bool:
    return SpecifierSet(wanted).contains(Version(version), prereleases=True)
