"""Networks that break between platform, workers and database: no superseded attempt's result counts."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from chaos_figures import record
from drill import EFFECTS, SLOTS, Drill, drill_of
from fault_proxy import FaultProxy, ProxyThread
from history import Verdict
from hivemesh_sdk.testing.process import WorkerProcess
from joined_worker import joined
from postgres import PORT, Postgres, postgres
from replica_pair import TAKEN_OVER_S, two_replicas, until_taken_over
from stolen_ca import port_of
from whole_platform import ROOT, Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

FAR = "127.0.0.2"  # where a worker listens behind its proxy
LOST_S = 30.0
RELAY = ROOT / "tests" / "support" / "chaos_workers" / "relay"
LONG, SHORT = pytest.mark.chaos, pytest.mark.recorded


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


def worker(
    platform: Installation, shared: Shared, *, port: int = 0, mesh: int = 0
) -> AbstractContextManager[WorkerProcess]:
    """An instance that joins by itself; behind a proxy where a port is named."""
    host = FAR if port else "127.0.0.1"
    return joined(platform, shared, EFFECTS, mesh=mesh, HIVEMESH_HOST=host, HIVEMESH_PORT=str(port))


def begun(drill: Drill) -> int:
    return len(drill.ledger.history((), 0).begun)


def judge(name: str, verdict: Verdict) -> None:
    """Write down what counts of a partition: nothing that a superseded attempt said."""
    stale, lost = len(verdict.stale), len(verdict.lost)
    name = f"partition of {name}"
    record(f"{name}: superseded results accepted", stale, "results", 0, holds=not stale)
    record(f"{name}: lost", lost, "jobs", 0, holds=not lost)
    assert verdict.faults == ()


def broken(proxy: FaultProxy, kind: str) -> None:
    """Break the way to a worker in one of the ways in which it can break."""
    match kind:
        case "cut":
            proxy.cut()
        case "stalled":
            proxy.stall()
        case "one way":
            proxy.back.dropped = True
        case "other way":
            proxy.there.dropped = True
        case "refused":
            proxy.refuses = True
            proxy.reset()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("cut", marks=SHORT),
        pytest.param("one way", marks=SHORT),
        pytest.param("stalled", marks=LONG),
        pytest.param("refused", marks=LONG),
    ],
)
def test_a_worker_behind_a_broken_network_is_replaced_and_its_words_do_not_count(
    drill: Drill, shared: Shared, proxies: ProxyThread, kind: str
) -> None:
    """It goes on with its work meanwhile, and offers the results when the network has healed."""
    with ExitStack() as stack:
        proxy = proxies.to_port(FAR)
        stack.enter_context(worker(drill.platform, shared, port=proxy.port))
        drill.submit(SLOTS, take_s=1.0)
        until(lambda: begun(drill) == SLOTS, 30, "all slots at work")
        proxies.now(lambda: broken(proxy, kind))
        stack.enter_context(worker(drill.platform, shared))
        drill.kills += 1
        until(lambda: begun(drill) > SLOTS, LOST_S, "work placed again")
        proxies.now(proxy.heal)
        drill.submit(SLOTS)
        verdict = drill.verdict(per_kill=SLOTS)
    judge(f"platform and worker, {kind}", verdict)


@SHORT
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
    judge("worker and platform", verdict)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=LONG) for kind in ("refused", "cut", "one way")]
)
def test_a_call_between_workers_that_a_broken_network_ends_counts_once(
    tmp_path: Path, shared: Shared, proxies: ProxyThread, kind: str
) -> None:
    """The callee goes on behind the broken network; the caller's next attempt asks another one."""
    workers = [EFFECTS, RELAY]
    with installed(tmp_path / "installation", shared, workers=workers) as one, ExitStack() as stack:
        one.start()
        with one.client() as client:
            client.scale("effects", 0)
        until(lambda: not one.instances("effects"), 30, "no worker of effects of its own")
        until(lambda: one.instances("relay"), 60, "the one that calls")
        drill = drill_of(tmp_path, one)
        drill.capability = "relay.write@1"
        proxy = proxies.to_port(FAR)
        stack.enter_context(worker(one, shared, port=proxy.port))
        drill.submit(SLOTS, take_s=20.0)
        until(lambda: begun(drill) == SLOTS, 60, "all slots at work")
        stack.enter_context(worker(one, shared))
        proxies.now(lambda: broken(proxy, kind))
        drill.kills += 1
        until(lambda: begun(drill) > SLOTS, 120, "work placed again")
        proxies.now(proxy.heal)
        drill.submit(SLOTS)
        verdict = drill.verdict(per_kill=SLOTS)
    judge(f"worker and worker, {kind}", verdict)


def proxied(server: Postgres, proxies: ProxyThread, database: str) -> tuple[FaultProxy, str]:
    """A way of one's own to a database."""
    proxy = proxies.to_socket(str(server.folder / f".s.PGSQL.{PORT}"))
    address = f"postgresql://root:root-password@127.0.0.1:{proxy.port}/{database}?sslmode=disable"
    return proxy, address


@LONG
@pytest.mark.parametrize("kind", ["cut", "one way", "other way", "stalled"])
def test_a_replica_behind_a_broken_network_commits_nothing_after_its_take_over(
    tmp_path: Path, shared: Shared, proxies: ProxyThread, kind: str
) -> None:
    """One way: what it writes arrives, and it hears of nothing; the other way: nothing it writes does.

    The network heals when its work has gone.
    """
    with postgres() as server, ExitStack() as stack:
        database = server.new_database()
        proxy, address = proxied(server, proxies, database)
        drill = stack.enter_context(
            two_replicas(tmp_path, shared, address, server.address(database))
        )
        first = drill.platform
        drill.submit(12, take_s=0.3)
        drill.start_run()
        proxies.now(lambda: broken(proxy, kind))
        drill.kills += 1
        took_s = until_taken_over(drill, server, database)
        drill.submit(4)
        drill.await_progress()
        proxies.now(proxy.heal)

        def is_back() -> bool:
            with drill.platform.client() as client:
                return {one.state for one in client.replicas()} == {"live"}

        until(is_back, 60, "it has joined again")
        drill.submit(4)
        verdict = drill.verdict(per_kill=SLOTS)
        refused = first.metric("hivemesh_commits_fenced_total")
    name = f"partition of a replica and its database, {kind}: taken over"
    record(name, took_s, "s", TAKEN_OVER_S, holds=took_s <= TAKEN_OVER_S)
    print(f"{kind}: {refused:g} commits refused")  # noqa: T201 - a figure
    judge(f"a replica and its database, {kind}", verdict)


@SHORT
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
    judge("a platform and its database", verdict)
