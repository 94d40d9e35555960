import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from hivemesh_platform.identity import OperatorFiles, OwnIdentity, Sources
from hivemesh_platform.trust.authority import Authority, open_authority
from hivemesh_platform.trust.keyring import KeyKind
from hivemesh_platform.trust.profile import SIGNER_BACKDATE, Lifetimes
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.source import IdentitySource


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def authority(tmp_path: Path, clock: ManualClock) -> Authority:
    return open_authority(tmp_path / "trust", clock, Lifetimes(svid=timedelta(hours=1)))


@pytest.fixture
def operator(tmp_path: Path, authority: Authority, clock: ManualClock) -> OperatorFiles:
    return OperatorFiles(tmp_path / "operator", authority, clock)


@pytest.fixture
def own(authority: Authority, operator: OperatorFiles, clock: ManualClock) -> OwnIdentity:
    return OwnIdentity(Sources(source(authority)), authority, operator, clock)


def source(authority: Authority) -> IdentitySource:
    svid = authority.svid(SpiffeId.platform(authority.trust_domain, "p1"))
    return IdentitySource(svid, authority.bundle())


def serial(own: OwnIdentity) -> int:
    return own._source.svid().serial


async def test_nothing_is_renewed_before_half_life(own: OwnIdentity, clock: ManualClock) -> None:
    before = serial(own)
    clock.advance(timedelta(minutes=25))
    await own.tick()
    assert serial(own) == before


async def test_the_own_certificate_is_renewed_at_half_life(
    own: OwnIdentity, clock: ManualClock
) -> None:
    before = serial(own)
    clock.advance(timedelta(minutes=31))
    await own.tick()
    assert serial(own) != before


async def test_a_laptop_that_slept_renews_at_once(own: OwnIdentity, clock: ManualClock) -> None:
    before = serial(own)
    clock.jump(timedelta(hours=9))
    await own.tick()
    assert serial(own) != before


async def test_where_the_clock_was_set_back_a_certificate_that_is_valid_now_is_made(
    tmp_path: Path, clock: ManualClock
) -> None:
    made = open_authority(tmp_path / "trust", clock, Lifetimes(svid=timedelta(hours=1)))
    clock.advance(timedelta(hours=3))
    operator = OperatorFiles(tmp_path / "operator", made, clock)
    own = OwnIdentity(Sources(source(made)), made, operator, clock)
    await own.tick()
    before = serial(own)
    shown = (tmp_path / "operator" / "certificate.pem").read_text()
    clock.jump(timedelta(hours=-1))
    await own.tick()
    after = own._source.svid()
    assert after.serial != before
    assert after.not_before <= clock.now() < after.not_after <= clock.now() + timedelta(hours=1)
    assert (tmp_path / "operator" / "certificate.pem").read_text() != shown
    await own.tick()
    assert serial(own) == after.serial


async def test_no_certificates_are_made_in_vain_where_the_issuer_is_not_valid_yet(
    own: OwnIdentity, clock: ManualClock
) -> None:
    before = serial(own)
    clock.jump(-2 * SIGNER_BACKDATE)
    await own.tick()
    assert serial(own) == before


async def test_a_new_root_is_announced(
    own: OwnIdentity, authority: Authority, tmp_path: Path
) -> None:
    authority.prepare(KeyKind.ROOT)
    await own.tick()
    assert len(own._source.bundle().roots) == 2
    assert (tmp_path / "operator" / "bundle.pem").read_bytes().count(b"BEGIN") == 2


def test_the_operator_gets_files_that_only_he_may_read(
    operator: OperatorFiles, tmp_path: Path
) -> None:
    operator.renew()
    operator.write_endpoint("127.0.0.1", 8443)
    folder = tmp_path / "operator"
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")


def test_key_and_certificate_fit_while_they_are_replaced(
    operator: OperatorFiles, tmp_path: Path
) -> None:
    operator.renew()
    key = (tmp_path / "operator" / "key.pem").read_bytes()
    operator.renew(force=True)
    assert (tmp_path / "operator" / "key.pem").read_bytes() == key


def test_the_operators_key_goes_when_the_platform_ends(
    operator: OperatorFiles, tmp_path: Path
) -> None:
    operator.renew()
    operator.write_endpoint("127.0.0.1", 8443)
    operator.remove()
    assert [path.name for path in (tmp_path / "operator").iterdir()] == ["bundle.pem"]
