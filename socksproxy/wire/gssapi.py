"""
The messages of RFC 1961, GSS-API authentication, both ways.

All messages of streams and datagrams have one form: a version, a type, the length of a token and the token. A
token belongs to the GSS-API, and this module does not read it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from .words import ProtocolError

#: The version of the sub-negotiation, not of SOCKS.
VERSION = 1
HEADER = 4
MAX_TOKEN = 65535


class MessageType(IntEnum):
    """The MTYP field (RFC 1961, sections 3.4 to 5)."""

    #: A token that sets up the context.
    AUTHENTICATION = 0x01
    PROTECTION_LEVEL = 0x02
    #: Bytes under the protection that was agreed on.
    ENCAPSULATION = 0x03
    #: The sender gives up; there is neither length nor token.
    ABORT = 0xFF


class Level(IntEnum):
    """
    The protection of the messages after the negotiation (RFC 1961, section 4.3).

    :cvar NONE: none, and messages are not encapsulated. It is not in the RFC, but clients send it.
    :cvar SELECTIVE: integrity or confidentiality, message by message.
    """

    NONE = 0
    INTEGRITY = 1
    CONFIDENTIALITY = 2
    SELECTIVE = 3


class Message(NamedTuple):
    """
    One message.

    :ivar type: a :class:`MessageType`.
    :ivar token: 1 to 65535 bytes; empty for ``ABORT``.
    """

    type: MessageType
    token: bytes


def parse_message(data: bytes | bytearray) -> tuple[Message, int] | None:
    """
    Parse a message of a stream.

    :raises ProtocolError: for a version other than 1, an unknown type or an empty token.
    """
    if not data:
        return None
    if data[0] != VERSION:
        raise ProtocolError(f"GSSAPI message version {data[0]} where 1 was due")
    if len(data) < 2:
        return None
    try:
        kind = MessageType(data[1])
    except ValueError:
        raise ProtocolError(f"unknown GSSAPI message type {data[1]}") from None
    if kind is MessageType.ABORT:
        return Message(kind, b""), 2
    if len(data) < HEADER:
        return None
    end = HEADER + (data[2] << 8 | data[3])
    if end == HEADER:
        raise ProtocolError("an empty GSSAPI token")
    if len(data) < end:
        return None
    return Message(kind, bytes(data[HEADER:end])), end


def build_message(kind: MessageType, token: bytes) -> bytes:
    """
    A message with a token.

    :raises ValueError: for a token that is empty or has more than 65535 bytes.
    """
    if not 0 < len(token) <= MAX_TOKEN:
        raise ValueError(f"a token has 1 to {MAX_TOKEN} bytes, not {len(token)}")
    return bytes((VERSION, kind)) + len(token).to_bytes(2, "big") + token


def build_abort() -> bytes:
    """The message with which a sender gives up."""
    return bytes((VERSION, MessageType.ABORT))


def parse_encapsulated(data: bytes) -> bytes:
    """
    The token in a datagram, which is one whole message (RFC 1961, section 5).

    :raises ProtocolError: when *data* is anything else.
    """
    parsed = parse_message(data)
    if parsed is None or parsed[1] != len(data):
        raise ProtocolError("a datagram that is not one GSSAPI message")
    message = parsed[0]
    if message.type is not MessageType.ENCAPSULATION:
        raise ProtocolError("a datagram of another GSSAPI message type than 3")
    return message.token


def build_encapsulated(token: bytes) -> bytes:
    """
    A message, of a stream or a datagram, with protected bytes.

    :raises ValueError: for a token that is empty or has more than 65535 bytes.
    """
    return build_message(MessageType.ENCAPSULATION, token)
