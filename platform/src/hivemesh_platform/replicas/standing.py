"""Under which id and epoch this process commits; every commit of the ledger checks it."""

from dataclasses import dataclass

from hivemesh_platform.replicas import store
from hivemesh_platform.replicas.model import StaleReplicaError
from hivemesh_platform.storage.transaction import Transaction


@dataclass(slots=True)
class Standing:
    """The replica that this process is; its epoch changes when it has to join again.

    Without a replica (parts that are tested alone) nothing is checked.
    """

    replica: str = ""
    epoch: int = 0
    refused: int = 0  # claims, heartbeats and take-overs, since the start of the process

    def check(self, tx: Transaction) -> None:
        """Refuse to go on in a transaction if this replica was declared dead.

        Raises:
            StaleReplicaError: it was; others hold what it held.
        """
        if self.replica and not store.is_current(tx, self.replica, self.epoch):
            raise self.stale()

    def stale(self) -> StaleReplicaError:
        """The refusal of a commit."""
        self.refused += 1
        message = f"replica {self.replica!r} was declared dead; its rows have gone to others"
        return StaleReplicaError(message)
