"""Builds the request of a claimed row: inputs inline where they fit into a page."""

from typing import Any

import msgspec
from hivemesh_sdk.contracts.artifacts import Artifact, DataClass, highest
from hivemesh_sdk.contracts.names import NDJSON_MEDIA_TYPE
from hivemesh_sdk.contracts.pages import encode_request
from hivemesh_sdk.contracts.references import written_secrets
from hivemesh_sdk.contracts.steps import MAX_PAGE_BYTES, InputPart, Limits, StepRequest

from hivemesh_platform.artifacts import store as store_of_artifacts
from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.artifacts.ports import ArtifactStore
from hivemesh_platform.execution.ledger import store
from hivemesh_platform.execution.ledger.port import Claim
from hivemesh_platform.execution.plans.given import Given, given_by
from hivemesh_platform.execution.plans.spec import JobSpec, artifact_digests
from hivemesh_platform.settings import ExecutionSettings
from hivemesh_platform.storage.transaction import Transaction

DEFAULT_IDLE_MS = 300_000


async def request_of(
    claim: Claim, artifacts: ArtifactStore, settings: ExecutionSettings
) -> list[bytes]:
    """Return the framed request, the same for every attempt of the row.

    Raises:
        ArtifactMissingError: an input is gone.
        ArtifactDamagedError: an input does not match its digest.
    """
    spec = None if claim.spec is None else msgspec.json.decode(claim.spec, type=JobSpec)
    parts, bodies = await _inputs(claim, spec, artifacts)
    limits = Limits(
        records=settings.batch_records,
        bytes=settings.batch_bytes,
        seconds=settings.batch_seconds,
        lines=claim.lines,
    )
    request = StepRequest(
        capability=claim.capability,
        kind=claim.kind,
        attempt=claim.fence.attempt,
        epoch=claim.fence.epoch,
        inputs=parts,
        parameters=_parameters(claim, spec),
        checkpoint=msgspec.Raw(claim.checkpoint.encode()),
        limits=limits,
        deadline_ms=claim.deadline_ms,
        idle_timeout_ms=claim.idle_timeout_ms or DEFAULT_IDLE_MS,
    )
    return encode_request(request, bodies)


def visible(claim: Claim) -> tuple[frozenset[str], frozenset[str]]:
    """Name the artifacts that the step may read, and which of them are folders."""
    if claim.spec is None:
        document: object = msgspec.json.decode(claim.options)
    else:
        spec = msgspec.json.decode(claim.spec, type=JobSpec)
        document = [spec.options, msgspec.json.decode(spec.input)]
    named, trees = artifact_digests(document)
    return named | {one.sha256 for one in claim.inputs}, trees


def given_to(tx: Transaction, claim: Claim) -> Given:
    """What the pipeline and the parameters of a row's run name."""
    run = store.run(tx, claim.key.run)
    if run is None:
        return Given(frozenset(), frozenset())
    steps = msgspec.json.decode(run["document"], type=_Document).steps
    options: dict[str, Any] = {name: one.options for name, one in steps.items()}
    return given_by(options, msgspec.json.decode(run["parameters"]))


def granted(tx: Transaction, claim: Claim, named: frozenset[str], given: Given) -> frozenset[str]:
    """Return those artifacts to which the row's run has a right, of those that its options name.

    An earlier step's answer may name any digest. The run has a right to what it was given, if its
    tenant has it, and to what its own steps have stored. Nothing of a higher class than the row's
    inputs were taken for is among it: its outputs would have a class that is too low.
    """
    digests = sorted(named)
    known = store_of_artifacts.known(tx, digests, claim.behalf.tenant) & given.digests
    classes = store_of_artifacts.classes(tx, digests)
    limit = highest((claim.data_class, claim.output_class))
    return frozenset(
        one
        for one in digests
        if (one in known or store_of_artifacts.stored_by_run(tx, claim.key.run, one))
        and not classes.get(one, DataClass.PUBLIC).exceeds(limit)
    )


class _Step(msgspec.Struct):
    options: dict[str, Any] = msgspec.field(name="with", default_factory=dict)  # of JSON


class _Document(msgspec.Struct):
    """The part of a checked pipeline that names artifacts."""

    steps: dict[str, _Step]


def not_written(tx: Transaction, claim: Claim, secrets: frozenset[str]) -> frozenset[str]:
    """Name those secrets which the pipeline does not name in the step's options.

    A parameter or the answer of an earlier step may bring any reference; nobody was asked for it.
    """
    run = store.run(tx, claim.key.run)
    if run is None:
        return secrets
    step = msgspec.json.decode(run["document"], type=_Document).steps.get(claim.key.node)
    return secrets - written_secrets(None if step is None else step.options)


def _parameters(claim: Claim, spec: JobSpec | None) -> dict[str, object]:
    """Options belong to the result of a reducer, not to its partial states."""
    if claim.kind in {"add", "merge"}:
        return {}
    if spec is not None:
        return spec.options
    options: dict[str, object] = msgspec.json.decode(claim.options)
    return options


async def _inputs(
    claim: Claim, spec: JobSpec | None, artifacts: ArtifactStore
) -> tuple[list[InputPart], list[bytes]]:
    if spec is not None and not claim.inputs:
        body = bytes(spec.input)
        return [InputPart(bytes=len(body), count=1)], [body]
    if sum(one.bytes for one in claim.inputs) > MAX_PAGE_BYTES:
        return [_by_reference(one) for one in claim.inputs], []
    bodies = [await artifacts.read(one.sha256) for one in claim.inputs]
    parts = [
        InputPart(bytes=len(body), sha256=one.sha256, count=one.count, encoding=one.encoding)
        for one, body in zip(claim.inputs, bodies, strict=True)
    ]
    return parts, bodies


def _by_reference(batch: BatchRef) -> InputPart:
    artifact = Artifact(sha256=batch.sha256, size=batch.bytes, media_type=NDJSON_MEDIA_TYPE)
    return InputPart(artifact=artifact, count=batch.count, encoding=batch.encoding)
