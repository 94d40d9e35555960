"""Reads certificate chains from a TLS connection; public in Python 3.13, private before it."""

import ssl
from collections.abc import Sequence
from typing import Any


def verified_chain(tls: ssl.SSLObject) -> Sequence[bytes]:
    """How OpenSSL chained the peer, leaf first and root last, as DER; empty where it did not."""
    return _chain(tls, "get_verified_chain")


def presented_chain(tls: ssl.SSLObject) -> Sequence[bytes]:
    """What the peer sent, believed or not, as DER; also after a handshake that we refused."""
    return _chain(tls, "get_unverified_chain")


def _chain(tls: ssl.SSLObject, method: str) -> Sequence[bytes]:
    public = getattr(tls, method, None)
    if public is not None:
        return [bytes(der) for der in public()]
    inner: Any = getattr(tls, "_sslobj", None)
    certificates = getattr(inner, method)() if inner is not None else None
    return [ssl.PEM_cert_to_DER_cert(item.public_bytes()) for item in certificates or ()]
