"""Which addresses lead to this machine."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

#: "This host on this network": the kernel connects 0.0.0.0 to this machine.
_THIS_HOST = IPv4Network("0.0.0.0/8")
_NAT64 = IPv6Network("64:ff9b::/96")
#: IPv4 addresses in an old dress: `::127.0.0.1`.
_IPV4_COMPATIBLE = IPv6Network("::/96")


def effective(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address leads to, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo:
        return address.teredo[1]
    if address in _IPV4_COMPATIBLE and int(address) > 1:  # `::` and `::1` are themselves
        return IPv4Address(int(address))
    return address.ipv4_mapped or address.sixtofour or address


def is_loopback(address: IPv4Address | IPv6Address) -> bool:
    """Whether the kernel keeps what is sent there on this machine, whatever its interfaces are."""
    return address.is_loopback or address.is_unspecified or (address.version == 4 and address in _THIS_HOST)


def is_of_this_machine(address: str) -> bool:
    """Whether an IP address leads to this machine: loopback, or an address of one of its interfaces."""
    parsed = effective(ip_address(address))
    if is_loopback(parsed):
        return True
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(parsed), 0))  # the kernel lets nobody else's address be taken
    except OSError:
        return False
    return True


def names_this_machine(host: str) -> bool:
    """Whether a host is this machine: `localhost`, a name below it, or an address of ours. No name is looked up."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return is_of_this_machine(name.partition("%")[0])
    except ValueError:
        pass
    try:  # also in the short forms that the C library takes: `127.1`
        return is_of_this_machine(socket.inet_ntoa(socket.inet_aton(name)))
    except OSError:
        return False
