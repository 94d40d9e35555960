"""The policy between workloads: the signed document for members, versions and changes for people."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from hivemesh_sdk.contracts.api import Page
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.policy import POLICY_MEDIA_TYPE
from hivemesh_sdk.contracts.policy_api import (
    PolicyExplanation,
    PolicyReview,
    PolicyText,
    PolicyVersionView,
    PolicyView,
)
from hivemesh_sdk.contracts.steps import MAX_WAIT_S
from hivemesh_sdk.errors import InvalidError, NotFoundError
from hivemesh_sdk.trust.identity import Kind

from hivemesh_platform.access.policy_service import Author, PolicyService
from hivemesh_platform.access.workload_policy import Question
from hivemesh_platform.api.access import before_body, peer_of, require
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import Content, Header, declares

CURRENT = "current"
MATCH = Header("if-match", "the version that is changed, in quotes", required=True)
SIGNED = Content({"type": "string"}, POLICY_MEDIA_TYPE, "the signed policy, a JWS")
_ENTITY_TAG = re.compile(r'"([0-9]{1,15})"')
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S)]
Roles = Annotated[list[str] | None, Query(max_length=20)]


class PreconditionMissingError(InvalidError):
    """The request does not say which version it changes."""

    slug = "precondition-missing"


def router(policies: PolicyService) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.get("/v1/policy")
    @declares(answers={200: SIGNED, 204: None})
    async def get_signed_policy(request: Request, after: int = 0, wait: Wait = 0.0) -> Response:
        """Get the signed policy, once it is newer."""
        require(request, "policy:fetch")
        peer = peer_of(request)
        worker = peer.uri if peer.id.kind is Kind.WORKER else ""
        token = await policies.newer(after, wait, worker=worker)
        if token is None:
            return Response(status_code=204)
        return Response(token, media_type=POLICY_MEDIA_TYPE)

    @routes.post("/v1/policy", status_code=201)
    @before_body("write:policy")
    @declares(
        headers=(MATCH,),
        problems=(
            "policy-invalid",
            "policy-tests-failed",
            "policy-changed",
            "precondition-missing",
        ),
    )
    async def apply_policy(body: PolicyText, request: Request, response: Response) -> PolicyView:
        """Put another policy into force."""
        author = _author(request, body.reason)
        expected = _expected(request)
        view = await policies.apply(body.document, expected=expected, name=body.name, author=author)
        response.headers["etag"] = f'"{view.version}"'
        return view

    @routes.post("/v1/policy/test")
    @before_body("read:policy")
    @declares(problems=("policy-invalid",))
    async def test_policy(body: PolicyText, request: Request) -> PolicyReview:
        """Run a policy's tests, and tell what it would change."""
        require(request, "read:policy")
        return policies.review(body.document, body.name)

    @routes.get("/v1/policy/versions")
    async def list_policy_versions(request: Request) -> Page[PolicyVersionView]:
        """List the versions of the policy."""
        require(request, "read:policy")
        return Page(items=await policies.versions())

    @routes.get("/v1/policy/versions/{version}")
    async def get_policy_version(version: str, request: Request, response: Response) -> PolicyView:
        """Show a version of the policy."""
        require(request, "read:policy")
        view = await policies.version(_number(version))
        response.headers["etag"] = f'"{view.version}"'
        return view

    @routes.get("/v1/policy/explain")
    @before_body("read:policy")
    @declares(problems=("not-found",))
    async def explain_policy(  # noqa: PLR0913 - the parts of a question
        request: Request,
        caller: str,
        callee: str,
        capability: str,
        role: Roles = None,
        data_class: DataClass = DataClass.INTERNAL,
        *,
        ticket: bool = True,
    ) -> PolicyExplanation:
        """Explain a decision of the policy."""
        require(request, "read:policy")
        return policies.explain(
            Question(
                caller=caller,
                callee=callee,
                capability=capability,
                roles=tuple(role or ()),
                data_class=data_class,
                ticket=ticket,
            )
        )

    return routes


def _author(request: Request, reason: str) -> Author:
    principal = require(request, "write:policy")
    return Author(
        id=principal.actor,
        serial=principal.serial,
        reason=reason,
        on_behalf_of=principal.id if principal.token_id else "",
    )


def _expected(request: Request) -> int:
    given = _ENTITY_TAG.fullmatch(request.headers.get("if-match", ""))
    if given is None:
        message = 'name the version that is changed in the header: If-Match: "3"'
        raise PreconditionMissingError(message)
    return int(given[1])


def _number(text: str) -> int | None:
    if text == CURRENT:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text):
        message = f"{text!r} is no version of the policy"
        raise NotFoundError(message)
    return int(text)
