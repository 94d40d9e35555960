"""What is trained on and what is tested on. Never at random: by time, by source, or both."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from worker_email_classifier.training import corpus
from worker_email_classifier.training.corpus import Example
from worker_email_classifier.training.recipe import WRITTEN, written_examples

CUT = datetime(2002, 9, 15, tzinfo=UTC)
_HELD_OUT = (
    ("fork.xent.com",),
    ("rssfeeds",),
    ("yahoogroups", "ilug.linux.ie", "social.linux.ie", "iiu.iiu.taint.org"),
    ("direct", "spambayes", "pudge@perl.org", "secprog.list-id.securityfocus.com"),
)
_KINDS = ("newsletter", "notification", "bill", "receipt", "personal")
UNLABELLED = ("ruby-mail", "mime4j", "nodemailer-mailparser", "cpython-test-email")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Parts that share `name` are counted together."""

    name: str
    train: list[Example]
    test: list[Example]


@dataclass(frozen=True, slots=True, kw_only=True)
class Archives:
    """All mail, read once."""

    spamassassin: list[Example]
    r_lists: list[Example]
    unlabelled: dict[str, list[Example]]


def read(root: Path) -> Archives:
    """Read the archives; copies within one are counted once."""
    lists = corpus.r_lists(root, "r-announce") + corpus.r_lists(root, "r-devel")
    return Archives(
        spamassassin=corpus.unlike(corpus.spamassassin(root), []),
        r_lists=corpus.unlike(lists, []),
        unlabelled={name: corpus.permissive(root, name) for name in UNLABELLED},
    )


def splits(archives: Archives) -> list[Split]:
    """Return the splits in the order in which they are printed."""
    mail, cut = archives.spamassassin, CUT.timestamp()
    older = [example for example in mail if example.arrived < cut]
    later = [example for example in mail if example.arrived >= cut]
    later_spam = [example for example in later if example.spam]
    aid = written_examples()
    return [
        Split(name="later mail", train=older + aid, test=later),
        Split(
            name="later spam, foreign ham", train=older + aid, test=later_spam + archives.r_lists
        ),
        Split(name="foreign ham", train=mail + aid, test=archives.r_lists),
        _spam_through_lists(mail, aid),
        *_left_out(mail, aid),
        *_kinds(mail + archives.r_lists, aid),
    ]


def _spam_through_lists(mail: list[Example], aid: list[Example]) -> Split:
    """Train on spam sent to people, test on spam sent to lists, and on those lists' good mail."""
    lists = {example.source for example in mail if example.spam} - {"direct"}
    return Split(
        name="other lists",
        train=[example for example in mail if example.source not in lists] + aid,
        test=[example for example in mail if example.source in lists],
    )


def _left_out(mail: list[Example], aid: list[Example]) -> list[Split]:
    """Leave out one group of sources of good mail at a time, and with it one period of spam."""
    spam = sorted((e for e in mail if e.spam), key=lambda example: example.arrived)
    parts = []
    for part, sources in enumerate(_HELD_OUT):
        first, last = (len(spam) * step // len(_HELD_OUT) for step in (part, part + 1))
        period = spam[first:last]
        test = [e for e in mail if not e.spam and e.source in sources] + period
        tested = {id(example) for example in test}
        train = [example for example in mail if id(example) not in tested] + aid
        parts.append(Split(name="source left out", train=train, test=test))
    return parts


def _kinds(mail: list[Example], aid: list[Example]) -> list[Split]:
    """Leave out one written type of good mail at a time."""
    return [
        Split(
            name="written type left out",
            train=mail + [example for example in aid if example.source != WRITTEN + kind],
            test=[example for example in aid if example.source == WRITTEN + kind],
        )
        for kind in _KINDS
    ]
