"""Dead letters: shown, run again as they are or edited, discarded.

A job that is retried goes on under its own key, so that an effect which it has had is not had twice.
A part of a run becomes a job of its own: its run has ended without it. Either way it asks anew what
the work may do: what its submitter might, less what the one who retries it may not.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import msgspec
from hivemesh_sdk.contracts.api import JobRequest
from hivemesh_sdk.contracts.artifacts import DataClass, highest
from hivemesh_sdk.contracts.dead_letter_api import DeadLetterView, ReplayRequest
from hivemesh_sdk.contracts.names import DEFAULT_PRIORITY, NDJSON_MEDIA_TYPE, step_key
from hivemesh_sdk.contracts.references import written_secrets
from hivemesh_sdk.errors import ConflictError, NotFoundError
from pydantic import JsonValue

from hivemesh_platform.access.model import Principal
from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.artifacts.ports import ArtifactStore
from hivemesh_platform.execution.behalf import Behalf, effective
from hivemesh_platform.execution.jobs.service import JobService, UnknownCapabilityError
from hivemesh_platform.execution.ledger import letter_sql
from hivemesh_platform.execution.ledger.letter_sql import LetterFilter
from hivemesh_platform.execution.ledger.port import NewJob, milliseconds
from hivemesh_platform.execution.model import JOB_NODE, lines_of
from hivemesh_platform.execution.plans.given import Given
from hivemesh_platform.execution.plans.policies import policy_of
from hivemesh_platform.execution.plans.spec import (
    JobSpec,
    artifact_digests,
    is_intact,
    told,
    written,
)
from hivemesh_platform.execution.ports import Catalogue, KnownCapability
from hivemesh_platform.execution.rights.classes import check_clearance, output_class
from hivemesh_platform.execution.runs.service import JSON, OutputStream, RunParts
from hivemesh_platform.execution.runs.subjects import RunSubject
from hivemesh_platform.execution.runs.views import iso
from hivemesh_platform.ids import new_job_id
from hivemesh_platform.storage.transaction import Row, Transaction

SCANNED = 500  # letters read at once while a page is filled


class LetterSettledError(ConflictError):
    """Somebody has retried or discarded it."""

    slug = "dead-letter-settled"


class ReplayImpossibleError(ConflictError):
    """It cannot be run by itself."""

    slug = "replay-impossible"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and what those who decide about it need to know."""

    row: Row

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.row["id"])

    @property
    def is_job(self) -> bool:
        """Whether it is a job of its own, not a part of a run."""
        return bool(self.row["node"] == JOB_NODE)

    @property
    def options(self) -> dict[str, JsonValue]:
        """The options of its step."""
        found: dict[str, JsonValue] = msgspec.json.decode(self.row["options"])
        return found

    @property
    def labels(self) -> dict[str, str]:
        """Where its step may run."""
        found: dict[str, str] = msgspec.json.decode(self.row["labels"])
        return found

    @property
    def priority(self) -> int:
        """That of its row, while there is one."""
        found = self.row["priority"]
        return DEFAULT_PRIORITY if found is None else int(found)

    @property
    def behalf(self) -> Behalf:
        """On whose behalf it was run."""
        return msgspec.json.decode(self.row["behalf"], type=Behalf)

    @property
    def inputs(self) -> tuple[BatchRef, ...]:
        """Where its records are."""
        return msgspec.json.decode(self.row["input"], type=tuple[BatchRef, ...])

    @property
    def document(self) -> bytes:
        """Its input where that is no batch: that of a job; a call of a run has none."""
        if not self.is_job:
            return b"null"
        return bytes(msgspec.json.decode(self.row["spec"], type=JobSpec).input)

    @property
    def lines(self) -> tuple[int, int] | None:
        """Which of them are meant, where not all are."""
        return (self.row["first"], self.row["last"]) if self.row["last"] else None

    def subject(self) -> RunSubject:
        """What rights ask for: its pipeline, or the capability of a job."""
        row = self.row
        name = row["capability"] if self.is_job else row["pipeline"]
        kind = "capability" if self.is_job else "pipeline"
        return RunSubject(row["run"], kind, name, row["submitter"], row["tenant"])  # type: ignore[arg-type]  # one of the two

    def given(self) -> Given:
        """The artifacts that its options and input name."""
        named: list[object] = [self.options]
        if self.row["spec"] is not None:
            spec = msgspec.json.decode(self.row["spec"], type=JobSpec)
            named.append(msgspec.json.decode(spec.input))
        return Given(*artifact_digests(named))

    def view(self, *, listed: bool = False) -> DeadLetterView:
        """What people are shown; lists go without the options."""
        row = self.row
        return DeadLetterView(
            id=row["id"],
            key=step_key(row["run"], row["node"], row["seq"]),
            run=row["run"],
            step=row["node"],
            seq=row["seq"],
            kind=row["kind"],
            capability=row["capability"],
            options=None if listed else self.options,
            pipeline=row["pipeline"],
            state=row["state"],
            cause=row["cause"],
            records=row["records"],
            lines=self.lines,
            position=msgspec.json.decode(row["position"]),
            attempts=row["attempts"],
            problem=msgspec.json.decode(row["problem"]),
            data_class=DataClass(row["data_class"]),
            submitter=row["submitter"],
            created_at=iso(row["created_at"]) or "",
            replayed_as=row["replayed_as"],
            settled_by=row["settled_by"],
            settled_at=iso(row["settled_at"]),
        )


