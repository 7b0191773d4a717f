"""
Answers to the DNS queries of programs: each name gets the addresses that stand for it (RFC 1035). Pure.

No query leaves the machine. A name exists as far as this side can tell; the proxy finds out when a program
connects. ``localhost`` keeps its own addresses (RFC 6761). Records of other types are not here (NOTIMP),
except that no name has service bindings (types SVCB and HTTPS): programs then use the addresses.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple

from .stand_ins import StandIns

_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_RESPONSE, _OPCODE = 0x8000, 0x7800
_RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x0100, 0x0080
_NO_ERROR, _FORMAT_ERROR, _NO_NAME, _NOT_IMPLEMENTED = 0, 1, 3, 4
_INTERNET = 1
A, PTR, AAAA, SVCB, HTTPS = 1, 12, 28, 64, 65
#: Seconds that a program may remember an answer.
TTL = 60
_LONGEST_NAME = 255
# A pointer to the name in the question, which follows the header (RFC 1035, section 4.1.4).
_SAME_NAME = (0xC000 | _HEADER.size).to_bytes(2, "big")


class _NameQuestion(NamedTuple):
    labels: list[bytes]
    kind: int
    end: int


def answer(query: bytes, stand_ins: StandIns) -> bytes:
    """
    The answer to the message *query*; empty: it deserves none.

    :param stand_ins: where the names get their addresses.
    """
    if len(query) < _HEADER.size:
        return b""
    id, flags, questions, *_ = _HEADER.unpack_from(query)
    if flags & _RESPONSE:
        return b""
    question = _parse_question(query) if questions == 1 and not flags & _OPCODE else None
    told = _RESPONSE | _RECURSION_AVAILABLE | flags & (_OPCODE | _RECURSION_DESIRED)
    if question is None:
        return _HEADER.pack(id, told | _FORMAT_ERROR, 0, 0, 0, 0)
    code, data = _find(question, stand_ins)
    head = _HEADER.pack(id, told | code, 1, 1 if data else 0, 0, 0)
    record = _SAME_NAME + _RECORD.pack(question.kind, _INTERNET, TTL, len(data)) + data if data else b""
    return head + query[_HEADER.size : question.end] + record


def _parse_question(query: bytes) -> _NameQuestion | None:
    at, labels = _HEADER.size, []
    while at < len(query) and query[at]:
        size = query[at]
        if size > 63 or at + 1 + size > min(len(query), _HEADER.size + _LONGEST_NAME):
            return None
        labels.append(query[at + 1 : at + 1 + size])
        at += 1 + size
    if at + 5 > len(query):
        return None
    kind, klass = struct.unpack_from("!HH", query, at + 1)
    return _NameQuestion(labels, kind, at + 5) if klass == _INTERNET else None


def _find(question: _NameQuestion, stand_ins: StandIns) -> tuple[int, bytes]:
    """The code, and the data of the one record; empty: there is none."""
    labels, kind, _ = question
    if kind == PTR:
        name = _pointed(labels, stand_ins)
        return (_NO_ERROR, _packed_name(name)) if name else (_NO_NAME, b"")
    if kind in (SVCB, HTTPS):
        return _NO_ERROR, b""
    if kind not in (A, AAAA):
        return _NOT_IMPLEMENTED, b""
    # A name with a dot inside a label, or a NUL, cannot be told to a proxy.
    if not labels or any(b"." in label or b"\0" in label for label in labels):
        return _NO_NAME, b""
    if labels[-1].lower() == b"localhost":
        ipv4, ipv6 = "127.0.0.1", "::1"
    else:
        ipv4, ipv6 = stand_ins.addresses_of(b".".join(labels).decode("utf-8", "surrogateescape"))
    return _NO_ERROR, inet_pton(AF_INET, ipv4) if kind == A else inet_pton(AF_INET6, ipv6)


def _pointed(labels: list[bytes], stand_ins: StandIns) -> str | None:
    """The name for which the address stands whose reverse name *labels* are."""
    try:
        parts = [label.decode("ascii").lower() for label in labels]
        if parts[-2:] == ["in-addr", "arpa"] and len(parts) == 6:
            return stand_ins.name_of(str(ip_address(".".join(parts[3::-1]))))
        if parts[-2:] == ["ip6", "arpa"] and len(parts) == 34:
            return stand_ins.name_of(str(ip_address(bytes.fromhex("".join(parts[31::-1])))))
    except ValueError:
        pass
    return None


def _packed_name(name: str) -> bytes:
    labels = name.encode("utf-8", "surrogateescape").split(b".")
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
