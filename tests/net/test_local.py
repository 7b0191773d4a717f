"""What the kernel knows of this machine's addresses and routes."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from socksproxy.net.local import address_towards, has_route, is_local

OTHERS = "192.0.2.1"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.200.1.1"])
def test_ours(host: str) -> None:
    assert is_local(host)


def test_ours_ipv6() -> None:
    table = Path("/proc/net/if_inet6")
    assert is_local("::1") is (table.exists() and " lo\n" in table.read_text())


@pytest.mark.parametrize("host", [OTHERS, "2001:db8::1", "fe80::1"])
def test_others(host: str) -> None:
    assert not is_local(host)


def test_out_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nobody can tell: it is denied now, and not permitted for ever after."""

    def none_left(*args: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", none_left)
        assert is_local("127.0.0.1")
        assert is_local(OTHERS)
    assert is_local("127.0.0.1")
    assert not is_local(OTHERS)


def test_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without IPv6 no such address is ours."""

    def unsupported(*args: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", unsupported)
    assert not is_local("2001:db8::5")


@pytest.mark.parametrize("port", [0, 9, 443])
def test_address_towards(port: int) -> None:
    """Port 0 is no destination, and a route does not depend on the port."""
    assert address_towards("127.0.0.1", port) == "127.0.0.1"
    assert has_route("127.0.0.1", port)


def test_no_route() -> None:
    """Nothing leads to the broadcast address without a permission that no probe has."""
    assert not has_route("255.255.255.255")
    with pytest.raises(OSError):  # noqa: PT011 - the errno is the system's choice
        address_towards("255.255.255.255")
