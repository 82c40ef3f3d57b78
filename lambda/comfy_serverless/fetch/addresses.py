"""Decides which network addresses an input may be fetched from.

A job's author chooses the addresses, and this code runs inside an owner's network with the owner's credentials: so a
name is resolved once, each of its addresses is checked, and the connection goes to a checked one.

    never                  link-local and metadata addresses, multicast, ComfyUI itself, Lambda's Runtime API
    never in production    this machine: loopback, 0.0.0.0, every address that one of its interfaces has
    if operators allow it  private networks
    always                 public addresses
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.hosts import effective, is_loopback, is_of_this_machine

#: Returns the IP addresses of a host name.
Resolver = Callable[[str, int], Sequence[str]]

#: A network set aside for protocols; not all versions of Python call it private.
_PROTOCOL_ASSIGNMENTS = IPv4Network("192.0.0.0/24")
#: All public IPv6 addresses there are.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
#: Where AWS serves metadata and credentials over IPv6: fd00:ec2::254 for EC2, fd00:ec2::23 for EKS. The IPv4 twins
#: (169.254.169.254, 169.254.170.2, 169.254.170.23) are link-local.
_METADATA_IPV6 = IPv6Network("fd00:ec2::/32")
_PORTS = {"http": 80, "https": 443}


def system_resolver(host: str, port: int) -> list[str]:
    """The addresses the operating system knows for a host, the best first."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def checked_addresses(
    host: str,
    port: int,
    *,
    allow_private: bool,
    allow_own_host: bool = False,
    closed: Iterable[str] = (),
    resolve: Resolver = system_resolver,
) -> list[str]:
    """The addresses of a host.

    Args:
        allow_own_host: for tests and `make dev`, whose servers are all on this machine.
        closed: services that are refused wherever they are, each as `host:port` or as a web address.

    Raises:
        Unusable: the host is unknown, or one of its addresses is not allowed.
    """
    addresses = _addresses_of(host, port, resolve)
    for address in addresses:
        reason = refusal(address, allow_private=allow_private, allow_own_host=allow_own_host)
        if reason is None and not allow_own_host and is_of_this_machine(address):
            reason = _OWN_HOST
        if reason is None and any(_is_at(address, port, service, resolve) for service in closed):
            reason = "where this worker's own services are"
        if reason is not None:
            raise Unusable(f"the host {host!r} is not allowed: it is at {address}, {reason}")
    return addresses


def _addresses_of(host: str, port: int, resolve: Resolver) -> list[str]:
    try:
        addresses = list(resolve(host, port))
    except (OSError, UnicodeError) as error:
        is_transient = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
        raise Unusable(f"the host {host!r} cannot be found: {error}", transient=is_transient) from error
    if not addresses:
        raise Unusable(f"the host {host!r} has no address")
    return addresses


_OWN_HOST = "an address of this machine itself"


def refusal(address: str, *, allow_private: bool, allow_own_host: bool = False) -> str | None:
    """The reason why nothing may be fetched from an IP address; None if it may. It only looks at the address.

    Link-local addresses, among them the metadata services that hand out credentials, are always refused.
    """
    try:
        parsed = effective(ip_address(address))
    except ValueError:
        return "which is no IP address"
    if parsed.is_link_local or (parsed.version == 6 and parsed in _METADATA_IPV6):
        return "a link-local or metadata address"
    if parsed.is_multicast:
        return "a multicast address"
    if is_loopback(parsed):
        return None if allow_own_host else _OWN_HOST
    if allow_private or _is_public(parsed):
        return None
    return "an address inside a private network (ALLOW_PRIVATE_ADDRESSES allows these)"


def is_aws_here() -> bool:
    """Whether AWS itself is on this machine, as with `make dev`: then everything is, and nothing of it is secret."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3") or ""
    try:
        host = urlsplit(endpoint).hostname or ""
        return host == "localhost" or is_loopback(effective(ip_address(host)))
    except ValueError:
        return False


def _is_at(address: str, port: int, service: str, resolve: Resolver) -> bool:
    """Whether an address and a port are those of a service."""
    parts = urlsplit(service if "//" in service else f"//{service}")
    if (parts.port or _PORTS.get(parts.scheme)) != port:
        return False
    try:
        known = list(resolve(parts.hostname or "", port))
    except (OSError, UnicodeError):  # then nobody reaches it by its name
        return False
    target = effective(ip_address(address))
    is_here = is_of_this_machine(address)
    return any(target == effective(ip_address(other)) or (is_here and is_of_this_machine(other)) for other in known)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    is_possible = address in _GLOBAL_UNICAST if address.version == 6 else address not in _PROTOCOL_ASSIGNMENTS
    return is_possible and address.is_global and not address.is_reserved
