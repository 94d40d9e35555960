"""Reads certificate chains from a TLS connection; public in Python 3.13, private before it."""

import ssl
from collections.abc import Sequence
from typing import Any


def verified_root(tls: ssl.SSLObject) -> bytes:
    """The root that OpenSSL chained the peer to, as DER; empty where there is none."""
    chain = _chain(tls, "get_verified_chain")
    return chain[-1] if chain else b""


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
