"""Which network addresses inputs may come from."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_serverless.fetch.addresses import checked_addresses, refusal, system_resolver
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.fetch.web import Network
from comfy_serverless.settings import Settings
from tests.unit.test_hosts import own_addresses

PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:4700::6810:85e5", "64:ff9b::808:808", "2002:808:808::1"]
OWN = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.8.8.8", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "2002:7f00:1::1"]
PRIVATE = [
    "10.0.0.1",
    "100.64.0.1",
    "172.16.0.1",
    "192.0.0.8",
    "192.168.1.1",
    "198.18.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::10.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "2001:db8::1",
    "fc00::1",
    "fec0::1",
    "100::1",
]
NEVER = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "::169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1",
    "fd00:ec2::254",
    "fd00:ec2::23",
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


@pytest.mark.parametrize("address", OWN)
def test_this_machine_is_no_private_network(address: str) -> None:
    for is_allowed in (False, True):
        assert "this machine" in (refusal(address, allow_private=is_allowed) or "")
        with pytest.raises(Unusable, match="this machine itself"):
            checked_addresses("x.example", 8188, allow_private=is_allowed, resolve=lambda *_: [address])
    assert refusal(address, allow_private=True, allow_own_host=True) is None


@pytest.mark.parametrize("address", NEVER)
def test_metadata_and_multicast_addresses_are_never_allowed(address: str) -> None:
    assert refusal(address, allow_private=False)
    assert refusal(address, allow_private=True, allow_own_host=True)


def test_no_address_of_this_machine_is_fetched_from_whatever_its_network() -> None:
    for address in own_addresses():
        with pytest.raises(Unusable, match="this machine itself"):
            checked_addresses("x.example", 8188, allow_private=True, resolve=lambda *_, found=address: [found])


SERVICES = {"comfyui.internal": ["10.0.0.5"], "alias.example": ["10.0.0.5"], "other.example": ["10.0.0.6"]}


@pytest.mark.parametrize("service", ["http://user:secret@comfyui.internal:8188/base", "comfyui.internal:8188"])
@pytest.mark.parametrize("host", ["comfyui.internal", "alias.example"])
def test_the_services_of_the_worker_are_closed_under_every_name(service: str, host: str) -> None:
    def check(host: str, port: int) -> list[str]:
        return checked_addresses(
            host, port, allow_private=True, closed=[service], resolve=lambda name, _: SERVICES[name]
        )

    with pytest.raises(Unusable, match="own services are") as raised:
        check(host, 8188)
    assert "secret" not in str(raised.value)
    assert check(host, 443) == ["10.0.0.5"]
    assert check("other.example", 8188) == ["10.0.0.6"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::ffff:127.0.0.1"])
def test_they_are_closed_where_this_machine_is_open_too(address: str) -> None:
    with pytest.raises(Unusable, match="own services are"):
        checked_addresses(
            *("x.example", 8188),
            allow_private=True,
            allow_own_host=True,
            closed=["http://127.0.0.1:8188"],
            resolve=lambda name, _: [address] if name == "x.example" else [name],
        )


@pytest.mark.parametrize(
    ("endpoint", "is_here"),
    [
        *((f"http://{host}:4566", True) for host in ("127.0.0.1", "localhost", "[::1]")),
        *((endpoint, False) for endpoint in ("", "https://s3.example", "http://10.0.0.5:4566", "http://[broken")),
    ],
)
def test_this_machine_is_open_only_where_aws_itself_is_on_it(
    endpoint: str, is_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert Network.of(Settings(allow_private_addresses=True)).allow_own_host is is_here
    assert not Network.of(Settings()).allow_own_host


def test_what_a_worker_never_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    network = Network.of(Settings(comfyui_url="http://10.0.0.5:8188"), engine=lambda: "http://127.0.0.1:8189")
    assert set(network.closed()) == {"127.0.0.1:9001", "http://10.0.0.5:8188", "http://127.0.0.1:8189"}


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
