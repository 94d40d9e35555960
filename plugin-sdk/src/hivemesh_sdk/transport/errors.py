"""What can go wrong between two processes, and whether the request may have been seen."""

from hivemesh_sdk.errors import RetryableError


class TransportError(RetryableError):
    """No usable answer; `sent` says whether a byte of the request may have left this process."""

    slug = "worker-unreachable"
    among_others = False  # it has ended other exchanges too, and whose fault it is nobody knows

    def __init__(self, detail: str, *, sent: bool) -> None:
        super().__init__(detail)
        self.sent = sent


class WorkerUnreachableError(TransportError):
    """Nobody listens there, the connection broke, or what came back is no HTTP."""


class PeerRefusedError(TransportError):
    """One side refused the other's certificate."""


class DeadlineExceededError(TransportError):
    """The answer did not come in time."""

    slug = "deadline-exceeded"


def why_unreachable(error: OSError) -> str:
    """Words for a failed connect; a reset during the handshake brings none of its own."""
    return error.strerror or str(error) or "the connection was closed during the handshake"
