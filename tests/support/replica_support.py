"""Replicas on one database, each with a clock and heartbeats of the test's own."""

from hivemesh_platform.replicas.service import Own, Replicas
from hivemesh_sdk.testing.clock import ManualClock

TRUST, WORK = "trust", "work"


def replica(database, name, *, folder="", shared="s", clock=None, alone=False):
    """One replica that has not joined yet."""
    own = Own(id=name, folder=folder or f"folder of {name}", shared=shared, version="0.1.0")
    return Replicas(database, own, clock or ManualClock(), alone=alone, singletons=(TRUST, WORK))


async def joined(database, *names):
    """Replicas that have joined and seen each other."""
    found = [replica(database, name) for name in names]
    for one in found:
        await one.join()
    for one in found:
        await one.tick()
    return found


async def ticks(count, *replicas):
    """Heartbeats of some of the replicas."""
    for _ in range(count):
        for one in replicas:
            await one.tick()
