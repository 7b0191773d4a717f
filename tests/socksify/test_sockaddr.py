"""Socket addresses and messages as they stand in memory."""

from __future__ import annotations

import ctypes
import errno
import socket
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given, strategies as st

from socksproxy.socksify import sockaddr
from socksproxy.wire.words import Address

ports = st.integers(0, 65535)
ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.integers(1 << 64, (1 << 128) - 1).map(lambda number: str(IPv6Address(number)))


@given(ipv4 | ipv6, ports)
def test_what_is_built_is_parsed(host: str, port: int) -> None:
    raw = sockaddr.build(socket.AF_INET6, host, port)
    assert sockaddr.parse(raw) == Address.of(str(IPv6Address(host)) if ":" in host else host, port)


@given(ipv4, ports)
def test_an_ipv4_address_for_an_ipv4_socket(host: str, port: int) -> None:
    raw = sockaddr.build(socket.AF_INET, host, port)
    assert len(raw) == 16
    assert sockaddr.parse(raw) == Address.of(host, port)


def test_the_kernel_reads_what_is_built() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        raw = sockaddr.build(socket.AF_INET, "127.0.0.1", 1234)
        assert ctypes.CDLL(None).connect(link.fileno(), raw, len(raw)) == 0
        assert link.getpeername() == ("127.0.0.1", 1234)


def test_an_ipv6_host_is_not_for_an_ipv4_socket() -> None:
    with pytest.raises(ValueError, match="does not reach ::1"):
        sockaddr.build(socket.AF_INET, "::1", 1)


@pytest.mark.parametrize(
    "raw", [b"", b"\2", b"\2\0" + bytes(13), b"\x0a\0" + bytes(21), bytes(16), b"\1\0/run/x"]
)
def test_what_is_no_internet_address(raw: bytes) -> None:
    assert sockaddr.parse(raw) is None


@given(st.tuples(ipv4, ports) | st.tuples(ipv6, ports, st.integers(0, 0xFFFFF), st.integers(0, 2**31)))
def test_addresses_of_python(address: tuple[Any, ...]) -> None:
    raw = sockaddr.from_python(address)
    assert sockaddr.for_python(raw) == (
        (str(IPv6Address(address[0])), *address[1:]) if ":" in address[0] else address
    )


class Copy:
    """A program's memory."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def read(self, place: int, size: int) -> bytes:
        if place + size > len(self.data):
            raise OSError(errno.EFAULT, "bad address")
        return bytes(self.data[place : place + size])

    def write(self, place: int, data: bytes) -> None:
        self.data[place : place + len(data)] = data


HEADER = (b"\x11" + bytes(7) + b"\x10\0\0\0" + bytes(4) + b"\x38" + bytes(7) + b"\2" + bytes(7)
          + b"\x22" + bytes(7) + b"\x18" + bytes(7) + bytes(8))  # fmt: skip
PARTS = b"\x05" + bytes(7) + b"\x06" + bytes(7) + b"\x07" + bytes(7) + b"\x08" + bytes(7)


def test_a_message() -> None:
    memory: Any = Copy(HEADER + PARTS)
    message = sockaddr.read_message(memory, 0)
    assert message == ((0x11, 16), [(5, 6), (7, 8)], (0x22, 0x18))
    sockaddr.write_sizes(memory, 0, 28, 5, socket.MSG_TRUNC)
    assert sockaddr.read_message(memory, 0) == ((0x11, 28), [(5, 6), (7, 8)], (0x22, 5))
    assert memory.read(48, 4) == b"\x20\0\0\0"


def test_a_message_with_too_many_parts() -> None:
    memory: Any = Copy(HEADER[:24] + (1025).to_bytes(8, "little") + HEADER[32:])
    with pytest.raises(OSError, match="too long") as caught:
        sockaddr.read_message(memory, 0)
    assert caught.value.errno == errno.EMSGSIZE


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.binary(max_size=40))))
def test_control_data(items: list[tuple[int, int, bytes]]) -> None:
    data = sockaddr.build_control(items)
    assert len(data) % 8 == 0
    assert sockaddr.parse_control(data) == items


@pytest.mark.parametrize("size", [0, 15, 33, 1 << 40])
def test_control_data_that_is_none(size: int) -> None:
    with pytest.raises(OSError, match="invalid"):
        sockaddr.parse_control(size.to_bytes(8, "little") + bytes(24))
