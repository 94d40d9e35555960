"""Renders the HTML report: one file, no script, nothing loaded from anywhere.

Whatever comes from mail is hostile. Jinja escapes every value, `_finish` takes control characters
and those that turn the writing direction out of it, and the page's own policy forbids scripts.
"""

import unicodedata
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined, Template
from markupsafe import Markup

from worker_email_insights.charts import columns, heat, percent, period_name
from worker_email_insights.summary import WEEKDAYS, Insights, MonthTotal

MEDIA_TYPE = "text/html; charset=utf-8"
MONTHS = 12
LONGEST_NAME = 120  # characters of a subject, address or type that are shown


def render(insights: Insights, *, title: str) -> bytes:
    """Render the report; the same figures give the same bytes."""
    page = _template().render(
        title=title,
        it=insights,
        timeline=columns(insights.timeline),
        recent=columns(insights.recent) if insights.recent else None,
        months=_latest_months(insights),
        heat=heat(insights.hours.grid, WEEKDAYS),
        weekdays=WEEKDAYS,
    )
    return page.encode()


def _latest_months(insights: Insights) -> list[MonthTotal]:
    """The last months of the currency that most documents are in, without gaps."""
    currencies = insights.amounts.currencies
    named = {one.month: one for one in currencies[0].months if one.month} if currencies else {}
    if len(named) < 2:
        return []
    month = max(named)
    months: list[MonthTotal] = []
    while month >= min(named) and len(months) < MONTHS:
        months.append(named.get(month) or MonthTotal(month=month, documents=0, sum=Decimal(0)))
        month = f"{date.fromisoformat(f'{month}-01') - timedelta(days=1):%Y-%m}"
    return months[::-1]


@cache
def _template() -> Template:
    folder = files("worker_email_insights") / "templates"
    sources = {name: (folder / name).read_text() for name in ("report.html", "report.css")}
    environment = Environment(
        loader=DictLoader(sources),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finish,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": _bytes,
        "count": _count,
        "day": _day,
        "duration": _duration,
        "money": _money,
        "percent": percent,
        "period": period_name,
        "share": _share,
    }
    environment.globals["plural"] = _plural
    return environment.get_template("report.html")


def _finish(value: object) -> object:
    """Make text safe to look at; Markup is the template's own and stays."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = value if len(value) <= LONGEST_NAME else value[: LONGEST_NAME - 1] + "…"
    return "".join("\ufffd" if unicodedata.category(one)[0] == "C" else one for one in text)


def _count(number: int) -> str:
    return f"{number:,}"


def _plural(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _money(value: Decimal) -> str:
    return f"{value:,.2f}"


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _day(when: date) -> str:
    return f"{when.day} {when:%b %Y}"


def _bytes(size: int) -> str:
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def _duration(seconds: int) -> str:
    if seconds < 60:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
