"""Pipelines: the shipped files and the stored documents, checked before they are accepted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.api import PipelineView
from hivemesh_sdk.contracts.pipeline import PIPELINE_USE, Pipeline
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import ConflictError, HivemeshError, InvalidError, NotFoundError
from hivemesh_sdk.safeio.documents import load_pipeline, validated
from pydantic import JsonValue

from hivemesh_platform.execution.behalf import Behalf, effective
from hivemesh_platform.execution.ledger.port import milliseconds
from hivemesh_platform.execution.plans.plan import (
    Nested,
    Plan,
    check_defaults,
    make_plan,
    secret_uses,
)
from hivemesh_platform.execution.ports import Catalogue
from hivemesh_platform.execution.rights.secrets import SecretGate
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Row, Transaction

MAX_DEPTH = 8  # of pipelines in pipelines
SHIPPED, STORED = "shipped", "stored"


@dataclass(frozen=True, slots=True)
class KnownPipeline:
    """A pipeline and where it came from."""

    document: Pipeline
    origin: str
    author: Behalf | None = None  # of a stored one, as he was when it was stored

    def view(self) -> PipelineView:
        """Make the view."""
        document = self.document
        return PipelineView(
            name=document.metadata.name,
            version=document.metadata.version,
            description=document.metadata.description,
            parameters={
                name: one.model_dump(mode="json") for name, one in document.parameters.items()
            },
            steps=list(document.steps),
            outputs=list(document.outputs),
            origin=self.origin,
        )


@dataclass(frozen=True, slots=True)
class BrokenPipeline:
    """A file that holds no pipeline because of a mistake."""

    file: Path
    error: InvalidError

    @property
    def name(self) -> str:
        """The name of the file: its document says none that can be trusted."""
        return self.file.stem

    def view(self) -> PipelineView:
        """Make the view."""
        return PipelineView(
            name=self.name,
            version=0,
            steps=[],
            outputs=[],
            origin=SHIPPED,
            problem=self.error.detail,
        )


class PipelineService:
    """Finds, checks and stores pipelines."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        folders: tuple[Path, ...],
        clock: Clock,
        secrets: SecretGate,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._folders = folders
        self._clock = clock
        self._secrets = secrets

    async def newest(self, tenant: str = "default") -> list[KnownPipeline]:
        """Return the newest version of each pipeline of a tenant and of the shipped ones, by name."""
        found = {one.document.metadata.name: one for one in self._shipped()[0]}
        for row in await self._database.read(lambda tx: _newest(tx, tenant)):
            stored = _known(row)
            name = stored.document.metadata.name
            shipped = found.get(name)
            if shipped is None or _version(shipped) < _version(stored):
                found[name] = stored
        return [found[name] for name in sorted(found)]

    async def get(self, name: str, tenant: str = "default") -> KnownPipeline:
        """Return the newest version of a pipeline.

        Raises:
            NotFoundError: there is none of this name.
            InvalidError: there is a file of this name, and it is not valid.
        """
        for one in await self.newest(tenant):
            if one.document.metadata.name == name:
                return one
        for broken in self.broken():
            if broken.name == name:
                raise broken.error
        message = f"there is no pipeline {name!r}"
        raise NotFoundError(message)

    def broken(self) -> list[BrokenPipeline]:
        """The files that hold no pipeline because of a mistake; they concern no other one."""
        return self._shipped()[1]

    async def check(self, document: Mapping[str, JsonValue], tenant: str = "default") -> Plan:
        """Check a document against its form and the installed capabilities.

        Raises:
            InvalidError: with a pointer for each thing that is wrong.
        """
        try:
            pipeline = validated(Pipeline, dict(document), name="the pipeline")
        except InvalidError as error:
            raise InvalidError(
                error.detail, slug="pipeline-invalid", errors=error.errors
            ) from error
        return await self.plan(pipeline, tenant)

    async def checked(self, document: Mapping[str, JsonValue], behalf: Behalf) -> Plan:
        """Check a document and whether the principal may use the secrets that it names.

        Raises:
            InvalidError: with a pointer for each thing that is wrong.
        """
        plan = await self.check(document, behalf.tenant)
        await self._secrets.refuse(secret_uses(plan), behalf)
        return plan

    async def plan(self, pipeline: Pipeline, tenant: str = "default") -> Plan:
        """Check a known pipeline against the capabilities that are installed now.

        Raises:
            InvalidError: with a pointer for each thing that is wrong.
        """
        return await self._plan(pipeline, tenant, ())

    async def nested(self, use: str, tenant: str, trail: tuple[str, ...] = ()) -> Nested:
        """Return the pipeline that a step uses: `pipeline/NAME@VERSION`, checked.

        Raises:
            NotFoundError: there is none.
            InvalidError: it is not valid, runs itself, or lies too deep.
        """
        if use in trail:
            message = f"pipelines run each other: {' → '.join([*trail, use])}"
            raise InvalidError(message, slug="pipeline-invalid")
        if len(trail) >= MAX_DEPTH:
            message = f"pipelines lie more than {MAX_DEPTH} deep in each other"
            raise InvalidError(message, slug="pipeline-invalid")
        match = PIPELINE_USE.fullmatch(use)
        known = None if match is None else await self._version(match[1], int(match[2]), tenant)
        if known is None:
            message = f"there is no {use}; `hivemesh pipeline list` shows the newest versions"
            raise NotFoundError(message)
        return Nested(await self._plan(known.document, tenant, (*trail, use)), known.author)

    async def _plan(self, pipeline: Pipeline, tenant: str, trail: tuple[str, ...]) -> Plan:
        own = f"pipeline/{pipeline.metadata.name}@{pipeline.metadata.version}"
        trail = trail or (own,)
        nested: dict[str, Nested] = {}
        problems = []
        for name, step in pipeline.steps.items():
            if PIPELINE_USE.fullmatch(step.use) is None or step.use in nested:
                continue
            try:
                nested[step.use] = await self.nested(step.use, tenant, trail)
            except (InvalidError, NotFoundError) as error:
                message = error.detail or str(error)
                problems.append(FieldProblem(pointer=f"/steps/{name}/use", message=message))
        if problems:
            raise InvalidError(problems[0].message, slug="pipeline-invalid", errors=problems)
        return make_plan(pipeline, self._catalogue, nested)

    async def _version(self, name: str, version: int, tenant: str) -> KnownPipeline | None:
        row = await self._database.read(
            lambda tx: tx.one(
                "SELECT * FROM pipeline WHERE name = ? AND version = ? AND tenant = ?",
                (name, version, tenant),
            )
        )
        if row is not None:
            return _known(row)
        found = (one for one in self._shipped()[0] if one.document.metadata.name == name)
        return next((one for one in found if _version(one) == version), None)

    async def store(self, document: Mapping[str, JsonValue], author: Behalf) -> KnownPipeline:
        """Keep a pipeline; the same version may be stored again only if it is the same.

        Raises:
            InvalidError: with a pointer for each thing that is wrong.
            ConflictError: another document has this version.
        """
        pipeline = (await self.checked(document, author)).pipeline
        now = milliseconds(self._clock)
        frozen = effective(author)
        await self._database.write(lambda tx: _store(tx, pipeline, frozen, now))
        return KnownPipeline(pipeline, STORED, frozen)

    def _shipped(self) -> tuple[list[KnownPipeline], list[BrokenPipeline]]:
        files = [file for folder in self._folders for file in sorted(folder.glob("*.yaml"))]
        good: list[KnownPipeline] = []
        broken: list[BrokenPipeline] = []
        for file in files:
            try:
                good.append(KnownPipeline(check_defaults(load_pipeline(file)), SHIPPED))
            except HivemeshError as error:
                reason = InvalidError(error.detail, slug="pipeline-invalid", errors=error.errors)
                broken.append(BrokenPipeline(file, reason))
        return good, broken


