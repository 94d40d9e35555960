"""How many messages there were and when: exact, because days and hours are few."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Literal

import msgspec

from worker_email_insights.message import Message

# The order decides which colour a message has in a chart when several types are true.
CATEGORIES = ("spam", "bill", "receipt", "newsletter", "notification", "personal")
OTHER = "other"
FIRST_YEAR = 1970  # what lies outside is a broken clock or a joke
LAST_YEAR = 2099
STRAY = 0.005  # at either end of the archive this share of the messages may be misdated
HOURS = 24 * 7

Unit = Literal["day", "week", "month", "year"]
Day = dict[str, int]


class Volumes(msgspec.Struct):
    """Messages by day and category, and by hour of the week, all in UTC."""

    messages: int = 0
    size: int = 0
    undated: int = 0
    implausible: int = 0  # dated outside of 1970-2099
    first: datetime | None = None
    last: datetime | None = None
    days: dict[int, Day] = {}  # days since 1970 -> category -> messages
    hours: list[int] = msgspec.field(default_factory=lambda: [0] * HOURS)  # from Monday 0:00

    def add(self, message: Message, when: datetime | None, category: str) -> None:
        """Count a message on its day."""
        self.messages += 1
        self.size += message.size
        if when is None:
            self.undated += 1
            return
        if not FIRST_YEAR <= when.year <= LAST_YEAR:
            self.implausible += 1
            return
        when = when.replace(microsecond=0) if when.microsecond else when
        number = when.toordinal() - _EPOCH
        if self.first is None or when < self.first:
            self.first = when
        if self.last is None or when > self.last:
            self.last = when
        day = self.days.get(number)
        if day is None:
            day = self.days[number] = {}
        day[category] = day.get(category, 0) + 1
        self.hours[when.weekday() * 24 + when.hour] += 1

    def merge(self, other: "Volumes") -> None:
        """Take in the other's counts."""
        self.messages += other.messages
        self.size += other.size
        self.undated += other.undated
        self.implausible += other.implausible
        self.first = min((one for one in (self.first, other.first) if one), default=None)
        self.last = max((one for one in (self.last, other.last) if one), default=None)
        for number, theirs in other.days.items():
            mine = self.days.setdefault(number, {})
            for category, count in theirs.items():
                mine[category] = mine.get(category, 0) + count
        self.hours = [mine + theirs for mine, theirs in zip(self.hours, other.hours, strict=True)]


def plausible(when: datetime | None) -> datetime | None:
    """The moment, where it lies in a year that mail can be from."""
    return when if when is not None and FIRST_YEAR <= when.year <= LAST_YEAR else None


class Period(msgspec.Struct, kw_only=True):
    """One column of the timeline."""

    start: date
    messages: int
    categories: Day


class Timeline(msgspec.Struct, kw_only=True):
    """Messages per period without gaps. A few strays at either end are counted, not drawn."""

    unit: Unit
    first: date | None = None  # the days between which the periods lie
    last: date | None = None
    periods: list[Period]
    before: int = 0
    after: int = 0


def primary_category(message: Message) -> str:
    """The one category that a message is drawn in: the surest, by the order of CATEGORIES."""
    sure = [
        (-answer.confidence, _ORDER[label])
        for label, answer in message.labels.items()
        if answer.label and label in _ORDER
    ]
    return CATEGORIES[min(sure)[1]] if sure else OTHER


def timeline(days: dict[int, Day], *, last: int | None = None) -> Timeline:
    """Cut the archive's days into periods; with `last`, only that many days up to its end."""
    sums = {number: sum(day.values()) for number, day in days.items()}
    if not sums:
        return Timeline(unit="day", periods=[])
    low, high = _bulk(sums)
    if last is not None:
        low = max(low, high - last + 1)
    unit = _unit(high - low + 1)
    inside = {number: day for number, day in days.items() if low <= number <= high}
    return Timeline(
        unit=unit,
        first=_date(low),
        last=_date(high),
        periods=_periods(inside, unit, low, high),
        before=sum(count for number, count in sums.items() if number < low),
        after=sum(count for number, count in sums.items() if number > high),
    )


def _bulk(sums: dict[int, int]) -> tuple[int, int]:
    """The first and last day between which all messages but the strays lie."""
    allowed = int(sum(sums.values()) * STRAY)
    return _edge(sorted(sums), sums, allowed), _edge(sorted(sums, reverse=True), sums, allowed)


def _edge(numbers: list[int], sums: dict[int, int], allowed: int) -> int:
    for number in numbers:
        allowed -= sums[number]
        if allowed < 0:
            return number
    return numbers[-1]


def _unit(days: int) -> Unit:
    if days <= 45:
        return "day"
    if days <= 400:
        return "week"
    return "month" if days <= 3000 else "year"


def _periods(days: dict[int, Day], unit: Unit, low: int, high: int) -> list[Period]:
    found = {
        start: Period(start=start, messages=0, categories={})
        for start in _starts(unit, _date(low), _date(high))
    }
    for number, day in days.items():
        period = found[_start(unit, _date(number))]
        for category, count in day.items():
            period.messages += count
            period.categories[category] = period.categories.get(category, 0) + count
    for period in found.values():
        period.categories = dict(sorted(period.categories.items()))
    return list(found.values())


def _starts(unit: Unit, first: date, last: date) -> Iterable[date]:
    start = _start(unit, first)
    while start <= last:
        yield start
        start = _start(
            unit, start + timedelta(days={"day": 1, "week": 7, "month": 31}.get(unit, 366))
        )


def _start(unit: Unit, day: date) -> date:
    if unit == "day":
        return day
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day.replace(month=1, day=1)


def _date(number: int) -> date:
    return date.fromordinal(number + _EPOCH)


_ORDER = {category: at for at, category in enumerate(CATEGORIES)}
_EPOCH = date(FIRST_YEAR, 1, 1).toordinal()
