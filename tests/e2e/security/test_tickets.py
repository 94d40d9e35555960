"""Tickets in a running installation: calls between workers, exchange, and what stops them."""

import io
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hivemesh_sdk.contracts.api import RunView
from hivemesh_sdk.contracts.names import TICKET_HEADER
from hivemesh_sdk.contracts.problems import Problem, slug_of
from hivemesh_sdk.contracts.tickets import ExchangeRequest
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.source import IdentitySource
from stolen_ca import StolenCA, port_of
from whole_platform import ROOT, Installation, Shared, installed, until

pytestmark = pytest.mark.e2e

WORKERS = [ROOT / "tests" / "support" / "workers" / name for name in ("converter", "notary")]
SHEET = b"eight by eleven"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, shared: Shared) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("tickets"), shared, workers=WORKERS) as found:
        found.start()
        yield found


@pytest.fixture
def running(kept: Installation) -> Installation:
    kept.until_live(within_s=180)  # the test before may have taken the platform away
    return kept


def stored(running: Installation, data: bytes, data_class: str = "internal") -> dict[str, object]:
    with running.client() as client:
        view = client.put_artifact(io.BytesIO(data), data_class=data_class)
    return {"sha256": view.sha256, "size": view.size}


def called(running: Installation, capability: str, value: object) -> RunView:
    with running.client() as client:
        run = client.call(capability, value)
    return running.until_ended(run.id)


def test_a_callee_reads_and_stores_with_a_ticket_of_its_own(running: Installation) -> None:
    run = called(running, "sheet.convert@1", stored(running, SHEET))
    assert run.state.value == "completed", run.problem
    with running.client() as client:
        answer = msgspec.json.decode(b"".join(client.output(run.id, "result")))
        assert b"".join(client.artifact(answer["stamp"]["stamp"])) == b"stamp of 15 bytes"
    assert answer["stamp"]["length"] == len(SHEET)
    assert answer["stamp"]["key"].startswith(f"{run.id}.job.0.call-")


def test_personal_data_does_not_reach_the_callee_that_is_not_cleared(
    running: Installation,
) -> None:
    """The converter is cleared for it, the notary is not: its own check refuses the call."""
    run = called(running, "sheet.convert@1", stored(running, b"personal sheet", "personal"))
    assert run.state.value == "failed"
    assert "data class personal exceeds internal of sheet.stamp@1" in str(run.problem)


async def exchange(running: Installation, token: str, step: str, who: SpiffeId) -> Problem:
    ca = StolenCA(running.state)
    target = Target.platform("127.0.0.1", port_of(running, "mesh"), ca.trust_domain)
    body = msgspec.json.encode(ExchangeRequest(ticket=token, step=step, capability="sheet.stamp@1"))
    async with MeshClient(IdentitySource(ca.svid(who), ca.bundle())) as client:
        answer = await client.request(
            target, "POST", "/v1/tickets/exchange",
            headers={"content-type": "application/json"}, body=body, deadline_s=10,
        )  # fmt: skip
    return msgspec.json.decode(answer.body, type=Problem)


async def test_a_ticket_of_a_step_that_is_over_is_exchanged_no_more(
    running: Installation,
) -> None:
    ca = StolenCA(running.state)
    run = called(running, "sheet.convert@1", stored(running, SHEET))
    tickets = ThrowawayTickets(ca.signing, str(ca.platform()))
    holder = SpiffeId.parse(running.instances("converter")[0].identity)
    notary = SpiffeId.parse(running.instances("notary")[0].identity)
    step = f"{run.id}.job.0"
    claims = tickets.claims(
        holder, step, "sheet.convert@1", aud=["converter", "notary"], calls=["sheet.stamp@1"]
    )
    problem = await exchange(running, tickets.sign(claims), f"{step}.again", notary)
    assert slug_of(problem) == "stale-attempt"
    problem = await exchange(running, tickets.sign(claims), f"{step}.again", holder)
    assert slug_of(problem) == "not-authorized"


async def test_a_worker_stores_nothing_without_a_ticket(running: Installation) -> None:
    ca = StolenCA(running.state)
    target = Target.platform("127.0.0.1", port_of(running, "mesh"), ca.trust_domain)
    notary = SpiffeId.parse(running.instances("notary")[0].identity)
    async with MeshClient(IdentitySource(ca.svid(notary), ca.bundle())) as client:
        for header in ({}, {TICKET_HEADER: "x.y.z"}):
            answer = await client.request(
                target, "PUT", f"/v1/artifacts/{'a' * 64}?step=run_1.a.0&attempt=1",
                headers=header, body=b"x", deadline_s=10,
            )  # fmt: skip
            assert answer.status == 401


def test_workers_go_on_calling_each_other_while_the_platform_is_away(
    running: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "calls"
    file.touch()
    with running.client() as client:
        run = client.call(
            "sheet.convert_many@1",
            {"file": str(file), "times": 40, "pause_s": 0.1},
            wait_s=0,
        )
    until(lambda: file.read_text().count("\n") >= 3, 60, "the first calls")
    running.kill()
    seen = file.read_text().count("\n")
    until(lambda: file.read_text().count("\n") >= seen + 10, 60, "calls without a platform")
    running.start()
    assert running.until_ended(run.id).state.value == "completed"
    lines = file.read_text().split()
    assert sorted(map(int, set(lines))) == list(range(40))
    assert len(lines) == 40  # a further attempt got the answers of the first
