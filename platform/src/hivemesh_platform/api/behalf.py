"""On whose behalf a request submits work: the principal that `access` has found for it."""

from fastapi import Request

from hivemesh_platform.api.access import principal_of
from hivemesh_platform.execution.behalf import Behalf, behalf_of


def behalf_of_request(request: Request) -> Behalf:
    """The principal of the request, as it is frozen into the work that it submits."""
    return behalf_of(principal_of(request))
