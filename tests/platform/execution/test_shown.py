"""Tickets shown to the platform: what counts, what is stale, and that an exchange only narrows."""

import asyncio

import msgspec
import pytest
from execution_support import SIGNERS, SIGNING
from fake_workers import capability
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.held import HeldStep, HeldSteps
from hivemesh_platform.execution.ledger.counters import ExecutionCounters
from hivemesh_platform.execution.ledger.port import Claim, StaleAttemptError
from hivemesh_platform.execution.model import Fence, RetryPolicy, WorkKey
from hivemesh_platform.execution.ports import KnownCapability
from hivemesh_platform.execution.rights.shown import StepTickets, root_of
from hivemesh_platform.execution.rights.tickets import TicketMint
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.instances import Endpoint
from hivemesh_sdk.contracts.manifest import Permissions
from hivemesh_sdk.contracts.tickets import TICKET_TYPE, ExchangeRequest, Ticket
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.testing.fake_policies import EverythingAllowed
from hivemesh_sdk.trust import jws
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.tickets import TicketReader, TicketRefusedError
from hypothesis import given
from hypothesis import strategies as st

DOMAIN = "test.hivemesh.internal"
CONVERTER = SpiffeId.worker(DOMAIN, "converter", "c1")
LEDGER = SpiffeId.worker(DOMAIN, "ledger", "l1")
ISSUER = f"spiffe://{DOMAIN}/platform/p1"
CONVERT, BOOK, AUDIT = "doc.convert@1", "ledger.book@1", "audit.note@1"
SPLIT = "doc.split@1"  # of the same worker as CONVERT
CALL = "run_1.convert.0.book"
DIGESTS = frozenset({"a" * 64, "b" * 64})
PERMISSIONS = {
    CONVERT: Permissions(
        call=(BOOK, AUDIT, SPLIT),
        secrets=("ledger.key", "mail.key"),
        datasets={"read": ["sales", "staff"], "write": ["notes"]},
    ),
    BOOK: Permissions(
        call=(AUDIT, "other.thing@1"),
        secrets=("ledger.key", "bank.key"),
        datasets={"read": ["sales", "bank"]},
    ),
    AUDIT: Permissions(),
    SPLIT: Permissions(call=(AUDIT,)),
}
WORKERS = {CONVERT: "converter", SPLIT: "converter", BOOK: "ledger", AUDIT: "auditor"}


class Catalogue:
    def find(self, name):
        if name not in WORKERS:
            return None
        return KnownCapability(
            worker=WORKERS[name],
            version="1",
            declared=capability(name, "call"),
            permissions=PERMISSIONS[name],
        )

    def names(self):
        return list(WORKERS)


class Setting:
    def __init__(self):
        self.clock = ManualClock()
        self.counters = ExecutionCounters()
        self.held = HeldSteps(self.counters)
        catalogue = Catalogue()
        self.mint = TicketMint(ISSUER, SIGNING, catalogue, self.clock, EverythingAllowed())
        reader = TicketReader(lambda: SIGNERS, self.clock)
        self.tickets = StepTickets(reader, self.held, self.mint, catalogue, self.counters)

    def place(self, *, attempt=1, deadline_ms=0, digests=DIGESTS, data_class=DataClass.INTERNAL):
        claim = Claim(
            key=WorkKey("run_1", "convert", 0),
            fence=Fence(attempt, 1),
            kind="call",
            capability=CONVERT,
            inputs=(),
            spec=None,
            options="{}",
            labels="{}",
            policy=RetryPolicy(),
            deadline_ms=deadline_ms,
            idle_timeout_ms=0,
            retries=0,
            losses=0,
            last_instance="",
            behalf=Behalf(sub="ada", roles=("analyst",)),
            data_class=data_class,
        )
        endpoint = Endpoint(
            instance="c1", worker="converter", version="1", identity=str(CONVERTER),
            host="127.0.0.1", port=1, capabilities=[CONVERT],
        )  # fmt: skip
        step = HeldStep(claim, endpoint, digests, frozenset(), 0.0)
        self.held.add(step)
        return step

    async def exchange(self, token, asker=LEDGER, **fields):
        request = ExchangeRequest(ticket=token, **{"step": CALL, "capability": BOOK, **fields})
        reply = await self.tickets.exchange(request, asker, self.clock.now().timestamp())
        return claims(reply.ticket)


def claims(token):
    return msgspec.json.decode(jws.verify(token, SIGNERS, TICKET_TYPE), type=Ticket)


@pytest.fixture
async def setting():
    return Setting()


