"""Waits differ, and keep the time that the other side has named."""

from hivemesh_sdk.pauses import around, no_sooner

DRAWS = 200


def test_waits_lie_around_the_time_and_differ():
    waits = {around(4.0) for _ in range(DRAWS)}
    assert len(waits) > 1
    assert 2.0 <= min(waits) < 4.0 < max(waits) <= 6.0


def test_a_time_that_was_named_is_kept():
    waits = {no_sooner(4.0) for _ in range(DRAWS)}
    assert len(waits) > 1
    assert 4.0 <= min(waits) <= max(waits) <= 8.0
