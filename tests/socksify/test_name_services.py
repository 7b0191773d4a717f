"""Which Unix sockets lead to a look-up."""

from __future__ import annotations

import pytest

from socksproxy.socksify.name_services import is_name_service


@pytest.mark.parametrize(
    "path",
    [
        b"/var/run/nscd/socket",
        b"/run/nscd/socket",
        b"/run//nscd/../nscd/socket\0rest",
        b"/run/systemd/resolve/io.systemd.Resolve\0",
        b"/var/run/avahi-daemon/socket",
    ],
)
def test_a_name_service(path: bytes) -> None:
    assert is_name_service(b"\1\0" + path)


@pytest.mark.parametrize(
    "address",
    [b"", b"\1\0", b"\1\0\0/run/nscd/socket", b"\1\0/run/dbus/system_bus_socket", b"\2\0/run/nscd/socket"],
)
def test_others(address: bytes) -> None:
    assert not is_name_service(address)
