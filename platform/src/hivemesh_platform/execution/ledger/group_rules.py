"""Which small jobs may travel together, and how many of them. Pure."""

import hashlib
import math
from collections.abc import Sequence

import msgspec

from hivemesh_platform.execution.ledger.port import Claim
from hivemesh_platform.execution.plans.spec import JobSpec

TARGET_S = 0.25  # of work in one request: what a job of a higher priority waits for at most
SPREAD_S = 0.02  # less work than this is not worth a second request
MAX_MEMBERS = 500
MAX_BYTES = 4 * 1024 * 1024  # of inputs in one request
FIRST = 1  # together, before it is known how long one takes
_WEIGHT = 0.3  # of the newest one; many that were seen together say as much as one by one


def together_of(capability: str, spec: JobSpec) -> str:
    """What jobs have in common that may travel together: all but inputs, and by what they are found."""
    common = msgspec.structs.replace(spec, input=msgspec.Raw(b"null"), tags={})
    text = capability.encode() + b"\n" + msgspec.json.encode(common, order="sorted")
    return hashlib.sha256(text).hexdigest()[:24]


class GroupSizes:
    """How long one small job of a capability takes, as it was seen."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def learn(self, capability: str, count: int, seconds: float) -> None:
        """So many took so long, one after the other."""
        each = max(seconds / count, 1e-6)
        known = self._seconds.get(capability, each)
        weight = 1.0 - (1.0 - _WEIGHT) ** count
        self._seconds[capability] = known + weight * (each - known)

    def most(self, capability: str) -> int:
        """How many may travel together."""
        each = self._seconds.get(capability)
        return FIRST if each is None else max(1, min(MAX_MEMBERS, round(TARGET_S / each)))

    def requests(self, capability: str, count: int, slots: int) -> int:
        """Over how many requests so many jobs are spread."""
        least = math.ceil(count / self.most(capability))
        each = self._seconds.get(capability, SPREAD_S)
        return max(least, min(count, slots, math.ceil(count * each / SPREAD_S)), 1)


def travels(claim: Claim) -> bool:
    """Whether it may travel with others: nothing has gone wrong with it so far."""
    return bool(claim.together) and not (claim.retries or claim.losses or claim.damaged)


def spread(claims: Sequence[Claim], requests: int) -> list[list[Claim]]:
    """Cut claims in order into so many parts of nearly the same number, or more for large inputs."""
    size = math.ceil(len(claims) / requests)
    parts: list[list[Claim]] = []
    part: list[Claim] = []
    length = 0
    for claim in claims:
        more = len(claim.spec or "")
        if part and (len(part) >= size or length + more > MAX_BYTES):
            parts.append(part)
            part, length = [], 0
        part.append(claim)
        length += more
    return [*parts, part] if part else parts
