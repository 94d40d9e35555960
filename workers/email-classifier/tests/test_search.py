"""The search for many phrases gives what searching for each of them gives."""

import pytest
from worker_email_classifier.search import Finder

PHRASES = (b"pay by", b"% off", b"please pay", b"due by", b"zahlbar", b"do zap\xc5\x82aty")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"pay",
        b"pay by",
        b"please pay by friday, it is due by then",
        b"please  pay now",
        b"20% off; repay bybit; zahlbare",
        b"do zap\xc5\x82aty: 20",
        bytes(range(256)) * 20,
    ],
)
def test_it_finds_what_a_search_for_each_phrase_finds(text):
    assert Finder(PHRASES).found_in(text) == {phrase for phrase in PHRASES if phrase in text}


def test_the_end_and_the_beginning_of_a_text_are_read_too():
    assert Finder(PHRASES).found_in(b"pay by" + b" word" * 1200 + b" 5% off") == {
        b"pay by",
        b"% off",
    }
