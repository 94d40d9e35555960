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
        (WORKER, "runs:read", False),
        (WORKER, "runs:write", False),
        (WORKER, "workers:write", False),
        (WORKER, "datasets:read", False),
        (WORKER, "artifacts:write", False),
        (WORKER, "metrics:read", False),
        (OPERATOR, "runs:write", True),
        (OPERATOR, "workers:write", True),
        (OPERATOR, "instances:self", False),
        (OPERATOR, "artifacts:grant", False),
        (REPLICA, "status:read", True),
        (REPLICA, "runs:write", False),
    ],
)
def test_each_kind_of_peer_has_its_actions(peer: Peer, action: str, *, allowed: bool) -> None:
    assert allows(peer, action) is allowed


@pytest.mark.parametrize("peer", [OPERATOR, REPLICA, WORKER])
def test_what_nobody_listed_is_denied(peer: Peer) -> None:
    with pytest.raises(NotAuthorizedError):
        check(peer, "everything:do")


def test_the_refusal_names_the_peer_and_the_action() -> None:
    with pytest.raises(NotAuthorizedError, match=r"worker/echo/i1 has no rule that allows runs:"):
        check(WORKER, "runs:write")


def test_actions_are_a_resource_and_a_verb() -> None:
    assert all(len(action.split(":")) == 2 for action in ACTIONS)
