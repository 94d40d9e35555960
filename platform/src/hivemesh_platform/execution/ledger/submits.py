"""Requests that are sent again: the same key and body mean the same work, which is accepted once."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import InvalidError, RetryableError
from pydantic import BaseModel

from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.ledger import submit_sql
from hivemesh_platform.execution.ledger.port import milliseconds
from hivemesh_platform.execution.ledger.submit_sql import SubmitKey, digest_of
from hivemesh_platform.settings import ExecutionSettings
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Transaction

AGAIN_S = 1.0
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_HOUR_MS = 3_600_000


class InFlightError(RetryableError):
    """The same request is being accepted."""

    slug = "submit-in-flight"


class Submits:
    """The keys of one platform; a key belongs to its submitter."""

    def __init__(self, database: Database, settings: ExecutionSettings, clock: Clock) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._in_flight: set[tuple[str, str, str]] = set()

    def key(self, text: str, kind: str, body: BaseModel, submitter: Behalf) -> SubmitKey | None:
        """The key of a request; None where it has none.

        Raises:
            InvalidError: the text is no key.
        """
        if not text:
            return None
        if not _KEY.fullmatch(text):
            message = "Idempotency-Key: 1-200 printable ASCII characters without blanks"
            raise InvalidError(message)
        return SubmitKey(submitter.tenant, submitter.sub, text, digest_of(kind, body))

    def batch_key(
        self, text: str, body: BaseModel, lines: Sequence[bytes], submitter: Behalf
    ) -> SubmitKey | None:
        """The same for a batch: its inputs are a part of what it asks for.

        Raises:
            InvalidError: the text is no key.
        """
        key = self.key(text, "batch", body, submitter)
        if key is None:
            return None
        inputs = hashlib.sha256(b"\n".join(lines)).hexdigest()
        return replace(key, digest=f"{key.digest}{inputs}")

    @contextmanager
    def accepting(self, key: SubmitKey | None) -> Iterator[None]:
        """Let one request of a key be accepted at a time.

        Raises:
            InFlightError: the first one has not been answered yet.
        """
        if key is None:
            yield
            return
        name = (key.tenant, key.submitter, key.key)
        if name in self._in_flight:
            message = f"a request with the key {key.key!r} is being accepted"
            raise InFlightError(message, delay_s=AGAIN_S)
        self._in_flight.add(name)
        try:
            yield
        finally:
            self._in_flight.discard(name)

    async def earlier(self, key: SubmitKey | None) -> str | None:
        """What was accepted under the key before.

        Raises:
            OtherBodyError: something else was asked for.
        """
        if key is None:
            return None
        since = self.since
        return await self._database.read(lambda tx: submit_sql.earlier(tx, key, since))

    def keep(self, tx: Transaction, key: SubmitKey | None, target: str) -> str | None:
        """Take the key in the transaction that accepts `target`; or what it was taken for before.

        Raises:
            OtherBodyError: it was taken for something else.
        """
        if key is None:
            return None
        now = milliseconds(self._clock)
        return submit_sql.keep(tx, key, target, now, self.since)

    @property
    def since(self) -> int:
        """Keys from before this time count no more."""
        kept = round(self._settings.submit_keys_hours * _HOUR_MS)
        return milliseconds(self._clock) - kept
