"""Whom this worker has refused: counted, logged and told to the platform, each at a bounded rate.

Who floods a worker with what it refuses fills neither its disk nor its memory nor the audit trail.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.instances import MAX_REFUSALS, Refusal

LOG_EVERY_S = 10.0  # one line per reason
TELL_EVERY_S = 60.0  # of one peer and reason; the first time it is told with the next heartbeat
OTHERS = ("", "others")  # stands for what finds no room

_log = structlog.get_logger("hivemesh.access")
_Key = tuple[str, str]  # peer and reason


@dataclass(slots=True)
class _Logged:
    """When a reason was last logged, and how often it came since."""

    at: float = -LOG_EVERY_S
    since: int = 0


@dataclass(slots=True)
class _Tally:
    """What the platform has not heard of a peer and reason yet, and when it last heard of them."""

    count: int = 0
    heard_at: float = -TELL_EVERY_S


class Refused:
    """The refusals of one worker; reasons are a closed set, peers are verified or empty."""

    def __init__(self, clock: Clock) -> None:
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._logged: dict[str, _Logged] = {}
        self._tallies: dict[_Key, _Tally] = {}

    def step(self, peer: str, reason: str, detail: str) -> None:
        """Count a request that was refused, and log it unless the same reason was just now."""
        self.counts[reason] += 1
        self.add(peer, reason)
        logged = self._logged.setdefault(reason, _Logged())
        now = self._clock.monotonic()
        if now - logged.at < LOG_EVERY_S:
            logged.since += 1
            return
        _log.warning(
            "step_refused", reason=reason, caller=peer, detail=detail, not_logged=logged.since
        )
        logged.at, logged.since = now, 0

    def add(self, peer: str, reason: str) -> None:
        """Count a refusal for the platform alone; who shows no identity is nobody, not an address."""
        self._tally((peer if peer.startswith("spiffe://") else "", reason)).count += 1

    def due(self, *, everything: bool = False) -> list[Refusal]:
        """What to tell the platform now, at the end everything; it stays until it was heard."""
        before = self._clock.monotonic() - TELL_EVERY_S
        return [
            Refusal(peer=peer, reason=reason, count=tally.count)
            for (peer, reason), tally in self._tallies.items()
            if tally.count and (everything or tally.heard_at <= before)
        ]

    def heard(self, told: Sequence[Refusal]) -> None:
        """Forget what the platform has heard."""
        now = self._clock.monotonic()
        for one in told:
            tally = self._tally((one.peer, one.reason))
            tally.count = max(0, tally.count - one.count)
            tally.heard_at = now

    def _tally(self, key: _Key) -> _Tally:
        if key not in self._tallies and len(self._tallies) >= MAX_REFUSALS - 1:
            self._forget_old()
        if key not in self._tallies and len(self._tallies) >= MAX_REFUSALS - 1:
            key = OTHERS
        return self._tallies.setdefault(key, _Tally())

    def _forget_old(self) -> None:
        """Make room: what was told, and did not come again for as long as it is not told."""
        before = self._clock.monotonic() - TELL_EVERY_S
        self._tallies = {
            key: tally
            for key, tally in self._tallies.items()
            if tally.count or tally.heard_at > before
        }
