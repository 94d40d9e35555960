import random

import pytest
from hivemesh_platform.routing.outliers import Circuit, Outliers, Rule

DO = "a.do@1"


class Steps:
    """Instances that take a given time for each record."""

    def __init__(self, *names: str, rule: Rule | None = None) -> None:
        self.outliers = Outliers(rule)
        self.now = 0.0
        self._number = 0
        for name in names:
            self.outliers.know(name, frozenset({DO}))

    def begin(self, name: str, records: int = 1) -> int:
        self._number += 1
        self.outliers.began(self._number, name, DO, records, self.now)
        return self._number

    def run(
        self, name: str, seconds: float, *, records: int = 1, ok: bool | None = True, times: int = 1
    ) -> None:
        for _ in range(times):
            self._number += 1
            self.outliers.began(self._number, name, DO, records, self.now)
            self.outliers.ended(self._number, ok=ok, now=self.now + seconds)

    def look(self, after: float = 1.0) -> dict[str, Circuit]:
        self.now += after
        self.outliers.look(self.now)
        return {
            name: self.outliers.standing(name, DO, self.now).circuit
            for name in self.outliers.out().get(DO, [])
        }


def a_slow_one(*others: str) -> Steps:
    steps = Steps("slow", *others)
    for other in others:
        steps.run(other, 0.1, times=5)
    steps.run("slow", 1.0, times=5)
    return steps


@pytest.mark.parametrize(
    ("times", "records", "out"),
    [
        ((0.1, 0.1, 0.1), 1, []),
        ((0.29, 0.29, 0.29), 1, []),  # not three times slower
        ((0.31, 0.31, 0.31), 1, ["c"]),
        ((1.0, 1.0), 1, []),  # too few to say
        ((1.0, 1.0, 1.0), 1, ["c"]),
        ((1.0, 0.1, 1.0), 1, []),  # one long input is no slow instance
        ((*[0.1] * 3, *[1.0] * 5), 1, []),
        ((*[0.1] * 20, *[1.0] * 8), 1, ["c"]),  # only the last ones count
        ((10.0, 10.0, 10.0), 100, []),  # long, for many records
        ((40.0, 40.0, 40.0), 100, ["c"]),
    ],
)
def test_who_is_too_slow(times: tuple[float, ...], records: int, out: list[str]) -> None:
    steps = Steps("a", "b", "c")
    steps.run("a", 0.1, times=5)
    steps.run("b", 0.1, times=5)
    for seconds in times:
        steps.run("c", seconds, records=records)
    assert list(steps.look()) == out


def test_a_difference_that_nobody_would_notice_counts_for_nothing() -> None:
    steps = Steps("a", "b")
    steps.run("a", 0.001, times=8)
    steps.run("b", 0.020, times=8)
    assert steps.look() == {}


def test_steps_that_still_run_count_by_their_age() -> None:
    steps = Steps("a", "b")
    steps.run("a", 0.5, times=5)
    for _ in range(3):
        steps.begin("b")
    assert steps.look(after=1.0) == {}
    assert steps.look(after=1.0) == {"b": Circuit.OPEN}


def test_it_is_found_within_ten_seconds_of_becoming_ten_times_slower() -> None:
    steps = Steps("a", "b")
    for _ in range(100):  # ten seconds of health
        steps.run("a", 0.1)
        steps.run("b", 0.1)
        assert steps.look(after=0.1) == {}
    seconds = 0
    while not steps.look(after=1.0):
        steps.run("a", 0.1, times=10)
        steps.run("b", 1.0)
        seconds += 1
    assert seconds < 10


@pytest.mark.parametrize(("instances", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (9, 4)])
def test_never_more_than_half_are_out(instances: int, most: int) -> None:
    names = [f"i{number}" for number in range(instances)]
    steps = Steps(*names, rule=Rule(factor=1.5))
    for number, name in enumerate(names):
        steps.run(name, 0.1 * 3**number, times=5)
    for _ in range(5):
        steps.look()
        assert len(steps.outliers.out().get(DO, [])) <= most


def test_an_instance_whose_last_steps_all_failed_is_out() -> None:
    steps = Steps("a", "b")
    steps.run("a", 0.1, times=5)
    steps.run("b", 0.1, ok=False, times=4)
    assert steps.look() == {}
    steps.run("b", 0.1, ok=False)
    assert steps.look() == {"b": Circuit.OPEN}


@pytest.mark.parametrize(
    ("own", "others", "out"),  # x: a step that failed
    [
        ("x.x.x.x.x.", "..........", ["b"]),
        ("x.x.x.x...", "..........", []),
        ("x.x.x.x.x.", "x..x......", ["b"]),
        ("x.x.x.x.x.", "x..x..x...", []),  # inputs that fail everywhere are no fault of an instance
        ("xx.xx.xxx.", "x..x..x...", ["b"]),
    ],
)
def test_an_instance_at_which_half_of_the_steps_fail_is_out(
    own: str, others: str, out: list[str]
) -> None:
    steps = Steps("a", "b")
    for name, ends in (("a", others), ("b", own)):
        for end in ends:
            steps.run(name, 0.1, ok=end == ".")
    assert list(steps.look()) == out


