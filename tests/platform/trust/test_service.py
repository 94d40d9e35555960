"""Who gets a certificate, and who does not."""

import asyncio
from datetime import timedelta

import pytest
from enrolment_support import MemoryEnrolmentStore
from hivemesh_platform.audit.model import Actor
from hivemesh_platform.audit.ports import NoAudit
from hivemesh_platform.trust import failures
from hivemesh_platform.trust.authority import open_authority
from hivemesh_platform.trust.failures import FailureLimit
from hivemesh_platform.trust.model import (
    CsrInvalidError,
    EnrolmentRateLimitedError,
    EnrolmentRefusedError,
    InstanceDuplicateError,
    KeyReusedError,
    RenewalRefusedError,
)
from hivemesh_platform.trust.profile import Lifetimes
from hivemesh_platform.trust.revocation import Decision, Revocation
from hivemesh_platform.trust.service import EnrolmentService
from hivemesh_platform.trust.store import SqlEnrolmentStore
from hivemesh_sdk.errors import InvalidError, NotFoundError
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.trust.identity import SpiffeId, peer_identity
from hivemesh_sdk.trust.keys import certificate_request, new_key, svid
from hivemesh_sdk.trust.tokens import Token, TokenKind
from hivemesh_sdk.trust.wire import EnrolRequest
from storage_support import DIALECTS, open_prepared
from structlog.testing import capture_logs

ADDRESS = "127.0.0.1"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def authority(tmp_path, clock):
    return open_authority(tmp_path / "trust", clock, Lifetimes())


@pytest.fixture(params=["memory", *DIALECTS])
async def store(request, tmp_path):
    if request.param == "memory":
        yield MemoryEnrolmentStore()
        return
    async with open_prepared(request, tmp_path) as database:
        yield SqlEnrolmentStore(database)


@pytest.fixture
def live():
    return set()


@pytest.fixture
def revocation(authority, store, clock):
    return Revocation(store, clock, NoAudit(), trust_domain=authority.trust_domain)


@pytest.fixture
def service(authority, store, clock, live, revocation):
    return EnrolmentService(
        authority, store, clock, is_live=live.__contains__, revocation=revocation
    )


class Holder:
    """Somebody with a token and a key."""

    def __init__(self, service, authority, token, key=None):
        self.service, self.authority, self.token = service, authority, token
        self.key = key or new_key()
        self.svid = None

    async def enrol(self, address=ADDRESS, **changes):
        request = EnrolRequest(
            **{
                "token": self.token,
                "csr": certificate_request(self.key).decode(),
                "worker": "echo",
                **changes,
            }
        )
        return self._take(await self.service.enrol(request, address), self.key)

    async def renew(self, key=None):
        key = key or new_key()
        answer = await self.service.renew(self.peer(), certificate_request(key).decode())
        return self._take(answer, key)

    def peer(self):
        return peer_identity(self.svid.chain[0], self.authority.trust_domain)

    def _take(self, answer, key):
        self.svid = svid(key, answer.certificate_chain.encode(), self.authority.trust_domain)
        self.key = key
        assert answer.instance == self.svid.id.instance
        return self.svid


@pytest.fixture
def holder(service, authority):
    async def make(**options):
        return Holder(service, authority, await service.create_token("echo", **options))

    return make


@pytest.fixture
def container(service, authority):
    async def make(count=1, **options):
        token = await service.create_credential("echo", **options)
        return [Holder(service, authority, token) for _ in range(count)]

    return make


async def test_token_carries_the_root_and_gives_one_identity_of_its_worker(holder, authority):
    one = await holder()
    token = Token.parse(one.token)
    assert (token.kind, token.root_sha256) == (TokenKind.JOIN, authority.root_sha256)
    identity = await one.enrol()
    assert identity.id.path[:2] == ("worker", "echo")


async def test_token_is_used_once_under_fifty_concurrent_tries(holder, service, authority):
    one = await holder()
    tries = [Holder(service, authority, one.token) for _ in range(50)]
    results = await asyncio.gather(
        *(each.enrol(f"10.0.0.{n}") for n, each in enumerate(tries)), return_exceptions=True
    )
    errors = [result for result in results if isinstance(result, Exception)]
    assert len(errors) == 49
    assert {type(error) for error in errors} == {EnrolmentRefusedError}


async def test_unknown_used_expired_and_foreign_tokens_look_the_same(
    holder, service, authority, clock
):
    used = await holder()
    await used.enrol()
    used.key = new_key()
    expired = await holder()
    foreign = Holder(service, authority, await service.create_token("other"))
    wrong_secret = await holder()
    wrong_secret.token = wrong_secret.token.replace(
        Token.parse(wrong_secret.token).secret, "x" * 43
    )
    unknown = await holder()
    unknown.token = unknown.token.replace(Token.parse(unknown.token).id, "0" * 16)
    nonsense = Holder(service, authority, "nonsense")
    clock.advance(timedelta(minutes=9, seconds=59))
    words = set()
    for number, each in enumerate([used, foreign, wrong_secret, unknown, nonsense]):
        with pytest.raises(EnrolmentRefusedError) as caught:
            await each.enrol(f"10.0.0.{number}")
        words.add(str(caught.value))
    clock.advance(2)
    with pytest.raises(EnrolmentRefusedError) as caught:
        await expired.enrol("10.0.0.9")
    assert words == {str(caught.value)}


