import asyncio

import pytest
from hivemesh_platform.execution.ports import Choice, NoCandidate, Outcome, Requirement
from hivemesh_platform.registry.embedded import EmbeddedDirectory
from hivemesh_platform.routing.board import LISTED
from hivemesh_platform.routing.model import Weights
from hivemesh_platform.routing.service import RoutingService
from hivemesh_sdk.testing.clock import ManualClock
from registry_support import heartbeat, instance

SAY = Requirement(capability="echo.say@1")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def directory(clock: ManualClock) -> EmbeddedDirectory:
    return EmbeddedDirectory(clock)


@pytest.fixture
def routing(directory: EmbeddedDirectory, clock: ManualClock) -> RoutingService:
    return RoutingService(directory, clock, Weights())


def placed(routing: RoutingService, requirement: Requirement = SAY) -> Choice:
    choice = routing.choose(requirement)
    assert isinstance(choice, Choice), choice
    return choice


async def test_a_registered_instance_is_chosen_with_its_address(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock))
    assert placed(routing).endpoint.port == 4001


async def test_held_slots_are_not_free(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock))
    choice = placed(routing)
    assert routing.free_slots() == {"echo.say@1": 1}
    routing.report(choice, Outcome.COMPLETED, 0.1)
    assert routing.free_slots() == {"echo.say@1": 2}


async def test_a_slot_that_was_given_back_early_is_given_back_once(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock))
    first, _ = placed(routing), placed(routing)
    assert routing.give_back(first)
    assert routing.free_slots() == {"echo.say@1": 1}
    routing.report(first, Outcome.COMPLETED, 0.1, given_back=True)
    assert routing.free_slots() == {"echo.say@1": 1}


async def test_an_old_report_of_active_steps_takes_no_slot(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock))
    choice = placed(routing)
    await directory.beat("i1", heartbeat(active=1))
    routing.report(choice, Outcome.COMPLETED, 0.1)
    assert routing.free_slots() == {"echo.say@1": 2}


async def test_steps_of_others_count_as_load(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock, "i1"))
    await directory.put(instance(clock, "i2"))
    await directory.beat("i1", heartbeat(active=2))
    await directory.beat("i2", heartbeat(active=0))
    assert placed(routing).endpoint.instance == "i2"


@pytest.mark.parametrize("silence", [4.5, 9.0])
async def test_a_silent_instance_is_not_chosen(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock, silence: float
) -> None:
    await directory.put(instance(clock))
    placed(routing)
    clock.advance(silence)
    directory.expire()
    refused = routing.choose(SAY)
    assert refused == NoCandidate("no live instance serves echo.say@1")
    assert routing.absent("echo.say@1") == "no live instance serves echo.say@1"


async def test_a_draining_instance_is_not_chosen(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock))
    await directory.beat("i1", heartbeat(draining=True))
    assert isinstance(routing.choose(SAY), NoCandidate)


async def test_an_instance_whose_clock_is_off_is_named_where_no_other_serves(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    off = "its clock is 600 s ahead of the platform's (HM-1306)"
    await directory.put(instance(clock, clock_off=off))
    why = f"no live instance serves echo.say@1; i1: {off}"
    assert routing.absent("echo.say@1") == why
    assert routing.choose(SAY) == NoCandidate(why)
    found = routing.survey(SAY)
    assert found.reason == why
    assert [one["unmet"] for one in found.candidates] == [off]
    assert routing.absent("echo.other@1") == "no live instance serves echo.other@1"
    await directory.put(instance(clock, "i2", clock_off=off))
    assert routing.absent("echo.say@1") == f"{why}, and 1 more"
    await directory.put(instance(clock, "i3", slots={"echo.say@1": 1}))
    assert routing.absent("echo.say@1") == ""
    placed(routing)
    assert routing.choose(SAY) == NoCandidate("all 1 live instances of echo.say@1 are busy")


async def test_busy_instances_are_not_absent(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock, slots={"echo.say@1": 1}))
    placed(routing)
    assert routing.absent("echo.say@1") == ""
    assert routing.choose(SAY) == NoCandidate("all 1 live instances of echo.say@1 are busy")


