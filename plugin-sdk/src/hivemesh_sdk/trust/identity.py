"""Who a certificate speaks for: SPIFFE IDs, the DNS names derived from them, and the peer's check.

A valid chain is not enough: OpenSSL accepts two URI names and foreign trust domains. What
SPIFFE (X509-SVID, section 5.2) demands of a validator is checked here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography import x509

from hivemesh_sdk.errors import ConfigurationError

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TRUST_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_SEGMENT = re.compile(_LABEL)
_KINDS = {"platform": 2, "worker": 3, "user": 2}  # path segments of each kind


class Kind(StrEnum):
    """What an identity is: a replica of the platform, a worker instance or a person."""

    PLATFORM = "platform"
    WORKER = "worker"
    USER = "user"


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """An identity of this product: `spiffe://<trust domain>/<kind>/…`, always valid once made."""

    trust_domain: str
    path: tuple[str, ...]

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        if not self.path or _KINDS.get(self.path[0]) != len(self.path):
            message = f"{'/'.join(self.path)!r} is no identity path; known are {list(_KINDS)}"
            raise ConfigurationError(message)
        for segment in self.path:
            if not _SEGMENT.fullmatch(segment):
                message = f"{segment!r} in an identity must be a DNS label"
                raise ConfigurationError(message)

    @classmethod
    def platform(cls, trust_domain: str, replica: str) -> "SpiffeId":
        """Identity of one platform process."""
        return cls(trust_domain, ("platform", replica))

    @classmethod
    def worker(cls, trust_domain: str, worker: str, instance: str) -> "SpiffeId":
        """Identity of one worker process."""
        return cls(trust_domain, ("worker", worker, instance))

    @classmethod
    def user(cls, trust_domain: str, name: str) -> "SpiffeId":
        """Identity of a person or of the operator's command."""
        return cls(trust_domain, ("user", name))

    @classmethod
    def parse(cls, text: str) -> "SpiffeId":
        """Read `spiffe://<trust domain>/<kind>/…`.

        Raises:
            ConfigurationError: the text is no identity of this product.
        """
        scheme, separator, rest = text.partition("://")
        if scheme != "spiffe" or not separator:
            message = f"{text!r} is no SPIFFE ID; it must begin with 'spiffe://'"
            raise ConfigurationError(message)
        trust_domain, _, path = rest.partition("/")
        return cls(trust_domain, tuple(path.split("/")) if path else ())

    @property
    def kind(self) -> Kind:
        """Platform, worker or user."""
        return Kind(self.path[0])

    @property
    def name(self) -> str:
        """The replica, worker type or user."""
        return self.path[1]

    @property
    def instance(self) -> str:
        """The last segment: the worker's instance, the platform's replica, the user."""
        return self.path[-1]

    @property
    def dns_names(self) -> tuple[str, ...]:
        """Names of the certificate: most specific first, then the name of the pool."""
        kind, *rest = self.path
        specific = ".".join((*reversed(rest), kind, self.trust_domain))
        if self.kind is Kind.USER:
            return (specific,)
        pool = ".".join((*reversed(rest[:-1]), kind, self.trust_domain))
        return (specific, pool)

    @property
    def prefix(self) -> str:
        """The rule that covers every sibling: `spiffe://td/worker/<type>/*`."""
        return "/".join((f"spiffe://{self.trust_domain}", *self.path[:-1], "*"))

    def __str__(self) -> str:
        return "/".join((f"spiffe://{self.trust_domain}", *self.path))


@dataclass(frozen=True, slots=True)
class Peer:
    """The verified other end of a connection."""

    id: SpiffeId
    not_after: datetime
    serial: int
    uri: str = ""  # the ID as text, made once per connection

    def matches(self, rule: str) -> bool:
        """Say whether an exact ID or a prefix that ends in `/*` covers this peer."""
        return covers(rule, self.uri)


class PeerIdentityError(Exception):
    """The certificate is no identity of this installation; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def covers(rule: str, uri: str) -> bool:
    """Say whether a rule (an exact ID, or a prefix that ends in `/*`) covers an ID."""
    if rule.endswith("/*") and rule.count("/") > 2:  # never every trust domain
        return uri.startswith(rule[:-1]) and len(uri) >= len(rule)
    return uri == rule


def check_trust_domain(name: str) -> str:
    """Return the trust domain unchanged.

    Raises:
        ConfigurationError: it is no lower-case DNS name of at least two labels.
    """
    if len(name) > 190 or not _TRUST_DOMAIN.fullmatch(name):  # 253 less our own labels
        message = f"{name!r} is no trust domain; use a lower-case DNS name with a dot in it"
        raise ConfigurationError(message)
    return name


def peer_identity(der: bytes, trust_domain: str) -> Peer:
    """Read the identity out of a certificate whose chain OpenSSL has verified.

    Raises:
        PeerIdentityError: it is not exactly one identity of this trust domain.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        _refuse_authorities(extensions)
        identity = _identity(extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        message = "the certificate cannot be read"
        raise PeerIdentityError(message) from error
    if identity.trust_domain != trust_domain:
        message = f"trust domain {identity.trust_domain!r} is not ours ({trust_domain!r})"
        raise PeerIdentityError(message)
    return Peer(
        id=identity,
        not_after=certificate.not_valid_after_utc,
        serial=certificate.serial_number,
        uri=str(identity),
    )


def _refuse_authorities(extensions: x509.Extensions) -> None:
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        message = "basic constraints or key usage are missing"
        raise PeerIdentityError(message) from error
    if constraints.ca or usage.key_cert_sign or usage.crl_sign:
        message = "it is a certificate authority"
        raise PeerIdentityError(message)


def _identity(extensions: x509.Extensions) -> SpiffeId:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        message = "it carries no subject alternative name"
        raise PeerIdentityError(message) from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        message = f"it carries {len(uris)} URI names instead of one"
        raise PeerIdentityError(message)
    _refuse_addresses(names)
    try:
        return SpiffeId.parse(uris[0])
    except ConfigurationError as error:
        raise PeerIdentityError(error.detail) from error


def _refuse_addresses(names: x509.SubjectAlternativeName) -> None:
    if names.get_values_for_type(x509.IPAddress):
        message = "it carries an IP address"
        raise PeerIdentityError(message)
    if any(_is_local(name) for name in _dns(names)):
        message = "it carries a localhost name"
        raise PeerIdentityError(message)


def _dns(names: x509.SubjectAlternativeName) -> Sequence[str]:
    return names.get_values_for_type(x509.DNSName)


def _is_local(name: str) -> bool:
    return name.lower().rstrip(".").endswith(("localhost", "localdomain"))
