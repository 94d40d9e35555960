"""What enrolment needs to remember."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from hivemesh_platform.trust.model import CredentialRecord, Denial, IssuedRecord, TokenRecord

T = TypeVar("T")


class EnrolmentRecords(Protocol):
    """The records, inside one transaction."""

    def add_token(self, token: TokenRecord) -> None:
        """Store a new token."""
        ...

    def token(self, token_id: str) -> TokenRecord | None:
        """One token."""
        ...

    def use_token(self, token_id: str, key_hash: str, now: datetime) -> bool:
        """Mark an unused token as used; False where somebody was faster."""
        ...

    def add_credential(self, credential: CredentialRecord) -> None:
        """Store a new deployment credential."""
        ...

    def credential(self, credential_id: str) -> CredentialRecord | None:
        """One deployment credential."""
        ...

    def credentials(self) -> Sequence[CredentialRecord]:
        """All deployment credentials, oldest first."""
        ...

    def revoke_credential(self, credential_id: str, now: datetime) -> bool:
        """Mark a credential as revoked; False where there is none."""
        ...

    def add_issued(self, issued: IssuedRecord) -> None:
        """Store an issued certificate."""
        ...

    def issued(self, serial: int) -> IssuedRecord | None:
        """One issued certificate."""
        ...

    def issued_to_key(self, key_hash: str) -> IssuedRecord | None:
        """The certificate of a public key."""
        ...

    def valid_certificates(self, identity: str, now: datetime) -> Sequence[IssuedRecord]:
        """The certificates of one identity that have not expired."""
        ...

    def valid_of_credential(self, credential_id: str, now: datetime) -> Sequence[IssuedRecord]:
        """The certificates that go back to a credential and have not expired."""
        ...

    def valid(self, now: datetime) -> Sequence[IssuedRecord]:
        """Every certificate that has not expired."""
        ...

    def set_successor(self, serial: int, key_hash: str) -> None:
        """Remember which key renewed from a certificate."""
        ...

    def add_denial(self, denial: Denial) -> None:
        """Refuse an identity, a prefix or a serial from now on."""
        ...

    def remove_denial(self, rule: str) -> bool:
        """Refuse it no longer; False where it was not refused."""
        ...

    def denials(self, now: datetime) -> Sequence[Denial]:
        """What is refused now."""
        ...

    def forget_before(self, when: datetime) -> None:
        """Drop tokens, certificates and denials that ended before `when`."""
        ...


class EnrolmentStore(Protocol):
    """Where the records are; conformance: `EnrolmentStoreConformance`."""

    async def write(self, work: Callable[[EnrolmentRecords], T]) -> T:
        """Run `work` in a transaction; it may run twice and must keep nothing outside."""
        ...

    async def read(self, work: Callable[[EnrolmentRecords], T]) -> T:
        """Run `work` on what is committed."""
        ...
