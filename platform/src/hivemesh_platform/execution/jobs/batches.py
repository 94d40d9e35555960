"""Thousands of jobs in one request: all of them are accepted, or none.

Job n of batch `batch_<x>` is `job_<x>-<n>`: a batch is the jobs between two ids and has no row.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import msgspec
from hivemesh_sdk.contracts.api import BatchRequest, BatchView, JobRequest, RunState
from hivemesh_sdk.contracts.manifest import Capability
from hivemesh_sdk.contracts.names import step_key
from hivemesh_sdk.errors import InvalidError, NotFoundError
from hivemesh_sdk.safeio.json import parse_json, parse_json_fast
from pydantic import JsonValue

from hivemesh_platform import crash
from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.behalf import Behalf, effective
from hivemesh_platform.execution.held import Verdict
from hivemesh_platform.execution.jobs.service import JobService, refuse_unfit
from hivemesh_platform.execution.ledger import batch_sql, store
from hivemesh_platform.execution.ledger.again_sql import NothingToRetryError
from hivemesh_platform.execution.ledger.batch_sql import Ends
from hivemesh_platform.execution.ledger.port import NewJobs, milliseconds
from hivemesh_platform.execution.ledger.submit_sql import SubmitKey
from hivemesh_platform.execution.model import JOB_NODE
from hivemesh_platform.execution.plans.spec import JobSpec, artifact_digests, told, written_with
from hivemesh_platform.execution.runs import subjects, views
from hivemesh_platform.execution.runs.nodes import UNREADABLE_ANSWER
from hivemesh_platform.execution.runs.service import RunEndedError, RunParts
from hivemesh_platform.execution.runs.subjects import Filters
from hivemesh_platform.storage.transaction import Row, Transaction

MAX_JOBS = 100_000
MAX_BYTES = 64 * 1024 * 1024  # of all jobs as they are kept: each has the options of the batch
PAGE = 250  # results that are read at once: answers in their rows have up to 64 KiB each
CHUNK_BYTES = 256 * 1024  # of results that are sent at once, and one answer however long it is
CANCELLED_AT_ONCE = 2000
RETRIED_AT_ONCE = 200
_TURN = 1000  # inputs that are looked at before other requests have their turn
_CHECKED_TURN = 100  # those that are checked against a schema: it takes longer
_BATCH = re.compile(r"batch_([0-9a-f]{32})")
_MAY_NAME = (b"sha256", b"\\u")  # an input without them names no artifact

_decode = msgspec.json.decode
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a batch: the JSON of each, and what they name."""

    lines: Sequence[bytes]
    naming: Sequence[JsonValue]  # those that may name an artifact


async def read_inputs(lines: Sequence[bytes]) -> Inputs:
    """Look at the inputs of a batch, each a line of JSON.

    Raises:
        MalformedError: a line is no JSON, or nested too deep.
        InvalidError: there are too many or none.
    """
    if not 1 <= len(lines) <= MAX_JOBS:
        message = f"{len(lines)} inputs; a batch has 1 to {MAX_JOBS} lines of them"
        raise InvalidError(message)
    written: list[bytes] = []
    naming: list[JsonValue] = []
    for number, line in enumerate(lines, 2):
        if any(mark in line for mark in _MAY_NAME):
            value = parse_json(line, name=f"line {number}")
            naming.append(value)
        else:
            value = parse_json_fast(line, name=f"line {number}")
        written.append(_encode(value))  # in one form, whatever was written
        if number % _TURN == 0:
            await asyncio.sleep(0)
    return Inputs(written, naming)


