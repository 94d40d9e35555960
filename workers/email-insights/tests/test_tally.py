from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from worker_email_insights.tally import LONGEST_KEY, Tally

LIMIT = 4
OCCURRENCES = st.lists(
    st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 2**32 - 1)), max_size=60
)


def tally(occurrences, limit=LIMIT):
    one = Tally(limit)
    for key, rank in occurrences:
        one.add(key, rank)
    one.settle()
    return one


def through_json(one):
    return msgspec.json.decode(msgspec.json.encode(one), type=Tally)


@given(OCCURRENCES, OCCURRENCES)
def test_order_of_a_merge_does_not_show(left, right):
    one, other = tally(left), tally(right)
    one.merge(tally(right))
    other.merge(tally(left))
    assert one == other


@given(OCCURRENCES, st.lists(st.integers(0, 60), max_size=5))
def test_every_cut_of_the_input_gives_the_same_tally(occurrences, cuts):
    edges = [0, *sorted(cuts), len(occurrences)]
    whole = Tally(LIMIT)
    for first, last in pairwise(edges):
        whole.merge(through_json(tally(occurrences[first:last])))
    assert whole == tally(occurrences)


@given(OCCURRENCES)
def test_counts_are_exact_up_to_the_limit_and_never_too_small_beyond_it(occurrences):
    one = tally(occurrences)
    truth = {key: sum(key == other for other, _ in occurrences) for key, _ in occurrences}
    assert one.exact == (len(truth) <= LIMIT)
    assert one.total == len(occurrences)
    assert all(one.count(key) >= truth[key] for key in one.ranks)
    if one.exact:
        assert dict(one.top(LIMIT)) == truth


def test_frequent_keys_keep_their_names_among_many_rare_ones():
    heavy = [(f"often-{n % 5}", (n * 2_654_435_761) % 2**32) for n in range(2_000)]
    rare = [(f"once-{n}", (n * 40_503 * 65_537 + 7) % 2**32) for n in range(5_000)]
    one = tally(rare + heavy, limit=200)
    top = one.top(5)
    assert {key for key, _ in top} == {f"often-{n}" for n in range(5)}
    assert all(400 <= count <= 410 for _, count in top)


def test_tally_stays_small_whatever_the_keys():
    one = Tally(100)
    for n in range(2_000):
        one.add(f"{n}" * 400, n)
    one.settle()
    assert len(one.ranks) == 100
    assert max(map(len, one.ranks)) == LONGEST_KEY
    assert len(msgspec.json.encode(one)) < 150_000
