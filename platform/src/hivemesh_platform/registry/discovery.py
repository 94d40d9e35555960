"""Who is shown to whom: a worker sees the capabilities that the policy may let it call. Pure."""

import msgspec
from hivemesh_sdk.contracts.instances import Discovery, Endpoint
from hivemesh_sdk.trust.identity import Kind, Peer
from hivemesh_sdk.trust.policy import CompiledPolicy


def visible(
    found: Discovery, peer: Peer, policy: CompiledPolicy, capability: str = ""
) -> Discovery:
    """The part of a discovery that concerns the asker; people and replicas see all of it.

    With a capability, only those who serve it.
    """
    endpoints = [_shown(endpoint, peer, policy) for endpoint in found.endpoints]
    return Discovery(
        version=found.version,
        endpoints=[
            one
            for one in endpoints
            if one.capabilities and (not capability or capability in one.capabilities)
        ],
    )


def _shown(endpoint: Endpoint, peer: Peer, policy: CompiledPolicy) -> Endpoint:
    if peer.id.kind is not Kind.WORKER or endpoint.identity == peer.uri:
        return endpoint
    may_call = [
        name for name in endpoint.capabilities if policy.may(peer.uri, endpoint.worker, name)
    ]
    return msgspec.structs.replace(endpoint, capabilities=may_call)
