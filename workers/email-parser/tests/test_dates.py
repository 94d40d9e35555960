"""Dates of mail as aware UTC."""

import pytest
from worker_email_parser.dates import parse_date


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Thu, 22 Aug 2002 18:26:25 +0700", "2002-08-22T11:26:25Z"),
        ("22 Aug 2002 18:26 EST", "2002-08-22T23:26:00Z"),
        ("Thu, 22 Aug 02 18:26:25 GMT (comment)", "2002-08-22T18:26:25Z"),
        ("Thu, 22 Aug 0102 10:00:00 GMT", "2002-08-22T10:00:00Z"),
        ("Thu, 22 Aug 2002 07:26:11 +-0500", "2002-08-22T12:26:11Z"),
        ("Mon, 21 Aug 95 13:30:57 -600", "1995-08-21T19:30:57Z"),
        ("Thu, 22 Aug 2002 23:59:60 +0000", "2002-08-22T23:59:59Z"),
    ],
)
def test_dates_are_brought_to_utc(value, expected):
    defects = []
    assert (parse_date(value, defects), defects) == (expected, [])


@pytest.mark.parametrize(
    ("value", "expected", "defect"),
    [
        ("Thu Mar  4 08:24:20 2004", "2004-03-04T08:24:20Z", "date-without-zone"),
        ("Thu, 22 Aug 2002 07:26:11 +9999", "2002-08-22T07:26:11Z", "date-zone-invalid"),
        ("Thu, 22 Aug 2002 07:26:11 XYZ", "2002-08-22T07:26:11Z", "date-zone-unknown"),
        ("32 Aug 2002 10:00:00", None, "date-invalid"),
        ("yesterday", None, "date-invalid"),
        ("Thu, 22 Aug 99999 07:26:11", None, "date-invalid"),
        ("31 Dec 9999 23:00:00 -2359", None, "date-invalid"),
    ],
)
def test_what_a_date_does_not_say_is_a_defect(value, expected, defect):
    defects = []
    assert (parse_date(value, defects), defects) == (expected, [defect])


def test_no_date_is_no_defect():
    defects = []
    assert (parse_date("", defects), defects) == (None, [])
