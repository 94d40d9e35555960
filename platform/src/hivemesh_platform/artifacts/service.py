"""Artifacts for people and for steps: stored, granted, served in ranges, collected.

A worker reads and stores only on behalf of a step that it holds: the inputs and options of the
step (folders with all their files), and what steps of the same run have stored.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol
from urllib.parse import urlencode

import structlog
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.artifacts import DataClass, Grant, GrantRequest
from hivemesh_sdk.contracts.names import TREE_MEDIA_TYPE
from hivemesh_sdk.contracts.tickets import GIVEN, STORED, Ticket
from hivemesh_sdk.errors import InvalidError

from hivemesh_platform.artifacts import store
from hivemesh_platform.artifacts.errors import (
    ArtifactDamagedError,
    ArtifactMissingError,
    RangeInvalidError,
)
from hivemesh_platform.artifacts.kept import KeptDigests
from hivemesh_platform.artifacts.model import ArtifactInfo, Holding
from hivemesh_platform.artifacts.ports import ArtifactStore
from hivemesh_platform.artifacts.streams import begun
from hivemesh_platform.artifacts.trees import Trees
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Transaction

_log = structlog.get_logger("hivemesh.artifacts")

GRANT_S = 300  # a grant is checked again at each use, so this only limits what a worker remembers
DIGESTS_PER_READ = 500
ENTRIES_PER_WRITE = 50
UNKNOWN_TYPE = "application/octet-stream"


def _no_check() -> None:
    """Let a sweep go on."""


class StepHolders(Protocol):
    """Who holds which step at the moment."""

    async def look_up(self, key: str) -> None:
        """Learn how a step stands now, wherever it is held."""
        ...

    def holding(self, key: str) -> Holding | None:
        """Return the step with this key, if a worker runs it."""
        ...

    def refuse_ended(self, key: str, attempt: int, identity: str) -> None:
        """Refuse what an instance asks for an attempt that it held and lost.

        Raises:
            ConflictError: `stale-attempt`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """On whose behalf a worker reads or stores."""

    identity: str
    step: str
    attempt: int
    ticket: Ticket | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What bytes are to a tenant (it has them) and to a principal (who has uploaded them)."""

    known: bool
    owned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A part of an artifact, ready to be sent."""

    info: ArtifactInfo
    start: int
    end: int  # exclusive
    chunks: AsyncIterator[bytes]


