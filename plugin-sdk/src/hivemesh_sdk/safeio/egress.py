"""Where outgoing requests may go: parsed URLs and the rules that name destinations. Pure.

A rule is `host`, `*.domain`, `*`, an address or a network, each with an optional `:port` (443
where it is left out, IPv6 in brackets), and `http://` in front of it where plain HTTP is meant.
Two lists decide: what the worker's manifest declares, and which of these may be internal.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

from hivemesh_sdk.errors import InvalidError, NotAuthorizedError
from hivemesh_sdk.safeio.addresses import Address, special

MAX_URL = 8192
HTTPS, HTTP = "https", "http"
_PORTS = {HTTPS: 443, HTTP: 80}
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL})(?:\.{_LABEL})*")
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:0x[0-9a-f]*|[0-9]+)$")
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]|\\")
_RULE = re.compile(r"(?:(https?)://)?(\[[0-9a-f:./]+\]|[^\[\]:]+)(?::(\d{1,5}))?")


class EgressDeniedError(NotAuthorizedError):
    """The destination is not allowed; nothing was sent."""

    slug = "egress-denied"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that was taken apart; `host` is a lower-case name or the plain form of an address."""

    scheme: str
    host: str
    port: int
    path: str  # with the query

    @property
    def address(self) -> Address | None:
        """The address, where the URL names one instead of a host."""
        return _address(self.host)

    @property
    def origin(self) -> tuple[str, str, int]:
        """What must be equal for two URLs to belong together (RFC 6454)."""
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        """The origin for people; path and query may hold what is private."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_url(url: str) -> Target:
    """Take an absolute http or https URL apart, strictly.

    Raises:
        InvalidError: it is no such URL, carries a user, or writes an address in a disguised form.
    """
    if len(url) > MAX_URL or _UNPRINTABLE.search(url):
        message = f"{url[:80]!r} is no URL: too long, or with characters to be percent-encoded"
        raise InvalidError(message)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        message = f"{url[:80]!r} is no URL: {error}"
        raise InvalidError(message) from error
    if parts.scheme not in _PORTS:
        message = f"{url[:80]!r} is no URL that can be fetched; write https://…"
        raise InvalidError(message)
    if "@" in parts.netloc:
        message = "a URL may not carry a user or password; send them as a header"
        raise InvalidError(message)
    path = parts.path or "/"
    return Target(
        scheme=parts.scheme,
        host=_host(parts.hostname or "", url),
        port=_PORTS[parts.scheme] if port is None else port,
        path=f"{path}?{parts.query}" if parts.query else path,
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """One destination; `network` where it is an address or a range, else `host`."""

    scheme: str
    host: str
    port: int
    network: IPv4Network | IPv6Network | None = None

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Read a rule.

        Raises:
            InvalidError: it is none.
        """
        match = _RULE.fullmatch(text.strip().lower())
        if match is None:
            raise _no_rule(text)
        scheme, host = match[1] or HTTPS, match[2].strip("[]")
        port = int(match[3]) if match[3] else _PORTS[scheme]
        if not 0 < port <= 65_535:
            raise _no_rule(text)
        try:
            return cls(scheme, "", port, ip_network(host))
        except ValueError as error:
            name = host.removeprefix("*.")
            if host != "*" and (not _NAME.fullmatch(name) or _ENDS_IN_NUMBER.search(name)):
                raise _no_rule(text) from error
        return cls(scheme, host, port)

    def names(self, target: Target) -> bool:
        """Whether it is about this target, by its name or the address in its URL."""
        if (self.scheme, self.port) != (target.scheme, target.port):
            return False
        if self.network is not None:
            address = target.address
            return address is not None and self.holds(address)
        if self.host == "*":
            return True
        if self.host.startswith("*."):
            return target.host.endswith(self.host[1:])
        return self.host == target.host

    def holds(self, address: Address) -> bool:
        """Whether the address lies in its network."""
        network = self.network
        return network is not None and network.version == address.version and address in network


class Egress:
    """Decides about destinations: `declared` by the manifest, `internal` by the operator's policy."""

    def __init__(self, declared: Iterable[str], internal: Iterable[str] = ()) -> None:
        self._declared = tuple(Rule.parse(text) for text in declared)
        self._internal = tuple(Rule.parse(text) for text in internal)

    def check_target(self, target: Target) -> None:
        """Refuse what is not declared.

        Raises:
            EgressDeniedError: no rule names it.
        """
        if not any(rule.names(target) for rule in self._declared):
            message = f"{target} is not declared; list it under permissions.egress in plugin.yaml"
            raise EgressDeniedError(message)

    def check_address(self, target: Target, address: Address) -> None:
        """Refuse a special address unless a rule opens it for this target.

        Raises:
            EgressDeniedError: nobody has allowed it.
        """
        kind = special(address)
        if kind and not any(self._opens(rule, target, address) for rule in self._internal):
            message = (
                f"{target} leads to {address} ({kind}); an internal target needs a rule under "
                "`egress` in the policy"
            )
            raise EgressDeniedError(message)

    def _opens(self, rule: Rule, target: Target, address: Address) -> bool:
        if (rule.scheme, rule.port) != (target.scheme, target.port):
            return False
        return rule.holds(address) if rule.network is not None else rule.names(target)


def _host(host: str, url: str) -> str:
    """A canonical host: RFC 1123 names, dotted quads and plain IPv6, in no other spelling."""
    name = host.rstrip(".").lower()
    if ":" in name:
        try:
            address = IPv6Address(name)
        except AddressValueError as error:
            message = f"{url[:80]!r} holds no IPv6 address that can be used"
            raise InvalidError(message) from error
        if address.scope_id is not None:
            message = "an address of one interface cannot be fetched from"
            raise InvalidError(message)
        return str(address)
    if _ENDS_IN_NUMBER.search(name):
        if (found := _address(name)) is not None:
            return str(found)
        message = f"{name[:80]!r} is a number in disguise; write an address as 192.0.2.1"
        raise InvalidError(message)
    if len(name) > 253 or not _NAME.fullmatch(name):
        message = f"{url[:80]!r} names no host; write names outside ASCII as xn--…"
        raise InvalidError(message)
    return name


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _no_rule(text: str) -> InvalidError:
    message = (
        f"{text[:80]!r} is no destination; write host, *.domain, 10.0.0.0/8:5432 or [fd00::/8]:443"
    )
    return InvalidError(message)
