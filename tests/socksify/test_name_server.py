"""Answers to the queries of programs."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.names import dns

from socksproxy.socksify.name_server import answer
from socksproxy.socksify.stand_ins import StandIns


def ask(name: bytes, kind: int, names: StandIns | None = None) -> Any:
    query = dns.Message(id=77, recDes=1)
    query.addQuery(name, kind)
    said: Any = dns.Message()
    said.fromStr(answer(query.toStr(), names or StandIns()))
    assert (said.id, said.answer, said.recDes, said.recAv) == (77, 1, 1, 1)
    assert said.queries == query.queries
    return said


@pytest.mark.parametrize(
    "name", [b"example.org", b"WWW.Example.Org", "bücher.example".encode(), b"a", b"x_y.test"]
)
def test_a_name_gets_the_addresses_that_stand_for_it(name: bytes) -> None:
    names = StandIns()
    ipv4, ipv6 = names.addresses_of(name.decode())
    (record,) = ask(name, dns.A, names).answers
    assert record.payload.dottedQuad() == ipv4
    assert record.name.name == name
    (record,) = ask(name, dns.AAAA, names).answers
    assert record.payload._address == ipv6


def test_localhost_stays_here() -> None:
    assert ask(b"a.LocalHost", dns.A).answers[0].payload.dottedQuad() == "127.0.0.1"
    assert ask(b"localhost", dns.AAAA).answers[0].payload._address == "::1"


@pytest.mark.parametrize(
    ("kind", "code"),
    [(64, dns.OK), (65, dns.OK), (dns.MX, dns.ENOTIMP), (dns.TXT, dns.ENOTIMP), (255, dns.ENOTIMP)],
)
def test_other_types(kind: int, code: int) -> None:
    said = ask(b"example.org", kind)
    assert said.rCode == code
    assert not said.answers


def test_a_stand_in_has_its_name() -> None:
    names = StandIns()
    for address in names.addresses_of("www.example.org"):
        reverse = ip_address(address).reverse_pointer.encode()
        (record,) = ask(reverse.upper(), dns.PTR, names).answers
        assert record.payload.name.name == b"www.example.org"


@pytest.mark.parametrize(
    "name",
    [
        b"9.0.18.198.in-addr.arpa",
        b"1.2.0.192.in-addr.arpa",
        b"1.0.in-addr.arpa",
        b"x.0.18.198.in-addr.arpa",
        b"999.0.18.198.in-addr.arpa",
        b"1.ip6.arpa",
        b".".join([b"z"] * 32) + b".ip6.arpa",
        b"example.org",
    ],
)
def test_an_address_without_a_name(name: bytes) -> None:
    assert ask(name, dns.PTR).rCode == dns.ENAME


@pytest.mark.parametrize("labels", [b"\x03a.b\3org\0", b"\x03a\0b\3org\0", b"\0"])
def test_a_name_that_no_proxy_can_be_told(labels: bytes) -> None:
    said = answer(b"\0\7\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\1\0\1", StandIns())
    assert said[3] & 15 == dns.ENAME


HEAD = b"\0\7\1\0\0\1\0\0\0\0\0\0"


@pytest.mark.parametrize(
    "query",
    [
        HEAD,
        HEAD + b"\3org",
        HEAD + b"\3org\0\0\1",
        HEAD + b"\xc0\x0c\0\1\0\1",  # a pointer to itself
        HEAD + b"\x40" + bytes(64) + b"\0\0\1\0\1",
        HEAD
        + b"\x3f"
        + b"a" * 63
        + b"\x3f"
        + b"a" * 63
        + b"\x3f"
        + b"a" * 63
        + b"\x3f"
        + b"a" * 63
        + b"\0\0\1\0\1",
        HEAD + b"\3org\0\0\1\0\3",  # of another class
        b"\0\7\1\0\0\2" + HEAD[6:] + b"\3org\0\0\1\0\1" * 2,
        b"\0\7\x29\0" + HEAD[4:] + b"\3org\0\0\1\0\1",  # an update
    ],
)
def test_what_is_no_question(query: bytes) -> None:
    said = answer(query, StandIns())
    assert said[:2] == b"\0\7"
    assert said[3] & 15 == dns.EFORMAT
    assert len(said) == 12


@pytest.mark.parametrize("query", [b"", b"\0\7\1\0\0\1", b"\0\7\x81" + HEAD[3:] + b"\3org\0\0\1\0\1"])
def test_what_deserves_no_answer(query: bytes) -> None:
    assert answer(query, StandIns()) == b""


@given(st.binary(max_size=300))
def test_any_bytes(query: bytes) -> None:
    answer(query, StandIns())
    answer(HEAD + query, StandIns())