async def test_lost_reply_is_given_again_to_the_same_key_for_a_minute(holder, clock):
    one = await holder()
    first = await one.enrol()
    clock.advance(59)
    assert (await one.enrol()).serial == first.serial
    clock.advance(2)
    with pytest.raises(EnrolmentRefusedError):
        await one.enrol()


async def test_refused_request_does_not_use_up_the_token(holder):
    one = await holder()
    with pytest.raises(CsrInvalidError):
        await one.enrol(csr="nonsense")
    other = SpiffeId.worker("other.example", "echo", "i1")
    with pytest.raises(CsrInvalidError):
        await one.enrol(csr=certificate_request(new_key(), other).decode())
    with pytest.raises(InvalidError):
        await one.enrol(instance="no label")
    assert await one.enrol()


async def test_token_may_be_bound_to_an_instance_and_a_manifest(holder):
    one = await holder(instance="i1", manifest_digest="sha256:a")
    for wrong in (
        {"instance": "i2", "manifest_digest": "sha256:a"},
        {"manifest_digest": "sha256:b"},
        {},
    ):
        with pytest.raises(EnrolmentRefusedError):
            await one.enrol(**wrong)
    assert (await one.enrol(manifest_digest="sha256:a")).id.instance == "i1"


async def test_name_of_a_living_instance_is_not_given_away(holder, live):
    owner, thief = await holder(), await holder()
    identity = await owner.enrol(instance="i1")
    live.add(str(identity.id))
    with pytest.raises(InstanceDuplicateError):
        await thief.enrol(instance="i1")


async def test_name_of_a_dead_instance_is_given_again_and_its_certificate_denied(
    holder, service, clock
):
    owner, heir = await holder(), await holder()
    old = await owner.enrol(instance="i1")
    clock.advance(61)
    assert (await heir.enrol(instance="i1")).id == old.id
    assert [denial.rule for denial in await service.denials()] == [f"serial:{old.serial:x}"]
    with pytest.raises(RenewalRefusedError):
        await owner.renew()


async def test_key_is_certified_once(holder, service, authority):
    one = await holder()
    await one.enrol()
    other = Holder(service, authority, await service.create_token("echo"), key=one.key)
    with pytest.raises(KeyReusedError):
        await other.enrol()


@pytest.mark.parametrize("worker", ["", "Echo", "a/b", "a" * 41, "-a"])
async def test_token_for_an_impossible_worker_is_refused(service, worker):
    with pytest.raises(InvalidError):
        await service.create_token(worker)
    with pytest.raises(InvalidError):
        await service.create_credential(worker)


async def test_credential_needs_room_for_an_instance(service):
    with pytest.raises(InvalidError):
        await service.create_credential("echo", max_live=0)


@pytest.mark.parametrize("lifetime", [timedelta(), timedelta(hours=25)])
async def test_token_lives_at_most_a_day(service, lifetime):
    with pytest.raises(InvalidError):
        await service.create_token("echo", lifetime=lifetime)


async def test_secret_is_in_no_log_line(holder):
    with capture_logs() as lines:
        one = await holder()
        await one.enrol()
        with pytest.raises(EnrolmentRefusedError):
            await one.enrol(worker="other", csr=certificate_request(new_key()).decode())
    assert Token.parse(one.token).secret not in repr(lines)


async def test_five_failures_of_an_address_block_its_further_failures_only(
    holder, service, authority, clock
):
    for _ in range(5):
        with pytest.raises(EnrolmentRefusedError):
            await Holder(service, authority, "nonsense").enrol("10.0.0.1")
    with pytest.raises(EnrolmentRateLimitedError) as caught:
        await Holder(service, authority, "nonsense").enrol("10.0.0.1")
    assert 59 <= caught.value.retry_after_s <= 60
    assert await (await holder()).enrol("10.0.0.1")
    with pytest.raises(EnrolmentRefusedError):
        await Holder(service, authority, "nonsense").enrol("10.0.0.2")
    clock.advance(61)
    with pytest.raises(EnrolmentRefusedError):
        await Holder(service, authority, "nonsense").enrol("10.0.0.1")


def test_addresses_are_forgotten_before_memory_grows(clock, monkeypatch):
    monkeypatch.setattr(failures, "ADDRESSES", 3)
    limit = FailureLimit(clock)
    for number in range(50):
        limit.add(f"10.0.0.{number}")
    assert len(limit._failures) == 3


def test_slow_failures_are_not_limited(clock):
    limit = FailureLimit(clock)
    for _ in range(20):
        limit.add(ADDRESS)
        clock.advance(15)


