"""Which addresses lead to this machine."""

from __future__ import annotations

import contextlib
import socket

import pytest

from comfy_serverless.hosts import is_of_this_machine, names_this_machine


def own_addresses() -> list[str]:
    """The addresses of this machine's interfaces, as those that it connects from; its loopback, if it has no other."""
    found = []
    for family, remote in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.connect((remote, 9))  # sends nothing
            found.append(str(probe.getsockname()[0]))
    return found or ["127.0.0.1"]


def test_the_addresses_of_its_interfaces_are_this_machine() -> None:
    for address in own_addresses():
        assert is_of_this_machine(address)
        assert names_this_machine(address)


@pytest.mark.parametrize("address", ["192.0.2.1", "10.255.255.254", "8.8.8.8", "2001:db8::1", "fc00::1"])
def test_other_machines_are_not_this_one(address: str) -> None:
    assert not is_of_this_machine(address)
    assert not names_this_machine(address)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "LocalHost.",
            "comfy.localhost",
            "127.0.0.1",
            "127.1",
            "127.8.8.8",
            "0.0.0.0",
            "0",
            "0x7f000001",
        ),
        *("::1", "::", "::ffff:127.0.0.1", "::1%lo"),
    ],
)
def test_a_host_that_is_always_this_machine(host: str) -> None:
    assert names_this_machine(host)


@pytest.mark.parametrize(
    "host", ["localhost.example", "comfyui.internal", "notlocalhost", "gpu", "", "1.2.3.4.example"]
)
def test_a_name_that_may_be_elsewhere(host: str) -> None:
    assert not names_this_machine(host)
