"""Waits before something is tried again: who was turned away together does not come back together."""

import random

JITTER = 0.5


def around(seconds: float) -> float:
    """So long, more or less by half."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load


def no_sooner(seconds: float) -> float:
    """At least so long, and at most twice: the other side has named the time."""
    return seconds * random.uniform(1, 2)  # noqa: S311 - spreads load
