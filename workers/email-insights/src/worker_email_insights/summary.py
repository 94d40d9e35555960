"""The JSON document: what the figures of an archive come to. No clock: equal mail, equal answer."""

from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from worker_email_insights.answers import Answers, Conversation, quantile, spread, work_out
from worker_email_insights.bills import Bills, Money
from worker_email_insights.state import DOMAINS, LABELS, SENDERS, TYPES, Archive, Files
from worker_email_insights.tally import Tally
from worker_email_insights.threads import LIMIT, Threads, address_hash
from worker_email_insights.volumes import Timeline, Volumes, timeline

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
RECENT_DAYS = 182
BUSIEST = 3


class Counted(msgspec.Struct, kw_only=True):
    """One row of a ranking."""

    name: str
    messages: int
    share: float  # of all that were counted, 0 to 1


class Ranking(msgspec.Struct, kw_only=True):
    """The most frequent names. Beyond the bound `distinct` is a minimum and counts may be high."""

    distinct: int
    counted: int
    approximate: bool
    top: list[Counted]


class KindTotal(msgspec.Struct, kw_only=True):
    """The bills, or the receipts, in one currency."""

    documents: int
    sum: Decimal
    max: Decimal


class MonthTotal(msgspec.Struct, kw_only=True):
    """What the documents of one month come to; `month` is null for undated ones."""

    month: str | None
    documents: int
    sum: Decimal


class CurrencyTotal(msgspec.Struct, kw_only=True):
    """One currency. A document counts with its total; `found` counts every amount named."""

    currency: str
    documents: int
    sum: Decimal
    max: Decimal
    found: int
    bills: KindTotal
    receipts: KindTotal
    months: list[MonthTotal]


class Amounts(msgspec.Struct, kw_only=True):
    """The money in messages labelled bill or receipt."""

    examined: int
    without_amount: int
    currencies: list[CurrencyTotal]


class Attachments(msgspec.Struct, kw_only=True):
    """Files that came with messages."""

    messages: int
    files: int
    bytes: int
    types: Ranking


class Hour(msgspec.Struct, kw_only=True):
    """An hour of the day."""

    hour: int
    messages: int


class Hours(msgspec.Struct, kw_only=True):
    """When messages are sent, in UTC. `grid` has a row per weekday from Monday, 24 hours each."""

    busiest: list[Hour]
    by_hour: list[int]
    by_weekday: dict[str, int]
    grid: list[list[int]]


class ThreadRow(msgspec.Struct, kw_only=True):
    """One of the largest conversations."""

    subject: str | None
    messages: int
    people: int
    depth: int
    first: datetime | None
    last: datetime | None


class ThreadFigures(msgspec.Struct, kw_only=True):
    """Threads, single messages included; conversations are those of two messages or more."""

    count: int
    conversations: int
    longest: int
    deepest: int
    approximate: bool
    sampled: float  # the share of threads that were looked at
    top: list[ThreadRow]


class Responder(msgspec.Struct, kw_only=True):
    """One person's answers."""

    name: str
    answers: int
    median_s: int


class ResponseTimes(msgspec.Struct, kw_only=True):
    """How long the first answer of each person to a message took."""

    answers: int
    median_s: int | None
    p90_s: int | None
    spread: dict[str, int]
    people: list[Responder]
    approximate: bool


class Insights(msgspec.Struct, kw_only=True):
    """The whole answer."""

    version: int = 1
    messages: int
    bytes: int
    first: datetime | None
    last: datetime | None
    undated: int
    implausibly_dated: int
    labelled: int
    senders: Ranking
    domains: Ranking
    categories: Ranking
    amounts: Amounts
    attachments: Attachments
    hours: Hours
    timeline: Timeline
    recent: Timeline | None  # the last half year, where the whole is drawn by month or year
    threads: ThreadFigures
    response_times: ResponseTimes
    approximate: list[str]  # the parts above that are estimates because a bound was passed
    bounds: dict[str, int]  # up to these numbers of distinct keys or messages all is exact


def summarize(archive: Archive, *, top: int, subjects: bool) -> Insights:
    """Work out the answer; `top` limits rankings, `subjects` says whether threads are named."""
    volumes = archive.volumes
    answers = work_out(archive.threads)
    whole = timeline(volumes.days)
    return Insights(
        messages=volumes.messages,
        bytes=volumes.size,
        first=volumes.first,
        last=volumes.last,
        undated=volumes.undated,
        implausibly_dated=volumes.implausible,
        labelled=archive.labelled,
        senders=_ranking(archive.senders, top),
        domains=_ranking(archive.domains, top),
        categories=_ranking(archive.labels, LABELS, of=archive.labelled),
        amounts=_amounts(archive.bills),
        attachments=_attachments(archive.files, top),
        hours=_hours(volumes),
        timeline=whole,
        recent=_recent(volumes, whole),
        threads=_threads(archive.threads, answers, top, subjects=subjects),
        response_times=_response_times(archive, answers, top),
        approximate=_approximate(archive),
        bounds={"senders": SENDERS, "domains": DOMAINS, "types": TYPES, "threads": LIMIT},
    )


