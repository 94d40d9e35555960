import random

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from records import message, sender, stamp, yes
from worker_email_insights.state import Archive
from worker_email_insights.summary import summarize

KINDS = ("spam", "bill", "receipt", "newsletter")


def archive(messages):
    one = Archive()
    one.add(messages)
    return one


def through_json(one):
    return msgspec.json.decode(msgspec.json.encode(one), type=Archive)


def answer_of(one):
    return msgspec.json.encode(summarize(one, top=10, subjects=True))


def varied(number, seed=7):
    rng = random.Random(seed)  # noqa: S311 - test data, the same in every run
    return [
        message(
            n,
            date=rng.choice([None, stamp(minutes=rng.randrange(500_000))]),
            in_reply_to=[f"<{rng.randrange(number)}@example.com>"] if n % 3 else [],
            subject=f"{'Re: ' if n % 3 else ''}Matter {n % 40}",
            text=f"Total: {rng.randrange(10_000) / 100:.2f} {rng.choice(['EUR', 'PLN', 'CHF'])}",
            labels=yes(*rng.sample(KINDS, rng.randrange(3))),
            attachments=[{"name": "a.pdf", "type": "application/pdf", "size": 10}] * (n % 2),
            **{"from": sender(f"p{rng.randrange(60)}@d{rng.randrange(20)}.example")},
        )
        for n in range(number)
    ]


MAIL = varied(200)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.permutations(range(8)), st.lists(st.integers(0, 200), min_size=7, max_size=7))
def test_any_cut_in_any_order_gives_the_same_answer_byte_for_byte(order, cuts):
    edges = [0, *sorted(cuts), len(MAIL)]
    parts = [archive(MAIL[edges[n] : edges[n + 1]]) for n in order]
    whole = Archive()
    for part in parts:
        whole.merge(through_json(part))
    assert whole == archive(MAIL)
    assert answer_of(whole) == answer_of(archive(MAIL))


def test_merge_is_commutative_and_associative():
    a, b, c = MAIL[:50], MAIL[50:120], MAIL[120:]

    def merged(*parts):
        whole = parts[0]
        for part in parts[1:]:
            whole.merge(part)
        return whole

    left = merged(merged(archive(a), archive(b)), archive(c))
    right = merged(archive(c), merged(archive(b), archive(a)))
    assert left == right == archive(MAIL)


def test_nothing_added_is_nothing_counted():
    empty = summarize(Archive(), top=10, subjects=True)
    assert (empty.messages, empty.timeline.periods, empty.approximate) == (0, [], [])


def test_state_of_very_many_different_messages_stays_within_a_few_mib():
    whole = Archive()
    for start in range(0, 24_000, 4_000):
        messages = [
            message(
                n,
                subject=f"Re: {'long ' * 30}{n}",
                date=stamp(minutes=10 * n),
                in_reply_to=[f"<{n // 2}@example.com>"],
                labels=yes("bill"),
                text="Total 5 EUR",
                **{"from": sender(f"{'x' * 20}{n}@{'y' * 20}{n}.example")},
            )
            for n in range(start, start + 4_000)
        ]
        whole.merge(archive(messages))
    assert len(msgspec.json.encode(whole)) < 5 * 2**20
    found = summarize(whole, top=10, subjects=True)
    assert found.approximate == ["senders", "domains", "threads", "response_times"]
    assert found.messages == 24_000


def test_labels_that_are_false_are_not_categories():
    labels = {"spam": {"label": False, "confidence": 0.9, "method": "model"}}
    one = summarize(archive([message(labels=labels)]), top=5, subjects=True)
    assert (one.labelled, one.categories.top) == (1, [])


def test_message_without_a_sender_counts_as_a_message_alone():
    one = summarize(archive([message(**{"from": []})]), top=5, subjects=True)
    assert (one.messages, one.senders.distinct, one.domains.distinct) == (1, 0, 0)
