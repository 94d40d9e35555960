"""Which network addresses are public. Pure; the table is ours, because the library's is no filter.

`ipaddress.is_global` calls NAT64 and 6to4 forms of a loopback address global. Here an address is
public only if no row names it: the special-purpose registries of IANA (RFC 6890, as of 2026),
multicast, and addresses at which clouds tell a machine its own credentials. Addresses that carry
another one inside (mapped, NAT64, 6to4, Teredo) are refused whatever they carry.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address

_ROWS = (
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by a carrier"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "a cloud's metadata"),
    ("169.254.0.0/16", "link-local, where clouds keep metadata"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved for protocols"),
    ("192.0.2.0/24", "documentation"),
    ("192.31.196.0/24", "reserved for DNS sinks"),
    ("192.52.193.0/24", "multicast tunnels"),
    ("192.88.99.0/24", "6to4 relays"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", "reserved for DNS sinks"),
    ("198.18.0.0/15", "benchmarks"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "an IPv4 address in disguise (mapped)"),
    ("::/96", "an IPv4 address in disguise (compatible)"),
    ("64:ff9b::/96", "an IPv4 address in disguise (NAT64)"),
    ("64:ff9b:1::/48", "an IPv4 address in disguise (local NAT64)"),
    ("100::/64", "discarded"),
    ("100:0:0:1::/64", "reserved for protocols"),
    ("2001::/32", "an IPv4 address in disguise (Teredo)"),
    ("2001::/23", "reserved for protocols"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "an IPv4 address in disguise (6to4)"),
    ("2620:4f:8000::/48", "reserved for DNS sinks"),
    ("3fff::/20", "documentation"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # nothing else has been given out
_TABLE: tuple[tuple[IPv4Network | IPv6Network, str], ...] = tuple(
    (ip_network(network), kind) for network, kind in _ROWS
)


def special(address: Address) -> str:
    """Say what kind of special address it is, in a word or two; "" for a public one."""
    for network, kind in _TABLE:
        if address.version == network.version and address in network:
            return kind
    if isinstance(address, IPv6Address):
        if address not in _GLOBAL_UNICAST:
            return "not given out by IANA"
        if address.scope_id is not None:
            return "of one interface"
    return ""
