"""The policy between workloads at the platform: versions, consent, the signed document.

A change is written to the audit trail before it counts. The signed document carries the deny list;
it is signed again with every change of either, and every five minutes so that workers see that it
is fresh.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.policy import (
    POLICY_TYPE,
    REISSUE_S,
    DenyList,
    PolicyDocument,
    Rule,
    SignedPolicy,
)
from hivemesh_sdk.contracts.policy_api import (
    PolicyExplanation,
    PolicyReview,
    PolicyVersionView,
    PolicyView,
)
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import HivemeshError, InvalidError, NotFoundError
from hivemesh_sdk.safeio.documents import parse_policy
from hivemesh_sdk.trust.policy import (
    CompiledPolicy,
    encode_policy,
    nothing_allowed,
    raw_rules,
    signed_egress,
    signed_rules,
)

from hivemesh_platform.access.policy_store import PolicyChangedError, PolicyStore, PolicyVersion
from hivemesh_platform.access.workload_policy import (
    FIRST_DOCUMENT,
    InstalledWorker,
    Names,
    Question,
    check_document,
    decode_rules,
    effective_rules,
    encode_rules,
    explain,
    manifest_rules,
    review,
    side,
)
from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.storage.errors import PASSING

Sign = Callable[[bytes, str], str]
Workers = Callable[[], Sequence[InstalledWorker]]
SYSTEM = "platform"
MAX_SIGNED = 512 * 1024  # of the mebibyte that a signed document may have; the rest is for denials
REACHES_S = 2.0  # an answer to a change waits so long for the workers to have it
HOLDS_S = 40.0  # two polls: who asked so long ago is gone


class PolicyTestsFailedError(InvalidError):
    """The document's own tests do not come out as it says."""

    slug = "policy-tests-failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who changes the policy, and why."""

    id: str
    serial: str = ""
    reason: str = ""
    on_behalf_of: str = ""


@dataclass(frozen=True, slots=True)
class _InForce:
    """The version in force, read."""

    version: PolicyVersion
    document: PolicyDocument
    consented: tuple[Rule, ...]


