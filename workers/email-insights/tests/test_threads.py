from hypothesis import given, settings
from hypothesis import strategies as st
from records import message, sender, stamp
from worker_email_insights.answers import quantile, spread, work_out
from worker_email_insights.threads import LINK, Threads


def threads(messages, limit=1000):
    one = Threads(limit=limit)
    one.add([(message, message.moment) for message in messages])
    return one


def answer(number, to, by, **changes):
    given = {"in_reply_to": [f"<{to}@example.com>"], "subject": f"Re: Subject {to}"}
    return message(number, **({"from": sender(by)} | given | changes))


def test_answer_belongs_to_the_thread_of_its_parent():
    found = work_out(
        threads([message(1), answer(2, 1, "ben@example.org"), answer(3, 2, "anna@example.com")])
    )
    (conversation,) = found.conversations
    assert (conversation.messages, conversation.people, conversation.depth) == (3, 2, 3)
    assert conversation.title == "Subject 1"


def test_single_messages_are_threads_but_no_conversations():
    found = work_out(threads([message(1), message(2)]))
    assert (found.threads, found.conversations) == (2, [])


def test_answers_to_a_message_that_is_not_there_belong_together():
    found = work_out(threads([answer(2, 1, "ben@example.org"), answer(3, 1, "anna@example.com")]))
    assert found.conversations[0].messages == 2
    assert found.waits == []


def test_references_join_where_in_reply_to_is_missing():
    reply = message(2, references=["<1@example.com>", "<9@example.com>"], subject="Re: Subject 1")
    assert work_out(threads([message(1), reply])).threads == 1


def test_subject_and_people_join_where_all_ids_are_missing():
    first = message(1, subject="Lunch?")
    back = message(
        2,
        subject="RE: lunch?",
        **{"from": sender("ben@example.org")},
        to=sender("anna@example.com"),
        date=stamp(hours=3),
    )
    found = work_out(threads([first, back]))
    assert found.threads == 1
    assert found.waits == [2 * 3600]


def test_same_subject_between_other_people_is_another_thread():
    first = message(1, subject="Lunch?")
    foreign = message(2, subject="Re: Lunch?", **{"from": sender("carl@example.net")})
    assert work_out(threads([first, foreign])).threads == 2


def test_wait_is_the_time_to_the_first_answer_of_each_person():
    found = work_out(
        threads(
            [
                message(0),
                answer(1, 0, "ben@example.org"),
                answer(2, 0, "ben@example.org"),
                answer(5, 0, "carl@example.net"),
                answer(6, 0, "anna@example.com"),
            ]
        )
    )
    assert found.waits == [3600, 5 * 3600]


def test_answer_from_before_the_message_is_no_wait():
    assert work_out(threads([message(5), answer(1, 5, "ben@example.org")])).waits == []


def test_copies_of_a_message_count_once_in_threads():
    assert work_out(threads([message(1), message(1), message(1)])).threads == 1


def test_messages_that_answer_each_other_in_a_circle_end():
    circle = [
        message(n, in_reply_to=[f"<{(n + 1) % 3}@example.com>"], subject="Re: x") for n in range(3)
    ]
    assert work_out(threads(circle)).conversations[0].messages == 3


def test_very_long_chain_is_walked_without_recursion():
    chain = [message(0), *(answer(n, n - 1, f"p{n % 2}@example.com") for n in range(1, 3000))]
    assert work_out(threads(chain, limit=5000)).conversations[0].depth == 3000


MESSAGES = st.lists(
    st.tuples(st.integers(0, 12), st.none() | st.integers(0, 12)), max_size=30, unique=True
)


def built(pairs):
    return [
        message(number) if parent is None else answer(number, parent, f"p{number % 3}@example.com")
        for number, parent in pairs
    ]


@settings(max_examples=150)
@given(MESSAGES, st.integers(0, 30), st.sampled_from([5, 12, 1000]))
def test_every_cut_and_order_gives_the_same_links(pairs, cut, limit):
    messages = built(pairs)
    left, right = messages[:cut], messages[cut:]
    whole, forward, backward = (
        threads(messages, limit),
        threads(left, limit),
        threads(right, limit),
    )
    forward.merge(threads(right, limit))
    backward.merge(threads(left, limit))
    assert whole == forward == backward


@given(MESSAGES)
def test_sample_holds_whole_threads_and_stays_within_its_limit(pairs):
    messages = built(pairs)
    sample, full = threads(messages, 6), threads(messages)
    assert len(sample.packed) <= 6 * LINK.size
    kept = {link.root for link in sample.links()}
    assert [one for one in full.links() if one.root in kept] == sample.links()


def test_quantiles_are_values_that_occur():
    assert [quantile([1, 2, 3, 4], share) for share in (0.0, 0.5, 0.9, 1.0)] == [1, 3, 4, 4]
    assert quantile([], 0.5) is None


def test_spread_names_every_wait():
    assert list(spread([0, 3600, 3601, 10**7]).values()) == [2, 1, 0, 0, 0, 1]
