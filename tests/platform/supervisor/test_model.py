from dataclasses import replace

import pytest
from hivemesh_platform.supervisor.model import (
    CONDEMNED_S,
    FREE_DEATHS,
    KILL_AFTER_S,
    LONGEST_BACKOFF_S,
    Backoff,
    Limits,
    Member,
    Phase,
    Sign,
    plan,
)

NOW = 1000.0
LIMITS = Limits(start_s=30.0, grace_s=30.0)


def member(
    phase: Phase, sign: Sign, *, age: float = 1.0, name: str = "i1", active: int = 0
) -> Member:
    return Member(instance=name, phase=phase, since=NOW - age, sign=sign, active=active)


def actions(*members: Member, wanted: int = 1, backoff: Backoff | None = None) -> list[str]:
    decided = plan(members, wanted, backoff or Backoff(), LIMITS, NOW)
    return [f"{action.kind} {action.instance}".strip() for action in decided.actions]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (member(Phase.STARTING, Sign.UNSEEN), []),
        (member(Phase.STARTING, Sign.BEATING), ["live i1"]),
        (member(Phase.STARTING, Sign.UNSEEN, age=31), ["kill i1", "start"]),
        (member(Phase.LIVE, Sign.BEATING), []),
        (member(Phase.LIVE, Sign.SILENT), []),
        (member(Phase.LIVE, Sign.SUSPENDED), ["condemn i1", "start"]),
        (member(Phase.LIVE, Sign.LOST), ["condemn i1", "start"]),
        (member(Phase.LIVE, Sign.UNSEEN), ["condemn i1", "start"]),
        (member(Phase.CONDEMNED, Sign.LOST), ["start"]),
        (member(Phase.CONDEMNED, Sign.BEATING), ["pardon i1"]),
        (member(Phase.CONDEMNED, Sign.LOST, age=CONDEMNED_S + 1), ["kill i1", "start"]),
        (member(Phase.STOPPING, Sign.BEATING), ["start"]),
        (member(Phase.STOPPING, Sign.UNSEEN, age=31 + KILL_AFTER_S), ["kill i1", "start"]),
    ],
)
def test_each_phase_and_sign_calls_for_its_action(one: Member, expected: list[str]) -> None:
    assert actions(one) == expected


def test_what_is_missing_is_started() -> None:
    assert actions(member(Phase.LIVE, Sign.BEATING), wanted=3) == ["start", "start"]


def test_nothing_runs_where_nothing_is_wanted() -> None:
    assert actions(member(Phase.LIVE, Sign.BEATING), wanted=0) == ["stop i1"]


def test_scaling_down_ends_what_does_not_serve_yet_first() -> None:
    live = member(Phase.LIVE, Sign.BEATING, name="live")
    starting = member(Phase.STARTING, Sign.UNSEEN, name="starting")
    assert actions(live, starting) == ["stop starting"]


def test_scaling_down_ends_the_least_busy() -> None:
    busy = member(Phase.LIVE, Sign.BEATING, name="busy", active=2)
    idle = member(Phase.LIVE, Sign.BEATING, name="idle", age=50)
    assert actions(busy, idle) == ["stop idle"]


def test_a_replaced_process_that_comes_back_makes_one_too_many() -> None:
    back = member(Phase.CONDEMNED, Sign.BEATING, name="back")
    new = member(Phase.LIVE, Sign.BEATING, name="new", active=1)
    assert actions(back, new) == ["pardon back", "stop back"]


def outdated(name: str, phase: Phase = Phase.LIVE) -> Member:
    return replace(member(phase, Sign.BEATING, name=name), outdated=True)


LIVE = member(Phase.LIVE, Sign.BEATING, name="new")


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([outdated("b")], ["stop a"]),
        ([LIVE], ["stop a"]),
        ([member(Phase.STARTING, Sign.UNSEEN, name="new")], []),
        ([member(Phase.STARTING, Sign.BEATING, name="new")], ["live new", "stop a"]),
        ([member(Phase.STARTING, Sign.UNSEEN, name="new", age=31)], ["kill new", "start"]),
        ([outdated("b", Phase.STOPPING)], ["start"]),
        ([outdated("b", Phase.STOPPING), LIVE], ["stop a"]),
        ([], ["start"]),
    ],
)
def test_an_outdated_process_is_replaced_when_all_others_are_live(
    others: list[Member], expected: list[str]
) -> None:
    assert actions(outdated("a"), *others, wanted=2) == expected


def test_the_only_process_is_replaced_at_once() -> None:
    assert actions(outdated("a")) == ["stop a"]


def test_where_the_new_one_does_not_start_the_others_go_on() -> None:
    assert actions(outdated("a"), wanted=2, backoff=Backoff(failures=9, not_before=NOW + 9)) == []


def test_an_outdated_process_that_comes_back_leaves_its_place_to_the_new_one() -> None:
    back = replace(outdated("back", Phase.CONDEMNED), active=1)
    new = member(Phase.STARTING, Sign.UNSEEN, name="new")
    assert actions(back, new) == ["pardon back", "stop back"]


def test_scaling_down_in_a_restart_ends_what_would_be_replaced() -> None:
    assert actions(LIVE, replace(outdated("a"), active=1)) == ["stop a"]
    assert actions(member(Phase.STARTING, Sign.UNSEEN, name="new"), outdated("a")) == ["stop new"]


def test_nothing_is_started_before_the_backoff_is_over() -> None:
    waiting = Backoff(failures=1, not_before=NOW + 2)
    assert actions(backoff=waiting) == []
    assert plan([], 1, waiting, LIMITS, NOW).look_again_at == NOW + 2


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (member(Phase.STARTING, Sign.UNSEEN, age=10), NOW + 20),
        (member(Phase.CONDEMNED, Sign.LOST, age=10), NOW + CONDEMNED_S - 10),
        (member(Phase.STOPPING, Sign.LOST, age=10), NOW + 20 + KILL_AFTER_S),
        (member(Phase.LIVE, Sign.BEATING, age=10), None),
    ],
)
def test_it_looks_again_when_patience_ends(one: Member, expected: float | None) -> None:
    assert plan([one], 1, Backoff(), LIMITS, NOW).look_again_at == expected


def test_the_backoff_doubles_up_to_its_limit() -> None:
    backoff, delays = Backoff(), []
    for _ in range(9):
        backoff = backoff.failed(NOW)
        delays.append(backoff.not_before - NOW)
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert delays[-1] == LONGEST_BACKOFF_S


def test_four_ends_in_a_row_are_a_crash_loop() -> None:
    backoff = Backoff()
    seen = []
    for _ in range(4):
        backoff = backoff.failed(NOW)
        seen.append(backoff.looping)
    assert seen == [False, False, False, True]


def test_a_death_of_a_step_delays_no_start_and_hides_no_crash_loop() -> None:
    fresh, looping = Backoff(), Backoff(failures=4, not_before=NOW + 4)
    assert actions(backoff=fresh.failed(NOW, of_a_step=True)) == ["start"]
    died = looping.failed(NOW, of_a_step=True)
    assert (died.looping, died.not_before) == (True, looping.not_before)


def test_steps_that_kill_one_after_the_other_are_a_crash_loop_in_the_end() -> None:
    backoff, delays = Backoff(), []
    for _ in range(2000):
        backoff = backoff.failed(NOW, of_a_step=True)
        delays.append(max(0.0, backoff.not_before - NOW))
    assert delays[: FREE_DEATHS + 2] == [0.0] * FREE_DEATHS + [0.5, 1.0]
    assert delays[-1] == LONGEST_BACKOFF_S
    assert backoff.looping
