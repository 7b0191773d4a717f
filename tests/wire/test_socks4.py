"""The messages of SOCKS4 and SOCKS4a."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from socksproxy.wire import socks4
from socksproxy.wire.socks4 import MAX_USERID, SOCKS4Reply
from socksproxy.wire.words import (
    UNSPECIFIED,
    Address,
    AddressType,
    Command,
    ProtocolError,
    Reply4,
    Request,
    Version,
)

from ..support.messages import (
    addresses,
    bytes_,
    check_any,
    check_fault,
    check_stream,
    ipv4_addresses,
    likely,
    name_of,
    ports,
)

HEAD = b"\x04\x01\x00\x50"
FOR_A_NAME = HEAD + b"\x00\x00\x00\x01"


def to(host: str, port: int = 80, command: int = Command.CONNECT, userid: bytes = b"") -> Request:
    """A request of SOCKS4."""
    return Request(Version.SOCKS4, command, Address.of(host, port), userid)


REQUESTS = [
    (HEAD + b"\xc0\x00\x02\x01\x00", to("192.0.2.1")),
    (HEAD + b"\xc0\x00\x02\x01me\x00", to("192.0.2.1", userid=b"me")),
    (HEAD + b"\xc0\x00\x02\x01\xff\xfe\x00", to("192.0.2.1", userid=b"\xff\xfe")),
    (HEAD + b"\xc0\x00\x02\x01" + b"u" * 512 + b"\x00", to("192.0.2.1", userid=b"u" * 512)),
    (b"\x04\x02\x01\xbb\xc0\x00\x02\x01\x00", to("192.0.2.1", 443, Command.BIND)),
    (b"\x04\xf0\x00\x00\x00\x00\x00\x02me\x00example.com\x00", to("example.com", 0, Command.RESOLVE, b"me")),
    (b"\x04\x00\xff\xff\xc0\x00\x02\x01\x00", to("192.0.2.1", 65535, 0)),
    (b"\x04\xff\x00\x50\xc0\x00\x02\x01\x00", to("192.0.2.1", command=255)),
    # 0.0.0.x, x nonzero, and nothing else says that a name follows.
    (FOR_A_NAME + b"\x00example.com\x00", to("example.com")),
    (HEAD + b"\x00\x00\x00\xff\x00example.com\x00", to("example.com")),
    (FOR_A_NAME + b"me\x00a\x00", to("a", userid=b"me")),
    (FOR_A_NAME + b"\x00" + b"n" * 255 + b"\x00", to("n" * 255)),
    (FOR_A_NAME + b"\x00\xff\xc3\xa4\x00", to("\udcff\u00e4")),
    (HEAD + b"\x00\x00\x00\x00\x00", to("0.0.0.0")),
    (HEAD + b"\x00\x00\x01\x01\x00", to("0.0.1.1")),
    (HEAD + b"\x00\x01\x00\x01\x00", to("0.1.0.1")),
    (HEAD + b"\x01\x00\x00\x01\x00", to("1.0.0.1")),
    (HEAD + b"\x00\x00\x01\x00\x00", to("0.0.1.0")),
]


@pytest.mark.parametrize(("data", "request_"), REQUESTS)
def test_parse_request(data: bytes, request_: Request) -> None:
    """Else a client is sent elsewhere, waits forever, or loses what it sent behind its request."""
    check_stream(socks4.parse_request, data, request_)


def test_a_literal_in_a_name_field_stays_a_name() -> None:
    """The parser tells what was sent; what it means is told in one place, elsewhere."""
    check_stream(
        socks4.parse_request,
        FOR_A_NAME + b"\x00127.0.0.1\x00",
        Request(Version.SOCKS4, 1, Address("127.0.0.1", 80, AddressType.DOMAIN_NAME)),
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\x03",
        b"\x05",
        b"G",
        b"\x16",
        HEAD + b"\xc0\x00\x02\x01" + b"u" * (MAX_USERID + 1),
        FOR_A_NAME + b"u" * (MAX_USERID + 1),
        FOR_A_NAME + b"me\x00\x00",
        FOR_A_NAME + b"\x00" + b"n" * 256,
    ],
)
def test_faulty_requests(data: bytes) -> None:
    """Else a client without a NUL fills the memory, or another protocol is taken for SOCKS4."""
    check_fault(socks4.parse_request, data)


def test_bounds_are_seen_in_one_long_segment() -> None:
    """A NUL beyond the bound does not make the field any shorter."""
    check_fault(socks4.parse_request, HEAD + b"\xc0\x00\x02\x01" + b"u" * 513)
    with pytest.raises(ProtocolError):
        socks4.parse_request(HEAD + b"\xc0\x00\x02\x01" + b"u" * 513 + b"\x00")
    with pytest.raises(ProtocolError):
        socks4.parse_request(FOR_A_NAME + b"\x00" + b"n" * 256 + b"\x00")


@given(likely(HEAD, FOR_A_NAME, FOR_A_NAME + b"me\x00", HEAD + b"\x7f\x00\x00\x01"))
@example(FOR_A_NAME + b"\x00\x00")
def test_any_request(data: bytes) -> None:
    """Else bytes from anybody raise something that the server does not expect, and is caught nowhere."""
    request = check_any(socks4.parse_request, data)
    if request is None:
        return
    rebuilt = socks4.build_request(request)
    assert socks4.parse_request(rebuilt) == (request, len(rebuilt))


without_nul = st.binary(max_size=255).map(lambda raw: raw.replace(b"\x00", b""))
names4 = st.builds(Address, without_nul.filter(len).map(name_of), ports, st.just(AddressType.DOMAIN_NAME))


@given(bytes_, ipv4_addresses.filter(lambda a: not a.host.startswith("0.0.0.")) | names4, without_nul)
def test_request_round_trip(command: int, destination: Address, userid: bytes) -> None:
    """Else what a client of ours asks is not what a server reads."""
    request = Request(Version.SOCKS4, command, destination, userid)
    check_stream(socks4.parse_request, socks4.build_request(request), request)


@pytest.mark.parametrize(
    ("data", "request_"), [pair for pair in REQUESTS if pair[0][4:8] != b"\x00\x00\x00\xff"]
)
def test_build_request(data: bytes, request_: Request) -> None:
    """Else another server does not understand what we build, though our own parser might."""
    built = socks4.build_request(request_)
    if request_.destination.type is AddressType.DOMAIN_NAME:
        data = data[:7] + b"\x01" + data[8:]
    assert built == data


@pytest.mark.parametrize(
    "request_",
    [
        to("2001:db8::1"),
        Request(Version.SOCKS4, 1, Address("192.0.2.x", 80, AddressType.IPV4)),
        Request(Version.SOCKS4, 1, Address("192.0.2.1\x00", 80, AddressType.IPV4)),
        Request(Version.SOCKS4, 1, Address("\udcff", 80, AddressType.IPV4)),
        to("0.0.0.1"),  # a server would wait for a name
        to("0.0.0.255"),
        to(""),
        to("a\x00b"),
        to("n" * 256),
        to("\ud800"),
        to("192.0.2.1", userid=b"u" * 513),
        to("192.0.2.1", userid=b"a\x00b"),
        to("192.0.2.1", -1),
        to("192.0.2.1", 65536),
        to("192.0.2.1", command=256),
        to("192.0.2.1", command=-1),
    ],
)
def test_requests_that_cannot_be_expressed(request_: Request) -> None:
    """Else the server is sent something else than was asked for."""
    with pytest.raises(ValueError):  # noqa: PT011
        socks4.build_request(request_)


@pytest.mark.parametrize(
    ("data", "reply", "address"),
    [
        (b"\x00\x5a\x00\x00\x00\x00\x00\x00", Reply4.GRANTED, UNSPECIFIED),
        (b"\x00\x5b\x00\x00\x00\x00\x00\x00", Reply4.REJECTED, UNSPECIFIED),
        (b"\x00\x5c\x00\x50\xc0\x00\x02\x01", Reply4.NO_IDENT, Address.of("192.0.2.1", 80)),
        # As a number of two bytes the wrong way round 443 is 47873.
        (b"\x00\x5d\x01\xbb\xc0\x00\x02\x01", Reply4.IDENT_MISMATCH, Address.of("192.0.2.1", 443)),
        (b"\x00\x00\xff\xff\xff\xff\xff\xff", 0, Address.of("255.255.255.255", 65535)),
    ],
)
def test_reply(data: bytes, reply: int, address: Address) -> None:
    """Else a client takes a refusal for a success, or is told the wrong address."""
    check_stream(socks4.parse_reply, data, SOCKS4Reply(reply, address))
    assert socks4.build_reply(reply, address) == data


def test_a_reply_of_version_4_is_understood() -> None:
    """Some servers put their version there; a client cannot change them."""
    check_stream(socks4.parse_reply, b"\x04\x5a" + bytes(6), SOCKS4Reply(Reply4.GRANTED, UNSPECIFIED))


@pytest.mark.parametrize("version", [1, 3, 5, 255])
def test_a_reply_of_another_version(version: int) -> None:
    """Else a client reads the answer of another protocol as SOCKS4's."""
    check_fault(socks4.parse_reply, bytes((version,)))


