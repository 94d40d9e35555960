"""Secrets are lent to steps that run, written down first, and given back when the step ends."""

import asyncio
from dataclasses import replace

import pytest
from hivemesh_platform.audit.model import Actor
from hivemesh_platform.credentials import store as leases
from hivemesh_platform.credentials.errors import (
    LeaseEndedError,
    SecretDeniedError,
    SecretMissingError,
    SecretsSealedError,
)
from hivemesh_platform.credentials.lending import Lending
from hivemesh_sdk.redaction import REDACTOR
from hivemesh_sdk.testing.clock import ManualClock
from secret_support import STEP, TICKET, WORKER, MemoryStore, Steps, Trail

VALUE = "correct-horse-battery"
ACTOR = Actor(id=WORKER, serial="cd", address="127.0.0.1")


class Parts:
    def __init__(self, database):
        self.database = database
        self.store = MemoryStore(mail__password=VALUE)
        self.trail = Trail()
        self.steps = Steps()
        self.clock = ManualClock()
        self.sealed = []
        self.lending = Lending(
            self.store,
            database,
            self.trail,
            self.clock,
            lease_s=900,
            found_sealed=self.sealed.append,
        )

    async def resolve(self, path="mail.password"):
        return await self.lending.resolve(path, TICKET, ACTOR, self.steps)

    async def open(self):
        return await self.database.read(
            lambda tx: len(tx.all("SELECT id FROM secret_lease WHERE revoked_at IS NULL"))
        )


@pytest.fixture
async def parts(database):
    found = Parts(database)
    yield found
    await found.lending.close()
    REDACTOR.clear()


async def test_a_lease_names_the_version_and_ends_after_fifteen_minutes(parts):
    lease = await parts.resolve()
    assert (lease.value, lease.version, lease.path) == (VALUE, 1, "mail.password")
    assert lease.expires_in_s == 900
    (kept,) = await parts.database.read(lambda tx: leases.of_run(tx, "run_1"))
    assert kept.id == lease.id
    assert (kept.step, kept.attempt, kept.identity) == (STEP.key, 1, WORKER)
    assert kept.expires_at - kept.created_at == 900_000


async def test_a_lease_ends_with_the_steps_deadline(parts):
    parts.steps.step = replace(STEP, ends_at=parts.clock.monotonic() + 30)
    assert (await parts.resolve()).expires_in_s == 30


async def test_a_lease_of_the_store_is_not_outlived_and_is_given_back(parts):
    parts.store.lease, parts.store.lease_s = "database/creds/x", 60
    assert (await parts.resolve()).expires_in_s == 60
    parts.lending.step_ended(STEP.key, 1)
    await parts.lending.close()
    assert parts.store.revoked == ["database/creds/x"]


async def test_no_row_holds_the_value(parts, tmp_path):
    await parts.resolve()
    for file in tmp_path.iterdir():
        assert VALUE.encode() not in file.read_bytes()


async def test_who_what_when_and_why_are_written_down(parts):
    await parts.resolve()
    (event,) = parts.trail.events
    assert (event.actor, event.serial, event.address) == (WORKER, "cd", "127.0.0.1")
    assert event.on_behalf_of == STEP.on_behalf_of
    assert (event.action, event.target, event.decision) == (
        "secrets:resolve",
        "mail.password",
        "allow",
    )
    assert (event.run, event.reason) == ("run_1", "for step run_1.read.0, attempt 1")
    assert VALUE not in repr(event)


async def test_what_is_not_allowed_is_denied_written_down_and_not_read(parts):
    parts.store.when_read = lambda: pytest.fail("it was read")
    with pytest.raises(SecretDeniedError):
        await parts.resolve("mail.other")
    assert parts.trail.said == [("secrets:resolve", "mail.other", "deny", "named")]
    assert await parts.open() == 0


async def test_refusals_of_one_identity_beyond_five_a_minute_are_noted_together(parts):
    """Each answer is the same; a note is bounded and counted, and nobody waits for its disk."""
    noted = []
    parts.trail.note = noted.append

    async def refused():
        with pytest.raises(SecretDeniedError):
            await parts.resolve("mail.other")

    for _ in range(8):
        await refused()
    assert (len(parts.trail.events), len(noted)) == (5, 3)
    assert {one.decision for one in noted} == {"deny"}
    assert (await parts.resolve()).value == VALUE  # what is allowed is never limited
    parts.clock.advance(61)
    await refused()
    assert len(noted) == 3


async def test_what_does_not_exist_is_written_down_too(parts):
    parts.store.values.clear()
    with pytest.raises(SecretMissingError):
        await parts.resolve()
    assert parts.trail.said == [("secrets:resolve", "mail.password", "deny", "store")]


@pytest.mark.parametrize("path", ["mail.password", "mail.other"])
async def test_without_a_record_there_is_no_answer(parts, path):
    parts.trail.broken = OSError(28, "the disk is full")
    with pytest.raises(OSError, match="full"):
        await parts.resolve(path)
    assert await parts.open() == 0
    assert not REDACTOR.finds(VALUE.encode())


async def test_a_sealed_store_is_told(parts):
    parts.store.reason = "sealed by hand"
    with pytest.raises(SecretsSealedError):
        await parts.resolve()
    assert parts.sealed == ["sealed by hand"]
    assert parts.trail.events == []


async def test_a_step_that_does_not_run_is_lent_nothing(parts):
    parts.steps.step = None
    with pytest.raises(LeaseEndedError):
        await parts.resolve()


async def test_a_step_that_ends_while_it_asks_is_lent_nothing(parts):
    def end():
        parts.steps.step = None

    parts.store.when_read = end
    with pytest.raises(LeaseEndedError):
        await parts.resolve()
    await parts.lending.close()
    assert await parts.open() == 0
    assert not REDACTOR.finds(VALUE.encode())


async def test_the_leases_of_a_step_end_with_it_and_no_others(parts):
    await parts.resolve()
    parts.steps.step = replace(STEP, key="run_1.read.1")
    await parts.resolve()
    parts.lending.step_ended(STEP.key, 2)  # an attempt that was lent nothing
    await parts.lending.close()
    assert await parts.open() == 2
    parts.lending.step_ended(STEP.key, 1)
    await parts.lending.close()
    assert await parts.open() == 1
    (ended, running) = await parts.database.read(
        lambda tx: tx.all("SELECT revoked_at FROM secret_lease ORDER BY step")
    )
    assert ended["revoked_at"] is not None
    assert running["revoked_at"] is None


async def test_leases_of_a_former_process_are_ended_at_the_start(parts):
    parts.store.lease = "database/creds/x"
    await parts.resolve()
    fresh = Parts(parts.database)
    await fresh.lending.forget_former()
    assert await parts.open() == 0
    assert fresh.store.revoked == ["database/creds/x"]


async def test_a_lent_value_is_masked_in_the_log_while_it_is_lent(parts):
    await parts.resolve()
    assert REDACTOR.masked(f"key {VALUE}") == "key ***"
    parts.lending.step_ended(STEP.key, 1)
    await parts.lending.close()
    assert not REDACTOR.seeks_any


async def test_many_steps_borrow_at_once(parts):
    await asyncio.gather(*(parts.resolve() for _ in range(20)))
    assert await parts.open() == 20
    parts.lending.step_ended(STEP.key, 1)
    await parts.lending.close()
    assert await parts.open() == 0