async def test_a_ticket_names_the_step_its_holder_and_what_it_may_touch(setting):
    found = claims(setting.mint.of(setting.place(deadline_ms=30_000)))
    assert (found.iss, found.azp, found.sub, found.roles) == (
        ISSUER, str(CONVERTER), "ada", ["analyst"],
    )  # fmt: skip
    assert (found.step, found.attempt, found.cap) == ("run_1.convert.0", 1, CONVERT)
    assert found.aud == ["converter", "ledger", "auditor"]
    assert found.artifacts == [*sorted(DIGESTS), "run"]
    assert found.exp - found.iat == 90


async def test_a_ticket_lives_a_quarter_of_an_hour_at_most(setting):
    found = claims(setting.mint.of(setting.place(deadline_ms=86_400_000)))
    assert found.exp - found.iat == 900


async def test_a_ticket_is_sent_again_until_half_of_its_life_is_over(setting):
    step = setting.place(deadline_ms=30_000)
    first = setting.mint.of(step)
    setting.clock.advance(44)
    assert setting.mint.of(step) == first
    setting.clock.advance(2)
    assert setting.mint.of(step) != first


async def test_many_artifacts_are_not_named(setting):
    digests = frozenset(f"{number:064x}" for number in range(40))
    assert claims(setting.mint.of(setting.place(digests=digests))).artifacts == ["*", "run"]


async def test_the_holder_may_ask_with_it(setting):
    token = setting.mint.of(setting.place())
    assert (await setting.tickets.check(token, str(CONVERTER), "run_1.convert.0", 1)).sub == "ada"


@pytest.mark.parametrize(
    ("identity", "step", "attempt"),
    [
        (str(LEDGER), "run_1.convert.0", 1),
        (str(CONVERTER), "run_1.convert.1", 1),
        (str(CONVERTER), "run_1.convert.0", 2),
    ],
)
async def test_nobody_else_and_for_nothing_else(setting, identity, step, attempt):
    token = setting.mint.of(setting.place())
    with pytest.raises(TicketRefusedError):
        await setting.tickets.check(token, identity, step, attempt)


async def test_without_a_ticket_nothing_is_given(setting):
    setting.place()
    with pytest.raises(TicketRefusedError) as caught:
        await setting.tickets.check("", str(CONVERTER), "run_1.convert.0", 1)
    assert caught.value.slug == "ticket-missing"
    assert setting.counters.tickets_refused == {"missing": 1}


async def test_nothing_above_the_callees_clearance_is_exchanged(setting):
    token = setting.mint.of(setting.place(data_class=DataClass.SECRET))
    with pytest.raises(TicketRefusedError) as caught:
        await setting.exchange(token)
    assert caught.value.slug == "data-class-exceeded"


async def test_a_superseded_attempt_is_stale_for_itself_and_for_those_it_calls(setting):
    first = setting.place()
    token = setting.mint.of(first)
    exchanged = await setting.tickets.exchange(
        ExchangeRequest(ticket=token, step=CALL, capability=BOOK), LEDGER,
        setting.clock.now().timestamp(),
    )  # fmt: skip
    setting.held.remove(first)
    setting.place(attempt=2)
    with pytest.raises(StaleAttemptError):
        await setting.tickets.check(token, str(CONVERTER), "run_1.convert.0", 1)
    with pytest.raises(StaleAttemptError):
        await setting.tickets.check(exchanged.ticket, str(LEDGER), CALL, 1)
    with pytest.raises(StaleAttemptError):
        await setting.exchange(token)


async def test_the_callee_gets_a_ticket_of_its_own(setting):
    found = await setting.exchange(setting.mint.of(setting.place()))
    assert (found.azp, found.step, found.cap) == (str(LEDGER), CALL, BOOK)
    assert (found.sub, found.roles, found.act) == ("ada", ["analyst"], [str(CONVERTER)])
    assert found.calls == [AUDIT]  # what both may call
    assert found.secrets == []  # the step's options name none
    assert found.datasets == ["read:sales"]
    assert found.aud == ["ledger", "auditor"]


async def test_the_next_hop_names_both_who_passed_it_on(setting):
    first = await setting.tickets.exchange(
        ExchangeRequest(ticket=setting.mint.of(setting.place()), step=CALL, capability=BOOK),
        LEDGER,
        setting.clock.now().timestamp(),
    )
    auditor = SpiffeId.worker(DOMAIN, "auditor", "a1")
    found = await setting.exchange(first.ticket, auditor, step=f"{CALL}.note", capability=AUDIT)
    assert (found.calls, found.act) == ([], [str(LEDGER), str(CONVERTER)])


@pytest.mark.parametrize("instance", ["c1", "c2"])
async def test_a_worker_that_calls_a_capability_of_its_own_gets_a_ticket_for_it(setting, instance):
    asker = SpiffeId.worker(DOMAIN, "converter", instance)
    step = "run_1.convert.0.split"
    token = setting.mint.of(setting.place())
    found = await setting.exchange(token, asker, step=step, capability=SPLIT)
    assert (found.azp, found.step, found.cap) == (str(asker), step, SPLIT)
    assert (found.calls, found.act) == ([AUDIT], [str(CONVERTER)])


