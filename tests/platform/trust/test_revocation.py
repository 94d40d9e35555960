"""Who is refused before his certificate expires, and that a decision counts only when written down."""

from datetime import timedelta

import pytest
from enrolment_support import NOW, MemoryEnrolmentStore, issued
from hivemesh_platform.audit.model import Actor
from hivemesh_platform.trust.model import Denial, DenialKind
from hivemesh_platform.trust.revocation import Decision, Revocation
from hivemesh_platform.trust.store import SqlEnrolmentStore
from hivemesh_sdk.errors import HivemeshError, InvalidError, NotAuthorizedError, NotFoundError
from hivemesh_sdk.testing.clock import ManualClock
from storage_support import DIALECTS, open_prepared

TD = "td.test"
ECHO = f"spiffe://{TD}/worker/echo"
PACKAGE = "a" * 64
OWN = 0xABC  # the serial of the platform


class Trail:
    """Remembers events; refuses to while `full`."""

    def __init__(self):
        self.events, self.full = [], False

    async def record(self, event):
        if self.full:
            message = "the disk is full"
            raise HivemeshError(message)
        self.events.append(event)

    def note(self, event):
        self.events.append(event)


@pytest.fixture
def clock():
    clock = ManualClock()
    clock.jump(NOW - clock.now())
    return clock


@pytest.fixture
def trail():
    return Trail()


@pytest.fixture(params=["memory", *DIALECTS])
async def store(request, tmp_path):
    if request.param == "memory":
        yield MemoryEnrolmentStore()
        return
    async with open_prepared(request, tmp_path) as database:
        yield SqlEnrolmentStore(database)


@pytest.fixture
async def revocation(store, clock, trail):
    def fill(records):
        for serial, worker, instance in ((1, "echo", "i1"), (2, "echo", "i2"), (3, "other", "i1")):
            records.add_issued(
                issued(
                    serial=serial,
                    identity=f"spiffe://{TD}/worker/{worker}/{instance}",
                    key_hash=f"k{serial}",
                    package=PACKAGE if worker == "echo" else "b" * 64,
                )
            )

    await store.write(fill)
    return Revocation(
        store,
        clock,
        trail,
        trust_domain=TD,
        installed={"echo", "silent"}.__contains__,
        own={OWN}.__contains__,
    )


def decision(target, reason="why", *, is_admin=False):
    by = Actor(id="spiffe://td.test/user/ada", serial="f")
    return Decision(target=target, reason=reason, by=by, is_admin=is_admin)


@pytest.mark.parametrize(
    ("target", "serials"),
    [
        ("i2", {2}),
        ("echo", {1, 2}),
        (f"{ECHO}/i1", {1}),
        (f"{ECHO}/*", {1, 2}),
        ("serial:3", {3}),
        (f"sha256:{PACKAGE}", {1, 2}),
        (f"package:{PACKAGE}", {1, 2}),
        ("silent", set()),
    ],
)
async def test_an_eviction_names_the_present_certificates(revocation, target, serials):
    refused = await revocation.evict(decision(target))
    assert revocation.current.serials == serials
    assert revocation.current.identities == frozenset()
    assert {denial.kind for denial in refused} <= {DenialKind.EVICTION}
    assert all(denial.until == NOW + timedelta(hours=1) for denial in refused)


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("i2", f"{ECHO}/i2"),
        ("echo", f"{ECHO}/*"),
        ("silent", f"spiffe://{TD}/worker/silent/*"),
        (f"{ECHO}/i9", f"{ECHO}/i9"),
        (f"spiffe://{TD}/user/eve", f"spiffe://{TD}/user/eve"),
    ],
)
async def test_a_ban_names_an_identity_for_good(revocation, clock, target, rule):
    await revocation.ban(decision(target, is_admin=True))
    clock.advance(timedelta(days=400))
    assert (await revocation.deny_list()).identities == {rule}


async def test_a_banned_package_refuses_every_certificate_that_came_with_it(revocation):
    await revocation.ban(decision(f"sha256:{PACKAGE}"))
    assert revocation.current.packages == {PACKAGE}
    assert revocation.current.serials == {1, 2}


@pytest.mark.parametrize(
    "target",
    [
        "spiffe://other.test/worker/echo/i1",
        f"spiffe://{TD}/platform/p1",
        f"spiffe://{TD}/*",
        "serial:xyz",
        "sha256:12",
        "i1",  # an instance of two workers
    ],
)
async def test_a_target_that_means_no_single_thing_is_refused(revocation, trail, target):
    with pytest.raises(InvalidError):
        await revocation.ban(decision(target))
    assert trail.events == []


@pytest.mark.parametrize("action", ["ban", "evict"])
@pytest.mark.parametrize("is_admin", [True, False])
@pytest.mark.parametrize(
    "target", [f"spiffe://{TD}/user/operator", f"spiffe://{TD}/user/*", f"serial:{OWN:x}"]
)
async def test_nobody_refuses_the_platform_or_its_operator(
    revocation, trail, action, is_admin, target
):
    with pytest.raises(InvalidError, match="platform or its operator"):
        await getattr(revocation, action)(decision(target, is_admin=is_admin))
    assert trail.events == []


