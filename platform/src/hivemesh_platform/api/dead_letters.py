"""Dead letters: listed, shown, run again, discarded; and steps whose worker went away."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from hivemesh_sdk.contracts.api import Page, RunView
from hivemesh_sdk.contracts.dead_letter_api import (
    AttemptView,
    DeadLetterView,
    InstanceAttemptView,
    LostStepView,
    ReplayedView,
    ReplayManyRequest,
    ReplayRequest,
    ReplayView,
)
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import HivemeshError, InvalidError, NotAuthorizedError

from hivemesh_platform.api.access import (
    before_body,
    noted,
    person_of,
    principal_of,
    require,
    require_some,
)
from hivemesh_platform.api.behalf import behalf_of_request
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import BYTES, EXPORT, REPLAY, declares
from hivemesh_platform.api.paging import LARGEST, Limit, Offset, offset_page, page_of
from hivemesh_platform.api.recorded import recorded
from hivemesh_platform.api.work import Work
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.execution.jobs.letters import DeadLetters, Letter, no_letter
from hivemesh_platform.execution.ledger.letter_sql import LetterFilter
from hivemesh_platform.execution.runs.cancels import Cancels
from hivemesh_platform.execution.runs.history import History
from hivemesh_platform.execution.runs.service import RunService
from hivemesh_platform.execution.runtime import Execution

State = Literal["open", "retried", "discarded", "all"]
SEES = ("read:run", "run:pipeline", "run:capability")
CHANGES = ("write:run", "run:capability")


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the routes speak for, and the decisions on letters."""

    letters: DeadLetters
    history: History
    cancels: Cancels
    runs: RunService
    work: Work
    audit: AuditTrail

    async def seen(self, request: Request, letter: str) -> Letter:
        """The letter, if the caller may see it."""
        principal = person_of(request)
        found = await self.letters.get(letter)
        if not found.subject().seen_by(principal):
            noted(request, principal, "read:run", found.subject().id, denied="invisible")
            raise no_letter(letter)
        return found

    async def changed(self, request: Request, letter: str) -> Letter:
        """The letter, if the caller may change what it is of."""
        found = await self.seen(request, letter)
        _check_changed(request, found)
        return found

    async def replay(self, request: Request, found: Letter) -> str:
        """Run it again, if the caller may use its capability and all that it names."""
        require(request, "run:capability", found.row["capability"])
        await self.work.check_given(request, found.given())
        await recorded(request, self.audit, "dead-letter:retry", found.id)
        return await self.letters.retry(found, behalf_of_request(request))


def router(execution: Execution, work: Work, audit: AuditTrail) -> APIRouter:
    """The routes."""
    routes = strict_router()
    parts = _Parts(
        execution.letters, execution.history, execution.cancels, execution.runs, work, audit
    )
    _reading(routes, parts)
    _replaying(routes, parts)
    _settling(routes, parts)
    _history(routes, parts)
    return routes


def _reading(routes: APIRouter, parts: _Parts) -> None:
    @routes.get("/v1/dead-letters")
    async def list_dead_letters(
        request: Request,
        state: State = "open",
        run: str = "",
        capability: str = "",
        after: str = "",
        limit: Limit = 50,
    ) -> Page[DeadLetterView]:
        """List dead letters."""
        principal = require_some(request, *SEES)
        wanted = LetterFilter(state="" if state == "all" else state, run=run, capability=capability)
        found = await parts.letters.page(principal, wanted, after, limit + 1)
        return page_of([one.view(listed=True) for one in found], limit, lambda one: one.id)

    @routes.get("/v1/dead-letters/{letter}")
    async def get_dead_letter(letter: str, request: Request) -> DeadLetterView:
        """Show a dead letter."""
        return (await parts.seen(request, letter)).view()

    @routes.get("/v1/dead-letters/{letter}/input", response_class=StreamingResponse)
    @declares(answers=BYTES, problems=(*EXPORT, "artifact-missing"))
    async def read_dead_letter(letter: str, request: Request) -> StreamingResponse:
        """Read the input of a dead letter."""
        found = await parts.seen(request, letter)
        parameters = {"data_class": found.row["data_class"]}
        await recorded(request, parts.audit, "export:dead-letter", letter, parameters)
        stream = await parts.letters.input(found)
        return StreamingResponse(stream.chunks, media_type=stream.media_type)


