"""
The header in which a balancer tells who its client is: the PROXY protocol, versions 1 and 2.

Source: https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, sections 2.1 and 2.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from struct import Struct
from typing import NamedTuple

from .words import ProtocolError

__all__ = ["LONGEST", "ProxyHeader", "build_header", "parse_header"]

_SIGNATURE1, _SIGNATURE2 = b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"
#: Bytes of the longest line of version 1, with its end.
_LONGEST_LINE = 107
_LINE_END = b"\r\n"
_NOT_TEXT = re.compile(rb"[^ -~]")
_PORT = re.compile("0|[1-9][0-9]{0,4}", re.ASCII)

_FIXED = Struct(f"!{len(_SIGNATURE2)}sBBH")
#: Bytes of the longest header of version 2.
LONGEST = _FIXED.size + 0xFFFF
_LOCAL, _PROXY = 0x20, 0x21
_FAMILIES, _TRANSPORTS = range(4), range(3)
#: By family and transport, where the addresses and ports of TCP stand.
_TCP = {0x11: (AF_INET, Struct("!4s4sHH")), 0x21: (AF_INET6, Struct("!16s16sHH"))}
#: By family and transport (TCP, UDP, Unix sockets), the bytes that addresses take.
_SIZES = {0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}

_CRC32C, _UNIQUE_ID, _SSL, _SSL_CN = 0x03, 0x05, 0x20, 0x22
_VECTOR, _SSL_HEAD = Struct("!BH"), Struct("!BI")
_LONGEST_ID = 128
#: The client has shown a certificate, now or when its TLS session began.
_CERTIFIED = 0x02 | 0x04


class ProxyHeader(NamedTuple):
    """
    What a balancer tells of a client.

    :ivar source: the client's literal address and port; None: the ends of the connection itself count.
    :ivar destination: the literal address and port that the client has reached; None: as for *source*.
    :ivar unique_id: how the balancer calls the connection; empty: not at all.
    :ivar name: the common name in the TLS certificate of the client, which the balancer has verified;
        empty: there is none.
    """

    source: tuple[str, int] | None = None
    destination: tuple[str, int] | None = None
    unique_id: bytes = b""
    name: bytes = b""


_NOTHING = ProxyHeader()


def parse_header(data: bytes | bytearray) -> tuple[ProxyHeader, int] | None:
    """
    The header that *data* begins with, and its size; None: there is more to come.

    An address is as the system writes it; IPv4-mapped ones stay what they are.

    :raises ProtocolError: when *data* does not begin with a header, as soon as that shows.
    """
    if data[:1] == b"\r":
        return _parse2(data)
    if data[: len(_SIGNATURE1)] != _SIGNATURE1[: len(data)]:
        raise ProtocolError("no PROXY header")
    return _parse1(data)


def build_header(version: int, source: tuple[str, int] | None, destination: tuple[str, int] | None) -> bytes:
    """
    The header of *version* 1 or 2 that tells who a client is and what it has reached.

    :param source: the literal address and port of the client; None: it has none, as on a Unix socket.
    :param destination: the same of what the client has reached.
    """
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n" if version == 1 else _FIXED.pack(_SIGNATURE2, _PROXY, 0, 0)
    hosts = [host.partition("%")[0] for host, _ in (source, destination)]  # a zone has no form here
    ports, family = (source[1], destination[1]), AF_INET
    if any(":" in host for host in hosts):  # both are of one family
        hosts, family = [host if ":" in host else f"::ffff:{host}" for host in hosts], AF_INET6
    if version == 1:
        kind = "TCP6" if family == AF_INET6 else "TCP4"
        return f"PROXY {kind} {' '.join(hosts)} {ports[0]} {ports[1]}\r\n".encode("ascii")
    number = 0x21 if family == AF_INET6 else 0x11
    packed = _TCP[number][1].pack(*(inet_pton(family, host) for host in hosts), *ports)
    return _FIXED.pack(_SIGNATURE2, _PROXY, number, len(packed)) + packed


def _parse1(data: bytes | bytearray) -> tuple[ProxyHeader, int] | None:
    line, end, _ = bytes(data[:_LONGEST_LINE]).partition(_LINE_END)
    if not end:
        if len(data) >= _LONGEST_LINE:
            raise ProtocolError("a PROXY header without an end")
        line = line.removesuffix(_LINE_END[:1])
    if _NOT_TEXT.search(line):
        raise ProtocolError("a PROXY header with control characters")
    if not end:
        return None
    protocol, *fields = line[len(_SIGNATURE1) :].decode("ascii").split(" ")
    size = len(line) + len(end)
    if protocol == "UNKNOWN":
        return _NOTHING, size
    family = {"TCP4": AF_INET, "TCP6": AF_INET6}.get(protocol)
    if family is None or len(fields) != 4:
        raise ProtocolError("a PROXY header that is not understood")
    source, destination, *ports = fields
    if not all(_PORT.fullmatch(port) and int(port) <= 0xFFFF for port in ports):
        raise ProtocolError("a PROXY header with a port that is none")
    try:
        hosts = [inet_ntop(family, inet_pton(family, host)) for host in (source, destination)]
    except OSError:
        raise ProtocolError("a PROXY header with an address that is none") from None
    return ProxyHeader((hosts[0], int(ports[0])), (hosts[1], int(ports[1]))), size


def _parse2(data: bytes | bytearray) -> tuple[ProxyHeader, int] | None:
    if len(data) < _FIXED.size:
        if data[: len(_SIGNATURE2)] != _SIGNATURE2[: len(data)]:
            raise ProtocolError("no PROXY header")
        return None
    signature, command, kind, length = _FIXED.unpack_from(data)
    if signature != _SIGNATURE2:
        raise ProtocolError("no PROXY header")
    family, transport = kind >> 4, kind & 0x0F
    if command == _PROXY:
        if family not in _FAMILIES or transport not in _TRANSPORTS or length < _SIZES.get(kind, 0):
            raise ProtocolError("a PROXY header of a family that is not understood")
    elif command != _LOCAL:
        raise ProtocolError("a PROXY header of a version or command that is not understood")
    size = _FIXED.size + length
    if len(data) < size:
        return None
    if command == _LOCAL:
        return _NOTHING, size
    header = _NOTHING
    if kind in _TCP:
        version, addresses = _TCP[kind]
        source, destination, source_port, port = addresses.unpack_from(data, _FIXED.size)
        header = ProxyHeader(
            (inet_ntop(version, source), source_port), (inet_ntop(version, destination), port)
        )
    start = _FIXED.size + _SIZES.get(kind, 0)
    if start == size:
        return header, size
    try:
        vectors = list(_vectors(data[:size], start))
    except ProtocolError:
        if kind in _SIZES:
            raise
        return header, size  # addresses of a kind that nothing is known of
    return _with_vectors(header, vectors, data[:size]), size


def _with_vectors(header: ProxyHeader, vectors: list[_Vector], data: bytes | bytearray) -> ProxyHeader:
    """*header* with what the *vectors* say that are in the whole header's *data*."""
    unique_id = name = b""
    # Each takes milliseconds of a long header.
    if sum(kind == _CRC32C for kind, _, _ in vectors) > 1:
        raise ProtocolError("a PROXY header with several checksums")
    for kind, at, value in vectors:
        if kind == _CRC32C:
            _check_sum(data, at, value)
        elif kind == _UNIQUE_ID:
            if len(value) > _LONGEST_ID:
                raise ProtocolError("a PROXY header with a unique id that is too long")
            unique_id = value
        elif kind == _SSL:
            name = _verified_name(value)
    return header._replace(unique_id=unique_id, name=name)


