"""Who people are: the port that directories and sign-in pages implement, and their registry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hivemesh_sdk.errors import ConfigurationError
from pydantic import JsonValue


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Whom a provider has recognised; its groups become roles by the group mappings."""

    user: str
    groups: tuple[str, ...] = ()
    tenant: str = "default"


class IdentityProvider(Protocol):
    """Recognises people; what they may do is decided here and never there."""

    async def sign_in(self, name: str, proof: bytes) -> SignedIn | None:
        """Return whom the proof (a password, an assertion) shows, or None where it shows nobody."""
        ...

    async def groups(self, user: str) -> tuple[str, ...]:
        """Return the groups of a user now, those that hold his groups included."""
        ...


Factory = Callable[[Mapping[str, JsonValue]], IdentityProvider]


class ProviderUnknownError(ConfigurationError):
    """No provider of this type is registered."""

    slug = "provider-unknown"


class IdentityProviders:
    """The types of identity providers that this installation knows."""

    def __init__(self) -> None:
        self._factories: dict[str, Factory] = {}

    def register_provider(self, kind: str, factory: Factory) -> None:
        """Make a type known.

        Raises:
            ConfigurationError: the type is known already.
        """
        if kind in self._factories:
            message = f"the identity provider {kind!r} is registered already"
            raise ConfigurationError(message)
        self._factories[kind] = factory

    def create(self, kind: str, options: Mapping[str, JsonValue]) -> IdentityProvider:
        """Make a provider of a type with its settings.

        Raises:
            ProviderUnknownError: there is no such type; the message lists those that there are.
        """
        factory = self._factories.get(kind)
        if factory is None:
            known = ", ".join(sorted(self._factories)) or "none"
            message = f"{kind!r} is no type of identity provider; known: {known}"
            raise ProviderUnknownError(message)
        return factory(options)
