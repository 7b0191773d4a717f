"""The header of a UDP datagram."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from socksproxy.wire import datagram
from socksproxy.wire.datagram import Header
from socksproxy.wire.words import UNSPECIFIED, Address, AddressType, ProtocolError, Reply

from ..support.messages import addresses, assert_fit_for_a_log, bytes_, likely

HEADERS = [
    (b"\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35", Header(0, Address.of("192.0.2.1", 53))),
    (b"\x00\x00\x01\x01\xc0\x00\x02\x01\x01\xbb", Header(1, Address.of("192.0.2.1", 443))),
    (b"\x00\x00\x82\x04" + bytes(15) + b"\x01\x00\x35", Header(0x82, Address.of("::1", 53))),
    (b"\x00\x00\x00\x03\x0bexample.com\x00\x35", Header(0, Address.of("example.com", 53))),
    (b"\x00\x00\x00\x03\xff" + b"n" * 255 + b"\x00\x35", Header(0, Address.of("n" * 255, 53))),
]


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x00\x00\x00\x01", b"x" * 65000])
@pytest.mark.parametrize(("data", "header"), HEADERS)
def test_header(data: bytes, header: Header, payload: bytes) -> None:
    """Else a payload loses bytes, gains bytes or goes elsewhere."""
    assert datagram.parse_datagram(data + payload) == (header, len(data))
    assert datagram.parse_datagram(bytearray(data + payload)) == (header, len(data))
    assert datagram.build_header(header.address, header.fragment) == data


@pytest.mark.parametrize(("data", "header"), HEADERS)
def test_a_datagram_that_is_cut_short(data: bytes, header: Header) -> None:
    """No more of it comes: it must be dropped, not waited for."""
    for length in range(len(data)):
        with pytest.raises(ProtocolError, match="shorter than its header") as caught:
            datagram.parse_datagram(data[:length])
        assert_fit_for_a_log(caught.value)
    assert datagram.parse_datagram(data) == (header, len(data))


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"\x00\x00\x00\x00", Reply.ADDRESS_TYPE_NOT_SUPPORTED),
        (b"\x00\x00\x00\x02\xc0\x00\x02\x01\x00\x35", Reply.ADDRESS_TYPE_NOT_SUPPORTED),
        (b"\x00\x00\x00\xff", Reply.ADDRESS_TYPE_NOT_SUPPORTED),
        (b"\x00\x00\x00\x03\x00\x00\x35", Reply.HOST_UNREACHABLE),
    ],
)
def test_a_faulty_address(data: bytes, reply: Reply) -> None:
    """Else one stray datagram ends an association."""
    with pytest.raises(ProtocolError) as caught:
        datagram.parse_datagram(data)
    assert caught.value.reply is reply
    assert_fit_for_a_log(caught.value)


def test_rsv_may_be_anything() -> None:
    """Some clients leave what was there; to drop their datagrams helps nobody."""
    data, header = HEADERS[0]
    assert datagram.parse_datagram(b"\xff\x01" + data[2:]) == (header, len(data))


@pytest.mark.parametrize(
    ("fragment", "position", "last"),
    [(0, 0, False), (1, 1, False), (127, 127, False), (0x80, 0, True), (0x81, 1, True), (0xFF, 127, True)],
)
def test_fragment(fragment: int, position: int, last: bool) -> None:
    """Else fragments are put together in the wrong order, or never."""
    header = Header(fragment, UNSPECIFIED)
    assert header.position == position
    assert header.last is last


@pytest.mark.parametrize(
    ("address", "fragment"),
    [
        (UNSPECIFIED, -1),
        (UNSPECIFIED, 256),
        (Address.of("192.0.2.1", 65536), 0),
        (Address.of("", 53), 0),
        (Address("192.0.2.1", 53, AddressType.IPV6), 0),
    ],
)
def test_headers_that_cannot_be_expressed(address: Address, fragment: int) -> None:
    """Else a client believes that a datagram came from elsewhere."""
    with pytest.raises(ValueError):  # noqa: PT011
        datagram.build_header(address, fragment)


@given(addresses, bytes_, st.binary(max_size=64))
def test_round_trip(address: Address, fragment: int, payload: bytes) -> None:
    """Else what a client sends is not what we forward."""
    data = datagram.build_header(address, fragment)
    assert datagram.parse_datagram(data + payload) == (Header(fragment, address), len(data))


@given(likely(b"\x00\x00\x00\x01", b"\x00\x00\x00\x03", b"\x00\x00\x00\x04"))
@example(b"")
def test_any_bytes(data: bytes) -> None:
    """A value or ProtocolError, never None: a datagram comes whole or not at all."""
    try:
        header, offset = datagram.parse_datagram(data)
    except ProtocolError as problem:
        assert_fit_for_a_log(problem)
        return
    assert offset <= len(data)
    assert datagram.build_header(header.address, header.fragment) == b"\x00\x00" + data[2:offset]


@given(st.binary(max_size=300))
def test_header_size(data: bytes) -> None:
    """What it takes for a header is one, and what it does not is none."""
    try:
        header, end = datagram.parse_datagram(data)
    except ProtocolError:
        assert datagram.header_size(data) == datagram.header_size(memoryview(data)) == 0
        return
    assert datagram.header_size(data) == datagram.header_size(memoryview(data)) == end
    assert datagram.fragment_of(data) == header.fragment
    assert datagram.is_ipv4(data[:4]) is (header.address.type is AddressType.IPV4)
    assert datagram.has_name(data) is (header.address.type is AddressType.DOMAIN_NAME)
    assert datagram.parse_datagram(datagram.unfragmented(data[:end])) == (Header(0, header.address), end)


def test_sizes() -> None:
    assert len(datagram.build_header(Address.of("192.0.2.1", 1))) == datagram.IPV4_SIZE
    assert len(datagram.build_header(Address.of("::1", 1))) == datagram.IPV6_SIZE
    assert len(datagram.build_header(Address.of("n" * 255, 1))) == datagram.LONGEST_SIZE