#: The type of a vector, where its value begins, and the value.
_Vector = tuple[int, int, bytes]


def _vectors(data: bytes | bytearray, start: int) -> Iterator[_Vector]:
    """The vectors that stand in *data* from *start* on."""
    while start < len(data):
        at = start + _VECTOR.size
        kind, length = _VECTOR.unpack_from(data, start) if at <= len(data) else (0, 0)
        start = at + length
        if start > len(data):
            raise ProtocolError("a PROXY header whose parts are cut short")
        yield kind, at, bytes(data[at:start])


def _verified_name(value: bytes) -> bytes:
    if len(value) < _SSL_HEAD.size:
        raise ProtocolError("a PROXY header whose parts are cut short")
    shown, unverified = _SSL_HEAD.unpack_from(value)
    names = [name for kind, _, name in _vectors(value, _SSL_HEAD.size) if kind == _SSL_CN]
    return names[-1] if names and shown & _CERTIFIED and not unverified else b""


def _check_sum(data: bytes | bytearray, at: int, value: bytes) -> None:
    """See that *value*, which begins *at* there, is the checksum of *data* with zeros in its place."""
    zeros = bytes(4)
    zeroed = data[:at] + zeros + data[at + len(zeros) :]
    if len(value) != len(zeros) or int.from_bytes(value, "big") != crc32c(zeroed):
        raise ProtocolError("a PROXY header with a wrong checksum")


def _table() -> Iterator[int]:
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        yield number


_TABLE = tuple(_table())


def crc32c(data: bytes | bytearray) -> int:
    """The checksum CRC32C of *data* (RFC 4960, appendix B)."""
    table, found = _TABLE, 0xFFFFFFFF
    for byte in data:
        found = found >> 8 ^ table[(found ^ byte) & 0xFF]
    return found ^ 0xFFFFFFFF
