"""Which network addresses inputs may come from."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_serverless.fetch.addresses import checked_addresses, refusal, system_resolver
from comfy_serverless.fetch.sources import Unusable

PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:4700::6810:85e5", "64:ff9b::808:808", "2002:808:808::1"]
PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.8.8.8",
    "172.16.0.1",
    "192.0.0.8",
    "192.168.1.1",
    "198.18.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "2002:7f00:1::1",
    "2001:db8::1",
    "fc00::1",
    "fec0::1",
    "100::1",
]
NEVER = [
    "169.254.169.254",
    "169.254.170.2",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "224.0.0.1",
    "ff02::1",
    "not an address",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert refusal(address, allow_private=False) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_allowed_only_on_demand(address: str) -> None:
    assert "ALLOW_PRIVATE_ADDRESSES" in (refusal(address, allow_private=False) or "")
    assert refusal(address, allow_private=True) is None


@pytest.mark.parametrize("address", NEVER)
def test_metadata_and_multicast_addresses_are_never_allowed(address: str) -> None:
    assert refusal(address, allow_private=False)
    assert refusal(address, allow_private=True)


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_in_every_ipv6_dress(address: ipaddress.IPv4Address) -> None:
    plain = refusal(str(address), allow_private=False) is None
    for dress in (
        f"::ffff:{address}",
        f"64:ff9b::{address}",
        str(ipaddress.IPv6Address((0x2002 << 112) | int(address) << 80)),
    ):
        assert (refusal(dress, allow_private=False) is None) == plain


def test_one_bad_address_among_good_ones_refuses_the_host() -> None:
    with pytest.raises(Unusable, match=r"'evil\.example' is not allowed: it is at 169\.254\.169\.254"):
        checked_addresses("evil.example", 443, allow_private=False, resolve=lambda *_: ["8.8.8.8", "169.254.169.254"])


def test_a_good_host_answers_all_its_addresses() -> None:
    addresses = ["8.8.8.8", "2606:4700::1"]
    assert checked_addresses("x.example", 443, allow_private=False, resolve=lambda *_: addresses) == addresses


@pytest.mark.parametrize("spelling", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost", "[::1]".strip("[]")])
def test_other_spellings_of_loopback_are_seen_through(spelling: str) -> None:
    with pytest.raises(Unusable, match="not allowed"):
        checked_addresses(spelling, 443, allow_private=False, resolve=system_resolver)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), False),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), True),
        (UnicodeError("label too long"), False),
    ],
)
def test_a_host_that_cannot_be_found_is_named(error: Exception, transient: bool) -> None:
    def resolve(*_: object) -> list[str]:
        raise error

    with pytest.raises(Unusable, match=r"'nowhere\.example' cannot be found") as caught:
        checked_addresses("nowhere.example", 443, allow_private=True, resolve=resolve)
    assert caught.value.transient is transient


def test_a_host_without_addresses_is_refused() -> None:
    with pytest.raises(Unusable, match="has no address"):
        checked_addresses("x.example", 443, allow_private=True, resolve=lambda *_: [])
