"""The messages of RFC 1961."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from socksproxy.wire.gssapi import (
    MAX_TOKEN,
    Message,
    MessageType,
    build_abort,
    build_encapsulated,
    build_message,
    parse_encapsulated,
    parse_message,
)
from socksproxy.wire.words import ProtocolError

from ..support.messages import assert_fit_for_a_log, check_any, check_fault, check_stream, likely

WITH_TOKEN = [kind for kind in MessageType if kind is not MessageType.ABORT]

tokens = st.binary(min_size=1, max_size=600)


@pytest.mark.parametrize(
    ("kind", "token", "data"),
    [
        (MessageType.AUTHENTICATION, b"abc", b"\x01\x01\x00\x03abc"),
        (MessageType.PROTECTION_LEVEL, b"\x02", b"\x01\x02\x00\x01\x02"),
        (MessageType.ENCAPSULATION, b"t" * 258, b"\x01\x03\x01\x02" + b"t" * 258),
    ],
)
def test_a_message(kind: MessageType, token: bytes, data: bytes) -> None:
    assert build_message(kind, token) == data
    check_stream(parse_message, data, Message(kind, token))


def test_the_longest_token() -> None:
    token = b"t" * MAX_TOKEN
    data = build_message(MessageType.ENCAPSULATION, token)
    assert data[:4] == b"\x01\x03\xff\xff"
    assert parse_message(data) == (Message(MessageType.ENCAPSULATION, token), 4 + MAX_TOKEN)
    assert parse_message(data[:-1]) is None


def test_giving_up() -> None:
    """It has two bytes, and no length."""
    assert build_abort() == b"\x01\xff"
    check_stream(parse_message, b"\x01\xff", Message(MessageType.ABORT, b""))


@pytest.mark.parametrize(
    "data",
    [b"\x00", b"\x02", b"\x05", b"\x01\x00", b"\x01\x04", b"\x01\xfe", b"\x01\x01\x00\x00"],
)
def test_faults(data: bytes) -> None:
    check_fault(parse_message, data)


@pytest.mark.parametrize("token", [b"", b"t" * (MAX_TOKEN + 1)])
def test_tokens_that_cannot_be(token: bytes) -> None:
    with pytest.raises(ValueError, match="a token has"):
        build_message(MessageType.AUTHENTICATION, token)


@given(st.sampled_from(WITH_TOKEN), tokens)
def test_there_and_back(kind: MessageType, token: bytes) -> None:
    check_stream(parse_message, build_message(kind, token), Message(kind, token))


@given(likely(b"\x01\x01", b"\x01\x02\x00\x01", b"\x01\x03\x00", b"\x01\xff"))
def test_anything(data: bytes) -> None:
    message = check_any(parse_message, data)
    if message is not None and message.type is not MessageType.ABORT:
        assert data.startswith(build_message(*message))


@given(tokens)
def test_a_datagram(token: bytes) -> None:
    data = build_encapsulated(token)
    assert data == build_message(MessageType.ENCAPSULATION, token)
    assert parse_encapsulated(data) == token
    for wrong in (data[:-1], data + b"\x00", data[1:], data[:3], b""):
        with pytest.raises(ProtocolError):
            parse_encapsulated(wrong)


@pytest.mark.parametrize("kind", [kind for kind in MessageType if kind is not MessageType.ENCAPSULATION])
def test_a_datagram_of_another_type(kind: MessageType) -> None:
    data = build_abort() if kind is MessageType.ABORT else build_message(kind, b"token")
    with pytest.raises(ProtocolError):
        parse_encapsulated(data)


@given(likely(b"\x01\x03\x00", b"\x01\xff", b"\x01\x01"))
def test_any_datagram(data: bytes) -> None:
    try:
        token = parse_encapsulated(data)
    except ProtocolError as problem:
        assert_fit_for_a_log(problem)
    else:
        assert build_encapsulated(token) == data
