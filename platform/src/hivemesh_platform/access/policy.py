"""What processes may do, by the kind of their certificate. Pure; what is not listed is denied.

What people may do is decided by their grants, see `model`.
"""

from hivemesh_sdk.errors import NotAuthorizedError
from hivemesh_sdk.trust.identity import Kind, Peer

# Ownership (this instance, the step that is held) is checked by the service that knows it.
_WORKER = frozenset(
    {
        "artifacts:grant",
        "artifacts:transfer",
        "bundle:read",
        "discovery:read",
        "identity:renew",
        "instances:self",
        "jobs:submit",
        "policy:fetch",
        "secrets:resolve",
        "tickets:exchange",
    }
)
_REPLICA = frozenset({"bundle:read", "discovery:read", "policy:fetch"})
# What every certificate of this installation is for; what people see of policy and workers is a
# matter of their grants.
OF_CERTIFICATES = frozenset({"bundle:read", "identity:renew"})
# What processes may do of that which people may do; workers have nothing of it.
GRANTS: dict[Kind, tuple[str, ...]] = {Kind.PLATFORM: ("read:metrics", "read:status")}

RULES: dict[Kind, frozenset[str]] = {
    Kind.WORKER: _WORKER,
    Kind.USER: OF_CERTIFICATES,
    Kind.PLATFORM: _REPLICA,
}
ACTIONS = frozenset().union(*RULES.values())


def allows(peer: Peer, action: str) -> bool:
    """Say whether the peer may do the action."""
    return action in RULES.get(peer.id.kind, frozenset())


def check(peer: Peer, action: str) -> None:
    """Refuse what is not allowed.

    Raises:
        NotAuthorizedError: no rule allows it.
    """
    if not allows(peer, action):
        message = f"{peer.uri} has no rule that allows {action}"
        raise NotAuthorizedError(message)
