"""The deny list: identities and certificates that are refused before they expire."""

from collections.abc import Callable, Iterable

from hivemesh_sdk.trust.identity import Peer, covers

Subscriber = Callable[[], None]


class Denials:
    """What is refused now; `epoch` changes with every change, so a check is remembered by it."""

    def __init__(self) -> None:
        self.epoch = 0
        self._serials: frozenset[int] = frozenset()
        self._rules: tuple[str, ...] = ()
        self._subscribers: list[Subscriber] = []

    def replace(self, *, serials: Iterable[int] = (), identities: Iterable[str] = ()) -> None:
        """Refuse exactly these certificates and identities (exact, or prefixes ending in `/*`)."""
        self._serials = frozenset(serials)
        self._rules = tuple(identities)
        self.touch()
        for subscriber in tuple(self._subscribers):
            subscriber()

    def touch(self) -> None:
        """Have every open connection checked again at its next request."""
        self.epoch += 1

    def refuses(self, peer: Peer) -> bool:
        """Say whether this peer is on the list."""
        return peer.serial in self._serials or any(covers(rule, peer.uri) for rule in self._rules)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` after each `replace`; returns the function that ends it."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe
