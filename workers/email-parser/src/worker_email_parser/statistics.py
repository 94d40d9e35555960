"""Statistics of an archive that are kept while its messages are not: bounded whatever its size."""

from collections import Counter
from typing import Final

import msgspec
from hivemesh_sdk import Rejected

from worker_email_parser.message import Message

SENDERS_KEPT: Final = 2000  # counters held; the rest is evicted, see `_Heavy`
_SIZES: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_SIZE_NAMES: Final = ("<1kB", "1-10kB", "10-100kB", "100kB-1MB", "1-10MB", ">=10MB")


class Sender(msgspec.Struct):
    """An address and how many messages it sent, at least."""

    address: str
    messages: int


class Statistics(msgspec.Struct):
    """What is known about an archive after one pass."""

    messages: int = 0
    rejected: int = 0
    bytes: int = 0
    first_date: str | None = None
    last_date: str | None = None
    undated: int = 0
    sizes: dict[str, int] = {}
    senders: list[Sender] = []
    senders_exact: bool = True  # False: more addresses than were counted, counts are lower bounds
    attachments: int = 0
    attachment_bytes: int = 0
    attachment_types: dict[str, int] = {}
    defects: dict[str, int] = {}


class Tally:
    """Counts messages one by one."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._statistics = Statistics()
        self._sizes: Counter[str] = Counter()
        self._senders = _Heavy(SENDERS_KEPT)
        self._types = _Heavy(SENDERS_KEPT)
        self._defects: Counter[str] = Counter()

    def add(self, message: Message | Rejected) -> None:
        """Count one message or rejected message."""
        totals = self._statistics
        if isinstance(message, Rejected):
            totals.rejected += 1
            return
        totals.messages += 1
        totals.bytes += message.size
        self._sizes[_size_name(message.size)] += 1
        self._defects.update(message.defects)
        self._add_date(message.date)
        for mailbox in message.from_[:1]:
            self._senders.add(mailbox.address.lower() or mailbox.name)
        for attachment in message.attachments:
            totals.attachments += 1
            totals.attachment_bytes += attachment.size
            self._types.add(attachment.type)

    def _add_date(self, date: str | None) -> None:
        totals = self._statistics
        if date is None:
            totals.undated += 1
            return
        totals.first_date = min(totals.first_date or date, date)
        totals.last_date = max(totals.last_date or date, date)

    def result(self, top: int) -> Statistics:
        """Return what was counted, with the `top` most frequent senders."""
        return msgspec.structs.replace(
            self._statistics,
            sizes={name: self._sizes[name] for name in _SIZE_NAMES},
            senders=[Sender(address, count) for address, count in self._senders.most(top)],
            senders_exact=self._senders.exact,
            attachment_types=dict(self._types.most(top)),
            defects=dict(self._defects.most_common()),
        )


def _size_name(size: int) -> str:
    return _SIZE_NAMES[sum(size >= limit for limit in _SIZES)]


class _Heavy:
    """Counts the frequent values of a long list in bounded memory (Misra and Gries 1982).

    Each count is too low by at most the number of values seen divided by `kept`.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._counts: dict[str, int] = {}
        self.exact = True

    def add(self, value: str) -> None:
        counts = self._counts
        if value in counts or len(counts) < self._kept:
            counts[value] = counts.get(value, 0) + 1
            return
        self.exact = False
        self._counts = {name: count - 1 for name, count in counts.items() if count > 1}

    def most(self, top: int) -> list[tuple[str, int]]:
        return sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))[:top]
