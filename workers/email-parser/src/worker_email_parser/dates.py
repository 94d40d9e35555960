"""Reads the dates of mail, broken ones included, as aware UTC."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_tz
from typing import Final

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
        start=1,
    )
}
# RFC 5322 4.3, and the European zones that are met as well; minutes east of Greenwich
_ZONES: Final = {
    "ut": 0, "utc": 0, "gmt": 0, "z": 0, "wet": 0,
    "est": -300, "edt": -240, "cst": -360, "cdt": -300,
    "mst": -420, "mdt": -360, "pst": -480, "pdt": -420,
    "bst": 60, "cet": 60, "met": 60, "cest": 120, "mest": 120, "eet": 120, "eest": 180,
    "msk": 180, "jst": 540, "kst": 540,
}  # fmt: skip
_COMMON_DATE = re.compile(
    r"[A-Za-z]{3}, +(\d\d?) ([A-Z][a-z]{2}) ((?:19|20)\d\d) (\d\d:\d\d:\d\d) ([+-]\d{4})(?!\d)",
    re.ASCII,
)
_MAIL_DATE = re.compile(
    r"\s*(?:[A-Za-z]{3,9}\.?,?\s*)?(\d{1,2})[\s-]+([A-Za-z]{3})[a-z]{0,6}\.?,?[\s-]+(\d{2,4})\s+"
    r"(\d{1,2})[:.](\d\d)(?:[:.](\d\d))?(?:\.\d{1,9})?\s*(\+?[+-]\d{3,4}(?!\d)|[A-Za-z]{1,5}(?![A-Za-z+-])|)"
)
_CTIME = re.compile(
    r"\s*[A-Za-z]{3},?\s+([A-Za-z]{3})\s+(\d{1,2})\s+(\d{1,2}):(\d\d)(?::(\d\d))?\s+"
    r"(?:([A-Za-z]{2,5})\s+)?(\d{4})(?:\s+([+-]\d{4}))?"
)
_DAY_MINUTES: Final = 24 * 60
_MONTH_DIGITS: Final = {name.capitalize(): f"{number:02}" for name, number in _MONTHS.items()}


def parse_date(value: str, defects: list[str]) -> str | None:
    """Return an RFC 5322 date (or what people write instead) as "2002-08-22T11:26:25Z"."""
    if not value:
        return None
    try:
        moment = (
            _by_common(value)
            or _by_pattern(value[:200], defects)
            or _by_library(value[:200], defects)
        )
    except (ValueError, OverflowError, TypeError, IndexError):
        moment = None
    if moment is None:
        defects.append("date-invalid")
        return None
    return moment.isoformat() + "Z"


def _by_common(value: str) -> datetime | None:
    """Read what nearly all programs write, as `datetime` reads its own form; it is faster."""
    match = _COMMON_DATE.match(value)
    if match is None:
        return None
    day, name, year, time, zone = match.groups()
    month = _MONTH_DIGITS.get(name)
    if month is None:
        return None
    try:
        moment = datetime.fromisoformat(f"{year}-{month}-{day:0>2}T{time}{zone}")
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None)


def _by_pattern(value: str, defects: list[str]) -> datetime | None:
    match = _MAIL_DATE.match(value)
    if match:
        day, name, year, hour, minute, second, zone = match.groups()
    else:
        match = _CTIME.match(value)
        if not match:
            return None
        name, day, hour, minute, second, word, year, zone = match.groups()
        zone = zone or word or ""
    month = _MONTHS.get(name.lower())
    if month is None:
        return None
    local = datetime(  # noqa: DTZ001  the zone is subtracted below; naive arithmetic is faster
        _full_year(int(year)), month, int(day), int(hour), int(minute), min(int(second or 0), 59)
    )
    return local - timedelta(minutes=_offset(zone, defects))


def _full_year(year: int) -> int:
    """Complete a short year as RFC 5322 4.3 says: 02 is 2002, 102 is 2002 too."""
    if year < 50:
        return 2000 + year
    return 1900 + year if year < 1000 else year


def _offset(zone: str, defects: list[str]) -> int:
    """Return the minutes east of Greenwich; 0 with a defect where the zone says nothing."""
    if zone[:1] in {"+", "-"}:
        digits = zone.lstrip("+-")
        minutes = int(digits[:-2]) * 60 + int(digits[-2:])
        if minutes < _DAY_MINUTES:
            return -minutes if "-" in zone else minutes
        defects.append("date-zone-invalid")
        return 0
    known = _ZONES.get(zone.lower())
    if known is None:
        defects.append("date-zone-unknown" if zone else "date-without-zone")
        return 0
    return known


def _by_library(value: str, defects: list[str]) -> datetime | None:
    """Try the standard library, which reads some orders that the patterns do not."""
    parts = parsedate_tz(value)
    if parts is None:
        return None
    seconds = parts[9]
    if seconds is None or abs(seconds) >= _DAY_MINUTES * 60:
        defects.append("date-without-zone" if seconds is None else "date-zone-invalid")
        seconds = 0
    year, month, day, hour, minute, second = parts[:6]
    moment = datetime(_full_year(year), month, day, hour, minute, min(second, 59), tzinfo=UTC)
    return moment.replace(tzinfo=None) - timedelta(seconds=seconds)