async def test_an_overloaded_instance_is_left_alone_until_its_next_heartbeat(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock))
    routing.report(placed(routing), Outcome.OVERLOADED, 0.1)
    assert isinstance(routing.choose(SAY), NoCandidate)
    await directory.beat("i1", heartbeat())
    assert isinstance(routing.choose(SAY), Choice)


async def test_a_lost_instance_is_not_chosen_until_it_beats_again(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock))
    routing.report(placed(routing), Outcome.LOST, 6.0)
    assert isinstance(routing.choose(SAY), NoCandidate)
    async with asyncio.timeout(30):
        assert await routing.suspects() == {"i1"}
    await directory.beat("i1", heartbeat())
    assert isinstance(routing.choose(SAY), Choice)


async def test_the_instance_that_failed_is_avoided_while_there_is_another(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    again = Requirement(capability="echo.say@1", avoid=frozenset({"i1"}))
    await directory.put(instance(clock))
    assert placed(routing, again).endpoint.instance == "i1"
    await directory.put(instance(clock, "i2", cpu=0.9))
    assert placed(routing, again).endpoint.instance == "i2"


async def test_all_that_are_to_be_avoided_are_avoided(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    idle = [f"i{number}" for number in range(LISTED + 1)]  # more than an explanation lists
    for name in idle:
        await directory.put(instance(clock, name))
    await directory.put(instance(clock, "busy", cpu=0.9))
    apart = Requirement(capability="echo.say@1", avoid=frozenset(idle))
    assert placed(routing, apart).endpoint.instance == "busy"


async def test_the_explanation_lists_all_candidates_with_their_scores(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock, "i1", cpu=0.5))
    await directory.put(instance(clock, "i2", cpu=0.2))
    explanation = placed(routing).explanation
    assert explanation["chosen"] == "i2"
    assert [one["instance"] for one in explanation["candidates"]] == ["i2", "i1"]
    assert explanation["candidates"][0]["parts"] == {"cpu": 0.08, "memory": 0.0, "active": 0.0}


async def test_waiting_ends_when_a_slot_is_given_back(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock))
    choice = placed(routing)
    waiting = asyncio.create_task(routing.wait_for_change())
    routing.report(choice, Outcome.COMPLETED, 0.1)
    async with asyncio.timeout(30):
        await waiting


async def test_waiting_ends_when_an_instance_comes(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    running = asyncio.create_task(routing.run())
    waiting = asyncio.create_task(routing.wait_for_change())
    await asyncio.sleep(0)
    await directory.put(instance(clock))
    async with asyncio.timeout(30):
        await waiting
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


ONE_RECORD = Requirement(capability="echo.say@1", records=1)


async def test_an_instance_that_fails_is_given_no_more_and_shows_why(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock, "i1"))
    await directory.put(instance(clock, "i2"))
    for _ in range(12):
        choice = placed(routing, ONE_RECORD)
        failed = choice.endpoint.instance == "i2"
        clock.advance(0.3)
        routing.report(choice, Outcome.FAILED if failed else Outcome.COMPLETED, 0.3)
    assert routing.ejected() == {"echo.say@1": ["i2"]}
    assert routing.free_slots() == {"echo.say@1": 2}
    assert "its last 5 steps failed" in str(routing.standing("i2", "echo.say@1"))
    choice = placed(routing)
    assert choice.endpoint.instance == "i1"
    candidates = {one["instance"]: one["unmet"] for one in choice.explanation["candidates"]}
    assert candidates == {"i1": "", "i2": "circuit open"}


async def test_an_ejected_instance_stays_so_after_its_next_heartbeat(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await test_an_instance_that_fails_is_given_no_more_and_shows_why(routing, directory, clock)
    await directory.beat("i2", heartbeat(active=0))
    assert routing.free_slots() == {"echo.say@1": 1}


async def test_the_explanation_names_what_others_do_not_meet(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock, "i1", labels={"gpu": "true"}))
    await directory.put(instance(clock, "i2"))
    choice = placed(routing, Requirement(capability="echo.say@1", labels={"gpu": "true"}))
    assert choice.explanation["candidates"][1] == {
        "instance": "i2",
        "score": 0.0,
        "parts": {"cpu": 0.0, "memory": 0.0, "active": 0.0},
        "active": 0,
        "free": 2,
        "unmet": "gpu=true",
    }


