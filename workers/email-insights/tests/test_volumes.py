from datetime import UTC, date, datetime

import pytest
from records import message, stamp, yes
from worker_email_insights.volumes import Volumes, primary_category, timeline


def volumes(*messages):
    one = Volumes()
    for each in messages:
        one.add(each, each.moment, primary_category(each))
    return one


def days(first, number, step=1):
    start = date.fromisoformat(first).toordinal() - date(1970, 1, 1).toordinal()
    return {start + n * step: {"other": 1} for n in range(number)}


def test_messages_are_counted_by_day_and_hour_in_utc():
    one = volumes(message(date="2024-03-04T23:30:00-02:00"), message(date="2024-03-05T01:10:00Z"))
    assert list(one.days.values()) == [{"other": 2}]
    assert one.hours[24 + 1] == 2


@pytest.mark.parametrize("written", [None, "", "yesterday", "2024-13-01T00:00:00Z"])
def test_what_is_no_date_is_undated(written):
    one = volumes(message(date=written))
    assert (one.messages, one.undated, one.days) == (1, 1, {})


@pytest.mark.parametrize("written", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_dates_no_mail_can_have_are_counted_apart(written):
    one = volumes(message(date=written))
    assert (one.implausible, one.first, one.days) == (1, None, {})


def test_date_that_cannot_be_in_utc_is_undated():
    assert volumes(message(date="0001-01-01T00:00:00+10:00")).undated == 1


def test_first_and_last_are_those_of_all_parts():
    left, right = volumes(message(date=stamp(days=5))), volumes(message(date=stamp()))
    left.merge(right)
    left.merge(Volumes())
    assert left.first == datetime(2024, 3, 4, 9, 0, tzinfo=UTC)
    assert left.last == datetime(2024, 3, 9, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("number", "step", "unit", "periods"),
    [
        (1, 1, "day", 1),
        (30, 1, "day", 30),
        (60, 1, "week", 9),
        (30, 60, "month", 58),
        (40, 366, "year", 40),
    ],
)
def test_unit_of_the_timeline_follows_its_span(number, step, unit, periods):
    found = timeline(days("2024-01-01", number, step))
    assert (found.unit, len(found.periods)) == (unit, periods)
    assert sum(one.messages for one in found.periods) == number


def test_periods_without_mail_are_there():
    found = timeline(days("2024-01-01", 2, 10))
    assert [one.messages for one in found.periods] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_a_few_strays_do_not_stretch_the_timeline():
    bulk = {day: {"other": 50} for day in days("2024-01-01", 30)}
    found = timeline(bulk | days("1970-01-01", 1) | days("2038-01-19", 1))
    assert (found.unit, found.before, found.after) == ("day", 1, 1)


def test_timeline_of_nothing_is_empty():
    assert timeline({}).periods == []


def test_primary_category_is_the_surest():
    labels = yes("newsletter", confidence=0.6) | yes("spam", confidence=0.7)
    assert primary_category(message(labels=labels)) == "spam"
    assert primary_category(message(labels=yes("unheard-of"))) == "other"
    assert primary_category(message()) == "other"
