"""
Socket addresses as they stand in a program's memory (``struct sockaddr``), and messages (``struct msghdr``).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import NamedTuple

from ..wire.words import Address, AddressType
from .kernel import Memory

#: The longest address that the kernel takes (``struct sockaddr_storage``).
LONGEST = 128
_FAMILY = struct.Struct("=H")
_IPV4_SIZE, _IPV6_SIZE = 16, 24  # the kernel takes an IPv6 address without a scope
#: What an IPv4 address is preceded by in an IPv6 address (RFC 4291, section 2.5.5.2).
MAPPED = bytes(10) + b"\xff\xff"

# struct msghdr of 64-bit machines, and one struct iovec.
_HEADER = struct.Struct("=QI4xQQQQi4x")
_IOVEC = struct.Struct("=QQ")
#: Bytes of a ``struct msghdr``. In a ``struct mmsghdr`` the size of the message follows.
HEADER_SIZE = _HEADER.size
#: Bytes from one ``struct mmsghdr`` of an array to the next.
HEADERS_STEP = 64
# Where the fields stand that a call that receives changes.
_NAME_SIZE_AT, _CONTROL_SIZE_AT, _FLAGS_AT = 8, 40, 48
_MOST_BUFFERS = 1024
_CONTROL = struct.Struct("=Qii")
#: Control data that the kernel takes, about as much (``net.core.optmem_max``).
MOST_CONTROL = 131072


class Buffer(NamedTuple):
    """A place in a program's memory, and how many bytes there are."""

    place: int
    size: int


class SocketMessage(NamedTuple):
    """
    What a call sends or receives: places in the program's memory.

    :ivar name: the address of the other side; its place is 0 where there is none.
    :ivar parts: the data, in order.
    :ivar control: the control data.
    """

    name: Buffer
    parts: list[Buffer]
    control: Buffer = Buffer(0, 0)


def read_message(memory: Memory, place: int) -> SocketMessage:
    """
    The ``struct msghdr`` at *place*.

    :raises OSError: (EFAULT, EMSGSIZE) as sendmsg(2) has it.
    """
    name, name_size, iov, count, control, control_size, _ = _HEADER.unpack(memory.read(place, HEADER_SIZE))
    if count > _MOST_BUFFERS:
        raise OSError(errno.EMSGSIZE, "message too long")
    parts = [Buffer(*part) for part in _IOVEC.iter_unpack(memory.read(iov, count * _IOVEC.size))]
    return SocketMessage(Buffer(name, name_size), parts, Buffer(control, min(control_size, MOST_CONTROL)))


def write_sizes(memory: Memory, place: int, name_size: int, control_size: int, flags: int) -> None:
    """Put into the ``struct msghdr`` at *place* what has been received."""
    memory.write(place + _NAME_SIZE_AT, name_size.to_bytes(4, "little"))
    memory.write(place + _CONTROL_SIZE_AT, control_size.to_bytes(8, "little"))
    memory.write(place + _FLAGS_AT, flags.to_bytes(4, "little"))


def parse_control(data: bytes) -> list[tuple[int, int, bytes]]:
    """The items of control *data* (cmsg(3)): level, type and content."""
    items, at = [], 0
    while at + _CONTROL.size <= len(data):
        size, level, kind = _CONTROL.unpack_from(data, at)
        if not _CONTROL.size <= size <= len(data) - at:
            raise OSError(errno.EINVAL, "invalid argument")
        items.append((level, kind, data[at + _CONTROL.size : at + size]))
        at += _aligned(size)
    return items


def build_control(items: Iterable[tuple[int, int, bytes]]) -> bytes:
    """The reverse of :func:`parse_control`."""
    data = b""
    for level, kind, content in items:
        size = _CONTROL.size + len(content)
        data += _CONTROL.pack(size, level, kind) + content + bytes(_aligned(size) - size)
    return data


def _aligned(size: int) -> int:
    return size + 7 & ~7


def family_of(raw: bytes) -> int:
    """The family of the address *raw*; -1: it is too short to have one."""
    return int(_FAMILY.unpack_from(raw)[0]) if len(raw) >= _FAMILY.size else -1


def parse(raw: bytes) -> Address | None:
    """The internet address *raw*, an IPv4 address that is mapped into IPv6 as IPv4; None: it is none."""
    family = family_of(raw)
    port = int.from_bytes(raw[2:4], "big")
    if family == AF_INET and len(raw) >= _IPV4_SIZE:
        return Address(inet_ntop(AF_INET, raw[4:8]), port, AddressType.IPV4)
    if family != AF_INET6 or len(raw) < _IPV6_SIZE:
        return None
    packed = raw[8:24]
    if packed.startswith(MAPPED):
        return Address(inet_ntop(AF_INET, packed[12:]), port, AddressType.IPV4)
    return Address(inet_ntop(AF_INET6, packed), port, AddressType.IPV6)


def build(family: int, host: str, port: int) -> bytes:
    """
    The address of *host* for a socket of *family*; an IPv4 host is mapped for an IPv6 socket.

    :raises ValueError: for an IPv6 host and an IPv4 socket.
    """
    place = port.to_bytes(2, "big")
    if family == AF_INET6:
        packed = inet_pton(AF_INET6, host) if ":" in host else MAPPED + inet_pton(AF_INET, host)
        return _FAMILY.pack(AF_INET6) + place + bytes(4) + packed + bytes(4)
    if ":" in host:
        raise ValueError(f"an IPv4 socket does not reach {host}")
    return _FAMILY.pack(AF_INET) + place + inet_pton(AF_INET, host) + bytes(8)


def for_python(raw: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
    """The internet address *raw* as Python's sockets take it, with its scope."""
    port = int.from_bytes(raw[2:4], "big")
    if family_of(raw) == AF_INET:
        return inet_ntop(AF_INET, raw[4:8]), port
    flow, scope = int.from_bytes(raw[4:8], "big"), int.from_bytes(raw[24:28], "little")
    return inet_ntop(AF_INET6, raw[8:24]), port, flow, scope


def from_python(address: tuple[object, ...]) -> bytes:
    """The reverse of :func:`for_python`."""
    host, port = str(address[0]).partition("%")[0], int(str(address[1]))
    if len(address) == 2:
        return build(AF_INET, host, port)
    raw = build(AF_INET6, host, port)
    flow, scope = int(str(address[2])), int(str(address[3]))
    return raw[:4] + flow.to_bytes(4, "big") + raw[8:24] + scope.to_bytes(4, "little")
