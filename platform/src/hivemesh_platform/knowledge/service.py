"""Datasets: written part by part inside the ledger's transactions, read in order."""

from collections.abc import AsyncIterator, Sequence

from hivemesh_sdk.errors import NotAuthorizedError, NotFoundError

from hivemesh_platform.access.model import Principal
from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.artifacts.ports import ArtifactStore
from hivemesh_platform.knowledge import store
from hivemesh_platform.knowledge.model import DatasetState, DatasetVersion, NewVersion, Part
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Transaction

PARTS_PER_READ = 64
SCANNED = 500  # versions read at once while a page is filled


class DatasetClassError(NotAuthorizedError):
    """What is written is more sensitive than the dataset may be."""

    slug = "data-class-exceeded"


class DatasetWriter:
    """What happens to datasets inside other services' transactions."""

    def open(
        self,
        tx: Transaction,
        new: NewVersion,
        now: int,
    ) -> int:
        """Start a new version and return its number.

        Raises:
            DatasetClassError: the data is above the class that the dataset has.
        """
        name, tenant, data_class = new.name, new.tenant, new.data_class
        version = store.next_version(tx, name, tenant)
        declared = store.class_of(tx, name, tenant)
        if declared is not None and data_class.exceeds(declared):
            message = (
                f"data class {data_class} exceeds {declared} of the dataset {name!r}; "
                "give the output another name"
            )
            raise DatasetClassError(message)
        store.insert(
            tx,
            DatasetVersion(
                name=name,
                version=version,
                state=DatasetState.WRITING,
                run=new.run,
                node=new.node,
                records=0,
                bytes=0,
                created_at=now,
                provenance=new.provenance,
                tenant=tenant,
                data_class=declared or data_class,
            ),
        )
        return version

    def add_parts(
        self,
        tx: Transaction,
        name: str,
        version: int,
        parts: Sequence[tuple[int, BatchRef]],
        tenant: str = "default",
    ) -> None:
        """Add parts by their numbers to a version that is being written; none of them twice."""
        made = [
            Part(seq, batch.sha256, batch.count, batch.bytes, batch.encoding)
            for seq, batch in parts
        ]
        store.insert_parts(tx, name, version, made, tenant)

    def close(
        self, tx: Transaction, name: str, version: int, state: str, tenant: str = "default"
    ) -> tuple[int, int]:
        """End the writing of a version; returns its records and bytes."""
        return store.set_state(tx, name, version, DatasetState(state), tenant)

    def clear(self, tx: Transaction, name: str, version: int, tenant: str = "default") -> None:
        """Take the parts of a version away: what made it is done afresh."""
        store.clear(tx, name, version, tenant)


class DatasetService:
    """Lists dataset versions and streams their records."""

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database = database
        self._artifacts = artifacts

    async def get(
        self, name: str, version: int | None = None, tenant: str = "default"
    ) -> DatasetVersion:
        """Return a tenant's version with its provenance; without a number the newest usable one.

        Raises:
            NotFoundError: there is none.
        """
        found = await self._database.read(lambda tx: _found(tx, name, version, tenant))
        if found is None:
            newest = await self._database.read(lambda tx: store.find(tx, name, None, tenant))
            message = f"there is no dataset {name!r}"
            if newest is not None:
                message += f" version {version}; the newest is {newest.version}"
            raise NotFoundError(message)
        return found

    async def page(
        self, after: tuple[str, int], limit: int, principal: Principal
    ) -> list[DatasetVersion]:
        """Return versions that the principal may read, by name, newest first, behind a place."""
        found: list[DatasetVersion] = []
        while len(found) < limit:
            group = await self._group(after, principal.tenant)
            rights = principal.rights
            found += [one for one in group if rights.allows("read", "dataset", one.name)]
            if len(group) < SCANNED:
                break
            after = group[-1].name, group[-1].version
        return found[:limit]

    async def _group(self, after: tuple[str, int], tenant: str) -> list[DatasetVersion]:
        return await self._database.read(lambda tx: store.page(tx, after, SCANNED, tenant))

    async def records(self, version: DatasetVersion) -> AsyncIterator[bytes]:
        """Yield the NDJSON of all records, part by part in order.

        Raises:
            ArtifactDamagedError: a part does not match its digest; what follows is not served.
        """
        after = -1
        while parts := await self._parts(version, after):
            for part in parts:
                yield await self._artifacts.read(part.sha256)
            after = parts[-1].seq

    async def _parts(self, version: DatasetVersion, after: int) -> list[Part]:
        return await self._database.read(lambda tx: store.parts(tx, version, after, PARTS_PER_READ))


def _found(tx: Transaction, name: str, version: int | None, tenant: str) -> DatasetVersion | None:
    """Find a version; name the workers that made it, and what its run went on without."""
    found = store.find(tx, name, version, tenant)
    if found is not None:
        found.provenance["workers"] = list(store.workers_of(tx, found.run, found.node))
        found.provenance["identities"] = list(store.identities_of(tx, found.run, found.node))
        if missing := store.missing_of(tx, found.run):
            found.provenance["missing"] = missing
    return found
