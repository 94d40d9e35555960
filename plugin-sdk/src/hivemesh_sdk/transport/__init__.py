"""The mesh's HTTP: the mutual-TLS server protocol and the pooled client. Knows identities, not steps."""

from hivemesh_sdk.transport.client import MeshClient
from hivemesh_sdk.transport.connection import Response, Target, call_once
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
    "call_once",
    "enrolment_listener",
    "serve",
]
