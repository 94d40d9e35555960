"""Consent: what the installed manifests ask for becomes rules of the policy, here and nowhere else.

What lies in the operator's folders of workers counts as consented.
"""

import asyncio
from collections.abc import Callable, Sequence

from hivemesh_sdk.contracts.policy import DenyList as SignedDenyList

from hivemesh_platform.access.policy_service import PolicyService
from hivemesh_platform.access.workload_policy import InstalledWorker
from hivemesh_platform.registry.model import InstanceState
from hivemesh_platform.registry.service import RegistryService
from hivemesh_platform.trust.model import DenyList

EVERY_S = 2.0


def installed_workers(registry: RegistryService) -> Sequence[InstalledWorker]:
    """The workers whose manifests count, and whether an instance of them is live."""
    live = {
        listing.instance.worker
        for listing in registry.instances()
        if listing.state is InstanceState.LIVE
    }
    return [
        InstalledWorker(
            name=worker.name,
            capabilities=frozenset(one.id for one in worker.manifest.capabilities),
            calls=worker.manifest.permissions.call,
            live=worker.name in live,
        )
        for worker in registry.types()
    ]


async def keep(policy: PolicyService, leads: Callable[[], bool] = lambda: True) -> None:
    """Take over changed manifests, until cancelled; of several replicas the leader does."""
    while True:
        await asyncio.sleep(EVERY_S)
        if leads():
            await policy.consent()


def signed_denials(denials: DenyList) -> SignedDenyList:
    """The deny list as the signed policy carries it."""
    return SignedDenyList(
        serials=sorted(f"{serial:x}" for serial in denials.serials),
        identities=sorted(denials.identities),
        packages=sorted(denials.packages),
    )