async def test_the_explanation_of_many_is_bounded(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    for number in range(100):
        await directory.put(instance(clock, f"i{number}"))
    explanation = placed(routing).explanation
    assert (len(explanation["candidates"]), explanation["not_listed"]) == (20, 80)


async def test_where_all_that_fit_are_ejected_none_of_them_is(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock, "i1"))
    await directory.put(instance(clock, "i2", labels={"gpu": "true"}))
    for _ in range(12):
        choice = placed(routing, ONE_RECORD)
        failed = choice.endpoint.instance == "i2"
        clock.advance(0.3)
        routing.report(choice, Outcome.FAILED if failed else Outcome.COMPLETED, 0.3)
    choice = placed(routing, Requirement(capability="echo.say@1", labels={"gpu": "true"}))
    assert choice.endpoint.instance == "i2"


GPU = Requirement(capability="echo.say@1", labels={"gpu": "true"})


def unmet(routing: RoutingService, requirement: Requirement) -> dict[str, str]:
    return {one["instance"]: one["unmet"] for one in routing.survey(requirement).candidates}


async def test_a_survey_names_every_candidate_with_score_parts_and_what_it_does_not_meet(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock, cpu=0.5, memory=0.4, active={"echo.say@1": 2}))
    found = routing.survey(GPU)
    assert (found.reason, found.not_listed) == ("no live instance satisfies gpu=true", 0)
    assert found.candidates == [
        {
            "worker": "echo",
            "instance": "i1",
            "score": 0.38,
            "parts": {"cpu": 0.2, "memory": 0.12, "active": 0.06},
            "active": 2,
            "free": 2,
            "unmet": "gpu=true",
        }
    ]


async def test_a_survey_holds_no_slot_and_gives_no_reason_where_one_is_free(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock, "i1", cpu=0.5))
    await directory.put(instance(clock, "i2"))
    for _ in range(5):
        assert routing.survey(SAY).reason == ""
    assert [one["instance"] for one in routing.survey(SAY).candidates] == ["i2", "i1"]
    assert routing.free_slots() == {"echo.say@1": 4}


async def test_a_survey_names_instances_that_are_given_nothing_and_why(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock, "drains", draining=True))
    await directory.put(instance(clock, "old", incompatible="SDK 2 is newer"))
    await directory.put(instance(clock, "lost"))
    await directory.put(instance(clock, "other", capabilities=frozenset({"x.y@1"})))
    routing.report(placed(routing), Outcome.LOST, 1.0)
    found = unmet(routing, SAY)
    assert found["drains"] == "draining: it finishes what it has"
    assert found["old"] == "incompatible: SDK 2 is newer"
    assert found["lost"] == "no answer: it is chosen again from its next heartbeat on"
    assert "other" not in found


async def test_a_survey_says_which_instances_are_silent(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await directory.put(instance(clock))
    placed(routing)
    clock.advance(4.5)
    directory.expire()
    assert unmet(routing, SAY) == {"i1": "unhealthy: its heartbeats are missing"}
    clock.advance(60)
    directory.expire()
    assert routing.survey(SAY).reason == "no live instance serves echo.say@1"


async def test_a_survey_of_busy_and_ejected_instances_says_so(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    await test_an_instance_that_fails_is_given_no_more_and_shows_why(routing, directory, clock)
    placed(routing)
    assert unmet(routing, SAY) == {"i1": "free slot", "i2": "circuit open"}
    assert routing.survey(SAY).reason == "all 2 live instances of echo.say@1 are busy"


async def test_a_survey_of_nobody_is_empty_and_says_why(routing: RoutingService) -> None:
    found = routing.survey(SAY)
    assert (found.reason, found.candidates) == ("no live instance serves echo.say@1", [])


async def test_a_survey_of_many_is_bounded(
    routing: RoutingService, directory: EmbeddedDirectory, clock: ManualClock
) -> None:
    for number in range(60):
        await directory.put(instance(clock, f"i{number}"))
    found = routing.survey(GPU)
    assert (len(found.candidates), found.not_listed) == (50, 10)
