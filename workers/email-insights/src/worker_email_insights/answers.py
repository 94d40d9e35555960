"""Works out conversations and response times from the links of an archive."""

from collections.abc import Iterable

import msgspec

from worker_email_insights.threads import NO_TIME, NONE, Link, Threads, Title

LONGEST_WAIT = 180 * 86_400  # seconds; a later answer is a new conversation
WAITS = (
    (3_600, "within an hour"),
    (4 * 3_600, "1 to 4 hours"),
    (86_400, "4 to 24 hours"),
    (3 * 86_400, "1 to 3 days"),
    (7 * 86_400, "3 to 7 days"),
    (LONGEST_WAIT, "later"),
)


class Conversation(msgspec.Struct, frozen=True):
    """A thread of two messages or more."""

    root: bytes
    messages: int
    people: int
    depth: int  # messages from the first to the farthest answer
    first: int | None  # seconds since 1970
    last: int | None
    title: str


class Answers(msgspec.Struct):
    """All conversations, the largest first, and the seconds that each answer took, by sender."""

    threads: int
    conversations: list[Conversation]
    waits: list[int]
    by_sender: dict[bytes, list[int]]


def work_out(threads: Threads) -> Answers:
    """Group the links into conversations and match each answer with what it answers."""
    links = sorted(threads.links(), key=lambda link: (link.seconds, link.message))
    parents = _parents(links)
    groups = _groups(links, parents)
    depths = _depths(links, parents)
    found = [_conversation(group, depths, threads.titles) for group in groups if len(group) > 1]
    found.sort(key=lambda one: (-one.messages, -one.depth, one.root))
    by_sender = _waits(links, parents)
    waits = sorted(wait for waits in by_sender.values() for wait in waits)
    return Answers(len(groups), found, waits, by_sender)


def quantile(ordered: list[int], share: float) -> int | None:
    """The nearest-rank quantile of a sorted list, None of an empty one."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(waits: Iterable[int]) -> dict[str, int]:
    """How many answers took how long, by the names of WAITS."""
    counts = dict.fromkeys((name for _, name in WAITS), 0)
    for wait in waits:
        counts[next(name for limit, name in WAITS if wait <= limit)] += 1
    return counts


def _parents(links: list[Link]) -> dict[bytes, Link]:
    """The message that each message answers: by its ids, or else by subject and people."""
    known = {link.message: link for link in links}
    latest: dict[bytes, list[Link]] = {}
    parents = {}
    for link in links:
        parent = known.get(link.parent)
        if parent is None and link.unlinked and link.conversation != NONE:
            earlier = latest.get(link.conversation, [])
            parent = next((one for one in reversed(earlier) if one.sender != link.sender), None)
        if parent is not None:
            parents[link.message] = parent
        latest.setdefault(link.conversation, []).append(link)
        del latest[link.conversation][:-8]
    return parents


def _groups(links: list[Link], parents: dict[bytes, Link]) -> list[list[Link]]:
    """Threads: what is connected by parents and roots, also where these are not in the archive."""
    heads: dict[bytes, bytes] = {}

    def head(node: bytes) -> bytes:
        path = []
        while (above := heads.setdefault(node, node)) != node:
            path.append(node)
            node = above
        for one in path:
            heads[one] = node
        return node

    for link in links:
        for other in (link.root, link.parent, parents.get(link.message, link).message):
            if other != NONE:
                heads[head(link.message)] = head(other)
    groups: dict[bytes, list[Link]] = {}
    for link in links:
        groups.setdefault(head(link.message), []).append(link)
    return list(groups.values())


def _depths(links: list[Link], parents: dict[bytes, Link]) -> dict[bytes, int]:
    depths: dict[bytes, int] = {}
    for link in links:
        path: list[bytes] = []
        on_path: set[bytes] = set()
        above: Link | None = link
        while above is not None and above.message not in depths and above.message not in on_path:
            path.append(above.message)
            on_path.add(above.message)
            above = parents.get(above.message)
        depth = depths.get(above.message, 0) if above is not None else 0  # 0: a loop
        for message in reversed(path):
            depth += 1
            depths[message] = depth
    return depths


def _conversation(
    group: list[Link], depths: dict[bytes, int], titles: dict[str, Title]
) -> Conversation:
    times = [link.seconds for link in group if link.seconds != NO_TIME]
    named = [titles[root] for root in {link.root.hex() for link in group} if root in titles]
    return Conversation(
        root=min(link.root for link in group),
        messages=len(group),
        people=len({link.sender for link in group}),
        depth=max(depths[link.message] for link in group),
        first=min(times, default=None),
        last=max(times, default=None),
        title=min(named).subject if named else "",
    )


def _waits(links: list[Link], parents: dict[bytes, Link]) -> dict[bytes, list[int]]:
    """How long each person took for the first answer to each message of somebody else."""
    answered: set[tuple[bytes, bytes]] = set()
    waits: dict[bytes, list[int]] = {}
    for link in links:
        parent = parents.get(link.message)
        if (
            parent is None
            or parent.sender == link.sender
            or NO_TIME in (link.seconds, parent.seconds)
        ):
            continue
        wait = link.seconds - parent.seconds
        pair = (parent.message, link.sender)
        if 0 <= wait <= LONGEST_WAIT and pair not in answered:
            answered.add(pair)
            waits.setdefault(link.sender, []).append(wait)
    return {sender: sorted(found) for sender, found in waits.items()}