class ArtifactService:
    """What the API offers on artifacts."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        holders: StepHolders,
        clock: Clock,
        *,
        clearance: Callable[[str], DataClass] = lambda _: DataClass.SECRET,
    ) -> None:
        self._clearance = clearance  # of a capability, as its manifest says
        self._database = database
        self._artifacts = artifacts
        self._holders = holders
        self._clock = clock
        self._trees = Trees(artifacts)

    async def upload(
        self,
        chunks: AsyncIterator[bytes],
        *,
        name: str | None,
        media_type: str,
        origin: str,
        tenant: str = "default",
        data_class: DataClass = DataClass.INTERNAL,
    ) -> ArtifactInfo:
        """Store what a person sends (`origin` says who); its size need not be known.

        Raises:
            StorageFullError: no space is left, or the quota is reached.
        """
        stored = await self._artifacts.put_stream(chunks, "")
        info = ArtifactInfo(
            sha256=stored.sha256,
            size=stored.size,
            media_type=media_type,
            name=name,
            created_at=self._now(),
            data_class=data_class,
        )

        def write(tx: Transaction) -> None:
            store.insert(tx, info, origin, tenant)
            store.own(tx, info.sha256, origin, tenant)

        await self._database.write(write)
        return info

    async def standings(
        self, digests: Iterable[str], tenant: str, principal: str
    ) -> dict[str, Standing]:
        """Return what each of the digests is to a tenant and to one of its principals."""
        found: dict[str, Standing] = {}
        for group in _groups(iter(digests), DIGESTS_PER_READ):
            found |= await self._database.read(partial(_standings, group, tenant, principal))
        return found

    async def origins(self, sha256: str, tenant: str) -> tuple[list[str], list[str]]:
        """Return the datasets of which the bytes are a part, and the runs that have stored them."""
        return await self._database.read(
            lambda tx: (
                store.datasets_with(tx, sha256, tenant),
                store.runs_with(tx, sha256, tenant),
            )
        )

    async def entries(self, tree: str) -> frozenset[str]:
        """Return the digests of what a folder holds; nothing where it is none."""
        return await self._trees.entries(tree)

    async def grant(
        self, request: GrantRequest, identity: str, ticket: Ticket | None = None
    ) -> Grant:
        """Answer where a step may get bytes, or where it puts them.

        Raises:
            ArtifactMissingError: the caller holds no such step, or it may not read this.
            InvalidError: the operation is neither get nor put.
        """
        use = Use(identity=identity, step=request.step, attempt=request.attempt, ticket=ticket)
        query = urlencode({"step": use.step, "attempt": use.attempt})
        url = f"/v1/artifacts/{request.sha256}?{query}"
        if request.operation == "get":
            await self._check_readable(request.sha256, use)
            return Grant(method="GET", url=url, headers={}, expires_in_s=GRANT_S)
        if request.operation != "put":
            message = f"{request.operation!r} is no operation; it is either 'get' or 'put'"
            raise InvalidError(message)
        holding = self._held(use)
        present = await self._artifacts.size(request.sha256) == request.size
        if present and await self._may_read(request.sha256, holding, ticket):
            await self._database.write(lambda tx: store.insert_of_step(tx, holding, request.sha256))
            return Grant(method="PUT", url=url, headers={}, expires_in_s=GRANT_S, present=True)
        headers = {"content-type": request.media_type}
        if request.name:
            url += "&" + urlencode({"name": request.name})
        return Grant(method="PUT", url=url, headers=headers, expires_in_s=GRANT_S)

    async def put(
        self,
        chunks: AsyncIterator[bytes],
        sha256: str,
        use: Use,
        *,
        name: str | None,
        media_type: str,
    ) -> ArtifactInfo:
        """Store what a step sends under the announced digest.

        Raises:
            ArtifactMissingError: the caller holds no such step.
            DigestMismatchError: the bytes have another digest.
            StorageFullError: no space is left, or the quota is reached.
        """
        self._held(use)
        stored = await self._artifacts.put_stream(chunks, sha256)
        await self._holders.look_up(_root(use))
        holding = self._held(use)  # the step may have gone elsewhere meanwhile
        info = ArtifactInfo(
            sha256=stored.sha256,
            size=stored.size,
            media_type=media_type,
            name=name,
            created_at=self._now(),
            data_class=holding.output_class,
        )
        await self._database.write(lambda tx: _insert_of_step(tx, info, holding))
        return info

    async def open(
        self,
        sha256: str,
        *,
        use: Use | None,
        wanted: tuple[int | None, int | None] | None = None,
        tenant: str = "default",
    ) -> Content:
        """Open an artifact or a range of it; without `use` for a person of the tenant.

        Raises:
            ArtifactMissingError: there is none, or the caller may not read it.
            ArtifactDamagedError: it does not match its digest.
            RangeInvalidError: the range lies outside.
        """
        if use is not None:
            await self._check_readable(sha256, use)
        size = await self._artifacts.size(sha256)
        if size is None:
            await begun(self._artifacts.read_range(sha256, 0, 1))  # says so where it was damaged
            raise missing(sha256)
        start, end = _bounds(wanted, size)
        step = None if use is None else self._held(use)
        known = await self._database.read(
            lambda tx: store.find(
                tx, sha256, tenant if step is None else store.tenant_of_step(tx, step)
            )
        )
        info = known or ArtifactInfo(
            sha256=sha256, size=size, media_type=UNKNOWN_TYPE, name=None, created_at=0
        )
        chunks = self._artifacts.read_range(sha256, start, end)
        return Content(info=info, start=start, end=end, chunks=await begun(chunks))

    async def collect(
        self, min_age_s: float, kept: KeptDigests, check: Callable[[], None] = _no_check
    ) -> int:
        """Remove what nothing refers to and what is older than any open run; returns how many.

        What is `kept` stays, whatever the database says of it. `check` ends it by an error.
        """
        limit = await self._old(min_age_s)
        removed = 0
        async for group in self._unreferenced(limit, kept):
            check()
            for sha256 in group:
                removed += await self._artifacts.delete(sha256, older_than=limit)
        check()
        await self._artifacts.discard_unfinished(limit)
        return removed

    async def count_unreferenced(self, min_age_s: float, kept: KeptDigests) -> int:
        """Return how many artifacts `collect` would remove."""
        limit = await self._old(min_age_s)
        return sum([len(group) async for group in self._unreferenced(limit, kept)])

    async def _unreferenced(self, limit: float, kept: KeptDigests) -> AsyncIterator[list[str]]:
        """Look at all files in groups, so that their names are never in memory at once."""
        old = self._artifacts.digests(limit)
        while group := await asyncio.to_thread(lambda: list(islice(old, DIGESTS_PER_READ))):
            candidates = [one for one in group if one not in kept]
            used = await self._referenced(candidates) if candidates else set()
            yield sorted(set(candidates) - used)

    async def expiring(
        self, before: int, kept: KeptDigests
    ) -> AsyncIterator[list[tuple[str, str]]]:
        """Yield digest and tenant of the entries that `expire` would forget, in groups."""
        after = ("", "")
        while True:
            group = await self._database.read(
                partial(store.unneeded, after=after, before=before, limit=ENTRIES_PER_WRITE)
            )
            yield [one for one in group if one[0] not in kept]
            if len(group) < ENTRIES_PER_WRITE:
                return
            after = group[-1]

    async def expire(
        self, before: int, kept: KeptDigests, check: Callable[[], None] = _no_check
    ) -> int:
        """Forget old entries that nothing needs; their bytes go with a later `collect`."""
        removed = 0
        async for group in self.expiring(before, kept):
            check()
            if group:
                removed += await self._database.write(
                    partial(store.remove, digests=group, before=before)
                )
        return removed

    async def keep(self, digests: set[str], kept: KeptDigests) -> None:
        """Add digests to what is kept, with those of everything that lies in folders among them."""
        fresh = [one for one in sorted(digests) if one not in kept]
        kept.add(fresh)
        for group in _groups(iter(fresh), DIGESTS_PER_READ):
            folders = await self._database.read(
                partial(store.folders, digests=group, media_type=TREE_MEDIA_TYPE)
            )
            for folder in folders:
                try:
                    kept.add(await self._trees.entries(folder))
                except ArtifactDamagedError as error:
                    kept.unknown.add(folder)
                    _log.error("folder_damaged", sha256=folder, detail=error.detail)

    async def _old(self, min_age_s: float) -> float:
        """The time before which nothing can belong to an open run."""
        now = self._clock.now().timestamp()
        oldest = await self._database.read(store.oldest_open_run)
        return now - min_age_s if oldest is None else min(now - min_age_s, oldest / 1000)

    async def _referenced(self, digests: list[str]) -> set[str]:
        return await self._database.read(lambda tx: store.referenced(tx, digests))

    def _held(self, use: Use) -> Holding:
        identity = use.identity
        if use.ticket is not None and use.ticket.act:  # called by the worker that holds the step
            identity = use.ticket.act[-1]
        holding = self._holders.holding(_root(use))
        if holding is None or holding.identity != identity or holding.attempt != use.attempt:
            self._holders.refuse_ended(use.step, use.attempt, use.identity)
            message = f"the caller does not hold attempt {use.attempt} of {use.step!r}"
            raise ArtifactMissingError(message)
        return holding

    async def _check_readable(self, sha256: str, use: Use) -> None:
        holding = self._held(use)
        if not await self._may_read(sha256, holding, use.ticket):
            raise missing(sha256)
        known = await self._database.read(lambda tx: store.classes(tx, [sha256]))
        clearance = holding.clearance
        if use.ticket is not None and clearance.exceeds(self._clearance(use.ticket.cap)):
            clearance = self._clearance(use.ticket.cap)  # of the callee
        if sha256 not in holding.digests and clearance.exceeds(holding.ceiling):
            clearance = holding.ceiling  # its outputs would have a class that is too low
        if known.get(sha256, DataClass.PUBLIC).exceeds(clearance):
            _log.warning(
                "artifact_above_clearance",
                step=use.step,
                data_class=known[sha256].value,
                clearance=clearance.value,
            )
            raise missing(sha256)

    async def _may_read(self, sha256: str, holding: Holding, ticket: Ticket | None) -> bool:
        named = holding.digests
        if ticket is not None and GIVEN not in ticket.artifacts:
            named = named.intersection(ticket.artifacts)
        if sha256 in named:
            return True
        for tree in holding.trees & named:
            if sha256 in await self._trees.entries(tree):
                return await self._database.read(lambda tx: _known_to(tx, sha256, holding))
        if ticket is not None and STORED not in ticket.artifacts:
            return False
        return await self._database.read(lambda tx: store.stored_by_run(tx, holding.run, sha256))

    def _now(self) -> int:
        return round(self._clock.now().timestamp() * 1000)


def _root(use: Use) -> str:
    """The key of the step that the platform dispatched: without the names of calls below it."""
    if use.ticket is None or not use.ticket.act:
        return use.step
    return use.ticket.step.rsplit(".", len(use.ticket.act))[0]


def _standings(
    digests: list[str], tenant: str, principal: str, tx: Transaction
) -> dict[str, Standing]:
    known = store.known(tx, digests, tenant)
    owned = store.owned(tx, digests, principal, tenant)
    return {one: Standing(one in known, one in owned) for one in digests}


def _known_to(tx: Transaction, sha256: str, step: Holding) -> bool:
    """Whether the tenant for which a step works has the bytes."""
    return bool(store.known(tx, [sha256], store.tenant_of_step(tx, step)))


def _insert_of_step(tx: Transaction, info: ArtifactInfo, holding: Holding) -> None:
    origin = f"{holding.run}.{holding.node}.{holding.seq}"
    store.insert(tx, info, origin, store.tenant_of_step(tx, holding))
    store.insert_of_step(tx, holding, info.sha256)


def _bounds(wanted: tuple[int | None, int | None] | None, size: int) -> tuple[int, int]:
    """Turn a range (first, last), either of which may be open, into offsets."""
    if wanted is None:
        return 0, size
    first, last = wanted
    if first is None:  # the last N bytes
        start, end = max(0, size - (last or 0)), size
    else:
        start, end = first, size if last is None else min(last + 1, size)
    if start >= end:
        message = f"the artifact has {size} bytes"
        raise RangeInvalidError(message)
    return start, end


def _groups(digests: Iterator[str], size: int) -> Iterator[list[str]]:
    while group := list(islice(digests, size)):
        yield group


def missing(sha256: str) -> ArtifactMissingError:
    """What is answered where there are no such bytes, or none that the caller may read."""
    return ArtifactMissingError(f"there is no artifact {sha256!r}")
