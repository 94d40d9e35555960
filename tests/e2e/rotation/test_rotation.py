"""Certificates change all the time, and nobody notices; an expired one opens nothing."""

import signal
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from chaos_figures import record
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.trust.contexts import client_context
from hivemesh_sdk.trust.identity import SpiffeId
from mail import submit, write_mbox
from stolen_ca import StolenCA, name_of, port_of
from whole_platform import ROOT, Installation, group_of, reachable, signal_all, until

pytestmark = pytest.mark.e2e

MESSAGE = {
    "id": "0" * 32, "source": "", "offset": 0, "length": 1, "message_id": None, "in_reply_to": [],
    "references": [], "date": None, "date_original": None, "from": [], "sender": [],
    "reply_to": [], "to": [], "cc": [], "bcc": [], "subject": "your invoice", "headers": {},
    "text": "please pay", "html": "", "attachments": [], "size": 1, "defects": [],
}  # fmt: skip
SERVING = [ROOT / "workers" / name for name in ("email-classifier", "email-parser")]
ONE = SERVING[:1]
GET = b"GET /v1/bundle HTTP/1.1\r\nhost: x\r\n\r\n"


def load(installation: Installation, seconds: float) -> tuple[int, list[str]]:
    """Ask the platform, and a worker through it, for so long; counts what went well and wrong."""
    done, wrong = 0, []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        try:
            with installation.client() as client:
                client.status()
                job = client.call("email.classify@1", MESSAGE, {"types": ["bill"]})
        except HivemeshError as error:
            wrong.append(f"{datetime.now(UTC)} {error}")
        else:
            done += 1
            if job.state is not RunState.COMPLETED:
                wrong.append(f"{datetime.now(UTC)} {job}")
    return done, wrong


def rotate(install, *, svid_s: int, issuer_s: int, seconds: float) -> int:
    """Load for so long, and until both workers that it meets have had a further certificate."""
    installation = install(
        *(f"trust.svid_lifetime_s={svid_s}", f"trust.issuer_lifetime_s={issuer_s}"),
        workers=SERVING,
    )
    installation.start()
    installation.until_live()
    first, seen, done = expiries(installation), [expiries(installation)], 0
    ends_at, last = time.monotonic() + seconds, time.monotonic() + seconds + 120
    while len(seen) < 2 or time.monotonic() < ends_at:
        count, wrong = load(installation, 1)
        assert not wrong, wrong
        done += count
        now = expiries(installation)
        assert now.keys() == first.keys()  # renewed, not replaced
        if all(now[one] > seen[-1][one] for one in now):
            seen.append(now)
        assert time.monotonic() < last, seen
    return done


def expiries(installation: Installation) -> dict[str, datetime]:
    """When the certificates of the instances expire."""
    live = installation.instances("email-classifier") + installation.instances("email-parser")
    return {one.id: one.certificate_expires_at for one in live}


def test_certificates_change_under_load_without_a_failed_request(install) -> None:
    assert rotate(install, svid_s=20, issuer_s=120, seconds=2) > 3


@pytest.mark.chaos
def test_two_minutes_of_load_over_six_lifetimes(install) -> None:
    done = rotate(install, svid_s=20, issuer_s=120, seconds=120)
    name = "rotation: requests in 2 min with SVID 20 s, issuer 120 s, none of them failed"
    record(name, done, "requests", 1, holds=True)


@pytest.mark.recorded
def test_an_expired_certificate_is_refused_on_an_open_connection(install) -> None:
    installation = install("workers.supervise=false")
    installation.start()
    ca = StolenCA(installation.state)
    svid = ca.svid(SpiffeId.user(ca.trust_domain, "ada"), lifetime=timedelta(seconds=5))
    context = client_context(svid, ca.bundle())
    told = datetime.now(UTC)
    accepted: list[datetime] = []
    with (
        socket.create_connection(("127.0.0.1", port_of(installation, "mesh")), 10) as plain,
        context.wrap_socket(plain, server_hostname=name_of(ca.trust_domain, "mesh")) as connection,
    ):

        def refused() -> bool:
            nonlocal told
            asked, answer = datetime.now(UTC), b""
            with suppress(OSError):
                connection.sendall(GET)
                answer = connection.recv(65_536)
            told = datetime.now(UTC)
            if b" 200 " in answer:
                accepted.append(asked)
            return b" 200 " not in answer

        until(refused, 60, "the connection was refused")
    assert accepted
    late = sum(moment >= svid.not_after for moment in accepted)
    name = "rotation: accepted with an expired certificate on an open connection"
    record(name, late, "requests", 0, holds=not late)
    assert not late
    assert told >= svid.not_after - timedelta(seconds=1)


