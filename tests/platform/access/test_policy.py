import pytest
from api_support import OPERATOR, REPLICA, WORKER
from hivemesh_platform.access.policy import ACTIONS, allows, check
from hivemesh_sdk.errors import NotAuthorizedError
from hivemesh_sdk.trust.identity import Peer


@pytest.mark.parametrize(
    ("peer", "action", "allowed"),
    [
        (WORKER, "instances:self", True),
        (WORKER, "identity:renew", True),
        (WORKER, "artifacts:grant", True),
        (WORKER, "read:run", False),
        (WORKER, "write:worker", False),
        (OPERATOR, "identity:renew", True),
        (OPERATOR, "bundle:read", True),
        (OPERATOR, "instances:self", False),
        (OPERATOR, "artifacts:grant", False),
        (OPERATOR, "policy:fetch", False),  # people ask for read:policy and read:worker
        (OPERATOR, "discovery:read", False),
        (WORKER, "policy:fetch", True),
        (REPLICA, "policy:fetch", True),
        (REPLICA, "discovery:read", True),
        (REPLICA, "instances:self", False),
    ],
)
def test_each_kind_of_process_has_its_actions(peer: Peer, action: str, *, allowed: bool) -> None:
    assert allows(peer, action) is allowed


@pytest.mark.parametrize("peer", [OPERATOR, REPLICA, WORKER])
def test_what_nobody_listed_is_denied(peer: Peer) -> None:
    with pytest.raises(NotAuthorizedError):
        check(peer, "everything:do")


def test_the_refusal_names_the_peer_and_the_action() -> None:
    with pytest.raises(NotAuthorizedError, match=r"worker/echo/i1 has no rule that allows x:y"):
        check(WORKER, "x:y")


def test_actions_are_a_resource_and_a_verb() -> None:
    assert all(len(action.split(":")) == 2 for action in ACTIONS)
