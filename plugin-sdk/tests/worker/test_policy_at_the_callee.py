"""The policy at the callee: it decides after the ticket, and a stale one begins nothing new."""

from dataclasses import dataclass
from datetime import timedelta

import msgspec
import pytest
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.policy import STALE_S, PolicyDocument, SignedPolicy
from hivemesh_sdk.contracts.steps import StepRequest
from hivemesh_sdk.contracts.tickets import TICKET_TYPE, Ticket
from hivemesh_sdk.errors import NotAuthorizedError
from hivemesh_sdk.lifecycle.policy import PolicyStore, Taken
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.identity import Peer, SpiffeId
from hivemesh_sdk.trust.policy import encode_policy, raw_rules, signed_rules
from hivemesh_sdk.worker.access import Access, Own, Right

CONVERT = "doc.convert@1"
RULES = {
    "rules": [
        {
            "id": "platform",
            "from": {"platform": "*"},
            "to": {"worker": "doc-converter"},
            "when": {"on_behalf_of_roles": ["analyst"], "data_class_max": "internal"},
        },
        {"id": "parser", "from": {"worker": "email-parser"}, "to": {"worker": "doc-converter"}},
    ]
}


@dataclass
class Execution:
    right: Right
    key: str = "run_1.a.1.c1"
    attempt: int = 1
    capability: str = CONVERT


class Scene:
    def __init__(self) -> None:
        self.ca, self.clock = ThrowawayCA(), ManualClock()
        self.platform = self.peer(self.ca.platform())
        self.parser = self.peer(self.ca.worker("email-parser", "i1"))
        self.own = self.ca.worker("doc-converter", "c1")
        self.store = PolicyStore(self.ca.source(self.own), Denials(), self.clock)
        self.apply(RULES)
        keys = {self.ca.signing.public.id: self.ca.signing.public}
        own = Own(
            worker="doc-converter",
            identity=lambda: str(self.own),
            keys=lambda: keys,
            clearances={},
            policies=self.store,
        )
        self.access = Access(own, self.clock)

    def peer(self, identity: SpiffeId) -> Peer:
        return Peer(identity, self.clock.now() + timedelta(hours=1), 7, str(identity))

    def apply(self, document: dict, version: int = 1) -> None:
        written = PolicyDocument.model_validate(document)
        rules, deny = signed_rules(written, self.ca.trust_domain)
        policy = SignedPolicy(
            version=version,
            issued_at=round(self.clock.now().timestamp() * 1000) + version,
            trust_domain=self.ca.trust_domain,
            rules=raw_rules(rules),
            deny=deny,
        )
        token = self.ca.signing.sign(encode_policy(policy), "hivemesh-policy")
        assert self.store.take(token) is Taken.NEW

    def ticket(self, holder: Peer | None = None, **changes: object) -> str:
        now = int(self.clock.now().timestamp())
        ticket = Ticket(
            iss=self.platform.uri,
            aud=["doc-converter"],
            azp=holder.uri if holder else str(self.own),
            sub=f"spiffe://{self.ca.trust_domain}/user/anna",
            iat=now,
            exp=now + 890,
            jti=str(changes),
            run="run_1",
            step="run_1.a.1",
            attempt=1,
            cap=CONVERT,
            tenant="a",
            roles=["analyst"],
            calls=[CONVERT],
        )
        ticket = msgspec.structs.replace(ticket, **changes)
        return self.ca.signing.sign(msgspec.json.encode(ticket), TICKET_TYPE)

    def begin(self, caller: Peer, token: str, present: Execution | None = None) -> Right:
        key = "run_1.a.1" if caller is self.platform else "run_1.a.1.c1"
        request = StepRequest(capability=CONVERT, kind="call", attempt=1, epoch=1)
        headers = {b"hivemesh-ticket": token.encode()}
        return self.access.begin(caller, headers, key, request, present)

    def go_on(self, execution: Execution, caller: Peer, token: str) -> None:
        scope = {"state": {"peer": caller}}
        self.access.go_on(scope, {b"hivemesh-ticket": token.encode()}, execution)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def slug_of(scene: Scene, caller: Peer, token: str) -> str:
    with pytest.raises(NotAuthorizedError) as caught:
        scene.begin(caller, token)
    return caught.value.slug


def test_what_a_rule_allows_begins(scene):
    scene.begin(scene.platform, scene.ticket())
    scene.begin(scene.parser, scene.ticket(scene.parser))


@pytest.mark.parametrize(
    "changes",
    [{"roles": ["viewer"]}, {"roles": []}, {"data_class": DataClass.PERSONAL}],
)
def test_a_condition_that_does_not_hold_refuses(scene, changes):
    assert slug_of(scene, scene.platform, scene.ticket(**changes)) == "not-authorized"


def test_a_denied_role_that_the_ticket_does_not_lend_refuses(scene):
    stop = {"id": "stop", "to": {"worker": "*"}, "when": {"on_behalf_of_roles": ["contractor"]}}
    scene.apply({**RULES, "deny": [stop]}, 2)
    scene.begin(scene.platform, scene.ticket())
    token = scene.ticket(other_roles=["contractor"])
    assert slug_of(scene, scene.platform, token) == "not-authorized"


def test_a_valid_ticket_of_a_caller_without_a_rule_is_refused(scene):
    stranger = scene.peer(scene.ca.worker("email-classifier", "i1"))
    assert slug_of(scene, stranger, scene.ticket(stranger)) == "not-authorized"


def test_a_new_version_counts_at_the_next_call(scene):
    token = scene.ticket(scene.parser)
    scene.begin(scene.parser, token)
    scene.apply({**RULES, "deny": [{"id": "stop", "from": {"worker": "email-parser"}}]}, 2)
    assert slug_of(scene, scene.parser, token) == "not-authorized"


def test_under_a_stale_policy_only_work_that_has_begun_goes_on(scene):
    scene.clock.advance(STALE_S - 10)
    seen = scene.ticket(scene.parser)
    begun = Execution(scene.begin(scene.parser, seen))
    scene.clock.advance(20)
    assert scene.store.stale
    assert slug_of(scene, scene.parser, seen) == "policy-stale"  # another call with that ticket
    scene.go_on(begun, scene.parser, seen)
    scene.go_on(begun, scene.parser, scene.ticket(scene.parser))
    scene.begin(scene.parser, begun.right.ticket, begun)  # the same request, sent again
    scene.begin(scene.platform, scene.ticket())
    scene.apply(RULES, 2)
    scene.begin(scene.parser, seen)
