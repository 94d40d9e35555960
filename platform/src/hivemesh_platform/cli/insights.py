"""The demo's result as text: volumes, senders, categories, amounts, timeline."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from hivemesh_platform.cli.output import size_text, table

BAR = 30
TOP = 5


class _View(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Counted(_View):
    name: str
    messages: int
    share: float


class _Ranking(_View):
    distinct: int
    top: list[_Counted]


class _Kind(_View):
    documents: int


class _Currency(_View):
    currency: str
    documents: int
    sum: str
    max: str
    bills: _Kind
    receipts: _Kind


class _Amounts(_View):
    currencies: list[_Currency]


class _Attachments(_View):
    messages: int
    files: int
    bytes: int


class _Point(_View):
    start: str
    messages: int


class _Timeline(_View):
    unit: str
    periods: list[_Point]


class _Threads(_View):
    count: int
    conversations: int
    longest: int


class _Times(_View):
    answers: int
    median_s: int | None
    p90_s: int | None


class _Insights(_View):
    messages: int
    bytes: int
    first: str | None
    last: str | None
    senders: _Ranking
    domains: _Ranking
    categories: _Ranking
    amounts: _Amounts
    attachments: _Attachments
    timeline: _Timeline
    threads: _Threads
    response_times: _Times


def summary(document: object) -> str:
    """The tables of the demo, out of the JSON answer of `email.insights@1`."""
    seen = _Insights.model_validate(document)
    return "\n\n".join(part for part in _parts(seen) if part)


def _parts(seen: _Insights) -> Iterator[str]:
    span = f", {seen.first[:10]} to {seen.last[:10]}" if seen.first and seen.last else ""
    yield (
        f"{seen.messages:,} messages ({size_text(seen.bytes)}){span}\n"
        f"{seen.senders.distinct:,} senders in {seen.domains.distinct:,} domains · "
        f"{seen.threads.count:,} threads, {seen.threads.conversations:,} conversations, "
        f"longest {seen.threads.longest} · "
        f"{seen.attachments.files:,} attachments ({size_text(seen.attachments.bytes)})\n"
        f"answers: {seen.response_times.answers:,}, "
        f"median {_duration(seen.response_times.median_s)}, "
        f"nine in ten within {_duration(seen.response_times.p90_s)}"
    )
    yield _ranking("top senders", seen.senders)
    yield _ranking("categories", seen.categories)
    rows = [
        [
            *(one.currency, str(one.documents), one.sum, one.max),
            *(str(one.bills.documents), str(one.receipts.documents)),
        ]
        for one in seen.amounts.currencies
    ]
    yield (
        table(["amounts", "documents", "sum", "largest", "bills", "receipts"], rows) if rows else ""
    )
    yield _bars(seen.timeline)


def _ranking(title: str, ranking: _Ranking) -> str:
    rows = [[one.name, f"{one.messages:,}", f"{one.share:.0%}"] for one in ranking.top[:TOP]]
    return table([title, "messages", "share"], rows) if rows else ""


def _bars(timeline: _Timeline) -> str:
    most = max((point.messages for point in timeline.periods), default=0)
    if not most:
        return ""
    shown = {"year": len("2026"), "month": len("2026-11")}.get(timeline.unit)
    rows = [
        [point.start[:shown], f"{point.messages:,}", "█" * round(BAR * point.messages / most)]
        for point in timeline.periods
    ]
    return table([f"per {timeline.unit}", "messages", ""], rows)


def _duration(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds} s"
