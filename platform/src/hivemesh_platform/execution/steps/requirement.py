"""What a row asks of the instance that takes it. Pure."""

import msgspec

from hivemesh_platform.execution.ledger.port import Claim
from hivemesh_platform.execution.plans.spec import JobSpec
from hivemesh_platform.execution.ports import Requirement

_COMPARED = frozenset({"call", "map", "add"})  # the longer the input, the longer they take


def requirement_of(claim: Claim, *others: Claim) -> Requirement:
    """What one row asks for, and others that travel with it."""
    labels: dict[str, str]
    if claim.spec is None:
        labels = msgspec.json.decode(claim.labels, type=dict[str, str])
    else:
        labels = msgspec.json.decode(claim.spec, type=JobSpec).labels
    failed = claim.last_instance and (claim.retries or claim.losses)
    return Requirement(
        capability=claim.capability,
        labels=labels,
        data_class=claim.data_class,
        avoid=frozenset({claim.last_instance} if failed else ()),
        records=claim.divisible + len(others) if claim.kind in _COMPARED else 0,
    )