@pytest.mark.parametrize("count", [2, 40])
async def test_what_the_run_stores_is_not_won_back_once_it_is_narrowed_away(setting, count):
    digests = frozenset(f"{number:064x}" for number in range(count))
    request = ExchangeRequest(
        ticket=setting.mint.of(setting.place(digests=digests)), step=CALL, capability=BOOK,
        artifacts=["*", *sorted(digests)],
    )  # fmt: skip
    first = await setting.tickets.exchange(request, LEDGER, setting.clock.now().timestamp())
    auditor = SpiffeId.worker(DOMAIN, "auditor", "a1")
    found = await setting.exchange(
        first.ticket, auditor, step=f"{CALL}.note", capability=AUDIT, artifacts=["run"]
    )
    assert found.artifacts == []


WRONG = {
    "another worker than the callee": {"asker": SpiffeId.worker(DOMAIN, "thief", "t1")},
    "the holder itself": {"asker": CONVERTER, "capability": CONVERT},
    "a step that is not below": {"step": "run_1.other.0.book"},
    "a name that is none": {"step": "run_1.convert.0.a/b"},
    "two levels at once": {"step": f"{CALL}.note"},
    "a capability that the ticket does not allow": {"capability": "other.thing@1"},
    "a capability of another worker": {"capability": AUDIT},
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_an_exchange_is_for_who_was_called_and_for_that_call(setting, wrong):
    token = setting.mint.of(setting.place())
    with pytest.raises(TicketRefusedError):
        await setting.exchange(token, **WRONG[wrong])


def some(values):
    return st.none() | st.lists(st.sampled_from(values), max_size=4)


@given(
    calls=some([BOOK, AUDIT, "other.thing@1"]),
    artifacts=some(["a" * 64, "b" * 64, "c" * 64, "*", "run"]),
    datasets=some(["read:sales", "read:bank", "write:notes"]),
    secrets=some(["ledger.key", "bank.key"]),
    data_class=st.none()
    | st.sampled_from([one for one in DataClass if one is not DataClass.SECRET]),
    lifetime_s=st.none() | st.integers(-10, 10_000),
)
def test_an_exchange_only_narrows(calls, artifacts, datasets, secrets, data_class, lifetime_s):
    async def exchanged():
        setting = Setting()
        before = claims(setting.mint.of(setting.place(data_class=DataClass.PERSONAL)))
        after = await setting.exchange(
            setting.mint.of(setting.held.find("run_1.convert.0")), calls=calls,
            artifacts=artifacts, datasets=datasets, secrets=secrets, data_class=data_class,
            lifetime_s=lifetime_s,
        )  # fmt: skip
        return before, after

    before, after = asyncio.run(exchanged())
    assert set(after.calls) <= set(before.calls)
    assert set(after.artifacts) <= set(before.artifacts)
    assert set(after.datasets) <= set(before.datasets)
    assert set(after.secrets) <= set(before.secrets)
    assert set(after.aud) <= set(before.aud)
    assert not before.data_class.exceeds(after.data_class)
    assert after.exp <= before.exp
    assert (after.sub, after.roles, after.tenant) == (before.sub, before.roles, before.tenant)


def test_the_root_of_a_key_is_the_step_that_was_dispatched():
    assert root_of("run_1.convert.0") == "run_1.convert.0"
    assert root_of("run_1.convert.0.book.note") == "run_1.convert.0"


async def test_a_ticket_that_nobody_else_is_shown_is_sealed_and_read_again(setting):
    step = setting.place()
    for changes in ({"calls": []}, {"calls": [], "attempt": 1}):
        sealed = setting.mint.seal(
            msgspec.structs.replace(claims(setting.mint.of(step)), **changes)
        )
        found = await setting.tickets.check(sealed, str(CONVERTER), str(step.claim.key), 1)
        assert found.calls == []


@pytest.mark.parametrize("change", [lambda token: token[:-2] + "AA", lambda token: "A" + token])
async def test_a_seal_that_was_touched_is_refused(setting, change):
    step = setting.place()
    sealed = setting.mint.seal(claims(setting.mint.of(step)))
    with pytest.raises(TicketRefusedError) as refused:
        await setting.tickets.check(change(sealed), str(CONVERTER), str(step.claim.key), 1)
    assert refused.value.slug == "signature-invalid"


async def test_a_sealed_ticket_cannot_be_exchanged_for_more(setting):
    sealed = setting.mint.seal(
        msgspec.structs.replace(claims(setting.mint.of(setting.place())), calls=[])
    )
    with pytest.raises(TicketRefusedError):
        await setting.exchange(sealed)