def test_half_of_few_steps_says_nothing_and_what_failed_long_ago_neither() -> None:
    steps = Steps("a", "b")
    for number in range(8):
        steps.run("a", 0.1)
        steps.run("b", 0.1, ok=number % 2 > 0)
    assert steps.look() == {}
    steps.look(after=31.0)
    steps.run("a", 0.1, times=10)
    steps.run("b", 0.1, ok=False, times=2)
    steps.run("b", 0.1, times=6)
    assert steps.look() == {}


def test_failures_at_one_in_two_are_found_within_ten_seconds() -> None:
    steps = Steps("a", "b", "c", "d")
    for _ in range(10):
        for name in "abcd":
            steps.run(name, 0.1, times=4)
        assert steps.look() == {}
    seconds = 0
    while not steps.look():
        for name in "abc":
            steps.run(name, 0.1, times=4)
        for _ in range(2):
            steps.run("d", 0.1, ok=False)
            steps.run("d", 0.1)
        seconds += 1
    assert seconds < 10


@pytest.mark.parametrize(
    ("instances", "share", "others_share", "out"),
    [
        (4, 0.05, 0.0, True),
        (2, 0.1, 0.0, True),
        (4, 0.2, 0.02, True),
        (4, 0.05, 0.05, False),  # it is the inputs
        (4, 0.01, 0.0, False),  # so few that an instance less would cost more
    ],
)
def test_an_instance_at_which_far_more_steps_fail_is_found_within_ten_seconds(
    instances: int,
    share: float,
    others_share: float,
    out: bool,  # noqa: FBT001 - a column
) -> None:
    """Forty steps a second at each instance; the last one fails more."""
    chance = random.Random(instances)  # noqa: S311 - guards nothing
    names = [f"i{number}" for number in range(instances)]
    steps = Steps(*names)
    found: dict[str, Circuit] = {}
    while steps.now < 10.0 and not found:
        for name in names * 10:
            fails = share if name == names[-1] else others_share
            steps.run(name, 0.05, ok=chance.random() >= fails)
        found = steps.look(after=0.25)
    assert list(found) == ([names[-1]] if out else [])


def test_inputs_that_fail_by_chance_hardly_ever_eject_anybody() -> None:
    chance = random.Random(7)  # noqa: S311 - guards nothing
    steps, looks_with_one_out = Steps("a", "b", "c", "d"), 0
    for _ in range(2000):
        for name in "abcd" * 5:
            steps.run(name, 0.05, ok=chance.random() >= 0.05)
        looks_with_one_out += bool(steps.look(after=0.25))
    assert looks_with_one_out < 50


def test_one_that_fails_now_and_then_is_left_alone_for_longer_each_time() -> None:
    steps = Steps("a", "b")
    waits: list[float] = []
    for _ in range(3):
        while not steps.look(after=0.25):
            steps.run("a", 0.05, times=10)
            steps.run("b", 0.05, times=9)
            steps.run("b", 0.05, ok=False)
        began = steps.now
        while steps.look(after=0.5) == {"b": Circuit.OPEN}:
            steps.run("a", 0.05, times=10)
        waits.append(steps.now - began)
        steps.run("b", 0.05)  # the probe is lucky
    assert waits == [10.0, 20.0, 40.0]


def test_an_instance_that_answers_no_question_is_out_at_once_while_there_is_another() -> None:
    for names, out in (("ab", ["a"]), ("a", [])):
        steps = Steps(*names)
        steps.outliers.ended(steps.begin("a"), ok=False, now=7.0)
        steps.outliers.silent("a", DO)
        assert list(steps.look()) == out


def lose(steps: Steps, number: int) -> None:
    steps.outliers.ended(number, ok=False, now=steps.now)
    steps.outliers.silent("a", DO)


def test_steps_that_are_lost_while_it_is_out_do_not_count_against_a_good_probe() -> None:
    steps = Steps("a", "b")
    first, second, third = steps.begin("a"), steps.begin("a"), steps.begin("a")
    lose(steps, first)
    assert steps.look() == {"a": Circuit.OPEN}
    lose(steps, second)
    assert steps.look(after=10.0) == {"a": Circuit.HALF_OPEN}
    lose(steps, third)
    steps.run("a", 0.1)
    assert steps.look() == {}
    assert steps.outliers.ejections == 1


def test_a_lost_probe_does_not_count_against_the_next_one() -> None:
    steps = Steps("a", "b")
    lose(steps, steps.begin("a"))
    steps.look()
    assert steps.look(after=10.0) == {"a": Circuit.HALF_OPEN}
    lose(steps, steps.begin("a"))
    assert steps.look() == {"a": Circuit.OPEN}
    assert steps.look(after=20.0) == {"a": Circuit.HALF_OPEN}
    steps.run("a", 0.1)
    assert steps.look() == {}


