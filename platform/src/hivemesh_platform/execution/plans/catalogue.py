"""The capabilities of the installed worker types, as plans and jobs ask for them."""

from hivemesh_sdk.contracts.artifacts import DataClass

from hivemesh_platform.execution.ports import KnownCapability
from hivemesh_platform.registry.types import WorkerTypes


class InstalledCatalogue:
    """Implements `Catalogue` over the installed manifests."""

    def __init__(self, types: WorkerTypes) -> None:
        self._types = types

    def find(self, capability: str) -> KnownCapability | None:
        """Return the capability, or None where no installed manifest declares it."""
        for installed in self._types.all():
            manifest = installed.type.manifest
            declared = manifest.capability(capability)
            if declared is not None:
                metadata = manifest.metadata
                return KnownCapability(
                    worker=metadata.name,
                    version=metadata.version,
                    declared=declared,
                    permissions=manifest.permissions,
                )
        return None

    def clearance(self, capability: str) -> DataClass:
        """The highest class that a capability may be given; public where it is not installed."""
        known = self.find(capability)
        return DataClass.PUBLIC if known is None else known.declared.data_class_max

    def names(self) -> list[str]:
        """Return the ids of all installed capabilities."""
        return sorted(
            one.id
            for installed in self._types.all()
            for one in installed.type.manifest.capabilities
        )
