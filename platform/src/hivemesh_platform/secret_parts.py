"""Builds what secrets consist of: the store that the settings name, its service, its leases."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import ConfigurationError

from hivemesh_platform import hookspecs
from hivemesh_platform.api import secrets as routes
from hivemesh_platform.credentials.lending import Lending
from hivemesh_platform.credentials.ports import SecretStore, StoreParts
from hivemesh_platform.credentials.service import SecretService
from hivemesh_platform.execution.ports import Catalogue
from hivemesh_platform.execution.rights.borrowers import Borrowers
from hivemesh_platform.execution.runtime import Execution
from hivemesh_platform.settings import Settings
from hivemesh_platform.storage.database import Database

if TYPE_CHECKING:
    from hivemesh_platform.app import Platform

FOLDER = "secrets"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What `app` hands on."""

    service: SecretService
    lending: Lending

    def router(self, execution: Execution, catalogue: Catalogue) -> APIRouter:
        """The routes."""
        borrowers = Borrowers(execution.held, catalogue)
        return routes.router(self.service, self.lending, borrowers, execution.tickets)


@asynccontextmanager
async def open_secrets(platform: "Platform", database: Database) -> AsyncIterator[Secrets]:
    """Build secrets on one of the stores that extensions register.

    Raises:
        ConfigurationError: there is no such store, or its settings are wrong.
    """
    settings = platform.settings.secrets
    store = store_of(platform.settings, platform.loaded.shared_folder, platform.clock)
    service = SecretService(store, platform.audit, check_s=settings.check_s)
    lending = Lending(
        store,
        database,
        platform.audit,
        platform.clock,
        lease_s=settings.lease_s,
        found_sealed=service.found_sealed,
    )
    platform.secrets_sealed = lambda: service.sealed
    await lending.forget_former(alone=platform.replicas.alone)
    try:
        yield Secrets(service, lending)
    finally:
        await lending.close()


def store_of(every: Settings, shared_folder: Path, clock: Clock) -> SecretStore:
    """Make the store that the settings name; nothing of it is opened yet.

    Raises:
        ConfigurationError: no extension registers one of this name, or its settings are wrong.
    """
    settings = every.secrets
    stores = hookspecs.secret_stores(hookspecs.extensions())
    factory = stores.get(settings.store)
    if factory is None:
        known = ", ".join(sorted(stores))
        detail = f"there is no secret store {settings.store!r} (secrets.store); known are {known}"
        raise ConfigurationError(detail, slug="configuration-invalid")
    if not settings.passphrase.get_secret_value() and not settings.vault.transit_key:
        settings = settings.model_copy(update={"passphrase": every.trust.passphrase})
    folder = shared_folder / FOLDER
    return factory(StoreParts(settings=settings, folder=folder, clock=clock))
