"""A fake of the enrolment store, and what every store of enrolment records must do."""

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hivemesh_platform.trust.model import CredentialRecord, Denial, IssuedRecord, TokenRecord

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class MemoryEnrolmentRecords:
    """Implements `EnrolmentRecords`."""

    def __init__(self):
        self.tokens, self.credentials_, self.certificates, self.rules = {}, {}, {}, {}

    def add_token(self, token):
        self.tokens[token.id] = token

    def token(self, token_id):
        return self.tokens.get(token_id)

    def use_token(self, token_id, key_hash, now):
        token = self.tokens.get(token_id)
        if token is None or token.used_at is not None:
            return False
        self.tokens[token_id] = replace(token, used_at=now, used_key=key_hash)
        return True

    def add_credential(self, credential):
        self.credentials_[credential.id] = credential

    def credential(self, credential_id):
        return self.credentials_.get(credential_id)

    def credentials(self):
        return sorted(self.credentials_.values(), key=lambda c: (c.created_at, c.id))

    def revoke_credential(self, credential_id, now):
        known = self.credentials_.get(credential_id)
        if known is None:
            return False
        self.credentials_[credential_id] = replace(known, revoked_at=known.revoked_at or now)
        return True

    def add_issued(self, issued):
        self.certificates[issued.serial] = issued

    def issued(self, serial):
        return self.certificates.get(serial)

    def issued_to_key(self, key_hash):
        return next(
            (item for item in self.certificates.values() if item.key_hash == key_hash), None
        )

    def valid_certificates(self, identity, now):
        return [
            i for i in self.certificates.values() if i.identity == identity and i.not_after > now
        ]

    def valid_of_credential(self, credential_id, now):
        found = self.certificates.values()
        return [i for i in found if i.credential == credential_id and i.not_after > now]

    def valid(self, now):
        return [i for i in self.certificates.values() if i.not_after > now]

    def set_successor(self, serial, key_hash):
        self.certificates[serial] = replace(self.certificates[serial], successor_key=key_hash)

    def add_denial(self, denial):
        self.rules[denial.rule] = denial

    def remove_denial(self, rule):
        return self.rules.pop(rule, None) is not None

    def denials(self, now):
        return [d for d in self.rules.values() if d.until is None or d.until > now]

    def forget_before(self, when):
        self.tokens = {k: v for k, v in self.tokens.items() if v.expires_at >= when}
        self.certificates = {k: v for k, v in self.certificates.items() if v.not_after >= when}
        self.rules = {k: v for k, v in self.rules.items() if v.until is None or v.until >= when}


class MemoryEnrolmentStore:
    """Implements `EnrolmentStore`: a failed transaction leaves nothing behind."""

    def __init__(self):
        self._records = MemoryEnrolmentRecords()

    async def write(self, work):
        changed = copy.deepcopy(self._records)
        value = work(changed)
        self._records = changed
        return value

    async def read(self, work):
        return work(self._records)


def token(**changes):
    return TokenRecord(
        **{
            "id": "t1",
            "secret_hash": b"h" * 32,
            "worker": "echo",
            "created_at": NOW,
            "expires_at": NOW + HOUR,
            **changes,
        }
    )


def credential(**changes):
    return CredentialRecord(
        **{
            "id": "c1",
            "secret_hash": b"h" * 32,
            "worker": "echo",
            "created_at": NOW,
            "max_live": 3,
            **changes,
        }
    )


def issued(**changes):
    return IssuedRecord(
        **{
            "serial": 2**158 + 7,
            "identity": "spiffe://a.b/worker/echo/i1",
            "key_hash": "k1",
            "issued_at": NOW,
            "not_after": NOW + HOUR,
            "chain": "PEM",
            **changes,
        }
    )


