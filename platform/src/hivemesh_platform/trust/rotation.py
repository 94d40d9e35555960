"""Changes root, issuer and signing key by themselves: prepared, active, tainted, revoked.

A prepared key is used once every live instance has said that it knows the bundle with it, or
after one lifetime of a certificate. A tainted one goes once every live instance shows a
certificate of its successor, or after one lifetime. All state is in the authority's file, so a
change that a restart has interrupted goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from hivemesh_sdk.clock import Clock

from hivemesh_platform.audit.model import Actor, AuditEvent
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.trust.authority import Authority
from hivemesh_platform.trust.keyring import KeyKind, KeyState, fingerprint

TICK_S = 1.0
LINGER = timedelta(seconds=5)  # for requests on connections of the certificate before
SIGNED = timedelta(minutes=20)  # longer than any ticket or policy document is accepted
RETRY_S = 30.0  # after a change that could not be written down
ITSELF = Actor(id="platform")

Live = Callable[[], Collection[str]]
StartedOver = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Heard:
    """What an instance said last."""

    sequence: int
    issuer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """One key of the authority as people see it."""

    kind: KeyKind
    state: KeyState
    id: str
    since: datetime
    not_after: datetime | None = None
    waits_for: str = ""
    waiting: tuple[str, ...] = ()  # instances
    latest: datetime | None = None  # when the next step is taken whatever is missing


class Rotation:
    """The one who changes the authority's keys."""

    def __init__(
        self,
        authority: Authority,
        live: Live,
        clock: Clock,
        audit: AuditTrail,
        *,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._leads = leads  # of several replicas one changes the keys
        self._root = authority.root_sha256  # as this process saw it last
        self._authority = authority
        self._live = live
        self._clock = clock
        self._audit = audit
        self._heard: dict[str, Heard] = {}
        self._complete_since: datetime | None = None
        self._not_before = 0.0
        self._after_glass: list[StartedOver] = []
        self._log = structlog.get_logger("hivemesh.trust")

    def hear(self, identity: str, sequence: int, issuer: str) -> None:
        """Remember what a heartbeat says of an instance's bundle and certificate."""
        self._heard[identity] = Heard(sequence, issuer)

    def on_start_over(self, started_over: StartedOver) -> None:
        """Await `started_over` after break-glass: own identity first, then the workers."""
        self._after_glass.append(started_over)

    async def begin(self, kind: KeyKind, by: Actor = ITSELF) -> None:
        """Prepare the next key; the rest happens by itself.

        Raises:
            CaBusyError: another change is under way.
            AuditUnavailableError: it cannot be written down, so it does not happen.
        """
        await self._audit.record(AuditEvent.of(by, "ca:prepare", kind.value))
        await asyncio.to_thread(self._authority.prepare, kind)

    async def start_over(self, by: Actor) -> None:
        """Break glass: nothing that was signed before is trusted; everybody enrols again.

        Raises:
            AuditUnavailableError: as above.
        """
        await self._audit.record(AuditEvent.of(by, "ca:start-over", "all"))
        await asyncio.to_thread(self._authority.start_over)
        await self._started_over()

    async def run(self) -> None:
        """Take every step when it is time, until cancelled."""
        while True:
            if self._clock.monotonic() >= self._not_before:
                try:
                    await self.tick()
                except Exception:  # noqa: BLE001 - tried again; the keys stay as they are
                    self._log.exception("rotation_failed")
                    self._not_before = self._clock.monotonic() + RETRY_S
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Take the steps that are due; follow those that other replicas have taken."""
        await self._follow()
        if self._leads():
            await self._change_ca()
            await self._change_signer()

    async def _follow(self) -> None:
        """Take over what others changed; when one of them has started over, do here as there."""
        await asyncio.to_thread(self._authority.reload)
        trusted = [
            key
            for key in self._authority.ring.keys
            if key.kind is KeyKind.ROOT and key.state is not KeyState.REVOKED
        ]
        if self._root not in {fingerprint(key.der) for key in trusted}:
            await self._started_over()
        self._root = self._authority.root_sha256

    async def _started_over(self) -> None:
        self._heard.clear()
        self._root = self._authority.root_sha256
        for started_over in tuple(self._after_glass):
            await started_over()

    def status(self) -> Sequence[KeyStatus]:
        """Every key with its state and what its next step waits for."""
        keys = [
            self._with_wait(
                KeyStatus(
                    kind=key.kind,
                    state=key.state,
                    id=key.id,
                    since=key.since,
                    not_after=key.not_after,
                ),
                key.sequence,
            )
            for key in self._authority.ring.keys
        ]
        keys += [
            self._with_wait(
                KeyStatus(kind=KeyKind.SIGNER, state=key.state, id=key.id, since=key.since),
                key.sequence,
            )
            for key in self._authority.signing.keys
        ]
        return sorted(keys, key=_order)

    def _with_wait(self, key: KeyStatus, sequence: int) -> KeyStatus:
        if key.state is KeyState.PREPARED:
            return _waiting(
                key,
                "every live instance to know the bundle",
                self._unacknowledged(sequence),
                key.since + self._patience,
            )
        if key.state is KeyState.TAINTED and key.kind is KeyKind.SIGNER:
            text = "everything that it has signed to expire"
            return _waiting(key, text, (), key.since + SIGNED)
        if key.state is KeyState.TAINTED:
            return _waiting(
                key,
                "every live instance to show a new certificate",
                self._unrenewed(),
                key.since + self._authority.lifetimes.svid,
            )
        return key

    @property
    def _patience(self) -> timedelta:
        """One lifetime of a certificate, but never the rest of an issuer's life."""
        lifetimes = self._authority.lifetimes
        return min(lifetimes.svid, lifetimes.issuer / 4)

    async def _change_ca(self) -> None:
        authority, now = self._authority, self._clock.now()
        under_way = authority.changing(KeyKind.ISSUER)
        if under_way is None:
            self._complete_since = None
            due = [kind for kind in (KeyKind.ROOT, KeyKind.ISSUER) if now >= authority.due(kind)]
            if due:
                await self.begin(due[0])
            return
        kind, state = under_way
        keys = [key for key in authority.ring.keys if key.state is state]
        since = max(key.since for key in keys)
        if state is KeyState.PREPARED:
            missing = self._unacknowledged(max(key.sequence for key in keys))
            if not missing or now >= since + self._patience:
                await self._step("ca:activate", kind, missing)
                await asyncio.to_thread(authority.activate, kind)
            return
        missing = self._unrenewed()
        if self._gone(missing, now) or now >= since + authority.lifetimes.svid:
            await self._step("ca:revoke", kind, missing)
            await asyncio.to_thread(authority.revoke_tainted)
            self._complete_since = None

    def _gone(self, missing: Sequence[str], now: datetime) -> bool:
        """Whether everybody has been on the successor for a little while."""
        if missing:
            self._complete_since = None
            return False
        self._complete_since = self._complete_since or now
        return now >= self._complete_since + min(LINGER, self._authority.lifetimes.svid / 4)

    async def _change_signer(self) -> None:
        authority, now = self._authority, self._clock.now()
        signing = authority.signing
        prepared = signing.one(KeyState.PREPARED)
        if prepared is not None:
            missing = self._unacknowledged(prepared.sequence)
            if not missing or now >= prepared.since + self._patience:
                await self._step("ca:activate", KeyKind.SIGNER, missing)
                await asyncio.to_thread(authority.activate, KeyKind.SIGNER)
        elif now >= authority.due(KeyKind.SIGNER):
            await self.begin(KeyKind.SIGNER)
        tainted = signing.one(KeyState.TAINTED)
        if tainted is not None and now >= tainted.since + SIGNED:
            await self._step("ca:revoke", KeyKind.SIGNER, ())
            await asyncio.to_thread(authority.drop_signers, now - SIGNED)

    async def _step(self, action: str, kind: KeyKind, missing: Sequence[str]) -> None:
        reason = f"after one lifetime, without {len(missing)} instances" if missing else ""
        await self._audit.record(AuditEvent.of(ITSELF, action, kind.value, reason=reason))
        self._log.info("rotation_step", action=action, key=kind.value, missing=len(missing))

    def _unacknowledged(self, sequence: int) -> tuple[str, ...]:
        nothing = Heard(0, "")
        return tuple(
            sorted(
                identity
                for identity in self._present()
                if self._heard.get(identity, nothing).sequence < sequence
            )
        )

    def _unrenewed(self) -> tuple[str, ...]:
        active = self._authority.ring.active(KeyKind.ISSUER).id
        nothing = Heard(0, "")
        return tuple(
            sorted(
                identity
                for identity in self._present()
                if self._heard.get(identity, nothing).issuer != active
            )
        )

    def _present(self) -> Collection[str]:
        present = self._live()
        for identity in [one for one in self._heard if one not in present]:
            del self._heard[identity]
        return present


def _waiting(key: KeyStatus, text: str, waiting: tuple[str, ...], latest: datetime) -> KeyStatus:
    return KeyStatus(
        kind=key.kind,
        state=key.state,
        id=key.id,
        since=key.since,
        not_after=key.not_after,
        waits_for=text,
        waiting=waiting,
        latest=latest,
    )


def _order(key: KeyStatus) -> tuple[int, int, datetime]:
    """Roots first; of each kind in the order of their lives."""
    return list(KeyKind).index(key.kind), list(KeyState).index(key.state), key.since