class JobBatches:
    """What the API offers on batches of jobs."""

    def __init__(self, parts: RunParts, jobs: JobService) -> None:
        self._parts = parts
        self._jobs = jobs

    async def start(
        self, request: BatchRequest, inputs: Inputs, submitter: Behalf, key: str
    ) -> BatchView:
        """Accept all jobs; durable when this returns.

        Raises:
            UnknownCapabilityError, InvalidError, DataClassError: as for one job.
            OtherBodyError, InFlightError: the key was used for something else, or is in use.
        """
        submits = self._parts.submits
        kept = submits.batch_key(key, request, inputs.lines, submitter)
        with submits.accepting(kept):
            earlier = await submits.earlier(kept)
            if earlier is None:
                earlier = await self._accept(request, inputs, submitter, kept)
        return await self.get(earlier)

    async def _accept(
        self, request: BatchRequest, inputs: Inputs, submitter: Behalf, key: SubmitKey | None
    ) -> str:
        fields = request.model_dump()
        first = JobRequest(input=list(inputs.naming), **fields)
        await _refuse_unfit_lines(self._jobs.declared(request.capability), inputs.lines)
        job = await self._jobs.prepare(first, submitter, is_fit=True)
        spec = _decode(job.spec, type=JobSpec)
        specs = await _specs(spec, inputs.lines)
        together = "" if inputs.naming else self._jobs.together(request.capability, spec)
        stem = job.id.removeprefix("job_")
        new = NewJobs(job=job, stem=job.id, specs=specs, together=together)
        now, ledger = milliseconds(self._parts.clock), self._parts.ledger
        batch = f"batch_{stem}"

        def accept(tx: Transaction) -> str:
            earlier = self._parts.submits.keep(tx, key, batch)
            if earlier is None:
                ledger.add_batch(tx, new, now)
            return earlier or batch

        crash.reach("accept.before")
        accepted = await self._parts.database.write(accept)
        crash.reach("accept.after")
        self._parts.work.give()
        return accepted

    async def get(self, batch: str) -> BatchView:
        """Return how far a batch is.

        Raises:
            NotFoundError: there is none.
        """
        ends = ends_of(batch)
        counts, first = await self._parts.database.read(
            lambda tx: (batch_sql.states(tx, ends), store.job(tx, first_job(batch)))
        )
        if first is None:
            raise no_batch(batch)
        states = dict(counts.states)
        open_ = sum(n for state, n in states.items() if not RunState(state).ended)
        return BatchView(
            id=batch,
            capability=first["capability"],
            count=sum(states.values()),
            first=first_job(batch),
            states=states,
            open=open_,
            created_at=views.iso(first["created_at"]) or "",
            ended_at=views.iso(counts.ended),
            submitter=first["submitter"],
            labels=told(first["spec"]).tags,
        )

    async def page(
        self, before: str, limit: int, principal: Principal, filters: Filters
    ) -> list[BatchView]:
        """Return the batches that the principal may see, newest first."""
        wanted = replace(filters, batches=True)
        place = first_job(before) if before else ""

        def read(tx: Transaction) -> list[BatchView]:
            found = subjects.newest(tx, principal, place, limit, wanted)
            return [_listed(tx, job) for job in found]

        return await self._parts.database.read(read)

    async def cancel(self, batch: str) -> BatchView:
        """Cancel what has not ended of a batch.

        Raises:
            NotFoundError: there is none.
            RunEndedError: all of it has ended already.
        """
        ends, found = ends_of(batch), 0
        while ended := await self._cancel_some(ends):
            found += len(ended)
            for number, job in enumerate(ended, 1):
                step = self._parts.held.find(step_key(job, JOB_NODE, 0))
                if step is not None:
                    step.end(Verdict.CANCELLED)
                self._parts.held.drop_job(job)
                self._parts.runs.give_end(job)
                if number % _TURN == 0:
                    await asyncio.sleep(0)
        view = await self.get(batch)
        if not found:
            message = f"all jobs of {batch} have ended"
            raise RunEndedError(message)
        self._parts.work.give()
        return view

    async def _cancel_some(self, ends: Ends) -> list[str]:
        now = milliseconds(self._parts.clock)
        return await self._parts.database.write(
            lambda tx: batch_sql.cancel(tx, ends, CANCELLED_AT_ONCE, now)
        )

    async def retry(self, batch: str, states: AbstractSet[str], by: Behalf) -> BatchView:
        """Queue the jobs of a batch once more that have failed or were cancelled.

        Raises:
            NotFoundError: there is none.
            NothingToRetryError: none of its jobs is in one of the states.
        """
        ends, rights = ends_of(batch), effective(by)
        place, found = "", 0

        def some(tx: Transaction, after: str) -> tuple[list[str], list[str]]:
            now = milliseconds(self._parts.clock)
            jobs = batch_sql.ended_badly(tx, ends, after, states, RETRIED_AT_ONCE)
            return jobs, [one for one in jobs if self._parts.ledger.job_again(tx, one, rights, now)]

        while True:
            jobs, again = await self._parts.database.write(lambda tx, at=place: some(tx, at))  # type: ignore[misc]
            found += len(again)
            for job in again:
                self._parts.runs.give(job)
            if not jobs:
                break
            place = jobs[-1]
        view = await self.get(batch)
        if not found:
            message = f"none of the jobs of {batch} is {' or '.join(sorted(states))}"
            raise NothingToRetryError(message)
        self._parts.work.give()
        return view

    async def results(self, batch: str, after: int) -> AsyncIterator[bytes]:
        """Yield a line of JSON for each job behind a number, in order."""
        ends, last = ends_of(batch), ends_of(batch).last
        place = f"{ends.first}{after:06d}" if after else ends.first
        while True:
            rows = await self._parts.database.read(
                lambda tx, place=place: tx.all(  # type: ignore[misc]
                    """SELECT run, state, attempt, output, problem FROM work
                        WHERE run > ? AND run < ? AND node = ? ORDER BY run LIMIT ?""",
                    (place, last, JOB_NODE, PAGE),
                )
            )
            chunk = bytearray()
            for row in rows:
                chunk += await self._line(row)
                if len(chunk) >= CHUNK_BYTES:
                    yield bytes(chunk)
                    chunk.clear()
            if chunk:
                yield bytes(chunk)
            if len(rows) < PAGE:
                return
            place = rows[-1]["run"]

    async def _line(self, row: Row) -> bytes:
        line: dict[str, object] = {
            "id": row["run"],
            "state": row["state"],
            "attempts": row["attempt"],
        }
        if row["state"] == "completed":
            try:
                line["result"] = msgspec.Raw(await self._parts.answers.written(row["output"]))
            except UNREADABLE_ANSWER as error:
                line["problem"] = error.problem()
        elif row["problem"] is not None:
            line["problem"] = msgspec.Raw(row["problem"].encode())
        return _encode(line) + b"\n"