@pytest.mark.parametrize("host", ["2001:db8::1", "::ffff:192.0.2.1", "example.com", "\udcff"])
def test_a_reply_has_no_form_for_other_addresses(host: str) -> None:
    """Else a session to an IPv6 destination fails after it was connected."""
    assert socks4.build_reply(Reply4.GRANTED, Address.of(host, 443)) == b"\x00\x5a\x01\xbb\x00\x00\x00\x00"


@pytest.mark.parametrize(("reply", "port"), [(256, 0), (-1, 0), (90, -1), (90, 65536)])
def test_replies_that_cannot_be_expressed(reply: int, port: int) -> None:
    """Else a client reads a reply that was never given."""
    with pytest.raises(ValueError):  # noqa: PT011
        socks4.build_reply(reply, Address.of("192.0.2.1", port))


@given(bytes_, addresses)
def test_reply_round_trip(reply: int, address: Address) -> None:
    """A reply has eight bytes whatever it tells: clients read just those."""
    told = address if address.type is AddressType.IPV4 else UNSPECIFIED._replace(port=address.port)
    data = socks4.build_reply(reply, address)
    assert len(data) == 8
    check_stream(socks4.parse_reply, data, SOCKS4Reply(reply, told))


@given(likely(b"\x00\x5a", b"\x04\x5a"))
def test_any_reply(data: bytes) -> None:
    """Else a server can raise anything in a client."""
    message = check_any(socks4.parse_reply, data)
    if message is not None:
        assert socks4.build_reply(*message) == b"\x00" + data[1:8]
