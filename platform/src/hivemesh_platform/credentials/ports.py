"""Where secrets are kept, and who holds which step. Adapters: `encrypted_file`, `vault`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.tickets import Ticket

from hivemesh_platform.credentials.model import SecretInfo, StepSecrets, StoredSecret
from hivemesh_platform.settings import SecretsSettings


class SecretStore(Protocol):
    """Keeps values under paths, each with its versions.

    Every method but `sealed` raises SecretsSealedError while the store cannot be opened or reached.
    """

    async def sealed(self) -> str:
        """Why nothing can be read at the moment, as a sentence for people; "" where it can."""
        ...

    async def read(
        self, path: str, version: int | None = None, *, holder: str = ""
    ) -> StoredSecret:
        """Return a value, the present version unless another one is asked for.

        What a store makes when it is asked belongs to the `holder`, who gets the same until it is
        given back; without a holder nothing is made.

        Raises:
            SecretMissingError: there is none, or it was deleted.
            SecretDamagedError: it is not what was stored.
            SecretDeniedError: the store does not give it to this platform.
        """
        ...

    async def exists(self, path: str) -> bool:
        """Say whether `read` would find something, without making anything."""
        ...

    async def describe(self, path: str) -> SecretInfo:
        """Return what is told of a secret, also of a deleted one.

        Raises:
            SecretMissingError: nothing was ever stored under the path.
        """
        ...

    async def entries(self, prefix: str = "") -> list[SecretInfo]:
        """Return what is told of the secrets below a path (`""`: of all), by path."""
        ...

    async def write(self, path: str, value: str) -> SecretInfo:
        """Store a new version, which becomes the present one. Durable on return."""
        ...

    async def delete(self, path: str) -> SecretInfo:
        """Withdraw the present version; `restore` brings it back.

        Raises:
            SecretMissingError: there is none.
        """
        ...

    async def restore(self, path: str) -> SecretInfo:
        """Bring back what `delete` has withdrawn; a secret that was not is left as it is.

        Raises:
            SecretMissingError: there is none.
        """
        ...

    async def revoke(self, lease: str) -> None:
        """Give back what the store has made for one lease."""
        ...


class StepHolders(Protocol):
    """Who holds which step at the moment, and what it names."""

    def secrets_of(self, ticket: Ticket) -> StepSecrets | None:
        """What the holder of a checked ticket may be lent; None where its step does not run."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreParts:
    """What a store is made from."""

    settings: SecretsSettings
    folder: Path  # of the store alone, in the state folder
    clock: Clock


class StoreFactory(Protocol):
    """Makes a store; called once, when the platform starts."""

    def __call__(self, parts: StoreParts) -> SecretStore:
        """Make it without opening anything.

        Raises:
            ConfigurationError: a setting that this store needs is missing or wrong.
        """
        ...


StoreFactories = Mapping[str, StoreFactory]