def test_an_instance_of_which_no_step_ends_is_out() -> None:
    steps = Steps("a", "b")
    for _ in range(40):
        steps.run("a", 0.1)
        steps.run("b", 0.1)
        assert steps.look(after=0.1) == {}
    hangs = [steps.begin("b"), steps.begin("b")]
    began = steps.now
    while not steps.look(after=0.25):
        steps.run("a", 0.1, times=4)
    assert steps.now - began < 4.0
    for number in hangs:
        steps.outliers.ended(number, ok=False, now=steps.now)
    assert steps.look() == {"b": Circuit.OPEN}


def test_one_step_that_takes_long_beside_others_that_end_is_its_input() -> None:
    steps = Steps("a", "b")
    steps.begin("b")
    steps.begin("b")
    for _ in range(100):
        steps.run("a", 0.1)
        steps.run("b", 0.1)
        assert steps.look(after=0.1) == {}


@pytest.mark.parametrize(
    ("slow_slots", "out"), [(0, []), (1, []), (2, ["b"]), (3, ["b"]), (4, ["b"])]
)
def test_an_instance_of_which_half_of_the_slots_are_slow_is_out(
    slow_slots: int, out: list[str]
) -> None:
    """Ten seconds of two instances with four slots each; slow ones take ten times as long."""
    steps = Steps("a", "b")
    looked: list[str] = []
    running: list[tuple[float, int, str, int]] = []
    for slot in range(4):
        running += [(0.1, steps.begin("a"), "a", 0), (0.1, steps.begin("b"), "b", slot)]
    while steps.now < 10.0 and not looked:
        running.sort()
        end, number, name, slot = running.pop(0)
        steps.now = end
        steps.outliers.ended(number, ok=True, now=end)
        slow = name == "b" and slot < slow_slots
        running.append((end + (1.0 if slow else 0.1), steps.begin(name), name, slot))
        looked = list(steps.look(after=0.0))
    assert looked == out


def test_nobody_is_out_where_the_inputs_fail_everywhere() -> None:
    steps = Steps("a", "b")
    steps.run("a", 0.1, ok=False, times=5)
    steps.run("b", 0.1, ok=False, times=5)
    assert steps.look() == {}


def test_what_was_cancelled_says_nothing() -> None:
    steps = Steps("a", "b")
    steps.run("a", 0.1, times=5)
    steps.run("b", 5.0, ok=None, times=20)
    assert steps.look() == {}


def test_one_step_tries_it_after_a_while() -> None:
    steps = a_slow_one("a")
    assert steps.look() == {"slow": Circuit.OPEN}
    assert steps.outliers.allowed("slow", DO) == 0
    assert steps.look(after=9.0) == {"slow": Circuit.OPEN}
    assert steps.look(after=1.0) == {"slow": Circuit.HALF_OPEN}
    assert steps.outliers.allowed("slow", DO) == 1


def test_a_quick_probe_takes_it_back() -> None:
    steps = a_slow_one("a")
    steps.look()
    steps.look(after=10.0)
    steps.run("a", 0.1, times=5)
    steps.run("slow", 0.1)
    assert steps.outliers.look(steps.now + 1.0) == {("slow", DO)}
    assert steps.outliers.allowed("slow", DO) is None


def test_a_slow_or_failed_probe_keeps_it_out_twice_as_long() -> None:
    for ok, seconds in ((True, 1.0), (False, 0.1)):
        steps = a_slow_one("a")
        steps.look()
        steps.look(after=10.0)
        steps.run("a", 0.1, times=5)
        steps.run("slow", seconds, ok=ok)
        assert steps.look() == {"slow": Circuit.OPEN}
        assert steps.look(after=18.0) == {"slow": Circuit.OPEN}
        assert steps.look(after=3.0) == {"slow": Circuit.HALF_OPEN}


def test_a_probe_that_hangs_keeps_it_out() -> None:
    steps = a_slow_one("a")
    steps.look()
    steps.look(after=10.0)
    steps.run("a", 0.1, times=5)
    steps.begin("slow")
    assert steps.look(after=1.0) == {"slow": Circuit.OPEN}


def test_what_began_before_it_was_out_is_no_probe() -> None:
    steps = a_slow_one("a")
    old = steps.begin("slow")
    steps.look()
    steps.look(after=10.0)
    steps.outliers.ended(old, ok=True, now=steps.now)
    assert steps.look() == {"slow": Circuit.HALF_OPEN}


def test_an_instance_that_is_gone_is_forgotten() -> None:
    steps = a_slow_one("a")
    steps.look()
    steps.outliers.forget("slow")
    assert steps.look() == {}


def test_inputs_of_very_different_length_hardly_ever_eject_anybody() -> None:
    chance = random.Random(7)  # noqa: S311 - guards nothing
    steps = Steps("a", "b", "c", "d")
    looks_with_one_out = 0
    for _ in range(2000):
        for name in "abcd":
            steps.run(name, chance.choice((0.05, 0.05, 0.05, 5.0)))
        looks_with_one_out += bool(steps.look(after=0.5))
    assert looks_with_one_out < 100
