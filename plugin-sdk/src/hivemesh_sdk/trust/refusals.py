"""Counts and logs every connection that was refused, with the reason in words.

Reasons are a closed set, so that they may be labels of a metric. Lines are limited to one per
reason and ten seconds: a port scan must not fill the disk.
"""

import ssl
from collections import Counter
from collections.abc import Callable
from enum import StrEnum

import structlog

from hivemesh_sdk.clock import Clock, SystemClock


class Reason(StrEnum):
    """Why a peer was turned away."""

    PLAIN_HTTP = "plain-http"
    NOT_TLS = "not-tls"
    TLS_VERSION = "tls-version"
    NO_CERTIFICATE = "no-certificate"
    UNTRUSTED = "untrusted-root"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    PURPOSE = "wrong-purpose"
    AUTHORITY = "authority-as-peer"
    NAME_CONSTRAINT = "name-constraint"
    CERTIFICATE = "certificate-invalid"
    IDENTITY = "peer-identity-invalid"
    NO_IDENTITY = "no-peer-identity"
    REVOKED = "peer-revoked"
    CONNECTIONS = "too-many-connections"
    REQUESTS = "too-many-requests"
    SLOW = "receive-deadline"
    TOO_LARGE = "too-large"
    MALFORMED = "malformed-http"
    PEER_GAVE_UP = "peer-refused-us"
    HANDSHAKE = "handshake"


_BY_SSL_REASON = {
    "HTTP_REQUEST": Reason.PLAIN_HTTP,
    "HTTPS_PROXY_REQUEST": Reason.PLAIN_HTTP,
    "WRONG_VERSION_NUMBER": Reason.NOT_TLS,
    "BAD_RECORD_TYPE": Reason.NOT_TLS,
    "UNKNOWN_PROTOCOL": Reason.NOT_TLS,
    "UNSUPPORTED_PROTOCOL": Reason.TLS_VERSION,
    "VERSION_TOO_LOW": Reason.TLS_VERSION,
    "NO_SHARED_CIPHER": Reason.TLS_VERSION,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Reason.NO_CERTIFICATE,
}
# X509_V_ERR_* of openssl/x509_vfy.h
_BY_VERIFY_CODE = {
    9: Reason.NOT_YET_VALID,
    10: Reason.EXPIRED,
    18: Reason.UNTRUSTED,
    19: Reason.UNTRUSTED,
    20: Reason.UNTRUSTED,
    21: Reason.UNTRUSTED,
    24: Reason.AUTHORITY,
    25: Reason.AUTHORITY,
    26: Reason.PURPOSE,
    47: Reason.NAME_CONSTRAINT,
    48: Reason.NAME_CONSTRAINT,
    79: Reason.AUTHORITY,
}

Listener = Callable[[Reason, str], None]  # why, and who, as far as it is known


class Refusals:
    """The counter and the log of refused peers of one process."""

    LOG_EVERY_S = 10.0

    def __init__(self, clock: Clock | None = None) -> None:
        self.counts: Counter[Reason] = Counter()
        self._clock = clock or SystemClock()
        self._logged: dict[Reason, tuple[float, int]] = {}
        self._listeners: list[Listener] = []
        self._log = structlog.get_logger("hivemesh.trust")

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with each refusal, for a metric for instance."""
        self._listeners.append(listener)

    def add(self, reason: Reason, detail: str, **fields: str) -> None:
        """Count a refusal and log it unless the same reason was logged just now."""
        self.counts[reason] += 1
        for listener in self._listeners:
            listener(reason, fields.get("peer", ""))
        now = self._clock.monotonic()
        last, unlogged = self._logged.get(reason, (-self.LOG_EVERY_S, 0))
        if now - last < self.LOG_EVERY_S:
            self._logged[reason] = (last, unlogged + 1)
            return
        self._logged[reason] = (now, 0)
        self._log.info(
            "peer_refused", reason=reason.value, detail=detail, not_logged=unlogged, **fields
        )

    def handshake(self, error: ssl.SSLError) -> None:
        """Count a failed handshake."""
        self.add(handshake_reason(error), handshake_detail(error))


def handshake_reason(error: ssl.SSLError) -> Reason:
    """Translate OpenSSL's reason into one of ours."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _BY_VERIFY_CODE.get(error.verify_code, Reason.CERTIFICATE)
    reason = _openssl_reason(error)
    if "ALERT" in reason:
        return Reason.PEER_GAVE_UP
    return _BY_SSL_REASON.get(reason, Reason.HANDSHAKE)


def handshake_detail(error: ssl.SSLError) -> str:
    """OpenSSL's own words, without file and line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    return _openssl_reason(error).lower().replace("_", " ") or "handshake failed"


def is_certificate_alert(error: ssl.SSLError) -> bool:
    """Say whether the other side ended the handshake because of our certificate."""
    reason = _openssl_reason(error)
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)


def _openssl_reason(error: ssl.SSLError) -> str:
    return getattr(error, "reason", None) or ""  # absent where it was not OpenSSL that raised it
