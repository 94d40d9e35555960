"""Explains where attempts were placed, and why rows wait: with every candidate as it stands now."""

from collections.abc import Mapping
from dataclasses import dataclass

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.api import ExplainView
from pydantic import JsonValue

from hivemesh_platform.execution.ledger import limit_sql, store
from hivemesh_platform.execution.ledger.claim_sql import claim_of
from hivemesh_platform.execution.ledger.port import Claim, milliseconds
from hivemesh_platform.execution.ports import Placement, Requirement, Survey
from hivemesh_platform.execution.rights.secrets import SecretGate
from hivemesh_platform.execution.rights.tickets import TicketMint
from hivemesh_platform.execution.runs import views
from hivemesh_platform.execution.steps.requirement import requirement_of
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Row, Transaction

SOON_MS = 1000  # what is tried again within this time does not wait for the time
_Key = tuple[str, tuple[tuple[str, str], ...], str]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A row that waits, and what a limit of all rows of its capability says."""

    row: Row
    claim: Claim
    limit: str


class Explanations:
    """Reads what was kept of placements, and asks placement anew for what waits."""

    def __init__(
        self,
        database: Database,
        placement: Placement,
        secrets: SecretGate,
        tickets: TicketMint,
        clock: Clock,
    ) -> None:
        self._database = database
        self._placement = placement
        self._secrets = secrets
        self._tickets = tickets
        self._clock = clock

    async def of(self, run: str, after: int, limit: int) -> list[ExplainView]:
        """Return why each attempt was placed where it was, behind an offset; then what waits."""
        now = milliseconds(self._clock)

        def read(tx: Transaction) -> tuple[list[Row], list[_Waiting]]:
            rows = store.attempts(tx, run, after, limit)
            left = limit - len(rows)
            if not left:
                return rows, []
            behind = max(0, after - store.attempts_of(tx, run))
            return rows, _waiting(tx, store.waiting(tx, run, behind, left), now)

        rows, waiting = await self._database.read(read)
        surveys: dict[_Key, Survey] = {}
        return [
            *map(views.explain_view, rows),
            *(self._view(one, self._survey(one.claim, surveys), now) for one in waiting),
        ]

    def _survey(self, claim: Claim, known: dict[_Key, Survey]) -> Survey:
        """What the instances are for a row now; the same for all rows that ask for the same."""
        wanted = requirement_of(claim)
        key = _key(wanted)
        if key not in known:
            known[key] = self._placement.survey(wanted)
        return known[key]

    def _view(self, one: _Waiting, found: Survey, now: int) -> ExplainView:
        held = self._secrets.holds_back(one.claim.capability) or one.limit
        if one.row["state"] == "waiting":
            held = one.row["reason"]
        candidates = [self._candidate(each, one.claim, held) for each in found.candidates]
        return views.waiting_view(
            one.row,
            reason=held or _reason(one.row, found.reason, now),
            candidates=candidates,
            not_listed=found.not_listed,
        )

    def _candidate(
        self, candidate: Mapping[str, JsonValue], claim: Claim, held: str
    ) -> dict[str, JsonValue]:
        """A candidate, with what the row or the policy has against it where it has a slot free."""
        unmet = candidate["unmet"] or held
        if not unmet:
            denied = self._tickets.denied(claim, str(candidate["worker"]))
            unmet = f"policy: {denied}" if denied else ""
        return {**candidate, "unmet": unmet}


def _waiting(tx: Transaction, rows: list[Row], now: int) -> list[_Waiting]:
    limits = limit_sql.reasons(tx, {row["capability"] for row in rows}, now)
    return [_Waiting(row, claim_of(tx, row), limits.get(row["capability"], "")) for row in rows]


def _key(wanted: Requirement) -> _Key:
    labels = tuple(sorted(wanted.labels.items()))
    return wanted.capability, labels, wanted.data_class.value


def _reason(row: Row, nobody: str, now: int) -> str:
    """Why a row waits that nothing holds back but its time, its place in the queue or the mesh."""
    if row["state"] == "blocked":
        return "the steps that give its options have not ended"
    failed = row["retries"] or row["crashes"]  # others are put off because nobody takes them
    if row["not_before"] - now > SOON_MS and (failed or not nobody):
        when = f"it is tried again at {views.iso(row['not_before'])}"
        return f"{when}: {row['reason']}" if row["reason"] else when
    return nobody or row["reason"] or "it is queued: a slot is free, and rows before it go first"
