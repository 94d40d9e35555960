"""Events of the data plane that wait for the next write: bounded, and equal ones counted once.

A peer that is refused again and again fills neither the memory nor the disk.
"""

from collections import Counter
from datetime import datetime

from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.audit.writer import Entry

PER_ACTOR = 50  # different events of one actor in one write
IN_ALL = 500

_Key = tuple[object, ...]


class Notes:
    """What was noted since the last write."""

    def __init__(self) -> None:
        self._events: dict[_Key, Entry] = {}
        self._counts: Counter[_Key] = Counter()
        self._by_actor: Counter[str] = Counter()
        self._overflowed = 0  # events that found no room since the last write

    def add(self, event: AuditEvent, at: datetime) -> bool:
        """Keep an event; True where it is the first one since the last write."""
        first = not self._counts and not self._overflowed
        key = _key(event)
        if key not in self._counts and not self._has_room(event.actor):
            self._overflowed += event.count
            return first
        if key not in self._counts:
            self._events[key] = Entry(event, at)
            self._by_actor[event.actor] += 1
        self._counts[key] += event.count
        return first

    def take(self) -> tuple[list[Entry], int]:
        """Hand out the events and how many found no room; begin anew."""
        entries = [
            Entry(entry.event, entry.at, self._counts[key]) for key, entry in self._events.items()
        ]
        lost, self._overflowed = self._overflowed, 0
        for kept in (self._events, self._counts, self._by_actor):
            kept.clear()
        return entries, lost

    def _has_room(self, actor: str) -> bool:
        return len(self._events) < IN_ALL and self._by_actor[actor] < PER_ACTOR


def _key(event: AuditEvent) -> _Key:
    return (
        event.actor,
        event.action,
        event.target,
        event.decision,
        event.reason,
        event.rule,
        event.on_behalf_of,
        event.run,
        event.serial,
        event.tenant,
        repr(sorted(event.parameters.items())),
    )
