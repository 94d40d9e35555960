"""Reads certificate chains from a TLS connection, and when a certificate is valid.

The chains are public in Python 3.13, private before it.
"""

import ssl
from collections.abc import Sequence
from typing import Any

from cryptography import x509


def verified_chain(tls: ssl.SSLObject) -> Sequence[bytes]:
    """How OpenSSL chained the peer, leaf first and root last, as DER; empty where it did not."""
    return _chain(tls, "get_verified_chain")


def presented_chain(tls: ssl.SSLObject) -> Sequence[bytes]:
    """What the peer sent, believed or not, as DER; also after a handshake that we refused."""
    return _chain(tls, "get_unverified_chain")


def times_of(der: bytes, now: float) -> str:
    """Say how far a certificate is from being valid at a time, or "" where it is valid then."""
    certificate = x509.load_der_x509_certificate(der)
    begins = certificate.not_valid_before_utc.timestamp()
    ends = certificate.not_valid_after_utc.timestamp()
    if now < begins:
        return f"it begins in {begins - now:.0f} s"
    return f"it ended {now - ends:.0f} s ago" if now > ends else ""


def _chain(tls: ssl.SSLObject, method: str) -> Sequence[bytes]:
    public = getattr(tls, method, None)
    if public is not None:
        return [bytes(der) for der in public()]
    inner: Any = getattr(tls, "_sslobj", None)
    certificates = getattr(inner, method)() if inner is not None else None
    return [ssl.PEM_cert_to_DER_cert(item.public_bytes()) for item in certificates or ()]
