"""From where does somebody sign in? What one gets wrong, and what one begins, is counted by that.

Who comes by a trusted proxy comes from where it says, in X-Forwarded-For: each proxy writes there, behind what it got, by whom it was
asked. So the right-most address that is no trusted proxy is the one that the outermost of them has seen; what stands before that,
anybody may have written. A proxy that hands on what it got as it is would let everybody come from anywhere. So all who come by one are
counted together too, up to PROXY_SHARE times as much: nobody has more than that by saying where they are.
"""

from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from config.settings.console_settings import ConsoleSettings

PROXY_SHARE = 10
"""How many times as much as an address all of a proxy may get wrong, or begin."""


class ClientAddress(NamedTuple):
    """`proxy`: the trusted one that says so; empty, if it is the address of the connection."""

    own: str
    proxy: str = ""

    def counted_as(self, most: int) -> list[tuple[str, int]]:
        """The names under which something of this address is counted, each with how much of it there may be, if it is `most` for
        an address."""
        counted = [(self.own, most)]
        return [*counted, (f"proxy {self.proxy}", PROXY_SHARE * most)] if self.proxy else counted


def find_client(settings: ConsoleSettings, connected: str, forwarded_for: str) -> ClientAddress:
    """Whose request is it that comes from `connected`, with this X-Forwarded-For (empty: none)?"""
    if not settings.trusts(connected):
        return ClientAddress(connected)
    for written in reversed(forwarded_for.split(",")):
        address = _parse_hop(written.strip())
        if not address:
            break
        if not settings.trusts(address):
            return ClientAddress(address, connected)
    return ClientAddress(connected)


def _parse_hop(written: str) -> str:
    """An address, of which some proxies write the port too; empty, if it is none."""
    if written.startswith("["):
        written = written[1:].partition("]")[0]
    elif written.count(":") == 1:
        written = written.partition(":")[0]
    try:
        address = ip_address(written)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
