"""The header of the PROXY protocol."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import example, given, strategies as st

from socksproxy.wire.proxy import LONGEST, ProxyHeader, build_header, crc32c, parse_header
from socksproxy.wire.words import ProtocolError

from ..support.balancer import header2, summed, vector
from ..support.messages import assert_fit_for_a_log

TCP4 = ProxyHeader(("192.0.2.7", 5000), ("203.0.113.5", 1080))
TCP6 = ProxyHeader(("2001:db8::7", 5000), ("2001:db8::1", 1080))
NOTHING = ProxyHeader()

ADDRESSES4 = bytes([192, 0, 2, 7, 203, 0, 113, 5]) + pack("!HH", 5000, 1080)
IPV6 = bytes.fromhex("20010db800000000000000000000000720010db8000000000000000000000001")
ADDRESSES6 = IPV6 + pack("!HH", 5000, 1080)
UNIX = b"/run/client".ljust(108, b"\0") * 2
CERTIFIED = bytes([0x07]) + bytes(4)


def tls(*names: bytes, shown: bytes = CERTIFIED) -> bytes:
    return vector(0x20, shown + vector(0x21, b"TLSv1.3") + b"".join(vector(0x22, name) for name in names))


HEADERS = [
    (b"PROXY TCP4 192.0.2.7 203.0.113.5 5000 1080\r\n", TCP4),
    (b"PROXY TCP6 2001:db8::7 2001:DB8:0::1 5000 1080\r\n", TCP6),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n", ("255.255.255.255", 65535)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", ("::ffff:192.0.2.7", 1)),
    (b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n", None),
    (b"PROXY UNKNOWN\r\n", NOTHING),
    (b"PROXY UNKNOWN " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n", NOTHING),
    (header2(ADDRESSES4), TCP4),
    (header2(ADDRESSES6, kind=0x21), TCP6),
    (header2(b"", command=0x20, kind=0), NOTHING),
    (header2(b"anything", command=0x20, kind=0x11), NOTHING),
    (header2(bytes(0xFFFF), command=0x20, kind=0xFF), NOTHING),
    (header2(b"", kind=0), NOTHING),
    (header2(b"what?", kind=0), NOTHING),
    (header2(vector(0x05, b"id"), kind=0), NOTHING._replace(unique_id=b"id")),
    (header2(UNIX, kind=0x31), NOTHING),
    (header2(UNIX, kind=0x32), NOTHING),
    (header2(ADDRESSES4, kind=0x12), NOTHING),
    (header2(ADDRESSES6, kind=0x22), NOTHING),
    (header2(ADDRESSES4, kind=0x10), NOTHING),
    (header2(UNIX + vector(0x05, b"id"), kind=0x31), NOTHING._replace(unique_id=b"id")),
    (header2(ADDRESSES4 + vector(0x04, bytes(9)) + vector(0xEE, b"own")), TCP4),
    (header2(ADDRESSES4 + vector(0x05, b"i" * 128)), TCP4._replace(unique_id=b"i" * 128)),
    (header2(ADDRESSES4 + tls(b"alice")), TCP4._replace(name=b"alice")),
    (header2(ADDRESSES4 + tls(b"alice", shown=b"\x01" + bytes(4))), TCP4),
    (header2(ADDRESSES4 + tls(b"alice", shown=b"\x07\0\0\0\x01")), TCP4),
    (header2(ADDRESSES4 + tls()), TCP4),
    (header2(ADDRESSES4 + vector(0x04, bytes(0xFFFF - 15))), TCP4),
    (summed(ADDRESSES4), TCP4),
    (summed(ADDRESSES6 + tls(b"bob") + vector(0x05, b"id"), kind=0x21), ("2001:db8::7", 5000)),
]


@pytest.mark.parametrize("rest", [b"", b"\x05\x01\x00", b"\r\n", b"PROXY UNKNOWN\r\n"])
@pytest.mark.parametrize(("data", "header"), HEADERS)
def test_header(data: bytes, header: ProxyHeader | tuple[str, int] | None, rest: bytes) -> None:
    """What stands behind it is the client's."""
    parsed = parse_header(data + rest)
    assert parsed is not None
    assert parsed[1] == len(data)
    if isinstance(header, ProxyHeader):
        assert parsed[0] == header
    elif header is not None:
        assert parsed[0].source == header
    assert parse_header(bytearray(data + rest)) == parsed


