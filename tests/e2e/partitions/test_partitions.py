"""Networks that break between platform, workers and database: no superseded attempt's result counts."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from drill import EFFECTS, Drill, drill_of
from fault_proxy import FaultProxy, ProxyThread
from hivemesh_sdk.testing.process import WorkerProcess
from postgres import PORT, postgres
from stolen_ca import port_of
from whole_platform import Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

FAR = "127.0.0.2"  # where a worker listens behind its proxy
LOST_S = 30.0
SLOTS = 4
LONG = pytest.mark.chaos


@pytest.fixture
def proxies() -> Iterator[ProxyThread]:
    with ProxyThread() as found:
        yield found


@pytest.fixture
def drill(tmp_path: Path, shared: Shared) -> Iterator[Drill]:
    """A platform without workers of its own."""
    folder = tmp_path / "installation"
    with installed(folder, shared, workers=[EFFECTS]) as one:
        one.start()
        with one.client() as client:
            client.scale("effects", 0)
        until(lambda: not one.instances("effects"), 30, "no worker of its own")
        yield drill_of(tmp_path, one)


def free_port() -> int:
    """A port that is free at both addresses."""
    with socket.socket() as near, socket.socket() as far:
        near.bind(("127.0.0.1", 0))
        port = int(near.getsockname()[1])
        far.bind((FAR, port))
        return port


@contextmanager
def worker(
    platform: Installation, shared: Shared, *, port: int = 0, mesh: int = 0
) -> Iterator[WorkerProcess]:
    """An instance that joins by itself; behind a proxy where a port is named."""
    folders = shared.environments.glob("effects@*")
    newest = max(folders, key=lambda folder: folder.stat().st_mtime)
    python = str(newest / "bin" / "python")
    variables = {
        "HIVEMESH_PLATFORM": f"https://127.0.0.1:{mesh or port_of(platform, 'mesh')}",
        "HIVEMESH_ENROLMENT": f"https://127.0.0.1:{port_of(platform, 'enrolment')}",
        "HIVEMESH_HOST": FAR if port else "127.0.0.1",
        "HIVEMESH_PORT": str(port),
        "HIVEMESH_ADVERTISE_HOST": "127.0.0.1",
        "HIVEMESH_ALONE_S": "60",
    }
    with platform.client() as client:
        token = client.join_token("effects")
    command = [python, "-P", "-m", "hivemesh_sdk.cli", "run", str(EFFECTS)]
    before = len(platform.instances("effects"))
    with WorkerProcess(command, variables, token, cwd=platform.state.parent) as found:
        until(lambda: len(platform.instances("effects")) > before, 60, "the worker has joined")
        yield found


def begun(drill: Drill) -> int:
    return len(drill.ledger.history((), 0).begun)


def broken(proxy: FaultProxy, kind: str) -> None:
    """Break the way to a worker in one of the ways in which it can break."""
    match kind:
        case "cut":
            proxy.cut()
        case "stalled":
            proxy.stall()
        case "one way":
            proxy.back.dropped = True
        case "refused":
            proxy.refuses = True
            proxy.reset()


@pytest.mark.parametrize(
    "kind",
    ["cut", "one way", pytest.param("stalled", marks=LONG), pytest.param("refused", marks=LONG)],
)
def test_a_worker_behind_a_broken_network_is_replaced_and_its_words_do_not_count(
    drill: Drill, shared: Shared, proxies: ProxyThread, kind: str
) -> None:
    """It goes on with its work meanwhile, and offers the results when the network has healed."""
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(worker(drill.platform, shared, port=port))
        proxy = proxies.to_port(FAR, port, listen=port)
        drill.submit(SLOTS, take_s=1.0)
        until(lambda: begun(drill) == SLOTS, 30, "all slots at work")
        proxies.now(lambda: broken(proxy, kind))
        stack.enter_context(worker(drill.platform, shared))
        drill.kills += 1
        until(lambda: begun(drill) > SLOTS, LOST_S, "work placed again")
        proxies.now(proxy.heal)
        drill.submit(SLOTS)
        verdict = drill.verdict(per_kill=SLOTS)
    assert verdict.faults == ()


def test_a_worker_that_no_longer_reaches_the_platform_doubles_nothing(
    drill: Drill, shared: Shared, proxies: ProxyThread
) -> None:
    mesh = proxies.to_port("127.0.0.1", port_of(drill.platform, "mesh"))
    with worker(drill.platform, shared, mesh=mesh.port):
        drill.submit(SLOTS, take_s=0.5)
        until(lambda: begun(drill) == SLOTS, 30, "all slots at work")
        proxies.now(mesh.cut)
        drill.submit(SLOTS)
        drill.kills += 1
        proxies.now(mesh.heal)
        drill.await_progress()
        verdict = drill.verdict(per_kill=SLOTS)
    assert verdict.faults == ()


def test_a_platform_cut_off_from_its_database_goes_on_when_it_is_back(
    tmp_path: Path, shared: Shared, proxies: ProxyThread
) -> None:
    with postgres() as server:
        proxy = proxies.to_socket(str(server.folder / f".s.PGSQL.{PORT}"))
        address = f"postgresql://root:root-password@127.0.0.1:{proxy.port}"
        url = f"database.url={address}/{server.new_database()}?sslmode=disable"
        with installed(tmp_path / "installation", shared, url, workers=[EFFECTS]) as one:
            drill = drill_of(tmp_path, one)
            drill.restart()
            for fault in (proxy.stall, proxy.reset, proxy.cut):
                drill.submit(8, take_s=0.02)
                drill.start_run()
                proxies.now(fault)
                drill.kills += 1
                proxies.now(proxy.heal)
                drill.await_progress()
            verdict = drill.verdict(per_kill=SLOTS)
    assert verdict.faults == ()
