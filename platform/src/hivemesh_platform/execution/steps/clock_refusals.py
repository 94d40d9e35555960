"""How long rows wait whose tickets a worker refuses for their time. Pure.

Where the worker's clock is off its next heartbeat says so, and it gets nothing more. Where it tells
another replica, and the clock that is off is ours, nobody says so. The row costs no attempt, as nothing
has failed; each refusal makes it wait twice as long, up to a minute.
"""

from collections import OrderedDict
from collections.abc import Iterable

from hivemesh_platform.execution.ledger.port import Claim
from hivemesh_platform.execution.model import WorkKey

FIRST_S, LONGEST_S = 0.25, 60.0
DOUBLED = 10  # times: the longest wait comes before
KEPT = 10_000  # rows that were refused last; what else is refused waits as if for the first time


class ClockRefusals:
    """How often each row was refused since a worker last took it."""

    def __init__(self) -> None:
        self._counts: OrderedDict[WorkKey, int] = OrderedDict()

    def again_s(self, key: WorkKey) -> float:
        """A row was refused: how long it waits."""
        count = self._counts.pop(key, 0)
        self._counts[key] = count + 1
        if len(self._counts) > KEPT:
            self._counts.popitem(last=False)
        return min(LONGEST_S, FIRST_S * 2.0 ** min(count, DOUBLED))

    def taken(self, claims: Iterable[Claim]) -> None:
        """A worker has taken the rows."""
        if self._counts:
            for claim in claims:
                self._counts.pop(claim.key, None)
