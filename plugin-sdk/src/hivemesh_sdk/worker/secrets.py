"""`Secret`: what a capability gets in place of a secret's value, and where the value comes from.

The value is fetched when `reveal` is called, kept until its lease ends, and never printed,
compared, copied, pickled or written as JSON.
"""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self

from hivemesh_sdk.contracts.references import SECRET_PATH, SECRET_SCHEMA, secret_path
from hivemesh_sdk.contracts.secrets import SecretLease
from hivemesh_sdk.errors import ConfigurationError, FatalError
from hivemesh_sdk.redaction import MASK, REDACTOR

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

MAX_SECRETS = 64  # that one step may hold


class Vault(Protocol):
    """Where the values of one step come from."""

    def value(self, path: str) -> str:
        """The value of a secret.

        Raises:
            HivemeshError: it is refused, missing or sealed, or the step has ended.
        """
        ...


class Secret:
    """A secret by its path; `reveal` gives the value and nothing else does."""

    __slots__ = ("_path", "_vault")
    __hivemesh_schema__ = SECRET_SCHEMA

    def __init__(self, path: str, vault: Vault) -> None:
        self._path = path
        self._vault = vault

    @property
    def path(self) -> str:
        """The name under which it is stored."""
        return self._path

    def reveal(self) -> str:
        """The value. Hand it to what needs it at once, and keep no copy.

        Raises:
            HivemeshError: it is refused, missing or sealed, or the step has ended.
        """
        return self._vault.value(self._path)

    def __repr__(self) -> str:
        return f"Secret({self._path!r}, {MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, specification: str) -> str:
        return MASK

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce_ex__(self, _: object) -> NoReturn:
        message = "a secret cannot be pickled; pass its path on"
        raise TypeError(message)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: object, _handler: "GetCoreSchemaHandler"
    ) -> "CoreSchema":
        """For options that are Pydantic models."""
        from pydantic_core import core_schema  # noqa: PLC0415 - only where Pydantic is in use

        return core_schema.with_info_plain_validator_function(
            lambda value, info: _of_option(value, (info.context or {}).get("vault", NO_VAULT)),
            serialization=core_schema.plain_serializer_function_ser_schema(_never_written),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: "CoreSchema", _handler: "GetJsonSchemaHandler"
    ) -> dict[str, object]:
        return dict(SECRET_SCHEMA)


class Secrets:
    """`context.secrets`: secrets by path; the step's options must refer to each of them."""

    __slots__ = ("_vault",)

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def get(self, path: str) -> Secret:
        """The secret with this path: `mail.password` of `{{ vault.mail.password }}`.

        Raises:
            ConfigurationError: that is no path.
        """
        if SECRET_PATH.fullmatch(path) is None:
            message = f"{path!r} is no path of a secret; write it like mail.password"
            raise ConfigurationError(message)
        return Secret(path, self._vault)


class LeasedValues:
    """A `Vault` that asks once per secret and again when the lease is over."""

    def __init__(
        self,
        ask: Callable[[str], SecretLease],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._held: dict[str, tuple[float, str]] = {}
        self._closed = False

    def value(self, path: str) -> str:
        """The value, while the step runs."""
        if self._closed:
            message = f"the step that was lent {path!r} has ended"
            raise FatalError(message, slug="secret-lease-expired")
        held = self._held.get(path)
        if held is not None and self._monotonic() < held[0]:
            return held[1]
        asked = self._monotonic()
        self.take(self._ask(path), asked)
        return self._held[path][1]

    def take(self, lease: SecretLease, asked: float) -> None:
        """Keep what was lent; its time runs from when it was asked for."""
        if len(self._held) >= MAX_SECRETS and lease.path not in self._held:
            message = f"a step may hold {MAX_SECRETS} secrets at once"
            raise FatalError(message, slug="secret-denied")
        before = self._held.pop(lease.path, None)
        REDACTOR.add(lease.value)
        if before is not None:
            REDACTOR.retire(before[1])
        self._held[lease.path] = (asked + lease.expires_in_s, lease.value)

    def close(self) -> None:
        """The step has ended: what it was lent is of no use any more.

        The values stay masked in what this process writes: a line about the step may come late.
        """
        self._closed = True
        for _, value in self._held.values():
            REDACTOR.retire(value)
        self._held.clear()


class GivenValues:
    """A `Vault` for tests and runs without a platform."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)
        for value in self._values.values():
            REDACTOR.add(value)

    def value(self, path: str) -> str:
        """The value that was given."""
        if path not in self._values:
            message = f"no secret {path!r} was given"
            raise ConfigurationError(message, slug="secret-missing")
        return self._values[path]


NO_VAULT = GivenValues({})


def option_decoder(vault: Vault) -> Callable[[type, object], Any]:
    """What msgspec calls for a type that it does not know: a reference becomes a `Secret`."""

    def decode(kind: type, value: object) -> object:
        if kind is Secret:
            return _of_option(value, vault)
        message = f"{kind.__name__} is no type of options"
        raise NotImplementedError(message)

    return decode


def _of_option(value: object, vault: Vault) -> Secret:
    if not isinstance(value, str):
        message = "a secret is referred to as {{ vault.a.b }}"
        raise ValueError(message)  # noqa: TRY004 - what msgspec and Pydantic report with its place
    return Secret(secret_path(value), vault)


def _never_written(_: Secret) -> NoReturn:
    message = "a secret cannot be written"
    raise TypeError(message)
