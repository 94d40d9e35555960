"""Decides who is refused from now on: evictions, bans, what was lifted; tells everybody who enforces.

A decision is written to the audit trail before it counts. `DenyList` is what callees look up; it
goes to this process at once and to the workers inside the signed policy document.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.names import WORKER_NAME
from hivemesh_sdk.errors import ConfigurationError, InvalidError, NotAuthorizedError, NotFoundError
from hivemesh_sdk.trust.identity import Kind, SpiffeId, covers

from hivemesh_platform.audit.model import Actor, AuditEvent
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.trust.model import (
    CredentialRecord,
    Denial,
    DenialKind,
    DenyList,
    IssuedRecord,
)
from hivemesh_platform.trust.ports import EnrolmentRecords, EnrolmentStore

SERIAL, PACKAGE = "serial:", "package:"
LONGEST_REASON = 500
OPERATOR = "operator"  # the user of the certificate in the state folder: nobody locks him out
_SERIAL = re.compile(r"[0-9a-f]{1,40}")
_DIGEST = re.compile(r"[0-9a-f]{64}")

Enforce = Callable[[DenyList], None]


@dataclass(frozen=True, slots=True)
class Expulsion:
    """Identities whose certificates have just been refused, and why."""

    identities: frozenset[str]
    reason: str


Expel = Callable[[Expulsion], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What somebody decides about a target, and why."""

    target: str
    reason: str
    by: Actor
    is_admin: bool = False  # who decides may do everything: people, and certificates of others

    def event(self, action: str, rule: str) -> AuditEvent:
        """The record of the decision."""
        return AuditEvent.of(self.by, action, rule, reason=self.reason)


