"""What becomes of the processes of one worker, where these are fakes."""

import asyncio
import signal
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from hivemesh_platform.registry.model import InstanceState
from hivemesh_platform.supervisor.fleet import Fleet, Surroundings
from hivemesh_platform.supervisor.model import Limits, Phase
from hivemesh_platform.supervisor.processes import ProcessId
from hivemesh_sdk.testing.clock import ManualClock


class Process:
    """A process that hears signals and goes on."""

    id = ProcessId(1, "")
    ended = False

    def __init__(self) -> None:
        self.heard: list[signal.Signals] = []

    async def wait(self) -> None:
        await asyncio.Event().wait()

    def signal(self, number: signal.Signals) -> None:
        self.heard.append(number)

    def release(self) -> None:
        """Nothing watches it."""


class Around:
    """Everything that a fleet needs: what it starts is called i1, i2 and so on."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}
        self.states: dict[str, InstanceState] = {}
        self._names = (f"i{number}" for number in count(1))

    def prepared(self, _recipe: object) -> bool:
        return True

    async def build(self, _recipe: object, _log: Path) -> Path:
        return Path("python")

    def remove_others(self, _recipe: object) -> None:
        """There are none."""

    async def launch(self, *_: object) -> SimpleNamespace:
        name = next(self._names)
        self.processes[name] = Process()
        return SimpleNamespace(
            process=self.processes[name], instance=name, serve_tokens=self.processes[name].wait
        )

    def instances(self) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                instance=SimpleNamespace(id=name, active_steps=1), state=state, heartbeat_age_s=0.0
            )
            for name, state in self.states.items()
        ]


@pytest.fixture
def around() -> Around:
    return Around()


@pytest.fixture
def fleet(around: Around) -> Fleet:
    surroundings = Surroundings(
        builder=around,  # type: ignore[arg-type]
        registry=around,  # type: ignore[arg-type]
        launcher=around,  # type: ignore[arg-type]
        records=SimpleNamespace(),  # type: ignore[arg-type]
        clock=ManualClock(),
        limits=Limits(),
        busy=lambda _: False,
    )
    installed = SimpleNamespace(type=SimpleNamespace(name="tiny"))
    log = SimpleNamespace(path=Path("log"))
    return Fleet(installed, SimpleNamespace, 1, log, surroundings)  # type: ignore[arg-type]


async def test_a_lost_process_that_comes_back_after_a_restart_is_replaced(
    fleet: Fleet, around: Around
) -> None:
    await fleet._look()
    for state in (InstanceState.LIVE, InstanceState.OFFLINE):
        around.states["i1"] = state
        await fleet._look()
    assert fleet.instances == {"i1": Phase.CONDEMNED, "i2": Phase.STARTING}
    fleet.restart()
    await fleet._look()
    for name in ("i1", "i3"):
        around.states[name] = InstanceState.LIVE
        await fleet._look()
    assert fleet.instances == {"i1": Phase.STOPPING, "i2": Phase.STOPPING, "i3": Phase.LIVE}
    assert signal.SIGTERM in around.processes["i1"].heard
