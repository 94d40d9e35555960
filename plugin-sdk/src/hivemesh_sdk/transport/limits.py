"""What a listener bears, and what all of its connections share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.refusals import Refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one listener bears."""

    connections: int = 1024  # far above any mesh on one machine, far below its file descriptors
    requests: int = 512  # in flight at once; more are answered 429
    receive_s: float = 20.0  # for a whole request, and without any progress of an answer
    receive_rate: int = 64 * 1024  # bytes per second by which a long body gets more time
    idle_s: float = 75.0  # longer than the client's 30 s, so that the client is the one to close
    age_s: float = 900.0  # 15 min; the client retires a connection after 10
    body: int = 16 * 1024 * 1024  # two pages of 8 MiB
    headers: int = 32 * 1024
    retry_after_s: int = 1
    handshake_s: float = 10.0  # a peer that stays silent is dropped
    linger_s: float = 5.0  # how long a refused body is still read, so that the refusal arrives

    @property
    def shared(self) -> int:
        """Of the requests, those that people may fill: a quarter is kept for processes."""
        return self.requests - self.requests // 4


@dataclass(slots=True, kw_only=True)
class Guard:
    """What every connection of one listener shares."""

    limits: Limits
    clock: Clock
    refusals: Refusals
    denials: Denials
    trust_domain: Callable[[], str]
    trusted: Callable[[Sequence[bytes]], bool]  # of the verified chain
    connection_closed: Callable[[], None] = lambda: None
    identity_required: bool = True