class Revocation:
    """The deny list of one installation.

    `own` says which serials are those of the platform and its operator: they are never refused.
    """

    def __init__(
        self,
        store: EnrolmentStore,
        clock: Clock,
        audit: AuditTrail,
        *,
        trust_domain: str,
        installed: Callable[[str], bool] = lambda _worker: True,
        own: Callable[[int], bool] = lambda _serial: False,
    ) -> None:
        self._store = store
        self._clock = clock
        self._audit = audit
        self._trust_domain = trust_domain
        self._installed = installed
        self._own = own
        self._subscribers: list[Enforce] = []
        self._expel: list[Expel] = []
        self._current = DenyList()
        self._log = structlog.get_logger("hivemesh.trust")

    @property
    def current(self) -> DenyList:
        """The list that was announced last."""
        return self._current

    def subscribe(self, enforce: Enforce) -> None:
        """Call `enforce` with the whole list now and whenever it has changed."""
        self._subscribers.append(enforce)
        enforce(self._current)

    def on_expulsion(self, expel: Expel) -> None:
        """Await `expel` after a denial took effect, for what holds more than connections."""
        self._expel.append(expel)

    async def evict(self, decision: Decision) -> Sequence[Denial]:
        """Refuse the present certificates of a worker, instance or package.

        They may enrol again with a new token.

        Raises:
            InvalidError, NotFoundError: the target.
            NotAuthorizedError: only an admin may refuse it.
            AuditUnavailableError: the decision cannot be written down, so it does not count.
        """
        rule = await self._allowed_rule(decision)
        await self._audit.record(decision.event("workers:evict", rule))
        now = self._clock.now()

        def work(records: EnrolmentRecords) -> list[tuple[IssuedRecord, Denial]]:
            found = [(one, _eviction(one, decision, now)) for one in _valid(records, rule, now)]
            for _, denial in found:
                records.add_denial(denial)
            return found

        evicted = await self._store.write(work)
        await self.announce()
        identities = frozenset(issued.identity for issued, _ in evicted)
        await self.expel(Expulsion(identities, f"evicted: {decision.reason}"))
        return [denial for _, denial in evicted]

    async def ban(self, decision: Decision) -> Denial:
        """Refuse a worker, instance or package for good: its certificates and every enrolment.

        Raises:
            InvalidError, NotFoundError: the target.
            NotAuthorizedError: only an admin may refuse it.
            AuditUnavailableError: as above.
        """
        rule = await self._allowed_rule(decision)
        await self._audit.record(decision.event("workers:ban", rule))
        now = self._clock.now()
        denial = Denial(
            rule=rule, reason=decision.reason, at=now, kind=DenialKind.BAN, by=decision.by.id
        )

        def work(records: EnrolmentRecords) -> frozenset[str]:
            records.add_denial(denial)
            return frozenset(one.identity for one in _valid(records, rule, now))

        identities = await self._store.write(work)
        await self.announce()
        await self.expel(Expulsion(identities, f"banned: {decision.reason}"))
        return denial

    async def lift(self, decision: Decision) -> str:
        """End a ban or a quarantine; returns its rule.

        Raises:
            InvalidError, NotFoundError: the target, or it is not refused.
            NotAuthorizedError, AuditUnavailableError: as above.
        """
        rule = await self._known_rule(_checked(decision))
        if _names_people(rule) and not decision.is_admin:
            raise _admins_alone(rule)
        await self._audit.record(decision.event("workers:unban", rule))
        await self._store.write(lambda records: records.remove_denial(rule))
        await self.announce()
        return rule

    async def quarantine(self, identity: str, serial: int) -> None:
        """Tell of an identity that two keys claim; enrolment has denied it already."""
        self._audit.note(
            AuditEvent(
                actor=identity,
                action="identity:renew",
                target=identity,
                decision="deny",
                reason="two keys renewed from one certificate",
                serial=f"{serial:x}",
            )
        )
        await self.announce()
        await self.expel(Expulsion(frozenset({identity}), "quarantined: two keys renewed"))

    async def credentials(self) -> Sequence[CredentialRecord]:
        """All deployment credentials; of their secrets only hashes are kept."""
        return await self._store.read(lambda records: records.credentials())

    async def revoke_credential(self, decision: Decision) -> CredentialRecord:
        """Let nobody enrol by a deployment credential any more; who is in stays in.

        Raises:
            NotFoundError: there is none with this id.
            AuditUnavailableError: as above.
        """
        known = {one.id for one in await self.credentials()}
        if decision.target not in known:
            message = f"no deployment credential has the id {decision.target!r}"
            raise NotFoundError(message)
        await self._audit.record(decision.event("enrolment:revoke", decision.target))
        now = self._clock.now()
        await self._store.write(lambda records: records.revoke_credential(decision.target, now))
        return next(one for one in await self.credentials() if one.id == decision.target)

    async def denials(self) -> Sequence[Denial]:
        """What is refused now, with reasons."""
        now = self._clock.now()
        return await self._store.read(lambda records: records.denials(now))

    async def deny_list(self) -> DenyList:
        """What callees look up."""
        now = self._clock.now()
        found = await self._store.read(lambda records: _deny_list(records, now))
        return replace(
            found,
            serials=frozenset(one for one in found.serials if not self._own(one)),
            identities=frozenset(one for one in found.identities if not self._locks_out(one)),
        )

    async def announce(self) -> None:
        """Have the present list enforced, where it has changed."""
        current = await self.deny_list()
        if current == self._current and current.denials == self._current.denials:
            return
        self._current = current
        self._log.info(
            "deny_list_changed",
            serials=len(current.serials),
            identities=len(current.identities),
            packages=len(current.packages),
        )
        for enforce in tuple(self._subscribers):
            enforce(current)

    async def follow(self) -> None:
        """Take over what was decided elsewhere: at other replicas, by commands."""
        before = {denial.rule for denial in self._current.denials}
        await self.announce()
        fresh = {
            denial.rule: denial for denial in self._current.denials if denial.rule not in before
        }
        if fresh:
            now = self._clock.now()
            found = await self._store.read(lambda records: _hit(records, frozenset(fresh), now))
            reasons = ", ".join(sorted({denial.reason for denial in fresh.values()}))
            await self.expel(Expulsion(found, f"refused at another replica: {reasons}"))

    async def expel(self, expulsion: Expulsion) -> None:
        """End what the denied hold beside their connections."""
        if not expulsion.identities:
            return
        for expel in tuple(self._expel):
            await expel(expulsion)

    async def _known_rule(self, target: str) -> str:
        rules = {denial.rule for denial in await self.denials()}
        domain = self._trust_domain
        candidates = [
            target,
            f"{PACKAGE}{target.removeprefix('sha256:')}",
            f"spiffe://{domain}/worker/{target}/*",
        ]
        for rule in candidates:
            if rule in rules:
                return rule
        of_instance = [rule for rule in rules if _is_instance(rule, target)]
        if len(of_instance) == 1:
            return of_instance[0]
        message = f"{target!r} is not refused; `hivemesh worker denied` shows what is"
        raise NotFoundError(message)

    async def _allowed_rule(self, decision: Decision) -> str:
        """The rule of a new denial, if who decides may refuse that.

        Raises:
            InvalidError, NotFoundError: the target, or it is the platform or its operator.
            NotAuthorizedError: only an admin refuses people, and certificates of which it is not
                known here that they are a worker's.
        """
        rule = await self._rule(_checked(decision))
        serial = int(rule.removeprefix(SERIAL), 16) if rule.startswith(SERIAL) else None
        if self._locks_out(rule) if serial is None else self._own(serial):
            message = f"{rule!r} would refuse the platform or its operator"
            raise InvalidError(message)
        if decision.is_admin:
            return rule
        if _names_people(rule):
            raise _admins_alone(rule)
        if serial is not None:
            issued = await self._store.read(lambda records: records.issued(serial))
            if issued is None:
                raise _admins_alone(rule)
        return rule

    def _locks_out(self, rule: str) -> bool:
        return covers(rule, str(SpiffeId.user(self._trust_domain, OPERATOR)))

    async def _rule(self, target: str) -> str:
        """The rule that a person means by a name, an ID, a serial or a digest."""
        if target.startswith("spiffe://"):
            return self._own_rule(target)
        if target.startswith(SERIAL):
            return _matched(SERIAL, target.removeprefix(SERIAL), _SERIAL)
        if target.startswith((PACKAGE, "sha256:")):
            digest = target.removeprefix(PACKAGE).removeprefix("sha256:")
            return _matched(PACKAGE, digest, _DIGEST)
        now = self._clock.now()
        known = {one.identity for one in await self._store.read(lambda records: records.valid(now))}
        instances = sorted(identity for identity in known if _is_instance(identity, target))
        if len(instances) == 1:
            return instances[0]
        if len(instances) > 1:
            message = f"{target!r} is an instance of several workers; name one: {instances}"
            raise InvalidError(message)
        pool = f"spiffe://{self._trust_domain}/worker/{target}/*"
        if WORKER_NAME.fullmatch(target) and (
            self._installed(target) or any(covers(pool, identity) for identity in known)
        ):
            return pool
        message = f"no worker, instance or package is known as {target!r}"
        raise NotFoundError(message)

    def _own_rule(self, target: str) -> str:
        prefix = target.endswith("/*")
        try:
            identity = SpiffeId.parse(target.removesuffix("/*") + ("/any" if prefix else ""))
        except ConfigurationError as error:
            raise InvalidError(error.detail) from error
        if identity.trust_domain != self._trust_domain or identity.kind is Kind.PLATFORM:
            message = f"{target!r} is no worker or user of this installation"
            raise InvalidError(message)
        return target


