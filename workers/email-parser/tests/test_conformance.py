"""The worker as the platform meets it."""

from hivemesh_sdk.testing.conformance import WorkerConformance


class TestConformance(WorkerConformance):
    """Everything that every worker has to do."""
