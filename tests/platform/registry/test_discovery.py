"""A worker is shown whom the policy may let it call; people and replicas are shown everybody."""

from datetime import UTC, datetime

import pytest
from hivemesh_platform.registry.discovery import visible
from hivemesh_sdk.contracts.instances import Discovery
from hivemesh_sdk.contracts.policy import PolicyDocument, SignedPolicy
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.trust.identity import Peer, SpiffeId
from hivemesh_sdk.trust.policy import CompiledPolicy, raw_rules, signed_rules
from registry_support import TRUST_DOMAIN, instance

BOTH = frozenset({"echo.say@1", "echo.shout@1"})
ASKER = SpiffeId.worker(TRUST_DOMAIN, "asker", "a1")


@pytest.fixture
def policy() -> CompiledPolicy:
    """The asker may call one of two capabilities, and nothing else."""
    only = {
        "id": "r",
        "from": {"worker": "asker"},
        "to": {"worker": "echo", "capabilities": ["echo.say@1"]},
        "when": {},
    }
    rules, deny = signed_rules(
        PolicyDocument.model_validate({"version": 1, "rules": [only]}), TRUST_DOMAIN, ()
    )
    return CompiledPolicy(
        SignedPolicy(
            version=1, issued_at=1, trust_domain=TRUST_DOMAIN, rules=raw_rules(rules), deny=deny
        )
    )


def peer(who: SpiffeId) -> Peer:
    return Peer(id=who, not_after=datetime(2036, 1, 1, tzinfo=UTC), serial=1, uri=str(who))


FOUND = Discovery(version=1, endpoints=[instance(ManualClock(), capabilities=BOTH).endpoint()])


def shown(who: SpiffeId, policy: CompiledPolicy, capability: str = "") -> list[set[str]]:
    return [
        set(one.capabilities) for one in visible(FOUND, peer(who), policy, capability).endpoints
    ]


def test_a_worker_sees_what_it_may_call(policy: CompiledPolicy) -> None:
    assert shown(ASKER, policy) == [{"echo.say@1"}]
    assert shown(ASKER, policy, "echo.say@1") == [{"echo.say@1"}]
    assert shown(ASKER, policy, "echo.shout@1") == []


def test_a_worker_that_may_call_nobody_sees_nobody(policy: CompiledPolicy) -> None:
    assert shown(SpiffeId.worker(TRUST_DOMAIN, "stranger", "s1"), policy) == []


@pytest.mark.parametrize(
    "who",
    [
        SpiffeId.worker(TRUST_DOMAIN, "echo", "i1"),  # itself
        SpiffeId.platform(TRUST_DOMAIN, "p1"),
        SpiffeId.user(TRUST_DOMAIN, "operator"),
    ],
)
def test_the_instance_itself_replicas_and_people_see_all_of_it(
    who: SpiffeId, policy: CompiledPolicy
) -> None:
    assert shown(who, policy) == [set(BOTH)]
    assert shown(who, policy, "echo.nothing@1") == []