async def _specs(spec: JobSpec, lines: Sequence[bytes]) -> list[str]:
    """The spec of each job, as its row keeps it.

    Raises:
        InvalidError: together they are too large.
    """
    common = len(_encode(msgspec.structs.replace(spec, input=msgspec.Raw(b"null"))))
    size = common * len(lines) + sum(map(len, lines))
    if size > MAX_BYTES:
        message = (
            f"{len(lines)} jobs of {common} bytes beside their inputs are {size} bytes, at most "
            f"{MAX_BYTES} are taken; send fewer lines at once, or name an artifact in the options"
        )
        raise InvalidError(message)
    specs: list[str] = []
    for number, text in enumerate(written_with(spec, lines), 1):
        specs.append(text)
        if number % _TURN == 0:
            await asyncio.sleep(0)
    return specs


async def _refuse_unfit_lines(declared: Capability, lines: Sequence[bytes]) -> None:
    if not declared.input:
        return
    for number, line in enumerate(lines):
        refuse_unfit(declared, _decode(line), f"/inputs/{number}")
        if number % _CHECKED_TURN == 0:
            await asyncio.sleep(0)


def named_by(request: BatchRequest, inputs: Inputs) -> tuple[frozenset[str], frozenset[str]]:
    """The digests of the artifacts that a batch names, and those of folders."""
    return artifact_digests([list(inputs.naming), request.options])


def first_job(batch: str) -> str:
    """The job by which those who decide about a batch know it: all have the same submitter."""
    return f"job_{_stem(batch)}-000001"


def ends_of(batch: str) -> Ends:
    """Every job of the batch lies between these two.

    Raises:
        NotFoundError: this is no id of a batch.
    """
    stem = _stem(batch)
    return Ends(f"job_{stem}-", f"job_{stem}.")


def no_batch(batch: str) -> NotFoundError:
    """What is answered where there is no such batch, or none that the caller may see."""
    return NotFoundError(f"there is no batch {batch!r}")


def _listed(tx: Transaction, first: str) -> BatchView:
    """A batch as a list has it: what can be told without reading all of its jobs."""
    row = store.job(tx, first)
    if row is None:  # it was listed in this transaction
        raise no_batch(first)
    batch = views.batch_of(first)
    ends = ends_of(batch)
    return BatchView(
        id=batch,
        capability=row["capability"],
        count=int(batch_sql.newest_job(tx, ends).rpartition("-")[2]),
        first=first,
        open=batch_sql.open_jobs(tx, ends),
        created_at=views.iso(row["created_at"]) or "",
        submitter=row["submitter"],
        labels=told(row["spec"]).tags,
    )


def _stem(batch: str) -> str:
    match = _BATCH.fullmatch(batch)
    if match is None:
        raise no_batch(batch)
    return match[1]
