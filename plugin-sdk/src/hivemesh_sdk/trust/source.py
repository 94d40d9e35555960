"""Holds the current identity and trust bundle of a process and the contexts made from them.

Listeners and clients take their contexts here at each handshake; `update` replaces all of them
at once, so a rotation is one assignment.
"""

import ssl
from collections.abc import Callable

from hivemesh_sdk.trust.bundle import Bundle, certificate_id
from hivemesh_sdk.trust.contexts import (
    client_context,
    enrolment_context,
    enrolment_front_context,
    front_context,
    server_context,
)
from hivemesh_sdk.trust.keys import Svid
from hivemesh_sdk.trust.refusals import Refusals

Subscriber = Callable[["IdentitySource"], None]


class IdentitySource:
    """The identity of this process, replaceable while it serves."""

    def __init__(self, svid: Svid, bundle: Bundle, *, refusals: Refusals | None = None) -> None:
        self.refusals = refusals or Refusals()
        self._svid = svid
        self._bundle = bundle
        self._server, self._client = server_context(svid, bundle), client_context(svid, bundle)
        self._enrolment: ssl.SSLContext | None = None
        self._subscribers: list[Subscriber] = []

    def svid(self) -> Svid:
        """The identity in use."""
        return self._svid

    def bundle(self) -> Bundle:
        """The trust bundle in use."""
        return self._bundle

    @property
    def issuer(self) -> str:
        """The issuer of the identity in use, as bundles call it."""
        return certificate_id(self._svid.chain[1]) if len(self._svid.chain) > 1 else ""

    @property
    def tainted(self) -> bool:
        """Whether the identity is to be renewed before its time: its root or issuer is leaving."""
        return self._bundle.taints(self._svid.chain)

    @property
    def trust_domain(self) -> str:
        """The only trust domain whose peers are accepted."""
        return self._bundle.trust_domain

    def update(self, *, svid: Svid | None = None, bundle: Bundle | None = None) -> None:
        """Replace identity, bundle or both for all handshakes from now on.

        An older bundle than the present one is ignored: answers may overtake each other.
        """
        if bundle is not None and bundle.sequence < self._bundle.sequence:
            bundle = None
        svid, bundle = svid or self._svid, bundle or self._bundle
        server, client = server_context(svid, bundle), client_context(svid, bundle)
        self._svid, self._bundle, self._server, self._client = svid, bundle, server, client
        self._enrolment = None
        for subscriber in tuple(self._subscribers):
            subscriber(self)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` after each update; returns the function that ends it."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def client_context(self) -> ssl.SSLContext:
        """The context of new outgoing connections."""
        return self._client

    def front_context(self) -> ssl.SSLContext:
        """A context for a mesh listener, valid across every update."""
        return front_context(lambda: self._server, self.refusals)

    def enrolment_front_context(self) -> ssl.SSLContext:
        """A context for an enrolment listener, valid across every update."""
        return enrolment_front_context(self._enrolment_context, self.refusals)

    def _enrolment_context(self) -> ssl.SSLContext:
        if self._enrolment is None:
            self._enrolment = enrolment_context(self._svid, self._bundle)
        return self._enrolment
