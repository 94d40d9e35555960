"""Builds the request of a claimed row: inputs inline where they fit into a page."""

import msgspec
from hivemesh_sdk.contracts.artifacts import Artifact
from hivemesh_sdk.contracts.names import NDJSON_MEDIA_TYPE
from hivemesh_sdk.contracts.pages import encode_request
from hivemesh_sdk.contracts.steps import MAX_PAGE_BYTES, InputPart, Limits, StepRequest

from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.artifacts.ports import ArtifactStore
from hivemesh_platform.artifacts.store import stored_by_run
from hivemesh_platform.execution import store
from hivemesh_platform.execution.ledger import Claim
from hivemesh_platform.execution.spec import JobSpec, artifact_digests
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


def not_given(tx: Transaction, claim: Claim, named: frozenset[str]) -> frozenset[str]:
    """Name those artifacts to which the run has no right, though an option refers to them.

    An earlier step's answer may name any digest. The run has a right to what its parameters and
    its pipeline name, to the row's inputs, and to what its own steps have stored.
    """
    run = store.run(tx, claim.key.run)
    told = (
        [] if run is None else [msgspec.json.decode(run[key]) for key in ("parameters", "document")]
    )
    given = artifact_digests(told)[0] | {one.sha256 for one in claim.inputs}
    return frozenset(one for one in named - given if not stored_by_run(tx, claim.key.run, one))


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
    if spec is not None:
        body = bytes(spec.input)
        return [InputPart(bytes=len(body), count=1)], [body]
    if sum(one.bytes for one in claim.inputs) > MAX_PAGE_BYTES:
        return [_by_reference(one) for one in claim.inputs], []
    bodies = [await artifacts.read(one.sha256) for one in claim.inputs]
    parts = [
        InputPart(bytes=len(body), count=one.count, encoding=one.encoding)
        for one, body in zip(claim.inputs, bodies, strict=True)
    ]
    return parts, bodies


def _by_reference(batch: BatchRef) -> InputPart:
    artifact = Artifact(sha256=batch.sha256, size=batch.bytes, media_type=NDJSON_MEDIA_TYPE)
    return InputPart(artifact=artifact, count=batch.count, encoding=batch.encoding)