class DeadLetters:
    """What the API offers on dead letters; its routes decide who may."""

    def __init__(
        self, parts: RunParts, jobs: JobService, catalogue: Catalogue, artifacts: ArtifactStore
    ) -> None:
        self._artifacts = artifacts
        self._parts = parts
        self._jobs = jobs
        self._catalogue = catalogue

    async def get(self, letter: str) -> Letter:
        """Return a letter.

        Raises:
            NotFoundError: there is none.
        """
        row = await self._parts.database.read(lambda tx: letter_sql.find(tx, letter))
        if row is None:
            raise no_letter(letter)
        return Letter(row)

    async def page(
        self, principal: Principal, wanted: LetterFilter, before: str, limit: int
    ) -> list[Letter]:
        """Return the letters that the principal may see, newest first."""

        def read(tx: Transaction) -> list[Letter]:
            found: list[Letter] = []
            place, size = before, limit  # most see all; only who does not has more read
            while len(found) < limit:
                rows = letter_sql.newest(tx, principal.tenant, wanted, place, size)
                found += [one for one in map(Letter, rows) if one.subject().seen_by(principal)]
                if len(rows) < size:
                    break
                place, size = rows[-1]["id"], SCANNED
            return found[:limit]

        return await self._parts.database.read(read)

    async def input(self, letter: Letter) -> OutputStream:
        """Open the input: JSON of a job, NDJSON of what a batch has lost.

        Raises:
            ArtifactDamagedError: a stored batch does not match its digest.
        """
        if not letter.inputs:
            return OutputStream(JSON, _once(letter.document))
        return OutputStream(NDJSON_MEDIA_TYPE, self._records(letter))

    async def retry(self, letter: Letter, who: Behalf) -> str:
        """Run an open letter again as it is; returns the job that it is now.

        Raises:
            LetterSettledError: somebody was faster.
            ReplayImpossibleError: it cannot be run by itself.
            InvalidError, DataClassError: it may not be run any more.
        """
        if letter.row["spec"] is not None and not is_intact(letter.row["spec"]):
            message = "its stored request is damaged; submit the job again"
            raise ReplayImpossibleError(message)
        known = self._known(letter)
        behalf = effective(who, letter.behalf)
        check_clearance(DataClass(letter.row["data_class"]), known.declared)
        await self._check_secrets(letter, behalf)
        if letter.is_job:
            return await self._same_job(letter, behalf, who)
        job = self._job_of_batch(letter, behalf, known)
        await self._accept(letter, job, who)
        return job.id

    async def edit(self, letter: Letter, request: ReplayRequest, who: Behalf) -> str:
        """Run a changed input as a new job; returns its id.

        Of several records one is changed, and all of them are run.

        Raises:
            LetterSettledError: somebody was faster.
            ReplayImpossibleError: it is no such input, or its own options name secrets.
            InvalidError, DataClassError: as for any job.
        """
        asked = await self.edited(letter, request)
        _refuse_brought(letter, asked.options)
        lent = effective(who, letter.behalf)
        job = await self._jobs.prepare(asked, lent, replay_of=letter.id, labels=letter.labels)
        if letter.row["records"] > 1:
            job = await self._with_others(letter, job, request.record or 0)
        await self._accept(letter, job, who)
        return job.id

    async def edited(self, letter: Letter, request: ReplayRequest) -> JobRequest:
        """The job that an edit makes, for those who decide about it.

        Raises:
            ReplayImpossibleError: it is neither a call nor records of a map, or names no record.
        """
        records, kind = letter.row["records"], letter.row["kind"]
        if kind not in {"call", "map"} or not self._names_one(letter, request):
            message = f"{letter.id} is a {kind} of {records} records; of a map one is edited, "
            message += f"`record` names it: 0 to {records - 1}"
            raise ReplayImpossibleError(message)
        value = request.input
        if "input" not in request.model_fields_set:
            stream = await self.input(letter)
            data = b"".join([block async for block in stream.chunks])
            value = msgspec.json.decode(
                lines_of(data)[request.record or 0] if letter.inputs else data
            )
        return JobRequest(
            capability=letter.row["capability"],
            input=value,
            options=_changed(letter.options, request.options or {}),
            data_class=highest((request.data_class, DataClass(letter.row["data_class"]))),
            priority=letter.priority,
            concurrency_key=letter.row["limit_key"].partition("/")[2],
            labels=told(letter.row["spec"]).tags,
        )

    async def discard(self, letter: Letter, who: Behalf) -> None:
        """Do not retry it any more; `reopen` takes that back.

        Raises:
            LetterSettledError: somebody was faster.
        """
        now = milliseconds(self._parts.clock)
        done = await self._parts.database.write(
            lambda tx: letter_sql.settle(tx, letter.id, "discarded", who.sub, now)
        )
        if not done:
            raise _settled(letter)

    async def reopen(self, letter: Letter) -> None:
        """Take a discard back.

        Raises:
            LetterSettledError: it is not discarded.
        """
        if not await self._parts.database.write(lambda tx: letter_sql.reopen(tx, letter.id)):
            raise _settled(letter)

    @staticmethod
    def _names_one(letter: Letter, request: ReplayRequest) -> bool:
        records, record = letter.row["records"], request.record
        return bool(records == 1 if record is None else record < records)

    async def _with_others(self, letter: Letter, job: NewJob, record: int) -> NewJob:
        """The changed record in its place among those that were given up with it."""
        lines = lines_of(b"".join([block async for block in self._records(letter)]))
        spec = msgspec.json.decode(job.spec, type=JobSpec)
        lines[record] = bytes(spec.input)
        data = b"".join(line + b"\n" for line in lines)
        stored = await self._artifacts.put(data, "")
        rest = msgspec.structs.replace(spec, input=msgspec.Raw(b"null"))
        batch = BatchRef(stored.sha256, len(lines), stored.size)
        return replace(job, spec=written(rest), kind=letter.row["kind"], inputs=(batch,))

    def _known(self, letter: Letter) -> KnownCapability:
        capability = letter.row["capability"]
        known = self._catalogue.find(capability)
        if known is None:
            message = f"no installed worker has {capability!r}; `hivemesh capability list`"
            raise UnknownCapabilityError(message)
        if not letter.is_job and letter.row["kind"] != "map":
            raise _part_of_run(letter, f"it is the {letter.row['kind']} of a run")
        return known

    async def _check_secrets(self, letter: Letter, behalf: Behalf) -> None:
        _refuse_brought(letter, letter.options)
        await self._jobs.check_secrets(letter.row["capability"], letter.options, behalf)

    async def _same_job(self, letter: Letter, behalf: Behalf, who: Behalf) -> str:
        spec = msgspec.json.decode(letter.row["spec"], type=JobSpec)
        again = msgspec.structs.replace(spec, behalf=behalf, replay_of=letter.id)
        text = written(again)
        now, job = milliseconds(self._parts.clock), letter.row["run"]

        def write(tx: Transaction) -> str:
            same = letter_sql.set_going_again(tx, job, text)
            if not same and (state := letter_sql.state_of_job(tx, job)):
                raise _goes_its_own_way(letter, state)
            new = NewJob(
                id=job if same else new_job_id(),
                capability=letter.row["capability"],
                submitter=letter.row["submitter"],
                tenant=letter.row["tenant"],
                priority=letter.priority,
                spec=text,
                kind=letter.row["kind"],
                inputs=letter.inputs,
            )
            if not letter_sql.settle(tx, letter.id, "retried", who.sub, now, new.id):
                raise _settled(letter)
            if not same:
                self._parts.ledger.add_job(tx, new, now)
            return new.id

        found = await self._parts.database.write(write)
        self._wake(found)
        return found

    def _job_of_batch(self, letter: Letter, behalf: Behalf, known: KnownCapability) -> NewJob:
        row, declared = letter.row, known.declared
        policy = policy_of(declared, self._parts.settings)
        inputs = DataClass(row["data_class"])
        spec = JobSpec(
            options=dict(letter.options),
            labels=letter.labels,
            deadline_ms=round(declared.timeout_s * 1000),
            idle_timeout_ms=round(declared.idle_timeout_s * 1000),
            max_retries=policy.max_retries,
            retry_base_s=policy.base_s,
            retry_max_s=policy.max_s,
            behalf=behalf,
            data_class=inputs,
            output_class=output_class(inputs, declared),
            lines=letter.lines,
            replay_of=letter.id,
        )
        return NewJob(
            id=new_job_id(),
            capability=row["capability"],
            submitter=behalf.sub,
            tenant=row["tenant"],
            priority=letter.priority,
            spec=written(spec),
            kind=row["kind"],
            inputs=letter.inputs,
            limit_key=row["limit_key"],
        )

    async def _accept(self, letter: Letter, job: NewJob, who: Behalf) -> None:
        """Settle the letter and accept its job in one transaction, so that it is run once."""
        now = milliseconds(self._parts.clock)

        def write(tx: Transaction) -> None:
            if not letter_sql.settle(tx, letter.id, "retried", who.sub, now, job.id):
                raise _settled(letter)
            self._parts.ledger.add_job(tx, job, now)

        await self._parts.database.write(write)
        self._wake(job.id)

    def _wake(self, job: str) -> None:
        self._parts.work.give()
        self._parts.runs.give(job)

    async def _records(self, letter: Letter) -> AsyncIterator[bytes]:
        """The lines that are meant, batch by batch."""
        first, last = letter.lines or (0, letter.row["records"])
        before = 0
        for one in letter.inputs:
            lines = lines_of(await self._artifacts.read(one.sha256))
            meant = lines[max(0, first - before) : max(0, last - before)]
            before += len(lines)
            if meant:
                yield b"\n".join(meant) + b"\n"


