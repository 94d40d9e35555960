"""A worker that is stopped in the middle of a step, and one that is started again between pages."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest
from chaos_figures import record
from hivemesh_sdk.contracts.api import ExplainView, InstanceView, RunState
from hivemesh_sdk.contracts.names import TICKET_HEADER
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.source import IdentitySource
from mail import submit, write_mbox
from stolen_ca import StolenCA, port_of
from whole_platform import Installation, group_of, signal_all, until

pytestmark = pytest.mark.e2e

PLACED_AGAIN_S = 10.0  # with nothing beside it
SMALL = ("execution.batch_records=50", "execution.in_flight_batches=2")
LARGE = 20_000  # messages: more than a source may read ahead


@pytest.fixture(scope="session")
def mbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mbox(tmp_path_factory.mktemp("mail") / "large.mbox", LARGE)


def reading(installation: Installation, run: str) -> InstanceView:
    """The parser's instance once it has brought the first batches."""
    until(lambda: installation.node(run, "parse").records_out, 60, "first batches")
    return installation.instances("email-parser")[0]


def attempts_at_parse(installation: Installation, run: str) -> list[ExplainView]:
    with installation.client() as client:
        return [one for one in client.explain(run) if one.key == f"{run}.parse.0"]


def asked_as(installation: Installation, instance: InstanceView, run: str) -> int:
    """The status of a question for the archive, asked as this instance for its first attempt."""
    ca = StolenCA(installation.state)
    who = ca.svid(SpiffeId.parse(instance.identity))
    target = Target.platform("127.0.0.1", port_of(installation, "mesh"), ca.trust_domain)
    sha256 = installation.run(run).parameters["archive"]["sha256"]
    path = f"/v1/artifacts/{sha256}?step={run}.parse.0&attempt=1"
    tickets = ThrowawayTickets(ca.signing, str(ca.platform()))
    ticket = tickets.of(who.id, f"{run}.parse.0", "email.parse@1")

    async def ask() -> int:
        async with MeshClient(IdentitySource(who, ca.bundle())) as client:
            headers = {TICKET_HEADER: ticket}
            answer = await client.request(target, "GET", path, headers=headers, deadline_s=10.0)
            return answer.status

    return asyncio.run(ask())


@pytest.mark.recorded
def test_a_step_of_a_stopped_worker_is_placed_again_and_its_words_are_stale(
    install, mbox: Path
) -> None:
    installation = install(*SMALL)
    installation.start()
    run = submit(installation, mbox)
    stopped = reading(installation, run)
    processes = group_of(stopped.pid)
    signal_all(processes, signal.SIGSTOP)
    began = time.monotonic()
    try:

        def placed_again() -> bool:
            chosen = [one.chosen for one in attempts_at_parse(installation, run)]
            return bool(chosen) and chosen[-1] not in {stopped.id, None}

        until(placed_again, 60, "the step was placed at another instance")
        took_s = time.monotonic() - began
        name = "lost worker: its step placed again"
        record(name, took_s, "s", PLACED_AGAIN_S, holds=took_s <= PLACED_AGAIN_S)
        told = installation.run_command("run", "lost", "--all", "-o", "json")
        [lost] = [one for one in json.loads(told.stdout) if one["instance"] == stopped.id]
        assert lost["key"] == f"{run}.parse.0"
        assert lost["elapsed_s"] > 0
        assert lost["now_attempt"] > lost["attempt"]
        before = installation.metric("hivemesh_stale_refused_total")
    finally:
        signal_all(processes, signal.SIGCONT)
    # Whether it asks by itself depends on how far it had read ahead, so its words are said for it.
    assert asked_as(installation, stopped, run) == 409
    assert installation.metric("hivemesh_stale_refused_total") > before
    with installation.client() as client:
        client.cancel(run)
    assert installation.until_ended(run).state is RunState.CANCELLED


@pytest.mark.recorded
def test_a_worker_restarted_between_two_pages_loses_and_doubles_nothing(
    install, tmp_path: Path
) -> None:
    installation = install(*SMALL)
    installation.start()
    run = submit(installation, write_mbox(tmp_path / "mail.mbox", 2000))
    first = reading(installation, run)
    os.kill(first.pid, signal.SIGTERM)
    ended = installation.until_ended(run)
    assert ended.state is RunState.COMPLETED, ended
    assert first.id not in {one.id for one in installation.instances("email-parser")}
    with installation.client() as client:
        lines = b"".join(client.output(run, "messages")).splitlines()
    ids = [line.partition(b'"id":"')[2][:32] for line in lines]
    lost, doubled = 2000 - len(set(ids)), len(ids) - len(set(ids))
    name = "lost worker: messages lost or doubled by a restart between two pages"
    record(name, lost + doubled, "messages", 0, holds=not lost + doubled)
    assert (lost, doubled) == (0, 0)
