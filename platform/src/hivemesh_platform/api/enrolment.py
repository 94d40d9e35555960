"""How processes get their identity: enrolment for newcomers, renewal and the bundle for members.

`newcomers` is the whole of the enrolment listener; `members` belongs to the mesh listener.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Annotated

import msgspec
from fastapi import APIRouter, Request, Response
from hivemesh_sdk.contracts.api import Body, View
from hivemesh_sdk.trust.bundle import BundleDocument
from hivemesh_sdk.trust.wire import (
    BUNDLE_PATH,
    ENROL_PATH,
    RENEW_PATH,
    EnrolRequest,
    IdentityAnswer,
    RenewRequest,
)
from pydantic import Field

from hivemesh_platform.api.access import before_body, peer_of, require
from hivemesh_platform.api.bodies import decoded, decoded_strictly
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.api.declared import CERTIFICATE, declares
from hivemesh_platform.api.recorded import actor_of
from hivemesh_platform.replicas.model import Urls
from hivemesh_platform.trust.authority import Authority
from hivemesh_platform.trust.service import EnrolmentService

JSON = "application/json"


class JoinTokenRequest(Body):
    """`POST /v1/workers/{name}/join-tokens`: a join token for one enrolment of a worker."""

    instance: str = ""
    lifetime_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0


class JoinTokenView(View):
    """A join token, shown once."""

    token: str


def newcomers(
    enrolment: EnrolmentService, replicas: Callable[[], Sequence[Urls]] = tuple
) -> APIRouter:
    """The only route of the enrolment listener; it tells where the replicas are that live."""
    routes = strict_router(newcomers=True)

    @routes.post(ENROL_PATH)
    @declares(
        reads=EnrolRequest,
        answers=IdentityAnswer,
        problems=(
            *CERTIFICATE,
            "enrolment-refused",
            "enrolment-rate-limited",
            "instance-duplicate",
        ),
    )
    async def enrol(request: Request) -> Response:
        """Get the first certificate of an instance with a token."""
        address = request.client.host if request.client is not None else ""
        answer = await enrolment.enrol(await decoded_strictly(request, EnrolRequest), address)
        answer = msgspec.structs.replace(
            answer,
            platforms=[one.mesh for one in replicas() if one.mesh],
            enrolments=[one.enrolment for one in replicas() if one.enrolment],
        )
        return Response(msgspec.json.encode(answer), media_type=JSON)

    return routes


def members(enrolment: EnrolmentService, authority: Authority) -> APIRouter:
    """Renewal, the bundle, and new tokens."""
    routes = strict_router()

    @routes.post(RENEW_PATH)
    @declares(
        reads=RenewRequest, answers=IdentityAnswer, problems=(*CERTIFICATE, "renewal-refused")
    )
    async def renew(request: Request) -> Response:
        """Get the next certificate with a new key."""
        require(request, "identity:renew")
        peer = peer_of(request)
        answer = await enrolment.renew(peer, (await decoded(request, RenewRequest)).csr)
        return Response(msgspec.json.encode(answer), media_type=JSON)

    @routes.get(BUNDLE_PATH)
    @declares(answers=BundleDocument)
    async def get_bundle(request: Request) -> Response:
        """Show whom to trust."""
        require(request, "bundle:read")
        return Response(msgspec.json.encode(authority.bundle().document()), media_type=JSON)

    @routes.post("/v1/workers/{name}/join-tokens", status_code=201)
    @before_body("create:enrolment")
    async def create_join_token(
        name: str, body: JoinTokenRequest, request: Request
    ) -> JoinTokenView:
        """Make a token for one enrolment of a worker."""
        by = actor_of(request, require(request, "create:enrolment", name))
        lifetime = timedelta(seconds=body.lifetime_s)
        token = await enrolment.create_token(name, instance=body.instance, lifetime=lifetime, by=by)
        return JoinTokenView(token=token)

    return routes