def _ranking(tally: Tally, number: int, of: int | None = None) -> Ranking:
    whole = tally.total if of is None else of
    return Ranking(
        distinct=tally.distinct,
        counted=tally.total,
        approximate=not tally.exact,
        top=[
            Counted(name=name, messages=count, share=_share(count, whole))
            for name, count in tally.top(number)
        ],
    )


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _amounts(bills: Bills) -> Amounts:
    currencies = {key.split(" ")[1] for key in bills.months}
    totals = [_currency(currency, bills) for currency in currencies]
    totals.sort(key=lambda one: (-one.documents, one.currency))
    return Amounts(examined=bills.examined, without_amount=bills.without_amount, currencies=totals)


def _currency(currency: str, bills: Bills) -> CurrencyTotal:
    of_kind = {kind: bills.months.get(f"{kind} {currency}", {}) for kind in ("bill", "receipt")}
    months: dict[str, Money] = {}
    for one in of_kind.values():
        for month, money in one.items():
            months.setdefault(month, Money()).add(money)
    whole = _sum(months)
    return CurrencyTotal(
        currency=currency,
        documents=whole.documents,
        sum=whole.sum,
        max=whole.max,
        found=whole.found,
        bills=_kind(of_kind["bill"]),
        receipts=_kind(of_kind["receipt"]),
        months=[
            MonthTotal(month=month or None, documents=money.documents, sum=money.sum)
            for month, money in sorted(months.items())
        ],
    )


def _kind(months: dict[str, Money]) -> KindTotal:
    whole = _sum(months)
    return KindTotal(documents=whole.documents, sum=whole.sum, max=whole.max)


def _sum(months: dict[str, Money]) -> Money:
    whole = Money()
    for money in months.values():
        whole.add(money)
    return whole


def _attachments(files: Files, top: int) -> Attachments:
    return Attachments(
        messages=files.messages,
        files=files.files,
        bytes=files.size,
        types=_ranking(files.types, top),
    )


def _hours(volumes: Volumes) -> Hours:
    grid = [volumes.hours[24 * day : 24 * day + 24] for day in range(7)]
    by_hour = [sum(day[hour] for day in grid) for hour in range(24)]
    ordered = sorted(range(24), key=lambda hour: (-by_hour[hour], hour))
    return Hours(
        busiest=[
            Hour(hour=hour, messages=by_hour[hour]) for hour in ordered[:BUSIEST] if by_hour[hour]
        ],
        by_hour=by_hour,
        by_weekday={name: sum(day) for name, day in zip(WEEKDAYS, grid, strict=True)},
        grid=grid,
    )


def _recent(volumes: Volumes, whole: Timeline) -> Timeline | None:
    if whole.unit in ("day", "week"):
        return None
    return timeline(volumes.days, last=RECENT_DAYS)


def _threads(threads: Threads, answers: Answers, top: int, *, subjects: bool) -> ThreadFigures:
    return ThreadFigures(
        count=_scaled(answers.threads, threads.share),
        conversations=_scaled(len(answers.conversations), threads.share),
        longest=max(
            (one.messages for one in answers.conversations), default=min(1, answers.threads)
        ),
        deepest=max((one.depth for one in answers.conversations), default=min(1, answers.threads)),
        approximate=not threads.exact,
        sampled=round(threads.share, 6),
        top=[_thread(one, subjects=subjects) for one in answers.conversations[:top]],
    )


def _scaled(count: int, share: float) -> int:
    return count if share == 1.0 or not count else round(count / share)


def _thread(conversation: Conversation, *, subjects: bool) -> ThreadRow:
    return ThreadRow(
        subject=conversation.title if subjects else None,
        messages=conversation.messages,
        people=conversation.people,
        depth=conversation.depth,
        first=_moment(conversation.first),
        last=_moment(conversation.last),
    )


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _response_times(archive: Archive, answers: Answers, top: int) -> ResponseTimes:
    return ResponseTimes(
        answers=len(answers.waits),
        median_s=quantile(answers.waits, 0.5),
        p90_s=quantile(answers.waits, 0.9),
        spread=spread(answers.waits),
        people=_people(archive.senders, answers.by_sender, top),
        approximate=not archive.threads.exact,
    )


def _people(senders: Tally, waits: dict[bytes, list[int]], top: int) -> list[Responder]:
    """The people who answer most. Links hold hashes, so the names come from the senders."""
    found = []
    for name in senders.ranks:
        own = waits.get(address_hash(name))
        if own:
            median = quantile(own, 0.5) or 0
            found.append(Responder(name=name, answers=len(own), median_s=median))
    found.sort(key=lambda one: (-one.answers, one.median_s, one.name))
    return found[:top]


def _approximate(archive: Archive) -> list[str]:
    exact = {
        "senders": archive.senders.exact,
        "domains": archive.domains.exact,
        "categories": archive.labels.exact,
        "attachments.types": archive.files.types.exact,
        "threads": archive.threads.exact,
        "response_times": archive.threads.exact,
    }
    return [name for name, holds in exact.items() if not holds]