def _store(tx: Transaction, pipeline: Pipeline, author: Behalf, now: int) -> None:
    name, version = pipeline.metadata.name, pipeline.metadata.version
    text = _text(pipeline)
    row = tx.one(
        "SELECT document FROM pipeline WHERE name = ? AND version = ? AND tenant = ?",
        (name, version, author.tenant),
    )
    if row is not None:
        if row["document"] != text:
            message = f"{name} version {version} is stored already and differs; raise the version"
            raise ConflictError(message)
        return
    tx.execute(
        """INSERT INTO pipeline (name, version, document, origin, created_at, author, tenant)
           VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (name, version, text, STORED, now, msgspec.json.encode(author).decode(), author.tenant),
    )


def _newest(tx: Transaction, tenant: str) -> list[Row]:
    return tx.all(
        """SELECT * FROM pipeline AS one WHERE tenant = ? AND version =
              (SELECT max(version) FROM pipeline WHERE name = one.name AND tenant = one.tenant)
            ORDER BY name""",
        (tenant,),
    )


def _known(row: Row) -> KnownPipeline:
    return KnownPipeline(
        Pipeline.model_validate_json(row["document"]),
        row["origin"],
        msgspec.json.decode(row["author"], type=Behalf),
    )


def _version(known: KnownPipeline) -> int:
    return known.document.metadata.version


def _text(pipeline: Pipeline) -> str:
    return pipeline.model_dump_json(by_alias=True)
