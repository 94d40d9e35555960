"""A worker asks one replica until it fails, and then the next one."""

import pytest
from hivemesh_sdk.contracts.instances import LEASE_S
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.errors import RemoteError
from hivemesh_sdk.lifecycle.platform import NEXT_AFTER_S
from hivemesh_sdk.lifecycle.platforms import FORMER, LONGEST_S, MOST, Platforms
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.transport.errors import WorkerUnreachableError


def target(name: str) -> Target:
    return Target.platform(name, 8443, "test.hivemesh.internal")


A, B, C = map(target, "abc")


class Replicas:
    """Answers with the name of who was asked, unless he is away or says no."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.away: set[str] = set()
        self.refuses: dict[str, str] = {}

    async def __call__(self, asked: Target) -> str:
        self.asked.append(asked.host)
        if asked.host in self.away:
            raise WorkerUnreachableError("away", sent=False)
        if asked.host in self.refuses:
            raise RemoteError(problem(self.refuses[asked.host]))
        return asked.host


@pytest.fixture
def replicas() -> Replicas:
    return Replicas()


async def test_one_is_asked_as_long_as_it_answers(replicas: Replicas) -> None:
    platforms = Platforms([A, B])
    assert [await platforms.ask(replicas) for _ in range(3)] == ["a", "a", "a"]


async def test_the_next_one_is_asked_at_once_and_from_then_on(replicas: Replicas) -> None:
    platforms = Platforms([A, B])
    replicas.away.add("a")
    assert await platforms.ask(replicas) == "b"
    replicas.away.clear()
    assert await platforms.ask(replicas) == "b"
    assert replicas.asked == ["a", "b", "b"]


async def test_each_is_asked_once_before_it_fails(replicas: Replicas) -> None:
    platforms = Platforms([A, B, C])
    replicas.away.update("abc")
    with pytest.raises(WorkerUnreachableError):
        await platforms.ask(replicas)
    assert replicas.asked == ["a", "b", "c"]


async def test_a_replica_that_is_full_is_passed_over(replicas: Replicas) -> None:
    platforms = Platforms([A, B])
    replicas.refuses["a"] = "overloaded-server"
    assert await platforms.ask(replicas) == "b"


async def test_a_refusal_is_an_answer(replicas: Replicas) -> None:
    platforms = Platforms([A, B])
    replicas.refuses["a"] = "not-authorized"
    with pytest.raises(RemoteError):
        await platforms.ask(replicas)
    assert replicas.asked == ["a"]


async def test_replicas_are_learned_and_forgotten_but_those_given_stay(replicas: Replicas) -> None:
    platforms = Platforms([A])
    assert not platforms.several
    platforms.learn(["https://a:8443", "https://b:8443"])
    assert platforms.several
    platforms.learn(["https://c:8443"])
    replicas.away.update("ab")
    assert await platforms.ask(replicas) == "c"
    assert "b" not in replicas.asked


async def test_a_replica_that_came_back_is_found_when_all_others_are_gone(
    replicas: Replicas,
) -> None:
    """It was away when the one that is gone now last said who lives."""
    platforms = Platforms([A])
    platforms.learn(["https://a:8443", "https://b:8443"])
    platforms.learn(["https://a:8443"])
    assert not platforms.several
    replicas.away.add("a")
    assert await platforms.ask(replicas) == "b"
    platforms.learn(["https://b:8443"])
    assert await platforms.ask(replicas) == "b"
    assert platforms.current.host == "b"


async def test_few_former_replicas_are_asked_in_one_question_and_all_of_them_in_many(
    replicas: Replicas,
) -> None:
    platforms = Platforms([A])
    former = [f"f{number}" for number in range(MOST - 1)]
    platforms.learn([f"https://{one}:8443" for one in former])
    platforms.learn(["https://a:8443"])
    replicas.away.update("a", former)
    seen: set[str] = set()
    for _ in range(200):
        replicas.asked.clear()
        with pytest.raises(WorkerUnreachableError):
            await platforms.ask(replicas)
        assert len(replicas.asked) == 1 + FORMER
        seen |= set(replicas.asked)
    assert seen == {"a", *former}


async def test_a_question_ends_within_a_lease_and_the_next_one_goes_on_there() -> None:
    clock = ManualClock()
    given = [target(f"r{number}") for number in range(8)]
    platforms = Platforms(given, clock=clock)
    asked: list[str] = []

    async def silent(one: Target) -> None:
        asked.append(one.host)
        clock.advance(NEXT_AFTER_S)
        raise WorkerUnreachableError("silent", sent=True)

    began = clock.monotonic()
    for _ in range(2):
        with pytest.raises(WorkerUnreachableError):
            await platforms.ask(silent)
    assert clock.monotonic() - began <= 2 * (LONGEST_S + NEXT_AFTER_S) < 2 * LEASE_S
    assert asked == ["r0", "r1", "r2", "r2", "r3", "r4"]


async def test_the_one_that_answers_is_kept_until_another_does(replicas: Replicas) -> None:
    platforms = Platforms([A])
    platforms.learn(["https://b:8443"])
    replicas.away.add("a")
    assert await platforms.ask(replicas) == "b"
    platforms.learn([])
    assert platforms.current.host == "b"


async def test_what_is_no_address_is_not_learned(replicas: Replicas) -> None:
    platforms = Platforms([A])
    platforms.learn(["http://b:8443", "https://b", "https://[", "x"])
    assert not platforms.several


async def test_who_is_learned_must_be_a_platform_of_the_same_trust_domain() -> None:
    platforms = Platforms([A])
    platforms.learn(["https://b:9"])
    assert {(one.identity, one.server_name) for one in platforms._known} == {
        (A.identity, A.server_name)
    }