class PolicyService:
    """The policy of one installation; also the `Policies` that the platform's own decisions ask."""

    stale = False  # it is where the policy comes from
    refused = 0

    def __init__(
        self,
        store: PolicyStore,
        audit: AuditTrail,
        clock: Clock,
        *,
        trust_domain: str,
        sign: Sign,
        workers: Workers,
    ) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock
        self._trust_domain = trust_domain
        self._sign = sign
        self._workers = workers
        self._in_force: _InForce
        self._denials = DenyList()
        self._compiled = nothing_allowed(trust_domain)
        self._token = ""
        self._issued_at = 0
        self._version_since = 0  # when the present version was signed first
        self._holders: dict[str, tuple[int, float]] = {}  # worker: what it has, when it said so
        self._signed_at = 0.0
        self._changing = asyncio.Lock()
        self._issuing = asyncio.Lock()
        self._unsigned = asyncio.Event()
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()
        self._closed = False
        self._refused_consent = False
        self._log = structlog.get_logger("hivemesh.policy")

    async def open(self) -> None:
        """Load the version in force, or make the first one, and sign it."""
        newest = await self._store.newest()
        if newest is None:
            newest = self._next(0, FIRST_DOCUMENT, (), Author(id=SYSTEM, reason="first start"))
            await self._record("policy:apply", newest, Author(id=SYSTEM, reason="first start"))
            with suppress(PolicyChangedError):  # a replica that starts at the same time was first
                await self._store.add(newest)
            newest = await self._store.newest() or newest
        self._use(newest)
        await self.consent()
        if not self._token:
            await self._issue()

    async def refresh(self) -> None:
        """Put a version into force that another replica has made."""
        if await self._store.newest_number() <= self._in_force.version.version:
            return
        async with self._changing:
            newest = await self._store.newest()
            if newest is not None and newest.version > self._in_force.version.version:
                self._use(newest)
                await self._issue()
                self._log.info("policy_followed", version=newest.version, author=newest.author)

    async def run(self) -> None:
        """Sign again what has changed, and what is five minutes old, until cancelled."""
        while True:
            left = max(self._signed_at + REISSUE_S - self._clock.monotonic(), 0.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._unsigned.wait()
            self._unsigned.clear()
            await self._issue()

    def close(self) -> None:
        """Answer everybody who waits: the platform ends."""
        self._closed = True
        self._tell()
        self._note_asked()

    # -- what decisions and workers ask ----------------------------------------------------

    def current(self) -> CompiledPolicy:
        """The policy in force."""
        return self._compiled

    async def newer(self, after: int, wait_s: float, *, worker: str = "") -> str | None:
        """The signed document as soon as it was signed later than `after`; None after a while.

        `worker` is the identity of the worker that asks, which thereby says what it has.
        """
        if worker:
            self._holders.pop(worker, None)
            self._holders[worker] = after, self._clock.monotonic()
            self._note_asked()
        if self._issued_at <= after and not self._closed:
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                return None
        return self._token if self._issued_at > after else None

    def deny(self, denials: DenyList) -> None:
        """Sign this deny list into the document, from now on."""
        if denials != self._denials:
            self._denials = denials
            self._unsigned.set()

    async def sign_again(self) -> None:
        """Sign with the key of today: nobody trusts the one before when the authority started over."""
        await self._issue()

    # -- changes ---------------------------------------------------------------------------

    async def consent(self) -> None:
        """Make the rules of the installed manifests part of the policy, where they changed.

        What lies in the operator's folders of workers counts as consented. What cannot be written
        down does not count: the rules before it stay, and it is tried again.
        """
        try:
            await self._consent()
        except HivemeshError as error:
            if not self._refused_consent:
                self._log.error("consent_not_recorded", problem=error.slug, detail=error.detail)
            self._refused_consent = True
        else:
            self._refused_consent = False

    async def _consent(self) -> None:
        async with self._changing:
            rules = manifest_rules(self._workers())
            if encode_rules(rules) == self._in_force.version.consented:
                return
            author = Author(id=SYSTEM, reason="permissions of the installed manifests")
            present = self._in_force.version
            await self._append("policy:consent", present.document, rules, author)

    async def apply(self, text: str, *, expected: int, name: str, author: Author) -> PolicyView:
        """Make a document the next version.

        Raises:
            MalformedError, InvalidError: it cannot be read, or makes no sense here.
            PolicyTestsFailedError: its tests fail.
            PolicyChangedError: `expected` is not the version in force.
            AuditUnavailableError: the change cannot be written down, so it does not count.
        """
        async with self._changing:
            present = self._in_force
            if expected != present.version.version:
                message = f"version {present.version.version} is in force, not {expected}"
                raise PolicyChangedError(message)
            _refuse_failed(self._review(text, name))
            version = await self._append("policy:apply", text, present.consented, author)
        with suppress(TimeoutError):
            async with asyncio.timeout(REACHES_S):
                await self._everywhere()
        return self._view(version)

    async def _append(
        self, action: str, text: str, consented: Sequence[Rule], author: Author
    ) -> PolicyVersion:
        version = self._next(self._in_force.version.version, text, consented, author)
        await self._record(action, version, author)
        await self._store.add(version)
        self._use(version)
        await self._issue()
        self._log.info("policy_changed", version=version.version, author=author.id)
        return version

    # -- what people ask -------------------------------------------------------------------

    def review(self, text: str, name: str) -> PolicyReview:
        """What a document would change, and its tests; raises as `apply` for its form."""
        return self._review(text, name)

    def explain(self, question: Question) -> PolicyExplanation:
        """One decision under the version in force.

        Raises:
            NotFoundError, InvalidError: a name that stands for nobody, or for several.
        """
        return explain(question, self._compiled, self._names())

    async def versions(self) -> list[PolicyVersionView]:
        """The history, the newest first."""
        return [self._view(version) for version in await self._store.all()]

    async def version(self, number: int | None = None) -> PolicyView:
        """One version; the one in force where no number is given.

        Raises:
            NotFoundError: there is no such version.
        """
        if number is None:
            return self._view(self._in_force.version)
        found = await self._store.get(number)
        if found is None:
            message = f"there is no version {number} of the policy"
            raise NotFoundError(message)
        return self._view(found)

    # -- inside ----------------------------------------------------------------------------

    def _review(self, text: str, name: str) -> PolicyReview:
        document = parse_policy(text, name=name)
        check_document(document, self._trust_domain)
        self._check_size(document)
        present = self._in_force
        before = side(
            present.version.document, present.document, self._trust_domain, present.consented
        )
        after = side(text, document, self._trust_domain, present.consented)
        return review(before, after, self._names(), based_on=present.version.version, name=name)

    def _names(self) -> Names:
        return Names(self._trust_domain, self._workers())

    def _next(
        self, present: int, text: str, consented: Sequence[Rule], author: Author
    ) -> PolicyVersion:
        return PolicyVersion(
            version=present + 1,
            document=text,
            consented=encode_rules(consented),
            author=author.on_behalf_of or author.id,
            reason=author.reason,
            created_at=self._clock.now(),
        )

    async def _record(self, action: str, version: PolicyVersion, author: Author) -> None:
        await self._audit.record(
            AuditEvent(
                actor=author.id,
                action=action,
                target=f"policy/{version.version}",
                reason=author.reason,
                serial=author.serial,
                on_behalf_of=author.on_behalf_of,
                policy_version=version.version,
                parameters={"document": version.document, "consented": version.consented},
            )
        )

    def _use(self, version: PolicyVersion) -> None:
        document = parse_policy(version.document, name=f"version {version.version}")
        self._in_force = _InForce(version, document, decode_rules(version.consented))

    async def _issue(self) -> None:
        """Sign the version in force with the present deny list, and tell who waits."""
        async with self._issuing:
            issued_at = await self._next_issue()
            present = self._in_force
            policy = self._unsigned_policy(present.version.version, present.document, issued_at)
            self._token = self._sign(encode_policy(policy), POLICY_TYPE)
            if policy.version != self._compiled.version:
                self._version_since = issued_at
            self._compiled = CompiledPolicy(policy)
            self._issued_at, self._signed_at = issued_at, self._clock.monotonic()
            self._tell()

    async def _next_issue(self) -> int:
        """The time of the next signature; no trouble of the database keeps a denial from the workers."""
        now = self._clock.now()
        try:
            return await self._store.next_issue(now)
        except PASSING as error:
            self._log.error("policy_issue_not_stored", detail=error.detail)
            return max(round(now.timestamp() * 1000), self._issued_at + 1)

    def _unsigned_policy(
        self, version: int, document: PolicyDocument, issued_at: int
    ) -> SignedPolicy:
        rules, deny = signed_rules(document, self._trust_domain, self._in_force.consented)
        return SignedPolicy(
            version=version,
            issued_at=issued_at,
            trust_domain=self._trust_domain,
            rules=raw_rules(rules),
            deny=deny,
            denials=self._denials,
            egress=signed_egress(document),
        )

    def _check_size(self, document: PolicyDocument) -> None:
        """Refuse what workers would not read any more once the deny list has grown."""
        size = len(encode_policy(self._unsigned_policy(0, document, 0)))
        if size > MAX_SIGNED:
            message = f"the signed form has {size} bytes; at most {MAX_SIGNED} are taken"
            raise InvalidError(message, slug="policy-invalid")

    def _reach(self) -> tuple[int, int]:
        """At how many workers the present version is in force, and how many have asked lately."""
        since = self._clock.monotonic() - HOLDS_S
        self._holders = {name: one for name, one in self._holders.items() if one[1] >= since}
        held = sum(issued_at >= self._version_since for issued_at, _ in self._holders.values())
        return held, len(self._holders)

    async def _everywhere(self) -> None:
        """Return when every worker that has asked lately has the present version."""
        held, asked = self._reach()
        while held < asked and not self._closed:
            await self._asked.wait()
            held, asked = self._reach()

    def _note_asked(self) -> None:
        asked, self._asked = self._asked, asyncio.Event()
        asked.set()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _view(self, version: PolicyVersion) -> PolicyView:
        document = parse_policy(version.document, name=f"version {version.version}")
        consented = decode_rules(version.consented)
        current = version.version == self._in_force.version.version
        in_force_at, asked_by = self._reach() if current else (0, 0)
        return PolicyView(
            version=version.version,
            created_at=version.created_at.isoformat(),
            author=version.author,
            reason=version.reason,
            rules=len({rule.id for rule in (*consented, *document.rules)}),
            denials=len(document.deny),
            document=version.document,
            consented=effective_rules(consented),
            current=current,
            in_force_at=in_force_at,
            asked_by=asked_by,
        )


def _refuse_failed(found: PolicyReview) -> None:
    failed = [
        FieldProblem(
            pointer=f"/tests/{index}",
            message=f"{one.caller} -> {one.callee} {one.capability}: expected {one.expected}, "
            f"got {one.result}{f' by {one.rule!r}' if one.rule else ''}"
            f"{f' ({one.detail})' if one.detail else ''}",
            code="test-failed",
        )
        for index, one in enumerate(found.tests)
        if not one.passed
    ]
    if failed:
        message = f"{len(failed)} of {len(found.tests)} tests fail: {failed[0].message}"
        raise PolicyTestsFailedError(message, errors=failed)
