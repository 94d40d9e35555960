import random
from collections import Counter

import pytest
from hivemesh_platform.routing.board import Board, Seat
from hivemesh_platform.routing.model import Features, Load, Weights, load_score, requirements

DO = requirements("a.do@1")


def seat(name: str, cpu: float = 0.0, memory: float = 0.0, slots: int = 100, **labels: str) -> Seat:
    features = Features(capabilities=frozenset({"a.do@1"}), labels=labels, version="1.0.0")
    return Seat(name, features, {"a.do@1": slots}, cpu, memory)


def board(*seats: Seat, kept: int = 2000) -> Board:
    found = Board(Weights(), kept=kept)
    for one in seats:
        found.put(one)
    return found


def choose(found: Board) -> str | None:
    return found.chosen(found.choose(DO))


def test_the_lowest_score_is_chosen() -> None:
    loaded, idle = seat("loaded", 0.5, 0.4), seat("idle", 0.2, 0.2)
    loaded.reported, idle.reported = 2, 10
    assert choose(board(loaded, idle)) == "loaded"


def test_ties_go_to_the_least_recently_chosen() -> None:
    found = board(seat("a"), seat("b"), seat("c"))
    chosen = []
    for _ in range(6):
        name = choose(found)
        chosen.append(name)
        found.release(name, "a.do@1")
    assert chosen == ["a", "b", "c", "a", "b", "c"]


def test_equal_instances_take_equal_shares_of_equal_jobs() -> None:
    found = board(*(seat(name, slots=2) for name in "abcd"))
    taken: Counter[str] = Counter()
    running: list[str] = []
    while taken.total() < 100:
        name = choose(found)
        if name is None:
            found.release(running.pop(0), "a.do@1")
        else:
            running.append(name)
            taken[name] += 1
    assert taken == dict.fromkeys("abcd", 25)


def test_steps_in_flight_count_at_once() -> None:
    found = board(seat("a"), seat("b"))
    assert sorted(choose(found) for _ in range(4)) == ["a", "a", "b", "b"]


def test_what_is_released_counts_no_more() -> None:
    found = board(seat("a"), seat("b", cpu=0.05))
    assert choose(found) == "a"
    found.release("a", "a.do@1")
    assert choose(found) == "a"


def test_an_instance_without_a_free_slot_is_not_chosen() -> None:
    found = board(seat("a", slots=1), seat("b", cpu=0.9, slots=1))
    assert [choose(found) for _ in range(3)] == ["a", "b", None]


def test_a_full_board_says_that_all_are_busy() -> None:
    found = board(seat("a", slots=1))
    choose(found)
    assert found.reason(found.choose(DO)) == "all 1 live instances of a.do@1 are busy"


def test_an_instance_with_a_freed_slot_is_chosen_again() -> None:
    found = board(seat("a", slots=1))
    choose(found)
    found.release("a", "a.do@1")
    assert choose(found) == "a"


def test_a_heartbeat_keeps_what_is_in_flight() -> None:
    found = board(seat("a", slots=1))
    choose(found)
    found.put(seat("a", cpu=0.1, slots=1))
    assert choose(found) is None


def test_a_heartbeat_that_adds_slots_makes_room() -> None:
    found = board(seat("a", slots=1))
    choose(found)
    found.put(seat("a", slots=2))
    assert choose(found) == "a"


def test_an_instance_that_is_gone_is_not_chosen() -> None:
    found = board(seat("a"), seat("b", cpu=0.9))
    found.drop("a")
    assert choose(found) == "b"


def test_labels_narrow_the_choice() -> None:
    found = board(seat("plain"), seat("fast", cpu=0.9, gpu="true"))
    assert found.chosen(found.choose(requirements("a.do@1", {"gpu": "true"}))) == "fast"


def test_no_candidate_is_told_with_the_reason() -> None:
    found = board(seat("plain"))
    number = found.choose(requirements("a.do@1", {"gpu": "true"}))
    assert found.reason(number) == "no live instance satisfies gpu=true"


def test_a_decision_keeps_the_scores_of_all_candidates() -> None:
    found = board(seat("a", cpu=0.1), seat("b", cpu=0.5))
    number = found.choose(DO)
    found.put(seat("a", cpu=1.0))
    decision = found.decision(number)
    assert decision is not None
    assert [(one.instance, one.score) for one in decision.candidates] == [
        ("a", pytest.approx(0.04)),
        ("b", pytest.approx(0.2)),
    ]


def test_old_decisions_are_dropped() -> None:
    found = board(seat("a"), kept=2)
    first = found.choose(DO)
    found.choose(DO)
    found.choose(DO)
    assert found.decision(first) is None


def test_free_slots_are_told_per_capability() -> None:
    found = board(seat("a", slots=2), seat("b", slots=3))
    choose(found)
    assert found.free_slots() == {"a.do@1": 4}


def test_the_order_equals_a_full_scan_after_many_changes() -> None:
    chance = random.Random(7)  # noqa: S311 - the same order in each test run
    names = [f"i{number}" for number in range(40)]
    found = board(*(seat(name) for name in names))
    for _ in range(2000):
        name = chance.choice(names)
        if chance.random() < 0.5:
            found.put(seat(name, cpu=chance.random(), memory=chance.random()))
        else:
            found.release(name, "a.do@1")
        scores = {one: load_score(found.seat(one).load(), Weights()) for one in found.instances()}
        chosen = choose(found)
        assert scores[chosen] == pytest.approx(min(scores.values()))


def test_a_released_step_of_a_forgotten_instance_is_ignored() -> None:
    found = board(seat("a"))
    found.release("nobody", "a.do@1")
    found.release("a", "a.do@1")
    assert found.seat("a").load() == Load(0.0, 0.0, 0)