@pytest.mark.chaos
def test_after_a_sleep_of_two_lifetimes_the_workers_come_back(install, tmp_path) -> None:
    """A laptop that sleeps: every process stands still while the wall clock goes on.

    Two lifetimes of a certificate, as two hours are with the lifetime of one hour.
    """
    installation = install("trust.svid_lifetime_s=10", "trust.issuer_lifetime_s=60")
    installation.start()
    installation.until_live()
    names = ("email-parser", "email-classifier", "email-insights")
    fronts = [installation.instances(name)[0].pid for name in names]
    asleep = [installation.pid, *(pid for front in fronts for pid in group_of(front))]
    signal_all(asleep, signal.SIGSTOP)
    woken_at = time.monotonic() + 20
    try:
        until(lambda: time.monotonic() > woken_at, 30, "the sleep is over")
    finally:
        signal_all(asleep, signal.SIGCONT)
    until(
        lambda: reachable(installation), 60, "the platform has renewed the operator's certificate"
    )
    until(lambda: all(installation.instances(name) for name in names), 60, "workers are back")
    run = submit(installation, write_mbox(tmp_path / "mail.mbox", 300))
    assert installation.until_ended(run).state is RunState.COMPLETED
    record("rotation: workers back after a sleep of two lifetimes", 1, "drill", 1, holds=True)


def key_states(installation: Installation, kind: str) -> list[str]:
    with installation.client() as client:
        return [key.state for key in client.ca().keys if key.kind == kind]


@pytest.mark.parametrize("kind", ["issuer", "root"])
def test_a_key_of_the_authority_goes_through_its_states_under_load(install, kind) -> None:
    installation = install(
        "trust.svid_lifetime_s=20", "trust.issuer_lifetime_s=600", workers=SERVING
    )
    installation.start()
    installation.until_live()
    before = set(expiries(installation))
    answer = installation.run_command("ca", "rotate", f"--{kind}")
    assert answer.returncode == 0, answer.stderr
    wrong, last = [], time.monotonic() + 120
    while key_states(installation, kind) != ["active", "revoked"]:
        wrong += load(installation, 1)[1]
        assert time.monotonic() < last, key_states(installation, kind)
    assert not wrong + load(installation, 1)[1]
    assert set(expiries(installation)) == before


def test_a_change_of_the_root_goes_on_after_the_platform_was_killed(install) -> None:
    installation = install("trust.svid_lifetime_s=20", "trust.issuer_lifetime_s=600", workers=ONE)
    installation.start()
    installation.until_live()
    assert installation.run_command("ca", "rotate", "--root").returncode == 0
    until(lambda: "tainted" in key_states(installation, "root"), 90, "the new root signs")
    installation.kill()
    installation.start()
    until(
        lambda: key_states(installation, "root") == ["active", "revoked"],
        120,
        "the old one is gone",
    )
    installation.until_live()
    assert not load(installation, 1)[1]


@pytest.mark.parametrize("running", [True, False])
def test_after_breaking_the_glass_everybody_has_a_new_identity(install, running) -> None:
    installation = install(workers=ONE)
    installation.start()
    installation.until_live()
    before = installation.instances("email-classifier")[0].id
    ca = StolenCA(installation.state)
    stolen = client_context(ca.svid(SpiffeId.user(ca.trust_domain, "operator")), ca.bundle())
    if not running:
        installation.stop()
    answer = installation.run_command("ca", "rotate", "--emergency", "--yes")
    assert answer.returncode == 0, answer.stderr
    if not running:
        installation.start()
    until(
        lambda: [one.id for one in installation.instances("email-classifier") if one.id != before],
        120,
        "the worker is back",
    )
    assert not load(installation, 1)[1]
    with (
        socket.create_connection(("127.0.0.1", port_of(installation, "mesh")), 10) as plain,
        pytest.raises(OSError, match="certificate"),
    ):
        stolen.wrap_socket(plain, server_hostname=name_of(ca.trust_domain, "mesh"))
