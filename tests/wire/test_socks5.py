"""The messages of RFC 1928."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, strategies as st

from socksproxy.wire import socks4, socks5
from socksproxy.wire.socks5 import SOCKS5Reply
from socksproxy.wire.words import (
    UNSPECIFIED,
    Address,
    AddressType,
    Command,
    Method,
    ProtocolError,
    Reply,
    Request,
    Version,
)

from ..support.messages import Parser, addresses, bytes_, check_any, check_fault, check_stream, likely

# As the fields ATYP, ADDR and PORT. As a number the wrong way round 443 is 47873.
ADDRESSES = [
    (b"\x01\xc0\x00\x02\x01\x00\x50", Address.of("192.0.2.1", 80)),
    (b"\x01\xc0\x00\x02\x01\x01\xbb", Address.of("192.0.2.1", 443)),
    (b"\x01\x00\x00\x00\x00\x00\x00", UNSPECIFIED),
    (b"\x01\xff\xff\xff\xff\xff\xff", Address.of("255.255.255.255", 65535)),
    (b"\x04" + bytes(15) + b"\x01\x00\x50", Address.of("::1", 80)),
    (b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x02\x01\xbb", Address.of("2001:db8::2", 443)),
    (b"\x04" + bytes(10) + b"\xff\xff\xc0\x00\x02\x01\x00\x50", Address.of("::ffff:192.0.2.1", 80)),
    (b"\x03\x01a\x00\x50", Address.of("a", 80)),
    (b"\x03\x0bexample.com\x01\xbb", Address.of("example.com", 443)),
    (b"\x03\xff" + b"n" * 255 + b"\x00\x50", Address.of("n" * 255, 80)),
    (b"\x03\x03\xff\xc3\xa4\x00\x50", Address.of("\udcff\u00e4", 80)),
    (b"\x03\x03a\x00b\x00\x50", Address.of("a\x00b", 80)),
    (b"\x03\x09127.0.0.1\x00\x50", Address("127.0.0.1", 80, AddressType.DOMAIN_NAME)),
]
COMMANDS = [*Command, 0x00, 0x04, 0xFF]
REPLIES = [*Reply, 0x09, 0xFF]
UNKNOWN_TYPES = [0x00, 0x02, 0x05, 0xFF]


@pytest.mark.parametrize(
    ("data", "methods"),
    [
        (b"\x05\x00", b""),
        (b"\x05\x01\x00", bytes((Method.NO_AUTHENTICATION,))),
        (b"\x05\x03\x00\x01\x02", bytes((Method.NO_AUTHENTICATION, Method.GSSAPI, Method.USERNAME_PASSWORD))),
        (b"\x05\x02\x05\x05", b"\x05\x05"),
        (b"\x05\xff" + bytes(range(255)), bytes(range(255))),
    ],
)
def test_greeting(data: bytes, methods: bytes) -> None:
    """Else a client whose greeting is split, or comes with its request, is not served."""
    check_stream(socks5.parse_greeting, data, methods)
    assert socks5.build_greeting(methods) == data


def test_too_many_methods() -> None:
    """NMETHODS is one byte."""
    with pytest.raises(ValueError, match="range"):
        socks5.build_greeting(bytes(256))


@pytest.mark.parametrize("method", [*Method, 0x80])
def test_choice(method: int) -> None:
    """Else client and server go on with different methods."""
    check_stream(socks5.parse_choice, bytes((5, method)), method)
    assert socks5.build_choice(method) == bytes((5, method))


@pytest.mark.parametrize(("fields", "destination"), ADDRESSES)
@pytest.mark.parametrize("command", COMMANDS)
def test_request(command: int, fields: bytes, destination: Address) -> None:
    """Else a client is sent elsewhere, or loses what it sent behind its request."""
    data = bytes((5, command, 0)) + fields
    check_stream(socks5.parse_request, data, Request(Version.SOCKS5, command, destination))
    assert socks5.build_request(command, destination) == data


@pytest.mark.parametrize(("fields", "bound"), ADDRESSES)
@pytest.mark.parametrize("reply", REPLIES)
def test_reply(reply: int, fields: bytes, bound: Address) -> None:
    """Else half a reply is taken for a whole or faulty one, or BND.PORT is told wrong."""
    data = bytes((5, reply, 0)) + fields
    check_stream(socks5.parse_reply, data, SOCKS5Reply(reply, bound))
    assert socks5.build_reply(reply, bound) == data


@pytest.mark.parametrize("parse", [socks5.parse_request, socks5.parse_reply])
@pytest.mark.parametrize("rsv", [1, 5, 255])
def test_rsv_may_be_anything(parse: Parser, rsv: int) -> None:
    """Some clients leave what was there; to refuse them helps nobody."""
    parsed = parse(bytes((5, 1, rsv)) + ADDRESSES[0][0])
    assert parsed == parse(bytes((5, 1, 0)) + ADDRESSES[0][0])
    assert parsed is not None
    assert parsed[1] == 10


@pytest.mark.parametrize("parse", [socks5.parse_request, socks5.parse_reply])
@pytest.mark.parametrize("kind", UNKNOWN_TYPES)
def test_an_unknown_address_type(parse: Parser, kind: int) -> None:
    """Told with the byte that shows it: what follows has no known length, and none may ever come."""
    check_fault(parse, bytes((5, 1, 0, kind)), Reply.ADDRESS_TYPE_NOT_SUPPORTED)


def test_an_empty_name() -> None:
    """Else an empty name is looked up, which some resolvers take for this machine."""
    check_fault(socks5.parse_request, b"\x05\x01\x00\x03\x00", Reply.HOST_UNREACHABLE)


def test_a_reply_with_an_empty_name() -> None:
    """Some servers send one: nothing is looked up here, and a success is a success."""
    bound = Address("", 80, AddressType.DOMAIN_NAME)
    check_stream(socks5.parse_reply, b"\x05\x00\x00\x03\x00\x00\x50", SOCKS5Reply(0, bound))


@pytest.mark.parametrize(("parse", "version"), [(socks5.parse_verdict, 5), (socks4.parse_verdict, 0)])
def test_the_verdict_comes_before_the_address(parse: Callable[[bytes], int | None], version: int) -> None:
    """A proxy that refuses need not send the rest, and some do not."""
    assert parse(bytes((version,))) is None
    for verdict in (0, 1, 5, 90, 91, 255):
        assert parse(bytes((version, verdict))) == verdict
        assert parse(bytes((version, verdict, 0, 3, 0))) == verdict
    with pytest.raises(ProtocolError, match="version 72"):
        parse(b"H")


# 1: a password before its method was chosen; 0x16: TLS; G: HTTP.
@pytest.mark.parametrize("version", [0x00, 0x01, 0x04, 0x06, 0x16, ord("G"), 0xFF])
@pytest.mark.parametrize(
    "parse", [socks5.parse_greeting, socks5.parse_choice, socks5.parse_request, socks5.parse_reply]
)
def test_another_version(parse: Parser, version: int) -> None:
    """Else another protocol's bytes are read as SOCKS5's."""
    check_fault(parse, bytes((version,)))


def test_messages_of_a_conversation_in_one_segment() -> None:
    """Each parser takes its own bytes: a client may send all at once, and early data too."""
    data = b"\x05\x01\x00" + b"\x05\x01\x00\x03\x0bexample.com\x00\x50" + b"\x05early"
    greeting = socks5.parse_greeting(data)
    assert greeting == (b"\x00", 3)
    request = socks5.parse_request(data[3:])
    assert request == (Request(Version.SOCKS5, Command.CONNECT, Address.of("example.com", 80)), 18)
    assert data[3 + 18 :] == b"\x05early"


@pytest.mark.parametrize("start", [0, 1, 4, 9])
def test_an_address_anywhere(start: int) -> None:
    """The index is where it ends in all the data, not in its part: the payload begins there."""
    for fields, address in ADDRESSES:
        data = b"\x03" * start + fields
        assert socks5.parse_address(data + b"rest", start) == (address, len(data))
        assert socks5.parse_address(data[:-1], start) is None


@pytest.mark.parametrize(
    "address",
    [
        Address("", 80, AddressType.DOMAIN_NAME),
        Address("n" * 256, 80, AddressType.DOMAIN_NAME),
        Address("\u00e4" * 128, 80, AddressType.DOMAIN_NAME),  # 256 bytes
        Address("\ud800", 80, AddressType.DOMAIN_NAME),
        Address("example.com", 80, AddressType.IPV4),
        Address("192.0.2.1", 80, AddressType.IPV6),
        Address("2001:db8::1", 80, AddressType.IPV4),
        Address("fe80::1%lo", 80, AddressType.IPV6),
        Address("::1\x00", 80, AddressType.IPV6),
        Address("\udcff", 80, AddressType.IPV4),
        Address("192.0.2.1", -1, AddressType.IPV4),
        Address("192.0.2.1", 65536, AddressType.IPV4),
    ],
)
@pytest.mark.parametrize("build", [socks5.build_request, socks5.build_reply])
def test_addresses_that_cannot_be_expressed(build: Callable[[int, Address], bytes], address: Address) -> None:
    """Else the other side reads another address than was meant."""
    with pytest.raises(ValueError):  # noqa: PT011
        build(0, address)


@pytest.mark.parametrize("number", [-1, 256])
def test_numbers_that_cannot_be_expressed(number: int) -> None:
    """Each is one byte."""
    for build in (socks5.build_request, socks5.build_reply):
        with pytest.raises(ValueError, match="range"):
            build(number, UNSPECIFIED)
    with pytest.raises(ValueError, match="range"):
        socks5.build_choice(number)


@given(bytes_, addresses)
def test_round_trip(number: int, address: Address) -> None:
    """Else a name or address changes on its way through us."""
    check_stream(
        socks5.parse_request,
        socks5.build_request(number, address),
        Request(Version.SOCKS5, number, address),
    )
    check_stream(socks5.parse_reply, socks5.build_reply(number, address), SOCKS5Reply(number, address))


@given(st.binary(max_size=255))
def test_greeting_round_trip(methods: bytes) -> None:
    """Else a method is offered that the client does not have."""
    check_stream(socks5.parse_greeting, socks5.build_greeting(methods), methods)


@given(likely(b"\x05\x01\x00\x01", b"\x05\x01\x00\x03", b"\x05\x01\x00\x04", b"\x05\x02", b"\x05"))
@example(b"\x05\x01\x00\x03\x00")
def test_any_bytes(data: bytes) -> None:
    """Else bytes from anybody raise something that the server does not expect, and is caught nowhere."""
    greeting = check_any(socks5.parse_greeting, data)
    if greeting is not None:
        assert data.startswith(socks5.build_greeting(greeting))
    choice = check_any(socks5.parse_choice, data)
    if choice is not None:
        assert data.startswith(socks5.build_choice(choice))
    without_rsv = data[:2] + b"\x00" + data[3:]
    request = check_any(socks5.parse_request, data)
    if request is not None:
        assert without_rsv.startswith(socks5.build_request(request.command, request.destination))
    reply = check_any(socks5.parse_reply, data)
    if reply is not None and reply.address.host:
        assert without_rsv.startswith(socks5.build_reply(*reply))
