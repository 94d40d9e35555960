"""The product as a user runs it: platform and workers as processes, on a folder of the test.

Worker environments are kept in the checkout and shared by every state folder.
"""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hivemesh_platform.supervisor import indexes
from hivemesh_platform.supervisor.environment import BuilderSettings, EnvironmentBuilder, Recipe
from hivemesh_platform.supervisor.first_party import sdk_source
from hivemesh_platform.supervisor.orphans import stop_orphans
from hivemesh_sdk.client import Client
from hivemesh_sdk.contracts.api import InstanceView, NodeView, RunView, WorkerView
from hivemesh_sdk.errors import HivemeshError

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "platform/src/hivemesh_platform/samples/email/sample.mbox"
COMMAND = str(Path(sys.executable).parent / "hivemesh")
POLL_S, SOON_S, LATER_POLL_S = 0.02, 0.5, 0.15  # a question is a handshake, and there are others
LOOPBACK = ("api.port=0", "api.enrolment_port=0", "workers.alone_s=60")
_KEPT = ("PIP_", "UV_", "SSL_", "PYTHONPATH")  # for builds, and the code that is tested


def until(condition: Callable[[], object], within_s: float, what: str) -> object:
    """Return the first true answer; fail where there is none in time."""
    began = time.monotonic()
    while True:
        found = condition()
        if found:
            return found
        waited = time.monotonic() - began
        assert waited < within_s, f"not within {within_s:g} s: {what}"
        # other processes announce nothing to us
        time.sleep(POLL_S if waited < SOON_S else LATER_POLL_S)


