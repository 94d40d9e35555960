"""The worker as a process, against a fake platform."""

from hivemesh_sdk.testing.conformance import WorkerConformance


class TestConformance(WorkerConformance):
    pass