class EnrolmentStoreConformance:
    """Inherit, and give a `store` fixture."""

    async def test_token_is_kept_and_used_once(self, store):
        record = token(instance="i1", manifest_digest="sha256:x")
        await store.write(lambda records: records.add_token(record))
        assert await store.read(lambda records: records.token("t1")) == record
        uses = [await store.write(lambda r, key=key: r.use_token("t1", key, NOW)) for key in "ab"]
        assert uses == [True, False]
        used = await store.read(lambda records: records.token("t1"))
        assert (used.used_at, used.used_key) == (NOW, "a")

    async def test_unknown_records_are_none(self, store):
        assert await store.read(lambda records: records.token("x")) is None
        assert await store.read(lambda records: records.credential("x")) is None
        assert await store.read(lambda records: records.issued(1)) is None
        assert await store.read(lambda records: records.issued_to_key("x")) is None
        assert not await store.write(lambda records: records.use_token("x", "k", NOW))
        assert not await store.write(lambda records: records.revoke_credential("x", NOW))

    async def test_credential_is_revoked_once(self, store):
        await store.write(lambda records: records.add_credential(credential()))
        assert await store.read(lambda records: records.credential("c1")) == credential()
        for moment in (NOW, NOW + HOUR):
            assert await store.write(lambda r, at=moment: r.revoke_credential("c1", at))
        assert (await store.read(lambda r: r.credential("c1"))).revoked_at == NOW

    async def test_certificate_is_found_by_serial_key_identity_and_credential(self, store):
        record = issued(credential="c1")
        await store.write(lambda records: records.add_issued(record))
        assert await store.read(lambda r: r.issued(record.serial)) == record
        assert await store.read(lambda r: r.issued_to_key("k1")) == record
        assert list(await store.read(lambda r: r.valid_certificates(record.identity, NOW))) == [
            record
        ]
        assert list(await store.read(lambda r: r.valid_of_credential("c1", NOW))) == [record]
        late = NOW + HOUR
        assert not await store.read(lambda r: r.valid_certificates(record.identity, late))
        assert not await store.read(lambda r: r.valid_of_credential("c1", late))

    async def test_successor_is_remembered(self, store):
        await store.write(lambda records: records.add_issued(issued()))
        await store.write(lambda records: records.set_successor(issued().serial, "k2"))
        assert (await store.read(lambda r: r.issued(issued().serial))).successor_key == "k2"

    async def test_denial_is_listed_until_it_ends_and_replaced_by_rule(self, store):
        ban = Denial(rule="spiffe://a.b/worker/echo/*", reason="why", at=NOW)
        eviction = Denial(rule="serial:1f", reason="why", at=NOW, until=NOW + HOUR)
        for denial in (ban, eviction, replace(ban, reason="again")):
            await store.write(lambda r, denial=denial: r.add_denial(denial))
        now = {d.rule: d.reason for d in await store.read(lambda r: r.denials(NOW))}
        assert now == {ban.rule: "again", eviction.rule: "why"}
        assert [d.rule for d in await store.read(lambda r: r.denials(NOW + HOUR))] == [ban.rule]

    async def test_failed_transaction_leaves_nothing(self, store):
        def fail(records):
            records.add_token(token())
            raise LookupError

        with pytest.raises(LookupError):
            await store.write(fail)
        assert await store.read(lambda records: records.token("t1")) is None

    async def test_ended_records_are_forgotten(self, store):
        def fill(records):
            records.add_token(token())
            records.add_issued(issued())
            records.add_denial(Denial(rule="serial:1", reason="", at=NOW, until=NOW))
            records.add_denial(Denial(rule="spiffe://a.b/worker/x/y", reason="", at=NOW))

        await store.write(fill)
        await store.write(lambda records: records.forget_before(NOW + 2 * HOUR))
        assert await store.read(lambda r: r.token("t1")) is None
        assert await store.read(lambda r: r.issued(issued().serial)) is None
        assert [d.rule for d in await store.read(lambda r: r.denials(NOW))] == [
            "spiffe://a.b/worker/x/y"
        ]
