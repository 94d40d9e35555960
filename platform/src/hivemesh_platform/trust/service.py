"""Decides who gets a certificate: tokens, deployment credentials, renewal lineage, denials.

Knows no HTTP; `api/trust.py` passes on what comes in. Each decision is one transaction, so a
token is used exactly once however many ask at the same time.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.names import WORKER_NAME
from hivemesh_sdk.errors import ConfigurationError, FatalError, HivemeshError, InvalidError
from hivemesh_sdk.trust.identity import Peer, SpiffeId, covers
from hivemesh_sdk.trust.tokens import Token, TokenKind
from hivemesh_sdk.trust.wire import EnrolRequest, IdentityAnswer

from hivemesh_platform.audit.model import Actor, AuditEvent
from hivemesh_platform.audit.ports import AuditTrail, NoAudit
from hivemesh_platform.trust.authority import Authority
from hivemesh_platform.trust.csr import CheckedRequest, check_request
from hivemesh_platform.trust.failures import FailureLimit
from hivemesh_platform.trust.model import (
    CredentialRecord,
    Denial,
    DenialKind,
    EnrolmentRefusedError,
    InstanceDuplicateError,
    IssuedRecord,
    KeyReusedError,
    RenewalRefusedError,
    TokenRecord,
)
from hivemesh_platform.trust.ports import EnrolmentRecords, EnrolmentStore
from hivemesh_platform.trust.revocation import PACKAGE, SERIAL, Revocation

TOKEN_LIFETIME = timedelta(minutes=10)
LONGEST_TOKEN = timedelta(hours=24)
REPLY_AGAIN = timedelta(seconds=60)  # a reply may get lost; the same key gets it again
FRESH = timedelta(seconds=60)  # an instance has this long to register before it counts as gone
KEEP = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class _Grant:
    """What a token or credential allows."""

    identity: SpiffeId
    credential: str = ""


@dataclass(frozen=True, slots=True)
class _Enrolment:
    """An enrolment that is being decided."""

    token: Token
    request: EnrolRequest
    checked: CheckedRequest


class EnrolmentService:
    """Enrolment and renewal of one installation."""

    def __init__(  # noqa: PLR0913 - what deciding stands on
        self,
        authority: Authority,
        store: EnrolmentStore,
        clock: Clock,
        *,
        is_live: Callable[[str], bool] | None = None,
        failures: FailureLimit | None = None,
        revocation: Revocation | None = None,
        audit: AuditTrail | None = None,
    ) -> None:
        self._authority = authority
        self._store = store
        self._clock = clock
        self._is_live = is_live or (lambda _identity: True)
        self._failures = failures or FailureLimit(clock)
        self._audit = audit or NoAudit()
        self._revocation = revocation or Revocation(
            store, clock, self._audit, trust_domain=authority.trust_domain
        )
        self._log = structlog.get_logger("hivemesh.trust")

    async def create_token(
        self,
        worker: str,
        *,
        instance: str = "",
        manifest_digest: str = "",
        lifetime: timedelta = TOKEN_LIFETIME,
        by: Actor | None = None,
    ) -> str:
        """Make a join token for one enrolment; it is shown once and stored as a hash.

        Without `by` it is the platform itself that asks, for a process of its supervisor.

        Raises:
            InvalidError: the worker's name or the lifetime is not possible.
            AuditUnavailableError: it cannot be written down.
        """
        _check_worker(worker)
        if not timedelta() < lifetime <= LONGEST_TOKEN:
            message = f"a token may live at most {LONGEST_TOKEN}"
            raise InvalidError(message)
        token, now = self._new_token(TokenKind.JOIN), self._clock.now()
        record = TokenRecord(
            id=token.id,
            secret_hash=_hash(token),
            worker=worker,
            instance=instance,
            manifest_digest=manifest_digest,
            created_at=now,
            expires_at=now + lifetime,
        )
        limits = {"instance": instance, "manifest_digest": manifest_digest, "token": token.id}
        await self._record(by, "enrolment:create-token", worker, limits)
        await self._store.write(lambda records: records.add_token(record))
        self._log.info("join_token_created", token_id=token.id, worker=worker)
        return token.reveal()

    async def create_credential(
        self, worker: str, *, max_live: int = 64, by: Actor | None = None
    ) -> str:
        """Make a deployment credential for any number of enrolments of one worker type.

        Raises:
            InvalidError: the worker's name or the number is not possible.
            AuditUnavailableError: it cannot be written down.
        """
        _check_worker(worker)
        if max_live < 1:
            message = "a deployment credential needs room for one instance"
            raise InvalidError(message)
        token = self._new_token(TokenKind.DEPLOYMENT)
        record = CredentialRecord(
            id=token.id,
            secret_hash=_hash(token),
            worker=worker,
            created_at=self._clock.now(),
            max_live=max_live,
        )
        limits = {"max_live": max_live, "credential": token.id}
        await self._record(by, "enrolment:create-credential", worker, limits)
        await self._store.write(lambda records: records.add_credential(record))
        self._log.info("deployment_credential_created", credential_id=token.id, worker=worker)
        return token.reveal()

    async def enrol(self, request: EnrolRequest, address: str) -> IdentityAnswer:
        """Turn a token into a certificate.

        Raises:
            EnrolmentRefusedError: unknown, expired, used or foreign token.
            EnrolmentRateLimitedError: too many of those from this address.
            AuditUnavailableError: it cannot be written down; the same request may be repeated.
            CsrInvalidError, CsrTooLargeError, KeyReusedError, InstanceDuplicateError: the rest.
        """
        checked = check_request(request.csr)
        try:
            token = Token.parse(request.token)
            enrolment = _Enrolment(token, request, checked)
            issued = await self._store.write(lambda records: self._enrol(records, enrolment))
        except (ConfigurationError, EnrolmentRefusedError) as error:
            self._log.info("enrolment_refused", worker=request.worker, address=address)
            self._failures.add(address)
            self._note_refusal(f"address:{address}", "enrolment:enrol", request.worker, error)
            message = "the token is unknown, expired, used, or for another worker"
            raise EnrolmentRefusedError(message) from error
        actor = Actor(id=f"token:{token.id}", address=address, serial=f"{issued.serial:x}")
        await self._record(actor, "enrolment:enrol", issued.identity)
        self._log.info("enrolled", identity=issued.identity, address=address, by=token.id)
        await self._revocation.announce()  # a process that is gone has left its name
        return self._answer(issued)

    async def renew(self, peer: Peer, csr: str) -> IdentityAnswer:
        """Give the holder of a valid certificate the next one, for a new key.

        Raises:
            RenewalRefusedError: unknown, denied, expired, or two keys renew from one certificate.
            CsrInvalidError, CsrTooLargeError, KeyReusedError: the request.
        """
        try:
            checked = check_request(csr)
            checked.expect(peer.id)
            issued = await self._store.write(lambda records: self._renew(records, peer, checked))
        except FatalError as error:
            self._note_refusal(peer.uri, "identity:renew", peer.uri, error, peer.serial)
            raise
        if issued is None:
            self._log.error("renewal_by_two_keys", identity=peer.uri, serial=f"{peer.serial:x}")
            await self._revocation.quarantine(peer.uri, peer.serial)
            message = "two keys renew from one certificate; the identity is denied from now on"
            raise RenewalRefusedError(message)
        actor = Actor(id=peer.uri, serial=f"{peer.serial:x}")
        self._audit.note(AuditEvent.of(actor, "identity:renew", f"serial:{issued.serial:x}"))
        return self._answer(issued)

    async def denials(self) -> Sequence[Denial]:
        """What every callee must refuse now; `Revocation` decides and tells of changes."""
        now = self._clock.now()
        return await self._store.read(lambda records: records.denials(now))

    async def forget(self) -> None:
        """Drop records of which nothing can depend any more."""
        before = self._clock.now() - KEEP
        await self._store.write(lambda records: records.forget_before(before))

    async def _record(
        self,
        by: Actor | None,
        action: str,
        target: str,
        parameters: Mapping[str, object] | None = None,
    ) -> None:
        actor = by or Actor(id="platform")
        await self._audit.record(AuditEvent.of(actor, action, target, parameters=parameters))

    def _note_refusal(
        self, actor: str, action: str, target: str, error: HivemeshError, serial: int = 0
    ) -> None:
        reason = error.detail or error.slug
        who = Actor(id=actor, serial=f"{serial:x}" if serial else "")
        self._audit.note(AuditEvent.of(who, action, target, decision="deny", reason=reason))

    def _new_token(self, kind: TokenKind) -> Token:
        return Token(
            kind, secrets.token_hex(8), secrets.token_urlsafe(32), self._authority.root_sha256
        )

    def _enrol(self, records: EnrolmentRecords, enrolment: _Enrolment) -> IssuedRecord:
        again = self._answered_before(records, enrolment)
        if again is not None:
            return again
        if enrolment.token.kind is TokenKind.JOIN:
            grant = self._grant_of_token(records, enrolment)
        else:
            grant = self._grant_of_credential(records, enrolment)
        self._check_banned(records, grant.identity, enrolment.request.manifest_digest)
        enrolment.checked.expect(grant.identity)
        _check_new_key(records, enrolment.checked)
        self._check_free(records, grant.identity)
        package = enrolment.request.manifest_digest
        return self._issue(records, grant, enrolment.checked, package)

    def _answered_before(
        self, records: EnrolmentRecords, enrolment: _Enrolment
    ) -> IssuedRecord | None:
        token, key_hash = enrolment.token, enrolment.checked.key_hash
        known = records.token(token.id) if token.kind is TokenKind.JOIN else None
        if known is None or known.used_at is None or not _same(known.secret_hash, token):
            return None
        if known.used_key != key_hash or self._clock.now() - known.used_at > REPLY_AGAIN:
            return None
        return records.issued_to_key(key_hash)

    def _grant_of_token(self, records: EnrolmentRecords, enrolment: _Enrolment) -> _Grant:
        token, request, now = enrolment.token, enrolment.request, self._clock.now()
        known = records.token(token.id)
        if (
            known is None
            or not _same(known.secret_hash, token)
            or not _allows(known, request)
            or now >= known.expires_at
            or not records.use_token(token.id, enrolment.checked.key_hash, now)
        ):
            raise EnrolmentRefusedError
        return _Grant(self._identity(known.worker, known.instance or request.instance))

    def _grant_of_credential(self, records: EnrolmentRecords, enrolment: _Enrolment) -> _Grant:
        token, request = enrolment.token, enrolment.request
        known = records.credential(token.id)
        if (
            known is None
            or not _same(known.secret_hash, token)
            or known.worker != request.worker
            or known.revoked_at is not None
        ):
            raise EnrolmentRefusedError
        if self._live_of(records, known.id) >= known.max_live:
            message = f"the credential allows {known.max_live} live instances of {known.worker!r}"
            raise InstanceDuplicateError(message)
        return _Grant(self._identity(known.worker, request.instance), known.id)

    def _live_of(self, records: EnrolmentRecords, credential_id: str) -> int:
        now = self._clock.now()
        newest: dict[str, IssuedRecord] = {}
        for issued in records.valid_of_credential(credential_id, now):
            present = newest.get(issued.identity)
            if present is None or issued.issued_at > present.issued_at:
                newest[issued.identity] = issued
        return sum(self._in_use(issued) for issued in newest.values())

    def _in_use(self, issued: IssuedRecord) -> bool:
        # One from far ahead was made before the clock was set back.
        fresh = abs(self._clock.now() - issued.issued_at) < FRESH
        return fresh or self._is_live(issued.identity)

    def _identity(self, worker: str, instance: str | None) -> SpiffeId:
        name = instance or secrets.token_hex(5)
        try:
            return SpiffeId.worker(self._authority.trust_domain, worker, name)
        except ConfigurationError as error:
            raise InvalidError(error.detail) from error

    def _check_banned(self, records: EnrolmentRecords, identity: SpiffeId, package: str) -> None:
        now = self._clock.now()
        for denial in records.denials(now):
            if covers(denial.rule, str(identity)) or denial.rule == f"{PACKAGE}{package}":
                raise EnrolmentRefusedError

    def _check_free(self, records: EnrolmentRecords, identity: SpiffeId) -> None:
        now = self._clock.now()
        denials = records.denials(now)
        for issued in records.valid_certificates(str(identity), now):
            if _denied(denials, issued):
                continue
            if self._in_use(issued):
                message = f"another process holds a valid certificate of {str(identity)!r}"
                raise InstanceDuplicateError(message)
            records.add_denial(_eviction(issued, "its process is gone", now))

    def _renew(
        self, records: EnrolmentRecords, peer: Peer, checked: CheckedRequest
    ) -> IssuedRecord | None:
        present, now = records.issued(peer.serial), self._clock.now()
        if present is None or present.identity != peer.uri or now >= present.not_after:
            message = "this certificate was not issued by enrolment here, or has expired"
            raise RenewalRefusedError(message)
        if _denied(records.denials(now), present):
            message = "this identity is denied"
            raise RenewalRefusedError(message)
        if present.successor_key:
            return self._renewed_before(records, present, checked)
        _check_new_key(records, checked)
        records.set_successor(present.serial, checked.key_hash)
        grant = _Grant(peer.id, present.credential)
        return self._issue(records, grant, checked, present.package)

    def _renewed_before(
        self, records: EnrolmentRecords, present: IssuedRecord, checked: CheckedRequest
    ) -> IssuedRecord | None:
        now = self._clock.now()
        if present.successor_key == checked.key_hash:
            # The same key is the same holder: its reply got lost.
            return records.issued_to_key(checked.key_hash)
        # One of the two is a thief, and nobody can tell which: both lose the identity.
        records.add_denial(
            Denial(
                rule=present.identity,
                reason="two keys renewed from one certificate",
                at=now,
                kind=DenialKind.QUARANTINE,
            )
        )
        return None

    def _issue(
        self, records: EnrolmentRecords, grant: _Grant, checked: CheckedRequest, package: str
    ) -> IssuedRecord:
        issued = self._authority.issue(grant.identity, checked.public_key)
        record = IssuedRecord(
            serial=issued.serial,
            identity=str(grant.identity),
            key_hash=checked.key_hash,
            issued_at=self._clock.now(),
            not_after=issued.not_after,
            chain=issued.pem,
            credential=grant.credential,
            package=package,
        )
        records.add_issued(record)
        return record

    def _answer(self, issued: IssuedRecord) -> IdentityAnswer:
        return IdentityAnswer(
            certificate_chain=issued.chain,
            bundle=self._authority.bundle().document(),
            instance=SpiffeId.parse(issued.identity).instance,
        )


def _check_worker(worker: str) -> None:
    if not WORKER_NAME.fullmatch(worker):
        message = f"{worker!r} is no worker name; use a-z, 0-9 and '-', at most 40"
        raise InvalidError(message)


def _check_new_key(records: EnrolmentRecords, checked: CheckedRequest) -> None:
    if records.issued_to_key(checked.key_hash) is not None:
        message = "this public key was certified before; make a new one"
        raise KeyReusedError(message)


def _allows(known: TokenRecord, request: EnrolRequest) -> bool:
    return (
        known.worker == request.worker
        and known.manifest_digest in {"", request.manifest_digest}
        and known.instance in {"", request.instance or known.instance}
    )


def _eviction(issued: IssuedRecord, reason: str, now: datetime) -> Denial:
    return Denial(
        rule=f"{SERIAL}{issued.serial:x}",
        reason=reason,
        at=now,
        until=issued.not_after,
        kind=DenialKind.EVICTION,
    )


def _hash(token: Token) -> bytes:
    # 256 random bits need no slow hash.
    return hashlib.sha256(token.secret.encode("ascii")).digest()


def _same(stored: bytes, token: Token) -> bool:
    return hmac.compare_digest(stored, _hash(token))


def _denied(denials: Sequence[Denial], issued: IssuedRecord) -> bool:
    exact = {f"{SERIAL}{issued.serial:x}", f"{PACKAGE}{issued.package}"}
    return any(denial.rule in exact or covers(denial.rule, issued.identity) for denial in denials)
