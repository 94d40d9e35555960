"""What ticket and policy cost a callee: CPU of the decision alone, without network and step.

The decision is the one that `hivemesh_sdk.worker.routes` asks for each request.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.policy import PolicyDocument, SignedPolicy
from hivemesh_sdk.contracts.steps import StepRequest
from hivemesh_sdk.contracts.tickets import Ticket
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.trust.identity import Peer, SpiffeId
from hivemesh_sdk.trust.jws import SigningKey
from hivemesh_sdk.trust.policy import CompiledPolicy, raw_rules, signed_rules
from hivemesh_sdk.worker.access import Access, Own
from rows import Row, figure

DOMAIN = "bench.hivemesh.internal"
BOOK, CONVERT = "ledger.book@1", "doc.convert@1"
PLATFORM = SpiffeId.platform(DOMAIN, "p1")
LEDGER = SpiffeId.worker(DOMAIN, "ledger", "l1")
CONVERTER = SpiffeId.worker(DOMAIN, "converter", "c1")
COUNT = 4000
COMMAND = "make bench (bench/run.py authorization)"
RULES = {
    "rules": [
        {
            "id": name,
            "from": {"spiffe": f"spiffe://{DOMAIN}/{source}/*"},
            "to": {"worker": "ledger", "capabilities": [BOOK]},
            "when": {"on_behalf_of_roles": ["analyst"], "data_class_max": "personal"},
        }
        for name, source in (("platform", "platform"), ("converter", "worker/converter"))
    ]
}


class FixedPolicies:
    """One policy that is always fresh."""

    stale = False

    def __init__(self) -> None:
        rules, deny = signed_rules(PolicyDocument.model_validate(RULES), DOMAIN)
        signed = SignedPolicy(
            version=1, issued_at=1, trust_domain=DOMAIN, rules=raw_rules(rules), deny=deny
        )
        self._policy = CompiledPolicy(signed)

    def current(self) -> CompiledPolicy:
        """The policy."""
        return self._policy


def measure(*, quick: bool) -> Iterator[Row]:
    """The decision for the platform, for a seen ticket and for the first use of one."""
    count = COUNT // 4 if quick else COUNT
    key = SigningKey(Ed25519PrivateKey.generate())
    tickets = ThrowawayTickets(key, str(PLATFORM))
    keys = {key.public.id: key.public}
    own = Own(
        worker="ledger",
        identity=lambda: str(LEDGER),
        keys=lambda: keys,
        clearances={BOOK: DataClass.PERSONAL},
        policies=FixedPolicies(),
    )
    access = Access(own, SystemClock())
    request = StepRequest(capability=BOOK, kind="call", attempt=1, epoch=1)

    def decide(scope: dict[str, object], step: str, ticket: str) -> Callable[[], object]:
        headers = {b"hivemesh-ticket": ticket.encode()}
        return lambda: access.begin(scope, headers, step, request)

    def for_platform(number: int) -> Callable[[], object]:
        step = f"run_1.book.{number}"
        claims = tickets.claims(LEDGER, step, BOOK)
        return decide(_scope(PLATFORM), step, tickets.sign(claims))

    def for_worker(number: int) -> Callable[[], object]:
        step = f"run_1.convert.{number}"
        return decide(_scope(CONVERTER), f"{step}.book", tickets.sign(_calling(tickets, step)))

    platform = [for_platform(number) for number in range(count)]
    worker = [for_worker(number) for number in range(count)]
    yield _row("platform (a ticket per step)", _microseconds(platform), 30)
    yield _row("first use of a ticket between workers", _microseconds(worker), 250)
    yield _row("a ticket that was seen", _microseconds(worker), 30)
    payloads = [tickets.claims(LEDGER, f"run_1.book.{number}", BOOK) for number in range(count)]
    signing = [lambda claims=claims: tickets.sign(claims) for claims in payloads]
    yield figure(
        "authorization: signing a ticket, CPU", _microseconds(signing), "us", command=COMMAND
    )


def _calling(tickets: ThrowawayTickets, step: str) -> Ticket:
    return tickets.claims(CONVERTER, step, CONVERT, aud=["converter", "ledger"], calls=[BOOK])


def _scope(identity: SpiffeId) -> dict[str, object]:
    later = datetime.now(UTC) + timedelta(hours=1)
    return {"state": {"peer": Peer(identity, later, 1, str(identity))}}


def _row(name: str, value: float, limit: int) -> Row:
    return figure(f"authorization: {name}, CPU", value, "us", f"<= {limit}", command=COMMAND)


def _microseconds(calls: list[Callable[[], object]]) -> float:
    """CPU of one call, over all of them."""
    begun = time.process_time_ns()
    for call in calls:
        call()
    return (time.process_time_ns() - begun) / len(calls) / 1000
