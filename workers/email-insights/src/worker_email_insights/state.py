"""All figures of an archive as one mergeable state: a JSON document of a few MiB at most."""

from zlib import crc32

import msgspec

from worker_email_insights.bills import Bills
from worker_email_insights.message import Message
from worker_email_insights.tally import Tally
from worker_email_insights.threads import Threads
from worker_email_insights.volumes import Volumes, plausible, primary_category

SENDERS = 10_000  # distinct keys up to which counts are exact, about 50 bytes of state each
DOMAINS = 5_000
LABELS = 100
TYPES = 500


class Files(msgspec.Struct):
    """Attachments: exact sums, and their types."""

    messages: int = 0
    files: int = 0
    size: int = 0
    types: Tally = msgspec.field(default_factory=lambda: Tally(TYPES))

    def add(self, message: Message, rank: int) -> None:
        """Count the message's attachments."""
        if not message.attachments:
            return
        self.messages += 1
        for attachment in message.attachments:
            self.files += 1
            self.size += attachment.size
            self.types.add(attachment.type.strip().lower() or "unknown", rank)

    def merge(self, other: "Files") -> None:
        """Take in the other's counts."""
        self.messages += other.messages
        self.files += other.files
        self.size += other.size
        self.types.merge(other.types)


class Archive(msgspec.Struct):
    """What is known of an archive, or of a part of it. The order of parts leaves no trace."""

    volumes: Volumes = msgspec.field(default_factory=Volumes)
    senders: Tally = msgspec.field(default_factory=lambda: Tally(SENDERS))
    domains: Tally = msgspec.field(default_factory=lambda: Tally(DOMAINS))
    labels: Tally = msgspec.field(default_factory=lambda: Tally(LABELS))
    labelled: int = 0
    files: Files = msgspec.field(default_factory=Files)
    bills: Bills = msgspec.field(default_factory=Bills)
    threads: Threads = msgspec.field(default_factory=Threads)

    def add(self, messages: list[Message]) -> None:
        """Count these messages."""
        dated = []
        for message in messages:
            rank, moment = rank_of(message), message.moment
            when = plausible(moment)
            self.volumes.add(message, moment, primary_category(message))
            self._add_sender(message.sender, rank)
            self.files.add(message, rank)
            if message.labels:
                self._add_labels(message, rank)
                self.bills.add(message, when)
            dated.append((message, when))
        self.threads.add(dated)
        for tally in (self.senders, self.domains, self.labels, self.files.types):
            tally.settle()

    def merge(self, other: "Archive") -> None:
        """Take in another part of the archive."""
        self.volumes.merge(other.volumes)
        self.senders.merge(other.senders)
        self.domains.merge(other.domains)
        self.labels.merge(other.labels)
        self.labelled += other.labelled
        self.files.merge(other.files)
        self.bills.merge(other.bills)
        self.threads.merge(other.threads)

    def _add_sender(self, sender: str, rank: int) -> None:
        if not sender:
            return
        self.senders.add(sender, rank)
        domain = sender.rpartition("@")[2]
        if domain and "@" in sender:
            self.domains.add(domain, rank)

    def _add_labels(self, message: Message, rank: int) -> None:
        self.labelled += 1
        for label, answer in message.labels.items():
            if answer.label:
                self.labels.add(label, rank)


def rank_of(message: Message) -> int:
    """A hash of the message; of equal messages at two places two different ones."""
    return crc32(message.id.encode(errors="surrogatepass"), message.offset & 0xFFFF_FFFF)
