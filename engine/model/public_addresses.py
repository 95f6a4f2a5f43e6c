"""Is an address one of the public Internet? What may be called at somebody's word must not lead into one's own network, to
the machine itself, or to a cloud's metadata (server-side request forgery)."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_LOCAL_NAMES = ("localhost", "localdomain", "local", "internal", "home.arpa")
"""Last labels of names that are nobody's in the public DNS (RFC 6761, 6762, 8375; `.internal` is reserved by ICANN)."""

_CLOUD_HOSTS = frozenset({IPv4Address("168.63.129.16")})
"""Azure's, which is nobody's beyond its own machines, though its number is public."""

_NAT64, _LOCAL_NAT64 = IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48")
"""Behind these prefixes lies IPv4 (RFC 6052, 8215)."""


def is_public_address(written: str) -> bool:
    """Whether an IP address is globally reachable unicast; False for what is no address. One that leads to an IPv4 address
    is public if that is."""
    try:
        address = ip_address(written.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return _is_global_unicast(address)
    inner = _embedded_address(address)
    if inner is not None:
        return _is_global_unicast(inner)
    ours = address.is_site_local or address.teredo is not None or address in _LOCAL_NAT64
    return _is_global_unicast(address) and not ours


def is_public_host(host: str) -> bool:
    """Whether a URL's host may be public: an address that is, or a name with a dot that is not known to be local. What a name
    leads to is seen when it is called."""
    name = host.rstrip(".").lower()
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        last = name.rpartition(".")[2]
        is_number = last.isdigit() or last.startswith("0x")  # 127.1, which many take for an address
        return "." in name and not is_number and not any(name.endswith(f".{local}") for local in _LOCAL_NAMES)
    return is_public_address(name)


def _is_global_unicast(address: IPv4Address | IPv6Address) -> bool:
    if address in _CLOUD_HOSTS:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _embedded_address(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to: mapped, by 6to4, or by NAT64."""
    nat64 = IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
    return address.ipv4_mapped or address.sixtofour or nat64
