"""Decides which network addresses an input may be fetched from.

A job's author chooses the addresses, and this code runs inside an owner's network with the owner's credentials: so a
name is resolved once, each of its addresses is checked, and the connection goes to a checked one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from comfy_serverless.fetch.sources import Unusable

#: Returns the IP addresses of a host name.
Resolver = Callable[[str, int], Sequence[str]]

#: A network set aside for protocols; not all versions of Python call it private.
_PROTOCOL_ASSIGNMENTS = IPv4Network("192.0.0.0/24")
#: All public IPv6 addresses there are.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
#: The instance metadata service of EC2 over IPv6. Its IPv4 twin is link-local.
_METADATA_IPV6 = IPv6Address("fd00:ec2::254")


def system_resolver(host: str, port: int) -> list[str]:
    """The addresses the operating system knows for a host, the best first."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def checked_addresses(host: str, port: int, *, allow_private: bool, resolve: Resolver = system_resolver) -> list[str]:
    """The addresses of a host. Raises Unusable if the host is unknown, or if one of them is not allowed."""
    try:
        addresses = list(resolve(host, port))
    except (OSError, UnicodeError) as error:
        is_transient = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
        raise Unusable(f"the host {host!r} cannot be found: {error}", transient=is_transient) from error
    if not addresses:
        raise Unusable(f"the host {host!r} has no address")
    for address in addresses:
        if reason := refusal(address, allow_private=allow_private):
            raise Unusable(f"the host {host!r} is not allowed: it is at {address}, {reason}")
    return addresses


def refusal(address: str, *, allow_private: bool) -> str | None:
    """The reason why nothing may be fetched from an IP address; None if it may.

    Link-local addresses, among them the metadata services that hand out credentials, are always refused.
    """
    try:
        parsed = _effective(ip_address(address))
    except ValueError:
        return "which is no IP address"
    if parsed.is_link_local or parsed == _METADATA_IPV6:
        return "a link-local or metadata address"
    if parsed.is_multicast:
        return "a multicast address"
    if allow_private or _is_public(parsed):
        return None
    return "an address inside a private network (ALLOW_PRIVATE_ADDRESSES allows these)"


def _effective(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address leads to, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    is_possible = address in _GLOBAL_UNICAST if address.version == 6 else address not in _PROTOCOL_ASSIGNMENTS
    return is_possible and address.is_global and not address.is_reserved