@pytest.mark.parametrize("target", [f"spiffe://{TD}/user/eve", "serial:abcdef"])
async def test_only_an_admin_refuses_people_and_unknown_certificates(revocation, trail, target):
    for action in (revocation.ban, revocation.evict):
        with pytest.raises(NotAuthorizedError):
            await action(decision(target))
    assert trail.events == []
    assert (await revocation.ban(decision(target, is_admin=True))).rule == target
    if "user" in target:
        with pytest.raises(NotAuthorizedError):
            await revocation.lift(decision(target))
    await revocation.lift(decision(target, is_admin=True))


async def test_denials_that_would_lock_the_operator_out_are_not_enforced(revocation, store):
    rules = (f"spiffe://{TD}/user/*", f"serial:{OWN:x}", f"{ECHO}/i1")

    def fill(records):
        for rule in rules:
            records.add_denial(Denial(rule=rule, reason="from before", at=NOW))

    await store.write(fill)
    found = await revocation.deny_list()
    assert (found.serials, found.identities) == (frozenset(), {f"{ECHO}/i1"})


@pytest.mark.parametrize("target", ["nobody", "../x", "i3"])
async def test_an_unknown_name_is_told(revocation, target):
    with pytest.raises(NotFoundError):
        await revocation.ban(decision(target))


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
async def test_a_denial_needs_a_reason(revocation, reason):
    with pytest.raises(InvalidError, match="reason"):
        await revocation.evict(decision("echo", reason))


@pytest.mark.parametrize("name", ["evict", "ban"])
async def test_what_cannot_be_written_down_does_not_count(revocation, trail, name):
    trail.full = True
    with pytest.raises(HivemeshError, match="disk is full"):
        await getattr(revocation, name)(decision("echo"))
    assert await revocation.denials() == []
    trail.full = False
    await revocation.ban(decision("echo"))
    trail.full = True
    with pytest.raises(HivemeshError):
        await revocation.lift(decision("echo"))
    assert len(await revocation.denials()) == 1


async def test_decisions_are_written_down_with_who_and_why(revocation, trail):
    await revocation.evict(decision("i2", "strange load"))
    await revocation.ban(decision("echo"))
    await revocation.lift(decision("echo"))
    assert [(one.action, one.target) for one in trail.events] == [
        ("workers:evict", f"{ECHO}/i2"),
        ("workers:ban", f"{ECHO}/*"),
        ("workers:unban", f"{ECHO}/*"),
    ]
    assert trail.events[0].reason == "strange load"
    assert {(one.actor, one.serial) for one in trail.events} == {("spiffe://td.test/user/ada", "f")}


@pytest.mark.parametrize("by", ["echo", f"{ECHO}/*"])
async def test_a_lifted_ban_refuses_nobody(revocation, by):
    await revocation.ban(decision("echo"))
    await revocation.lift(decision(by))
    assert revocation.current.identities == frozenset()
    with pytest.raises(NotFoundError, match="is not refused"):
        await revocation.lift(decision(by))


async def test_whoever_enforces_hears_at_once_and_only_of_changes(revocation):
    heard, expelled = [], []
    revocation.subscribe(heard.append)

    async def expel(expulsion):
        expelled.append(expulsion.identities)

    revocation.on_expulsion(expel)
    await revocation.evict(decision("i2"))
    await revocation.announce()
    await revocation.ban(decision("silent"))
    assert [sorted(one.serials) for one in heard] == [[], [2], [2]]
    assert expelled == [{f"{ECHO}/i2"}]


@pytest.mark.parametrize(
    ("action", "target", "expelled"),
    [
        ("evict", "serial:2", {f"{ECHO}/i2"}),
        ("evict", "echo", {f"{ECHO}/i1", f"{ECHO}/i2"}),
        ("ban", "i2", {f"{ECHO}/i2"}),
        ("ban", "silent", set()),
    ],
)
async def test_another_replica_expels_whom_a_decision_hits(
    revocation, store, clock, action, target, expelled
):
    other = Revocation(store, clock, Trail(), trust_domain=TD)
    await other.announce()
    seen = []

    async def expel(expulsion):
        seen.extend(expulsion.identities)

    other.on_expulsion(expel)
    await getattr(revocation, action)(decision(target, is_admin=True))
    await other.follow()
    await other.follow()
    assert sorted(seen) == sorted(expelled)


async def test_who_has_enrolled_again_is_expelled_nowhere(revocation, store, clock):
    other = Revocation(store, clock, Trail(), trust_domain=TD)
    await other.announce()
    seen = []

    async def expel(expulsion):
        seen.extend(expulsion.identities)

    other.on_expulsion(expel)
    await revocation.evict(decision("i2"))
    again = issued(serial=9, identity=f"{ECHO}/i2", key_hash="k9", package=PACKAGE)
    await store.write(lambda records: records.add_issued(again))
    await other.follow()
    assert seen == []


async def test_an_eviction_ends_with_the_certificate(revocation, clock):
    await revocation.evict(decision("i2"))
    clock.advance(timedelta(hours=2))
    await revocation.announce()
    assert revocation.current.serials == frozenset()
