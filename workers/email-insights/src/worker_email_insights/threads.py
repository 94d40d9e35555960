"""Which message answers which: kept as fixed-size links, worked out when the result is asked for.

A link holds hashes instead of ids and addresses: 35 bytes a message. Up to LIMIT messages all
links are kept. Beyond that whole threads are kept, those whose root has the smallest hash: a
uniform sample of threads. A thread that is dropped from a part would be dropped from the whole
as well, so the sample does not depend on how the input was cut or in what order it was merged.
"""

import hashlib
import re
import struct
from datetime import datetime
from functools import lru_cache

import msgspec

from worker_email_insights.message import Message

LIMIT = 10_000  # links, 0.5 MB in the state's JSON form
LONGEST_TITLE = 100  # characters
MOST_PARTICIPANTS = 16
WIDTH = 6  # bytes of a hash: among 10,000 two are equal once in 5 million archives
NONE = bytes(WIDTH)
NO_TIME = 0xFFFF_FFFF

# root, message, parent, conversation, sender, seconds since 1970, is a reply without ids
LINK = struct.Struct(f">{5 * f'{WIDTH}s'}I?")


class Link(msgspec.Struct, frozen=True):
    """One message's place, unpacked."""

    root: bytes
    message: bytes
    parent: bytes
    conversation: bytes
    sender: bytes
    seconds: int
    unlinked: bool


class Title(msgspec.Struct, frozen=True, order=True, array_like=True):
    """The subject of a thread's earliest answer."""

    seconds: int
    subject: str


class Threads(msgspec.Struct):
    """A set of links, sorted: the same links give the same bytes."""

    limit: int = LIMIT
    packed: bytes = b""
    titles: dict[str, Title] = {}  # hash of the root -> the subject its answers carry
    cutoff: bytes = b""  # roots from here on are dropped; empty while all are kept

    @property
    def exact(self) -> bool:
        """Whether no thread was dropped."""
        return not self.cutoff

    @property
    def share(self) -> float:
        """The share of all threads that the sample holds."""
        return int.from_bytes(self.cutoff, "big") / 2 ** (8 * WIDTH) if self.cutoff else 1.0

    def add(self, messages: list[tuple[Message, datetime | None]]) -> None:
        """Link these messages, each with its moment where it has a plausible one."""
        links = []
        for message, when in messages:
            link, title = link_of(message, when)
            links.append(link)
            if title is not None:
                self._entitle(link[:WIDTH].hex(), title)
        self._take(links)

    def merge(self, other: "Threads") -> None:
        """Take in the other's links; the same link from both sides counts once."""
        if other.cutoff:
            self.cutoff = min(self.cutoff or other.cutoff, other.cutoff)
        for root, title in other.titles.items():
            self._entitle(root, title)
        self._take(_split(other.packed))

    def links(self) -> list[Link]:
        """All links, one per message; of two that say different things the smaller."""
        first: dict[bytes, Link] = {}
        for packed in _split(self.packed):
            link = Link(*LINK.unpack(packed))
            first.setdefault(link.message, link)
        return list(first.values())

    def _entitle(self, root: str, title: Title) -> None:
        known = self.titles.get(root)
        if known is None or title < known:
            self.titles[root] = title

    def _take(self, links: list[bytes]) -> None:
        merged = list(dict.fromkeys(sorted(_split(self.packed) + links)))
        if len(merged) > self.limit:
            root = merged[self.limit][:WIDTH]
            self.cutoff = min(self.cutoff or root, root)
        if self.cutoff:
            merged = [link for link in merged if link < self.cutoff]
            until = self.cutoff.hex()
            self.titles = {root: one for root, one in self.titles.items() if root < until}
        self.packed = b"".join(merged)


def link_of(message: Message, when: datetime | None) -> tuple[bytes, Title | None]:
    """Pack a message's place; with the title of its thread where the message is an answer."""
    sender = message.sender
    own = _hash(_bare(message.message_id or "") or message.id)
    references = message.references
    parents = message.in_reply_to or references[-1:]
    parent = _hash(_bare(parents[0])) if parents else NONE
    root = _hash(_bare(references[0])) if references else parent
    subject, answers = _topic(message.subject)
    seconds = min(int(when.timestamp()), NO_TIME) if when else NO_TIME
    unlinked = answers and not parents
    link = LINK.pack(
        own if root == NONE else root,
        own,
        NONE if parent == own else parent,
        _conversation(message, sender, subject),
        address_hash(sender),
        seconds,
        unlinked,
    )
    return link, Title(seconds, subject) if parents or unlinked else None


@lru_cache(maxsize=4096)
def address_hash(address: str) -> bytes:
    """What stands for an address in a link."""
    return _hash(address)


_ANSWER = re.compile(
    r"\s*(?:(?:re|aw|sv|vs|odp|ref|antw|antwort)(?:\[\d+\])?\s?:\s*)+", re.IGNORECASE
)


def _topic(subject: str) -> tuple[str, bool]:
    """The subject without "Re:", and whether it had one."""
    start = _ANSWER.match(subject)
    bare = subject[start.end() :] if start else subject
    return " ".join(bare[: 2 * LONGEST_TITLE].split())[:LONGEST_TITLE], start is not None


def _conversation(message: Message, sender: str, subject: str) -> bytes:
    """The same for all messages of one subject between the same people; for lack of ids."""
    if not subject:
        return NONE
    people = {sender}
    people.update(one.address.lower() for one in message.to[:MOST_PARTICIPANTS])
    people.update(one.address.lower() for one in message.cc[:MOST_PARTICIPANTS])
    return _hash("\n".join((subject.lower(), *sorted(people))))


def _bare(message_id: str) -> str:
    return message_id.strip().strip("<>")


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=WIDTH).digest()


def _split(packed: bytes) -> list[bytes]:
    return [packed[at : at + LINK.size] for at in range(0, len(packed), LINK.size)]