@pytest.mark.parametrize(("data", "header"), HEADERS)
def test_a_header_in_parts(data: bytes, header: object) -> None:
    """A balancer's segments may end anywhere."""
    for length in [*range(min(len(data), 400)), len(data) - 1]:
        assert parse_header(data[:length]) is None
        assert parse_header(bytearray(data[:length])) is None


WRONG = [
    (b"\x05", "no PROXY header"),
    (b"\x04\x01", "no PROXY header"),
    (b"GET / HTTP/1.1\r\n", "no PROXY header"),
    (b"proxy TCP4", "no PROXY header"),
    (b"PROXY\r\n", "no PROXY header"),
    (b"\r\n\r\n\0\r\nQUIT\r", "no PROXY header"),
    (b"\r\n\n", "no PROXY header"),
    (b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\0", "no PROXY header"),
    (b"PROXY \r\n", "not understood"),
    (b"PROXY TCP5 192.0.2.7 192.0.2.8 1 2\r\n", "not understood"),
    (b"PROXY tcp4 192.0.2.7 192.0.2.8 1 2\r\n", "not understood"),
    (b"PROXY TCP4\r\n", "not understood"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 1\r\n", "not understood"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2 3\r\n", "not understood"),
    (b"PROXY TCP4  192.0.2.7 192.0.2.8 1 2\r\n", "not understood"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2 \r\n", "not understood"),
    (b"PROXY TCP4  192.0.2.8 1 2\r\n", "address"),
    (b"PROXY TCP4 192.0.2.7  1 2\r\n", "address"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 1 \r\n", "port"),
    (b"PROXY TCP4 192.0.2.256 192.0.2.8 1 2\r\n", "address"),
    (b"PROXY TCP4 192.0.2 192.0.2.8 1 2\r\n", "address"),
    (b"PROXY TCP4 192.0.2.07 192.0.2.8 1 2\r\n", "address"),
    (b"PROXY TCP4 localhost 192.0.2.8 1 2\r\n", "address"),
    (b"PROXY TCP4 ::1 ::1 1 2\r\n", "address"),
    (b"PROXY TCP6 192.0.2.7 192.0.2.8 1 2\r\n", "address"),
    (b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", "address"),
    (b"PROXY TCP6 [::1] ::1 1 2\r\n", "address"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 65536 2\r\n", "port"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 01 2\r\n", "port"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 -1 2\r\n", "port"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 1 0x2\r\n", "port"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 +1 2\r\n", "port"),
    (b"PROXY TCP4 192.0.2.7\n", "control"),
    (b"PROXY TCP4 192.0.2.7\rX", "control"),
    (b"PROXY TCP4 \x1b[31m", "control"),
    (b"PROXY TCP4 192.0.2.7\0", "control"),
    (b"PROXY UNKNOWN \x07\r\n", "control"),
    (b"PROXY TCP4 192.0.2.\xb2", "control"),
    (b"PROXY UNKNOWN ".ljust(107, b"x"), "without an end"),
    (b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r", "without an end"),
    (header2(ADDRESSES4, command=0x22), "version or command"),
    (header2(ADDRESSES4, command=0x11), "version or command"),
    (header2(ADDRESSES4, command=0x30), "version or command"),
    (header2(ADDRESSES4, kind=0x41), "family"),
    (header2(ADDRESSES4, kind=0x13), "family"),
    (header2(ADDRESSES4[:-1]), "family"),
    (header2(ADDRESSES6[:-1], kind=0x21), "family"),
    (header2(UNIX[:-1], kind=0x31), "family"),
    (header2(ADDRESSES4 + b"\x05\0"), "cut short"),
    (header2(ADDRESSES4 + b"\x05\0\x02i"), "cut short"),
    (header2(ADDRESSES4 + vector(0x20, bytes(4))), "cut short"),
    (header2(ADDRESSES4 + vector(0x20, CERTIFIED + b"\x22\0\x09x")), "cut short"),
    (header2(ADDRESSES4 + vector(0x05, b"i" * 129)), "unique id"),
    (header2(ADDRESSES4 + vector(0x03, bytes(4))), "checksum"),
    (header2(ADDRESSES4 + vector(0x03, b"")), "checksum"),
    (summed(ADDRESSES4)[:-1] + b"!", "checksum"),
    (summed(ADDRESSES4).replace(bytes([192, 0, 2, 7]), bytes([192, 0, 2, 8])), "checksum"),
    (summed(b"", kind=0).replace(b"\x21\0", b"\x21\x10"), "checksum"),
    # Both fit. A header could have thousands, and each takes milliseconds.
    (
        header2(
            b"\1\2\3\4\5\6\7\x08\0\1\0\2" + vector(0x03, b"\xac|v^") + vector(0x03, b"\xa9u\xa9A"),
        ),
        "several checksums",
    ),
]


@pytest.mark.parametrize(("data", "problem"), WRONG)
def test_no_header(data: bytes, problem: str) -> None:
    """Else a client is taken for another one, or for none."""
    with pytest.raises(ProtocolError, match=problem) as caught:
        parse_header(data)
    assert_fit_for_a_log(caught.value)


@pytest.mark.parametrize("first", [0x05, 0x04, 0x16, 0x47, 0x00])
def test_another_protocol(first: int) -> None:
    """A client that speaks directly is not waited for."""
    with pytest.raises(ProtocolError, match="no PROXY header"):
        parse_header(bytes([first]))


def test_the_sum() -> None:
    """The check value of CRC-32C, and the example of RFC 3720, appendix B.4."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"") == 0


def test_the_longest() -> None:
    """Who keeps what comes until the header is whole keeps no more than that."""
    assert parse_header(bytes(header2(b"", kind=0)[:14]) + b"\xff\xff" + bytes(0xFFFE)) is None
    parsed = parse_header(header2(bytes(0xFFFF), command=0x20))
    assert parsed == (NOTHING, LONGEST)


@given(st.sampled_from([data for data, _ in HEADERS if len(data) < 400]), st.data())
def test_mutated(whole: bytes, data: st.DataObject) -> None:
    """A header with some other bytes is one, or none, or not whole; nothing else comes of it."""
    mutated = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        if not mutated:
            break
    _sane(bytes(mutated))


@given(st.binary(max_size=300))
@example(b"")
def test_anything(data: bytes) -> None:
    """Else one stray client ends a process."""
    _sane(data)
    _sane(b"PROXY " + data)
    _sane(header2(data, kind=0x11))


def _sane(data: bytes) -> None:
    try:
        parsed = parse_header(data)
    except ProtocolError as problem:
        assert_fit_for_a_log(problem)
        return
    if parsed is None:
        assert len(data) < LONGEST
        return
    header, size = parsed
    assert 0 < size <= len(data)
    assert parse_header(data[:size]) == parsed
    for address in (header.source, header.destination):
        if address is not None:
            assert address[0].isprintable()
            assert address[0] != ""
            assert 0 <= address[1] <= 0xFFFF
    # It could not be told from fewer bytes.
    assert parse_header(data[: size - 1]) is None


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("source", "destination", "read"),
    [
        (("192.0.2.7", 5000), ("203.0.113.5", 1080), TCP4),
        (("2001:db8::7", 5000), ("2001:db8::1", 1080), TCP6),
        (
            ("192.0.2.7", 5000),
            ("2001:db8::1", 1080),
            ProxyHeader(("::ffff:192.0.2.7", 5000), ("2001:db8::1", 1080)),
        ),
        (
            ("fe80::7%eth0", 5000),
            ("fe80::1%eth0", 1080),
            ProxyHeader(("fe80::7", 5000), ("fe80::1", 1080)),
        ),
        (None, ("203.0.113.5", 1080), NOTHING),
        (("192.0.2.7", 5000), None, NOTHING),
    ],
)
def test_built(
    version: int, source: tuple[str, int] | None, destination: tuple[str, int] | None, read: ProxyHeader
) -> None:
    """What we tell another program is what we would read; both addresses are of one family."""
    data = build_header(version, source, destination)
    assert data.startswith(b"PROXY " if version == 1 else b"\r\n\r\n\0\r\nQUIT\n")
    assert parse_header(data) == (read, len(data))