def _names_people(rule: str) -> bool:
    return rule.startswith("spiffe://") and "/user/" in rule


def _admins_alone(rule: str) -> NotAuthorizedError:
    message = f"{rule!r} is no certificate of a worker that enrolled here; ask an admin"
    return NotAuthorizedError(message)


def _checked(decision: Decision) -> str:
    if not decision.reason.strip() or len(decision.reason) > LONGEST_REASON:
        message = (
            f"give a reason of 1 to {LONGEST_REASON} characters; it is kept in the audit trail"
        )
        raise InvalidError(message)
    return decision.target


def _matched(prefix: str, text: str, pattern: "re.Pattern[str]") -> str:
    if not pattern.fullmatch(text):
        message = f"{text!r} is not what follows {prefix!r}: lower-case hexadecimal digits"
        raise InvalidError(message)
    return prefix + text


def _is_instance(identity: str, name: str) -> bool:
    return "/worker/" in identity and identity.rpartition("/")[2] == name


def _valid(records: EnrolmentRecords, rule: str, now: datetime) -> list[IssuedRecord]:
    return [one for one in records.valid(now) if _covers(rule, one)]


def _hit(records: EnrolmentRecords, rules: frozenset[str], now: datetime) -> frozenset[str]:
    """The identities that new rules leave without a certificate: who has enrolled again stays."""
    denied = [denial.rule for denial in records.denials(now)]
    valid = records.valid(now)
    hit = {one.identity for one in valid if any(_covers(rule, one) for rule in rules)}
    left = {one.identity for one in valid if not any(_covers(rule, one) for rule in denied)}
    return frozenset(hit - left)


def _covers(rule: str, issued: IssuedRecord) -> bool:
    if rule.startswith(PACKAGE):
        return issued.package == rule.removeprefix(PACKAGE)
    if rule.startswith(SERIAL):
        return f"{issued.serial:x}" == rule.removeprefix(SERIAL)
    return covers(rule, issued.identity)


def _eviction(issued: IssuedRecord, decision: Decision, now: datetime) -> Denial:
    return Denial(
        rule=f"{SERIAL}{issued.serial:x}",
        reason=decision.reason,
        at=now,
        until=issued.not_after,
        kind=DenialKind.EVICTION,
        by=decision.by.id,
    )


def _deny_list(records: EnrolmentRecords, now: datetime) -> DenyList:
    denials = records.denials(now)
    rules = [denial.rule for denial in denials]
    packages = frozenset(rule.removeprefix(PACKAGE) for rule in rules if rule.startswith(PACKAGE))
    serials = {int(rule.removeprefix(SERIAL), 16) for rule in rules if rule.startswith(SERIAL)}
    if packages:  # a certificate does not show its package
        serials |= {one.serial for one in records.valid(now) if one.package in packages}
    return DenyList(
        serials=frozenset(serials),
        identities=frozenset(rule for rule in rules if rule.startswith("spiffe://")),
        packages=packages,
        denials=tuple(denials),
    )
