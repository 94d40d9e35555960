"""The mesh's HTTP: the mutual-TLS server protocol and the pooled client. Knows identities, not steps."""

from hivemesh_sdk.transport.client import MeshClient, Response, Target
from hivemesh_sdk.transport.errors import (
    DeadlineExceededError,
    PeerRefusedError,
    TransportError,
    WorkerUnreachableError,
)
from hivemesh_sdk.transport.limits import Limits
from hivemesh_sdk.transport.server import Listener, enrolment_listener, serve

__all__ = [
    "DeadlineExceededError",
    "Limits",
    "Listener",
    "MeshClient",
    "PeerRefusedError",
    "Response",
    "Target",
    "TransportError",
    "WorkerUnreachableError",
    "enrolment_listener",
    "serve",
]