def no_letter(letter: str) -> NotFoundError:
    """What is answered where there is no such letter, or none that the caller may see."""
    return NotFoundError(f"there is no dead letter {letter!r}")


def _settled(letter: Letter) -> LetterSettledError:
    return LetterSettledError(f"{letter.id} is no open letter any more")


def _goes_its_own_way(letter: Letter, state: str) -> LetterSettledError:
    """A second job of the same input would have its effects twice."""
    message = (
        f"{letter.row['run']} is {state} since {letter.id} was written; it is run no second time"
    )
    return LetterSettledError(message)


def _part_of_run(letter: Letter, why: str) -> ReplayImpossibleError:
    return ReplayImpossibleError(f"{why}; `hivemesh run retry {letter.row['run']}`")


def _changed(options: dict[str, JsonValue], changes: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The options with what is changed; null takes one out."""
    return {
        name: one
        for name, one in {**options, **changes}.items()
        if changes.get(name, 0) is not None
    }


def _refuse_brought(letter: Letter, options: dict[str, JsonValue]) -> None:
    """Options of a run may hold references that data has brought; nobody was asked for them."""
    stay = {name: one for name, one in letter.options.items() if options.get(name) == one}
    if not letter.is_job and written_secrets(stay):
        raise _part_of_run(letter, "the options of its step name secrets")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
