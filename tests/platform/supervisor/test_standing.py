"""What is said of a worker whose processes do not run yet."""

from types import SimpleNamespace

from hivemesh_platform.supervisor.fleet import Refusal
from hivemesh_platform.supervisor.service import _state


def test_a_worker_that_is_being_built_says_for_how_long() -> None:
    fleet = SimpleNamespace(refusal=Refusal(), building_since=100.0)
    assert _state(fleet, 0, 145.4) == (
        "building",
        "its environment is being built, 45 s so far",
    )
