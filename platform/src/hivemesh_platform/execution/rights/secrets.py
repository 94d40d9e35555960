"""Secrets as execution meets them: in a plan, before a dispatch, and at the end of a step."""

from collections.abc import Container, Iterable, Iterator
from typing import Protocol

import msgspec
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.contracts.references import (
    named_secrets,
    takes_secrets,
)
from hivemesh_sdk.errors import InvalidError

from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.ledger.port import Claim
from hivemesh_platform.execution.plans.secret_uses import SecretUse
from hivemesh_platform.execution.plans.spec import JobSpec
from hivemesh_platform.execution.ports import Catalogue, KnownCapability

SEALED = "secrets sealed"
_NOT_LENT = frozenset({"add", "merge"})  # kinds of steps that are given no options


class SecretNames(Protocol):
    """What is known of the store."""

    @property
    def sealed(self) -> str:
        """Why it cannot be read at the moment; "" where it can."""
        ...

    async def unknown(self, paths: frozenset[str], tenant: str) -> frozenset[str]:
        """Those under which nothing is stored; none while that cannot be said."""
        ...


class StepLeases(Protocol):
    """What running steps were lent."""

    def step_ended(self, key: str, attempt: int) -> None:
        """End the leases of a step, if it has any; nobody waits for it."""
        ...


class NoSecrets:
    """Both ports where there is no store: for tests of parts that use none."""

    sealed = ""

    async def unknown(self, paths: frozenset[str], tenant: str) -> frozenset[str]:
        """Everything."""
        return paths

    def step_ended(self, key: str, attempt: int) -> None:
        """Nothing was lent."""


NO_SECRETS = NoSecrets()


class SecretGate:
    """Keeps rows waiting while their secrets are sealed, and gives back what steps were lent."""

    def __init__(self, names: SecretNames, leases: StepLeases, catalogue: Catalogue) -> None:
        self._names = names
        self._catalogue = catalogue
        self.step_ended = leases.step_ended

    def holds_back(self, capability: str) -> str:
        """Why rows of a capability wait: it takes secrets and they are sealed; "" where they do not.

        The whole capability waits, also a row that names none: so nothing is claimed and released
        again and again.
        """
        reason = self._names.sealed
        if not reason:
            return ""
        known = self._catalogue.find(capability)
        if known is None or not takes_secrets(known.declared.options):
            return ""
        return f"{SEALED}: {reason}"

    async def refuse(
        self, uses: Iterable[SecretUse], behalf: Behalf, slug: str = "pipeline-invalid"
    ) -> None:
        """Refuse references to what the principal may not use or what is not stored.

        Which secrets there are is told to those alone who may use them.

        Raises:
            InvalidError: with a pointer for each.
        """
        found = list(uses)
        rights = behalf.rights()
        allowed = {path for _, path in found if rights.allows("run", "secret", path)}
        unknown = await self._names.unknown(frozenset(allowed), behalf.tenant) if found else ()
        problems = [
            FieldProblem(pointer=pointer, message=message, code=code)
            for pointer, path in found
            for message, code in _objection(path, allowed, unknown)
        ]
        if problems:
            raise InvalidError(problems[0].message, slug=slug, errors=problems)


def _objection(
    path: str, allowed: Container[str], unknown: Container[str]
) -> Iterator[tuple[str, str]]:
    if path not in allowed:
        yield f"using {path!r} takes the grant run:secret/{path}", "secret-not-granted"
    elif path in unknown:
        message = f"there is no secret {path!r}; `hivemesh secret set {path}` stores it"
        yield message, "secret-unknown"


def secrets_of_claim(claim: Claim, known: KnownCapability | None) -> frozenset[str]:
    """The paths that a row's options refer to in fields that its capability marks secret."""
    if known is None or claim.kind in _NOT_LENT:
        return frozenset()
    options: object
    if claim.spec is not None:
        options = msgspec.json.decode(claim.spec, type=JobSpec).options
    else:
        options = msgspec.json.decode(claim.options)
    return named_secrets(options, known.declared.options)
