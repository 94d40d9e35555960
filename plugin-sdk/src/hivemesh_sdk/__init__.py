"""Everything a worker author needs, under one import."""

from hivemesh_sdk.contracts.artifacts import Artifact, Tree
from hivemesh_sdk.errors import (
    ConfigurationError,
    FatalError,
    RetryableError,
    SkippedError,
)
from hivemesh_sdk.worker.context import Context
from hivemesh_sdk.worker.definition import Worker
from hivemesh_sdk.worker.records import Raw, Record, Rejected, State
from hivemesh_sdk.worker.secrets import Secret

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "ConfigurationError",
    "Context",
    "FatalError",
    "Raw",
    "Record",
    "Rejected",
    "RetryableError",
    "Secret",
    "SkippedError",
    "State",
    "Tree",
    "Worker",
]
