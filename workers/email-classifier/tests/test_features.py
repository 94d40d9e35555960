"""Features: bounded cost, no traces of people or archives, the same for the same words."""

import numpy as np
import pytest
from messages import reading
from worker_email_classifier.features import BUCKETS, Extractor
from worker_email_classifier.structure import NAMES, measure
from worker_email_classifier.tokens import DROPPED, Words, subject_words


def buckets(**given):
    return set(Extractor().features([reading(**given)]).buckets.tolist())


def measured(**given):
    return dict(zip(NAMES, measure(reading(**given)), strict=True))


def test_a_bucket_occurs_once_per_message():
    features = Extractor().features([reading(text="free money " * 50)] * 3)
    pairs = list(zip(features.rows.tolist(), features.buckets.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    assert features.buckets.max() < BUCKETS


def test_rows_do_not_run_into_each_other():
    first, second = reading(text="alpha beta"), reading(text="gamma delta")
    together = Extractor().features([first, second])
    alone = Extractor().features([second])
    assert together.buckets[together.rows == 1].tolist() == alone.buckets.tolist()


def test_an_empty_batch_has_no_rows():
    features = Extractor().features([])
    assert (features.count, len(features.buckets)) == (0, 0)
    assert features.measures.shape == (0, len(NAMES))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("write to anna@example.com", "write to ben.b@mail.example.org"),
        ("see http://a.example.com/x?y=1", "see https://other.example.org"),
        ("see www.shop.example.com now", "see shop.example.net now"),
        ("pay $5,000 now", "pay $1,234 now"),
        ("on Monday 3 January 2002", "on Friday 14 May 2024"),
        ("Free, money!", "free money"),
        ("f.r.e.e money", "free money"),
    ],
)
def test_addresses_hosts_dates_and_spelling_make_no_difference(one, other):
    assert buckets(text=one) == buckets(text=other)


def test_the_sender_is_no_word():
    assert buckets(text="hello there") == buckets(text="hello there", name="Eve", sender="e@x.org")


def test_quoted_lines_signature_and_list_footer_are_left_out():
    own = "please look at the new version and tell me what you think about it, it should be fine"
    noise = (
        "\n\nOn Monday, Ben wrote:\n> old words\n> more old words\n-- \nBen Builder\n"
        "____________________________\nlist mailing list\n"
    )
    assert buckets(text=own) == buckets(text=own + noise)


def test_a_message_of_nothing_but_quotes_is_still_read():
    assert buckets(text="> cheap pills\n> order now")


def test_reply_marks_and_list_tags_are_no_subject():
    assert buckets(subject="Re: [list] Fwd: lunch") == buckets(subject="lunch")


def test_subject_and_body_words_differ():
    assert subject_words().numbers(b"money") != Words().numbers(b"money")


def test_markup_gives_the_same_words_as_text():
    html = "<html><style>p {color: red}</style><!-- x --><p>free&nbsp;money <b>now</b></p></html>"
    assert buckets(html=html) == buckets(text="free money now")


def test_the_memo_is_bounded(monkeypatch):
    monkeypatch.setattr("worker_email_classifier.tokens._MEMO_ENTRIES", 10)
    words = Words()
    words.numbers(b" ".join(b"word%s" % bytes([97 + n]) for n in range(26)))
    assert len(words) <= 10


@pytest.mark.parametrize("word", [b"2002", b"monday", b"x", b"a" * 40, b"--", b"12:30", b"0xff"])
def test_words_that_say_nothing_are_dropped(word):
    assert Words().numbers(word) == [DROPPED]


def test_measures_lie_between_0_and_1():
    loud = reading(
        subject="BUY NOW!! $$$ 99999",
        text="BUY!!! $1 $2 $3 $4 $5 $6 $7 $8 $9 \ufffd\ufffd\ufffd" * 200,
        html="<form><font color=#ffffff>x</font>http://10.0.0.1/" * 50,
        sender="x123456@example.com",
    )
    values = measure(loud)
    assert len(values) == len(NAMES)
    assert all(0.0 <= value <= 1.0 for value in values)
    assert sum(values) > 6


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("shouted_subject", {"subject": "BUY THIS NOW"}),
        ("subject_exclaims", {"subject": "Win!"}),
        ("subject_money", {"subject": "earn $500"}),
        ("subject_code", {"subject": "you have won           xkdfj"}),
        ("link_to_number", {"text": "go to http://192.0.2.7/x"}),
        ("hidden_text", {"html": "<p style='display: none'>a</p>", "text": "x"}),
        ("form", {"html": "<FORM action=x>", "text": "x"}),
        ("sender_digits", {"sender": "joe8812@example.com"}),
        ("answers", {"in_reply_to": ["<1@example.com>"]}),
        ("garbled", {"text": "\ufffd\ufffd\ufffd\ufffd abc \ufffd\ufffd"}),
    ],
)
def test_each_measure_sees_what_it_is_named_for(name, given):
    assert measured(**given)[name] > 0
    assert measured(text="a calm letter", subject="a calm subject")[name] == 0


def test_a_mark_inside_a_name_is_no_exclamation():
    assert measured(subject="useR! 2008: registration is open")["subject_exclaims"] == 0


@pytest.mark.parametrize(
    "text",
    ["<" * 200_000, "<!--" * 50_000, "&" * 100_000, "\n>" * 100_000, "[" * 100_000, "a" * 1_000_000,
     "!" * 500_000, "\n" + "x" * 60 + "\n" * 90_000, "://" * 60_000, "\x00" * 100_000],
)  # fmt: skip
def test_hostile_bodies_cost_no_more_than_large_ones(text):
    """Bounded by what is read; a quadratic step would not end within the test run."""
    features = Extractor().features([reading(text=text, subject=text), reading(html=text)])
    assert np.isfinite(features.measures).all()
    assert len(features.buckets) < 5_000
