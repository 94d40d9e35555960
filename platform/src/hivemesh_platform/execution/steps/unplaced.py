"""When rows are tried again that no instance could take. Pure.

Rows that ask for the same are tried one after the other, so many a second however many there are:
an instance that gets a slot is found soon, and what waits for one costs little.
"""

from dataclasses import dataclass

from hivemesh_platform.execution.ports import Requirement

SOON_MS = 250  # until a row is tried again at the earliest; what comes together is tried together
GAP_MS = 50  # between two tries of rows that ask for the same
LATE_MS = 60_000  # until a row is tried again at the latest
KINDS = 64  # of requirements that are told apart; rows of any other one count as one kind

_Kind = tuple[str, str, tuple[tuple[str, str], ...]]
_REST: _Kind = ("", "", ())


@dataclass(slots=True)
class _Tries:
    last: int = 0  # of those in a row from now on
    until: int = 0  # the last of all


class Unplaced:
    """The times at which rows are tried again, by what they ask for."""

    def __init__(self) -> None:
        self._tries: dict[_Kind, _Tries] = {}

    def again(self, wanted: Requirement, now: int) -> int:
        """When a row is tried again that was put back now (ms)."""
        kind = self._kind(wanted)
        if kind not in self._tries and len(self._tries) >= KINDS:
            self._tries = {one: tries for one, tries in self._tries.items() if tries.until > now}
            kind = kind if len(self._tries) < KINDS else _REST
        tries = self._tries.setdefault(kind, _Tries())
        tries.last = min(max(now + SOON_MS, tries.last + GAP_MS), now + LATE_MS)
        tries.until = max(tries.until, tries.last)
        return -(-tries.last // SOON_MS) * SOON_MS

    def found(self, wanted: Requirement, now: int) -> bool:
        """An instance has taken a row: whether others that ask for the same are put off for long."""
        if not self._tries:
            return False
        kind = self._kind(wanted)
        tries = self._tries.get(kind) or self._tries.get(_REST)
        if tries is None:
            return False
        tries.last = 0
        return tries.until > now + SOON_MS

    @staticmethod
    def _kind(wanted: Requirement) -> _Kind:
        return wanted.capability, wanted.data_class.value, tuple(sorted(wanted.labels.items()))
