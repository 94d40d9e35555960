"""What is told of instances: status, and each of the four parts of health failing by itself."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hivemesh_platform.execution.ports import Choice, Outcome, Requirement
from hivemesh_platform.overview import Overview
from hivemesh_platform.registry.embedded import EmbeddedDirectory
from hivemesh_platform.registry.service import RegistryService
from hivemesh_platform.registry.types import WorkerTypes
from hivemesh_platform.routing.model import Weights
from hivemesh_platform.routing.service import RoutingService
from hivemesh_sdk.contracts.api import HealthView, InstanceView
from hivemesh_sdk.testing.clock import ManualClock
from registry_support import heartbeat, instance, manifest

SAY = Requirement(capability="echo.say@1")
WELL = {"heartbeat": "ok", "connection": "ok", "resources": "ok", "errors": "ok"}


class Fleet:
    """Three instances of one worker, as seen by registry and routing."""

    def __init__(self, folder: Path) -> None:
        (folder / "echo").mkdir()
        (folder / "echo/plugin.yaml").write_text(json.dumps(manifest().document()))
        self.clock = ManualClock()
        self.directory = EmbeddedDirectory(self.clock)
        self.routing = RoutingService(self.directory, self.clock, Weights())
        types = WorkerTypes([folder])
        types.refresh()
        registry = RegistryService(self.directory, types, self.clock, "0.1.0")
        self.overview = Overview(registry, types, None, Weights(), self.clock, self.routing)

    async def join(self) -> None:
        for name in ("i1", "i2", "i3"):
            await self.directory.put(instance(self.clock, name))

    def told(self, name: str) -> InstanceView:
        (found,) = [one for one in self.overview.worker("echo").instances if one.id == name]
        return found

    def health(self, name: str) -> HealthView:
        found = {one.id: one.health for one in self.overview.worker("echo").instances}[name]
        assert found is not None
        others = [one.health for one in self.overview.worker("echo").instances if one.id != name]
        assert all(other and other.overall for other in others)
        return found

    def run_one(self, *, bad: str, worse: Outcome) -> None:
        choice = self.routing.choose(SAY)
        assert isinstance(choice, Choice)
        outcome = worse if choice.endpoint.instance == bad else Outcome.COMPLETED
        self.routing.report(choice, outcome, 0.1)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    return Fleet(tmp_path)


async def test_who_is_well_is_well_in_all_parts_as_of_now(fleet: Fleet) -> None:
    await fleet.join()
    found = fleet.health("i1")
    assert (found.overall, found.details) == (True, WELL)
    assert found.last_checked == fleet.clock.now().isoformat()


async def test_the_status_of_an_instance_is_told_with_version_and_age_of_its_heartbeat(
    fleet: Fleet,
) -> None:
    await fleet.join()
    await fleet.directory.beat("i2", heartbeat(active=1))
    assert [fleet.told(name).status for name in ("i1", "i2", "i3")] == ["idle", "running", "idle"]
    fleet.clock.advance(4.5)
    await fleet.directory.beat("i2", heartbeat(active=1))
    late = fleet.told("i1")
    assert (late.status, late.state) == ("failed", "unhealthy")
    assert (late.version, late.heartbeat_age_s) == ("1.2.3", 4.5)
    assert fleet.told("i2").status == "running"
    fleet.clock.advance(4.0)
    assert (fleet.told("i1").status, fleet.told("i1").state) == ("offline", "offline")
    await fleet.directory.beat("i1", heartbeat())  # it needs no restart
    back = fleet.told("i1")
    assert (back.status, back.state, back.heartbeat_age_s) == ("idle", "live", 0.0)


async def test_missing_heartbeats_are_the_heartbeats_fault(fleet: Fleet) -> None:
    await fleet.join()
    fleet.clock.advance(4.5)
    for name in ("i2", "i3"):
        await fleet.directory.beat(name, heartbeat())
    found = fleet.health("i1")
    assert not found.overall
    assert found.details == {**WELL, "heartbeat": "none for 4 s"}


async def test_who_does_not_answer_has_a_bad_connection_until_its_next_heartbeat(
    fleet: Fleet,
) -> None:
    await fleet.join()
    for _ in range(3):
        fleet.run_one(bad="i1", worse=Outcome.UNREACHABLE)
    found = fleet.health("i1")
    assert not found.overall
    assert found.details == {**WELL, "connection": "it did not answer the last request"}
    await fleet.directory.beat("i1", heartbeat())
    assert fleet.health("i1").overall


async def test_who_answers_no_question_has_a_bad_connection_until_a_probe(fleet: Fleet) -> None:
    await fleet.join()
    for _ in range(3):
        fleet.run_one(bad="i1", worse=Outcome.LOST)
    await fleet.directory.beat("i1", heartbeat())
    fleet.clock.advance(1.0)
    fleet.run_one(bad="", worse=Outcome.COMPLETED)
    found = fleet.health("i1")
    assert not found.overall
    assert found.details == {**WELL, "connection": "it answered no question about its steps"}


async def test_full_memory_is_the_resources_fault(fleet: Fleet) -> None:
    await fleet.join()
    await fleet.directory.beat("i1", heartbeat(memory=0.97))
    found = fleet.health("i1")
    assert not found.overall
    assert found.details == {**WELL, "resources": "97% of its memory is in use"}


async def test_failing_steps_are_errors(fleet: Fleet) -> None:
    await fleet.join()
    for _ in range(30):
        fleet.clock.advance(0.1)
        fleet.run_one(bad="i1", worse=Outcome.FAILED)
    found = fleet.health("i1")
    assert not found.overall
    assert "failed" in found.details["errors"]
    assert {**found.details, "errors": "ok"} == WELL


async def test_a_clock_that_is_off_is_the_reason_where_nothing_is_live(fleet: Fleet) -> None:
    off = "its clock is 600 s behind the platform's (HM-1306)"
    await fleet.join()
    for name in ("i1", "i2", "i3"):
        assert not fleet.overview.worker("echo").reason
        await fleet.directory.beat(name, heartbeat(), None, off)
    assert fleet.overview.worker("echo").reason == f"i1: {off}"
    assert {fleet.told(name).reason for name in ("i1", "i2", "i3")} == {off}
    await fleet.directory.beat("i2", heartbeat())
    assert not fleet.overview.worker("echo").reason
