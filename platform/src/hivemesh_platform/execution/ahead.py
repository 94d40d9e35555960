"""Rows that are claimed before a slot is free for them: only batches of runs, where steps are quick.

A step of some milliseconds would wait as long for the commit of its claim; several rows are claimed
with one commit while the ones before them run.
"""

from collections import defaultdict, deque
from collections.abc import Container, Iterable

from hivemesh_platform.execution.ledger.port import Claim
from hivemesh_platform.execution.model import JOB_NODE

MOST = 3  # rows of a capability
QUICK_S = 0.05  # what a row of a higher priority waits for each of them at most, as it was seen
WAITS_S = 1.0  # for a slot; then it is queued again, for whoever has one
SURE = 3  # quick steps in a row


class Ahead:
    """The rows that this process has claimed ahead, in order, and how quick steps are."""

    def __init__(self) -> None:
        self._rows: defaultdict[str, deque[tuple[float, Claim]]] = defaultdict(deque)
        self._quick: dict[str, int] = {}  # steps in a row, by capability

    def learn(self, claim: Claim, seconds: float) -> None:
        """A step has ended well."""
        if _fits(claim):
            known = self._quick.get(claim.capability, 0)
            self._quick[claim.capability] = min(known + 1, SURE) if seconds < QUICK_S else 0

    def more(self, capability: str) -> int:
        """How many rows are to be claimed beside those for which there are slots."""
        if self._rows.get(capability) or self._quick.get(capability, 0) < SURE:
            return 0
        return MOST

    def put(self, claims: Iterable[Claim], now: float) -> list[Claim]:
        """Keep rows until there are slots; returns those that must not wait here."""
        others = []
        for claim in claims:
            if _fits(claim):
                self._rows[claim.capability].append((now, claim))
            else:
                others.append(claim)
                self.stop(claim.capability)
        return others

    def stop(self, capability: str) -> None:
        """Claim no more of it than there are slots, until its steps are seen to be quick again."""
        self._quick[capability] = 0

    def take(self, capability: str, count: int) -> list[Claim]:
        """Take up to so many rows out."""
        rows = self._rows.get(capability)
        if not rows:
            return []
        return [rows.popleft()[1] for _ in range(min(count, len(rows)))]

    def late(self, now: float) -> list[Claim]:
        """Take those out that have waited for too long."""
        found = []
        for capability, rows in self._rows.items():
            while rows and now - rows[0][0] > WAITS_S:
                found.append(rows.popleft()[1])
                self.stop(capability)
        return found

    def forget(self, run: str, nodes: Container[str] | None) -> None:
        """Nodes of a run (None: all of them) have ended: none of their rows is begun any more."""
        for capability, rows in self._rows.items():
            self._rows[capability] = deque(
                (since, one)
                for since, one in rows
                if one.key.run != run or (nodes is not None and one.key.node not in nodes)
            )

    def holds(self, key: str, attempt: int) -> bool:
        """Whether an attempt waits here."""
        return any(
            claim.fence.attempt == attempt and str(claim.key) == key
            for rows in self._rows.values()
            for _, claim in rows
        )


def _fits(claim: Claim) -> bool:
    """Only what is as likely as any to end well and soon."""
    return (
        claim.kind == "map"
        and claim.key.node != JOB_NODE
        and not (claim.retries or claim.losses or claim.suspect or claim.halved or claim.limited)
    )
