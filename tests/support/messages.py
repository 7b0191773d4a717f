"""How every parser is tried, and the values that every builder is tried with."""

from __future__ import annotations

from collections.abc import Callable
from socket import AF_INET6, inet_ntoa, inet_ntop
from typing import Any

import pytest
from hypothesis import strategies as st

from socksproxy.wire.words import Address, AddressType, ProtocolError, Reply

Parser = Callable[["bytes | bytearray"], "tuple[Any, int] | None"]

TRAILING = (b"\x00", b"\x05\x01\x00", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 600)


def check_stream(parse: Parser, data: bytes, expected: object) -> None:
    """*data* is one whole message, *expected*: whole, byte by byte, with bytes behind it, in a bytearray."""
    assert parse(data) == (expected, len(data))
    growing = bytearray()
    for byte in data:
        assert parse(growing) is None
        growing.append(byte)
    assert parse(growing) == (expected, len(data))
    for trailing in TRAILING:
        assert parse(data + trailing) == (expected, len(data))


def check_fault(parse: Parser, data: bytes, reply: Reply = Reply.GENERAL_FAILURE) -> None:
    """The last byte of *data* shows the fault: not a byte sooner, and none later can mend it."""
    for length in range(len(data)):
        assert parse(data[:length]) is None
    for trailing in (b"", *TRAILING):
        with pytest.raises(ProtocolError) as caught:
            parse(data + trailing)
        assert caught.value.reply is reply
        assert_fit_for_a_log(caught.value)


def check_any(parse: Parser, data: bytes) -> Any:
    """
    Whatever *data* is: a value, None or ProtocolError, and the same however it is cut.

    :returns: the value; None: there is none.
    """
    try:
        parsed = parse(data)
    except ProtocolError as problem:
        assert_fit_for_a_log(problem)
        return None
    if parsed is None:
        for length in range(len(data)):
            assert parse(data[:length]) is None
        return None
    value, taken = parsed
    assert 0 < taken <= len(data)
    assert parse(data[:taken]) == parsed
    for length in range(taken):
        assert parse(data[:length]) is None
    return value


def assert_fit_for_a_log(problem: ProtocolError) -> None:
    """The text is one printable line of ASCII, and short."""
    text = str(problem)
    assert text.isascii()
    assert text.isprintable()
    assert 0 < len(text) < 80


def name_of(raw: bytes) -> str:
    """The name that the bytes *raw* are."""
    return raw.decode("utf-8", "surrogateescape")


bytes_ = st.integers(0, 255)
ports = st.integers(0, 65535)
ipv4_addresses = st.builds(
    Address, st.binary(min_size=4, max_size=4).map(inet_ntoa), ports, st.just(AddressType.IPV4)
)
ipv6_addresses = st.builds(
    Address,
    st.binary(min_size=16, max_size=16).map(lambda packed: inet_ntop(AF_INET6, packed)),
    ports,
    st.just(AddressType.IPV6),
)
names = st.builds(
    Address, st.binary(min_size=1, max_size=255).map(name_of), ports, st.just(AddressType.DOMAIN_NAME)
)
addresses = ipv4_addresses | ipv6_addresses | names


def likely(*heads: bytes) -> st.SearchStrategy[bytes]:
    """Arbitrary bytes, of which many begin as a message does, so that its depths are reached."""
    tails = st.binary(max_size=300)
    return tails | st.builds(bytes.__add__, st.sampled_from(heads), tails)