@dataclass(frozen=True, slots=True)
class Shared:
    """What every installation of a test run uses: environments and the builder's cache.

    The processes of one run share it, and later runs do: whoever builds or copies holds the lock.
    """

    environments: Path
    cache: Path

    def build(self, sources: Sequence[Path]) -> None:
        """Build the environments of these workers, as the supervisor would."""
        builder = EnvironmentBuilder(
            BuilderSettings(
                folder=self.environments,
                cache=self.cache,
                indexes=indexes.read(os.environ, Path.home(), Path(sys.prefix)),
                environment=os.environ,
            )
        )
        with self.locked():
            asyncio.run(_build_all(builder, sources, self.environments.parent / "build.log"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from building meanwhile."""
        self.environments.mkdir(parents=True, exist_ok=True)
        with (self.environments.parent / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed
            yield


async def _build_all(builder: EnvironmentBuilder, sources: Sequence[Path], log: Path) -> None:
    recipes = [
        Recipe(worker=source.name, worker_source=source, sdk_source=sdk_source(ROOT))
        for source in sources
    ]
    await asyncio.gather(*(builder.build(recipe, log) for recipe in recipes))
    for recipe in recipes:
        builder.remove_others(recipe)


@dataclass(slots=True)
class Installation:
    """One state folder; `start` and `kill` may follow each other any number of times."""

    state: Path
    settings: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    workers: Sequence[Path] = ()
    process: "subprocess.Popen[bytes] | None" = None
    said: str = ""

    def start(self, variables: Mapping[str, str] | None = None) -> None:
        """Start the platform and wait until it is ready; fails where it is not."""
        assert self.try_start(variables) == b"ready", self.said

    def try_start(self, variables: Mapping[str, str] | None = None) -> bytes:
        """Start the platform; returns what it says: `ready`, a problem, or nothing where it died."""
        ready, told = os.pipe()
        with (self.state.parent / "said").open("ab") as said:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "hivemesh_platform.serve"),
                    *("--state", str(self.state), "--ready-fd", str(told), *self.flags),
                ],
                pass_fds=[told],
                cwd=ROOT,
                env={**self._environment(), **self.variables, **(variables or {})},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        os.close(told)
        with os.fdopen(ready, "rb") as pipe:
            message = pipe.read()
        if message != b"ready":
            self.process.wait(20)
            self.said = (self.state.parent / "said").read_text()
        return message

    @property
    def flags(self) -> list[str]:
        """The settings, as `hivemesh up` takes them."""
        settings = [*LOOPBACK, *self.settings]
        if self.workers:
            settings.append(f"workers.folders={json.dumps([str(path) for path in self.workers])}")
        return [word for setting in settings for word in ("--set", setting)]

    def _environment(self) -> dict[str, str]:
        home = self.state.parent / "home"
        home.mkdir(exist_ok=True)
        kept = {name: os.environ[name] for name in os.environ if name.startswith(_KEPT)}
        return {**kept, "PATH": os.environ["PATH"], "HOME": str(home)}

    @property
    def pid(self) -> int:
        """The platform's process."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL the platform alone; its workers go on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def wait(self, within_s: float = 60.0) -> int:
        """Wait until the platform has ended by itself, and return its exit code."""
        assert self.process is not None
        return self.process.wait(within_s)

    def stop(self) -> None:
        """End everything in order, and by force what does not end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)
        if self.state.exists():
            stop_orphans(self.state)

    def run_command(
        self, *words: str, within_s: float = 120.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run the `hivemesh` command on this installation."""
        return subprocess.run(
            [COMMAND, *words, "--state", str(self.state)],
            check=False,
            capture_output=True,
            text=True,
            timeout=within_s,
            cwd=ROOT,
            env={**self._environment(), **self.variables},
        )

    def client(self) -> Client:
        """A client with the operator's certificate."""
        return Client.from_state(self.state)

    def instances(self, worker: str) -> list[InstanceView]:
        """The live instances of a worker."""
        with self.client() as client:
            return [one for one in client.worker(worker).instances if one.state == "live"]

    def until_live(self, *, within_s: float = 120.0) -> list[WorkerView]:
        """Wait until every wanted instance is live."""

        def live() -> list[WorkerView]:
            with self.client() as client:
                workers = client.workers()
            return workers if all(one.live >= one.wanted for one in workers) else []

        until(live, within_s, "all workers live")
        return live()

    def run(self, run: str) -> RunView:
        """A run, however busy the platform is with starting."""
        with self.client() as client:
            return client.run(run)

    def node(self, run: str, name: str) -> NodeView:
        """A step of a run."""
        return next(node for node in self.run(run).nodes if node.name == name)

    def until_ended(self, run: str, *, within_s: float = 180.0) -> RunView:
        """Wait until a run has ended."""
        until(lambda: self.run(run).state.ended, within_s, f"{run} ended")
        return self.run(run)

    def log(self) -> str:
        """The platform's log."""
        return (self.state / "logs" / "platform.log").read_text()

    def metric(self, line: str) -> float:
        """The value of one line of the platform's metrics; 0 where it is not there."""
        with self.client() as client:
            text = client._read("GET", "/metrics").decode()
        values = [one.rpartition(" ")[2] for one in text.splitlines() if one.startswith(line)]
        return sum(map(float, values))


@contextmanager
def installed(
    folder: Path,
    shared: Shared,
    *settings: str,
    workers: Sequence[Path] = (),
    variables: Mapping[str, str] | None = None,
) -> Iterator[Installation]:
    """An installation that is not started yet; nothing of it runs afterwards."""
    state = folder / "state"
    state.mkdir(parents=True, mode=0o700)
    (state / "environments").symlink_to(shared.environments)
    found = Installation(state, settings, variables or {}, workers)
    try:
        yield found
    finally:
        found.stop()


def signal_all(pids: Sequence[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Signal processes that may be gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def group_of(pid: int) -> list[int]:
    """The processes of a worker: its front and the executors that the front has started."""
    found = {pid}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.add(int(entry.name))
    return sorted(found)


def reachable(installation: Installation) -> bool:
    """Whether the platform answers."""
    try:
        with installation.client() as client:
            client.status()
    except (HivemeshError, OSError):
        return False
    return True
