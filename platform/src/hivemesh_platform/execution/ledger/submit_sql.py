"""Keys of submits: which request was accepted under which key, and what became of it."""

import hashlib
from dataclasses import dataclass

import msgspec
from hivemesh_sdk.errors import FatalError
from pydantic import BaseModel

from hivemesh_platform.storage.transaction import Row, Transaction

_KNOWN = "SELECT * FROM submit_key WHERE tenant = ? AND submitter = ? AND key = ?"


class OtherBodyError(FatalError):
    """The key was used with another request."""

    slug = "idempotency-mismatch"


@dataclass(frozen=True, slots=True)
class SubmitKey:
    """The key of one request of one submitter, and a digest of what it asks for."""

    tenant: str
    submitter: str
    key: str
    digest: str


def digest_of(kind: str, body: BaseModel) -> str:
    """The same for two requests that mean the same; how long to wait for the answer is no part."""
    document = body.model_dump(mode="json", exclude={"wait_s"})
    text = f"{kind}\n".encode() + msgspec.json.encode(document, order="sorted")
    return hashlib.sha256(text).hexdigest()


def earlier(tx: Transaction, key: SubmitKey, since: int) -> str | None:
    """What was accepted under the key, if that was not before `since`.

    Raises:
        OtherBodyError: something else was asked for.
    """
    row = tx.one(_KNOWN, _names(key))
    return None if row is None else _target(row, key, since)


def keep(tx: Transaction, key: SubmitKey, target: str, now: int, since: int) -> str | None:
    """Take the key for what is accepted in this transaction, or say what it was taken for before.

    Raises:
        OtherBodyError: it was taken for something else.
    """
    values = (*_names(key), key.digest, target, now)
    taken = tx.execute(
        """INSERT INTO submit_key (tenant, submitter, key, digest, target, created_at)
           VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING""",
        values,
    )
    if taken:
        return None
    row = tx.one(f"{_KNOWN} {tx.for_update}", _names(key))
    found = None if row is None else _target(row, key, since)
    if found is None:
        tx.send(
            """UPDATE submit_key SET digest = ?, target = ?, created_at = ?
                WHERE tenant = ? AND submitter = ? AND key = ?""",
            (key.digest, target, now, *_names(key)),
        )
    return found


def forget(tx: Transaction, before: int) -> None:
    """Drop the keys that have been kept for long enough."""
    tx.send("DELETE FROM submit_key WHERE created_at < ?", (before,))


def _target(row: Row, key: SubmitKey, since: int) -> str | None:
    if row["created_at"] < since:
        return None
    if row["digest"] != key.digest:
        message = f"the key {key.key!r} was used for another request, which became {row['target']}"
        raise OtherBodyError(message)
    return str(row["target"])


def _names(key: SubmitKey) -> tuple[str, str, str]:
    return key.tenant, key.submitter, key.key
