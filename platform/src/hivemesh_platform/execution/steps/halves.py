"""Joins what the parts of a row have answered and ends the row with it."""

import msgspec
from hivemesh_sdk.contracts.problems import problem

from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.ledger import part_sql
from hivemesh_platform.execution.ledger.part_sql import Part
from hivemesh_platform.execution.ledger.port import Claim, Effects, Finished
from hivemesh_platform.execution.model import Output
from hivemesh_platform.execution.steps.parts import Parts

_NOTHING_LEFT = problem("step-failed", "every record of the input was given up")


async def finish(parts: Parts, claim: Claim) -> Effects:
    """End a row whose parts have all ended. Repeatable: it changes nothing before the end.

    Raises:
        StaleAttemptError: the row has gone to a later attempt.
        StorageFullError: there is no space for the joined answer.
    """
    found = await parts.database.read(lambda tx: part_sql.done(tx, claim.key))
    ledger, now = parts.ledger, parts.now()
    if claim.kind == "add" and not found:
        effects = await parts.database.write(
            lambda tx: ledger.fail(tx, claim.key, claim.fence, _NOTHING_LEFT, now)
        )
    else:
        end = await _joined(parts, found)
        effects = await parts.database.write(
            lambda tx: ledger.finish(tx, claim.key, claim.fence, end, now)
        )
    parts.counters.rows_finished += 1
    return effects


async def _joined(parts: Parts, found: list[Part]) -> Finished:
    """A map's batches become one, in order; of a reducer the states stay several."""
    states = [
        output.artifact
        for output in (
            msgspec.json.decode(one.output, type=Output) for one in found if one.output is not None
        )
        if output.artifact is not None
    ]
    if states:
        joined = Output(artifact=states[0], more=tuple(states[1:]))
        return Finished(output=msgspec.json.encode(joined).decode())
    batches = [
        msgspec.json.decode(one.batch, type=BatchRef) for one in found if one.batch is not None
    ]
    return Finished(batch=await join(parts, batches))


async def join(parts: Parts, batches: list[BatchRef]) -> BatchRef | None:
    """One batch out of several, which are NDJSON of one encoding."""
    full = [one for one in batches if one.count]
    if len(full) <= 1:
        return full[0] if full else None
    data = b"".join([await parts.artifacts.read(one.sha256) for one in full])
    stored = await parts.artifacts.put(data, "")
    count = sum(one.count for one in full)
    return BatchRef(stored.sha256, count, stored.size, full[0].encoding)