async def test_a_process_enrols_again_under_its_name_after_the_clock_was_set_back(holder, clock):
    one, again = await holder(), await holder()
    await one.enrol(instance="i1")
    clock.jump(timedelta(hours=-1))
    assert (await again.enrol(instance="i1")).id.instance == "i1"


async def test_credential_enrols_many_and_is_bound_to_its_worker(container):
    holders = await container(3)
    identities = {(await each.enrol()).id for each in holders}
    assert len(identities) == 3
    with pytest.raises(EnrolmentRefusedError):
        await holders[0].enrol(worker="other")


async def test_credential_allows_so_many_living_instances(container, clock, live):
    one, two, three = await container(3, max_live=2)
    identities = [await each.enrol() for each in (one, two)]
    with pytest.raises(InstanceDuplicateError, match="2 live instances"):
        await three.enrol()
    clock.advance(61)
    live.update(str(identity.id) for identity in identities)
    with pytest.raises(InstanceDuplicateError):
        await three.enrol()
    live.discard(str(identities[0].id))
    assert await three.enrol()


async def test_renewed_instance_counts_once(container, live):
    one, two = await container(2, max_live=2)
    await one.enrol()
    for _ in range(3):
        await one.renew()
    assert await two.enrol()


async def test_revoked_credential_enrols_nobody(container, revocation):
    one, two = await container(2)
    await one.enrol()
    credential = Decision(target=Token.parse(one.token).id, reason="left", by=Actor(id="x"))
    assert (await revocation.revoke_credential(credential)).revoked_at is not None
    with pytest.raises(EnrolmentRefusedError):
        await two.enrol()
    assert await one.renew()
    with pytest.raises(NotFoundError):
        await revocation.revoke_credential(Decision(target="0" * 16, reason="x", by=Actor(id="x")))


async def test_renewal_keeps_the_identity_and_changes_the_rest(holder):
    one = await holder()
    first = await one.enrol()
    second = await one.renew()
    assert second.id == first.id
    assert second.serial != first.serial
    assert (await one.renew()).serial != second.serial


async def test_renewal_needs_a_new_key(holder):
    one = await holder()
    await one.enrol()
    with pytest.raises(KeyReusedError):
        await one.renew(one.key)


async def test_lost_reply_to_a_renewal_is_given_again_to_the_same_key(holder, clock):
    one = await holder()
    first = await one.enrol()
    key = new_key()
    second = await one.renew(key)
    one.svid = first
    clock.advance(timedelta(minutes=5))
    assert (await one.renew(key)).serial == second.serial


async def test_two_keys_that_renew_from_one_certificate_both_lose_the_identity(holder, service):
    owner = await holder()
    stolen = await owner.enrol()
    await owner.renew()
    thief = Holder(service, owner.authority, owner.token)
    thief.svid = stolen
    with capture_logs() as lines, pytest.raises(RenewalRefusedError, match="two keys"):
        await thief.renew()
    assert [line["log_level"] for line in lines if line["event"] == "renewal_by_two_keys"] == [
        "error"
    ]
    assert [denial.rule for denial in await service.denials()] == [str(stolen.id)]
    with pytest.raises(RenewalRefusedError):
        await owner.renew()


async def test_expired_certificate_is_not_renewed(holder, clock):
    one = await holder()
    await one.enrol()
    clock.advance(timedelta(hours=1))
    with pytest.raises(RenewalRefusedError):
        await one.renew()


async def test_certificate_that_was_not_enrolled_is_not_renewed(holder, authority):
    one = await holder()
    one.svid = authority.svid(SpiffeId.worker(authority.trust_domain, "echo", "i1"))
    with pytest.raises(RenewalRefusedError):
        await one.renew()


async def test_renewal_for_another_name_is_refused(holder, service, authority):
    one = await holder()
    await one.enrol()
    other = SpiffeId.platform(authority.trust_domain, "p1")
    with pytest.raises(CsrInvalidError):
        await service.renew(one.peer(), certificate_request(new_key(), other).decode())


async def test_evicted_instance_may_enrol_again(holder, service, revocation):
    one, again = await holder(), await holder()
    identity = await one.enrol(instance="i1")
    assert (
        len(await revocation.evict(Decision(target="i1", reason="maintenance", by=Actor(id="x"))))
        == 1
    )
    with pytest.raises(RenewalRefusedError):
        await one.renew()
    assert (await again.enrol(instance="i1")).id == identity.id


async def test_banned_worker_may_not_enrol_again(holder, revocation):
    one, again = await holder(), await holder()
    await one.enrol()
    await revocation.ban(Decision(target="echo", reason="stolen", by=Actor(id="x")))
    with pytest.raises(RenewalRefusedError):
        await one.renew()
    with pytest.raises(EnrolmentRefusedError):
        await again.enrol()


async def test_old_records_are_forgotten(holder, service, clock):
    one = await holder()
    await one.enrol()
    clock.advance(timedelta(days=8))
    await service.forget()
    clock.jump(timedelta(days=-8))
    with pytest.raises(RenewalRefusedError):
        await one.renew()
