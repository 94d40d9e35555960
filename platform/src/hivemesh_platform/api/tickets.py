"""Tickets: exchanged for what workers call, shown to start jobs, read from requests under a step."""

import msgspec
from fastapi import APIRouter, Request, Response
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.names import TICKET_HEADER
from hivemesh_sdk.contracts.submits import SubmitReply, SubmitRequest
from hivemesh_sdk.contracts.tickets import ExchangeReply, ExchangeRequest, Ticket
from hivemesh_sdk.errors import NotAuthorizedError

from hivemesh_platform.api.access import noted, peer_of, require
from hivemesh_platform.api.bodies import decoded
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import STEP, SUBMIT, TICKET, declares
from hivemesh_platform.execution.jobs.step_submits import StepSubmits
from hivemesh_platform.execution.rights.shown import StepTickets


def router(tickets: StepTickets, submits: StepSubmits, clock: Clock) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.post("/v1/tickets/exchange")
    @declares(reads=ExchangeRequest, answers=ExchangeReply, problems=(*STEP, "data-class-exceeded"))
    async def exchange_ticket(request: Request) -> Response:
        """Exchange a ticket for one of the caller's own."""
        require(request, "tickets:exchange")
        asked = await decoded(request, ExchangeRequest)
        reply = await tickets.exchange(asked, peer_of(request).id, clock.now().timestamp())
        headers = {"cache-control": "no-store"}
        return Response(msgspec.json.encode(reply), media_type="application/json", headers=headers)

    @routes.post("/v1/submits")
    @declares(
        reads=SubmitRequest, answers=SubmitReply, headers=(TICKET,), problems=(*STEP, *SUBMIT)
    )
    async def submit(request: Request) -> Response:
        """Start a job or a run from within a step."""
        principal = require(request, "jobs:submit")
        asked = await decoded(request, SubmitRequest)
        token, identity = request.headers.get(TICKET_HEADER, ""), peer_of(request).uri
        try:
            reply = await submits.submit(asked, token, identity)
        except NotAuthorizedError as error:
            noted(request, principal, "run:capability", asked.capability, denied=error.detail)
            raise
        noted(request, principal, "run:capability", asked.capability, rule=f"step {asked.step}")
        return Response(msgspec.json.encode(reply), media_type="application/json")

    return routes


async def ticket_of(
    request: Request, tickets: StepTickets, identity: str, step: str, attempt: int
) -> Ticket:
    """The ticket that a request under a step shows.

    Raises:
        TicketRefusedError: it shows none, or one of something else.
        StaleAttemptError: the attempt is over.
    """
    return await tickets.check(request.headers.get(TICKET_HEADER, ""), identity, step, attempt)