def _replaying(routes: APIRouter, parts: _Parts) -> None:
    @routes.post("/v1/dead-letters/retry")
    @before_body(*CHANGES)
    async def retry_dead_letters(body: ReplayManyRequest, request: Request) -> ReplayedView:
        """Run many dead letters again."""
        principal = require_some(request, *CHANGES)
        wanted = LetterFilter(run=body.run, capability=body.capability)
        found = await parts.letters.page(principal, wanted, body.after, body.limit)
        following = found[-1].id if len(found) == body.limit else None
        items = [await _tried(request, parts, one) for one in found]
        return ReplayedView(items=items, next=following)

    @routes.post("/v1/dead-letters/{letter}/retry")
    @declares(problems=REPLAY)
    async def retry_dead_letter(letter: str, request: Request) -> ReplayView:
        """Run a dead letter again."""
        found = await parts.changed(request, letter)
        return ReplayView(letter=letter, job=await parts.replay(request, found))

    @routes.post("/v1/dead-letters/{letter}/edit")
    @before_body(*CHANGES)
    @declares(problems=(*REPLAY, "input-invalid", "options-invalid", "data-class-exceeded"))
    async def edit_dead_letter(letter: str, body: ReplayRequest, request: Request) -> ReplayView:
        """Run a dead letter again with another input or other options."""
        found = await parts.changed(request, letter)
        await parts.work.check_job(request, await parts.letters.edited(found, body))
        changed_parts = {"changed": sorted(body.model_fields_set)}
        await recorded(request, parts.audit, "dead-letter:edit", letter, changed_parts)
        job = await parts.letters.edit(found, body, behalf_of_request(request))
        return ReplayView(letter=letter, job=job)


def _settling(routes: APIRouter, parts: _Parts) -> None:
    @routes.post("/v1/dead-letters/{letter}/discard")
    @declares(problems=("dead-letter-settled",))
    async def discard_dead_letter(letter: str, request: Request) -> DeadLetterView:
        """Discard a dead letter."""
        found = await parts.changed(request, letter)
        await recorded(request, parts.audit, "dead-letter:discard", letter)
        await parts.letters.discard(found, behalf_of_request(request))
        return (await parts.letters.get(letter)).view()

    @routes.post("/v1/dead-letters/{letter}/reopen")
    @declares(problems=("dead-letter-settled",))
    async def reopen_dead_letter(letter: str, request: Request) -> DeadLetterView:
        """Reopen a discarded dead letter."""
        found = await parts.changed(request, letter)
        await recorded(request, parts.audit, "dead-letter:reopen", letter)
        await parts.letters.reopen(found)
        return (await parts.letters.get(letter)).view()


def _history(routes: APIRouter, parts: _Parts) -> None:
    @routes.get("/v1/runs/{run}/attempts")
    async def list_attempts(
        run: str,
        request: Request,
        step: str = "",
        seq: Annotated[int, Query(ge=-1)] = -1,
        after: Offset = 0,
        limit: Limit = 200,
    ) -> Page[AttemptView]:
        """List the attempts of a run."""
        await parts.work.check_seen(request, run)
        found = await parts.history.attempts(run, step, seq, after, limit + 1)
        return offset_page(found, limit, after)

    @routes.get("/v1/attempts")
    async def list_instance_attempts(
        request: Request,
        instance: Annotated[str, Query(max_length=200)] = "",
        after: Annotated[str, Query(max_length=500)] = "",
        limit: Limit = 50,
    ) -> Page[InstanceAttemptView]:
        """List the attempts at an instance."""
        principal = require_some(request, *SEES)
        if not instance:
            missing = FieldProblem(
                pointer="/query/instance", message="the key is missing", code="missing"
            )
            raise InvalidError(missing.message, errors=[missing])
        items, following = await parts.history.at_instance(principal, instance, after, limit)
        return Page(items=items, next=following)

    @routes.post("/v1/runs/{run}/steps/{step}/cancel")
    @declares(problems=("run-ended",))
    async def cancel_step(
        run: str,
        step: str,
        request: Request,
        seq: Annotated[int | None, Query(ge=0, le=LARGEST)] = None,
    ) -> RunView:
        """Cancel a step of a run, or one batch of it."""
        await parts.work.check_changed(request, run)
        await parts.cancels.cancel(run, step, seq)
        return await parts.runs.get(run)

    @routes.get("/v1/lost-steps")
    async def list_lost_steps(
        request: Request, *, ended: bool = False, since: Offset = 0, limit: Limit = 200
    ) -> Page[LostStepView]:
        """List the steps whose worker went away."""
        principal = require_some(request, *SEES)
        found = await parts.history.lost(principal, since=since, ended=ended, limit=limit)
        return Page(items=found)


def _check_changed(request: Request, letter: Letter) -> None:
    """Refuse who has neither submitted the work nor may change others'."""
    principal, subject = principal_of(request), letter.subject()
    allowed = subject.changed_by(principal)
    denied = "" if allowed else "neither its submitter nor write:run"
    noted(request, principal, "write:run", subject.id, denied=denied)
    if not allowed:
        message = f"{letter.id} is not of {principal.id}, who has no write:run/{subject.name}"
        raise NotAuthorizedError(message)


async def _tried(request: Request, parts: _Parts, letter: Letter) -> ReplayView:
    """Retry one of many; the others are retried whatever becomes of it."""
    try:
        _check_changed(request, letter)
        return ReplayView(letter=letter.id, job=await parts.replay(request, letter))
    except HivemeshError as error:
        document = error.problem()
    told = {"type": document.type, "code": document.code, "title": document.title}
    return ReplayView(letter=letter.id, problem={**told, "detail": document.detail})
