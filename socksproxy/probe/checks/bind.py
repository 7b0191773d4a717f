"""BIND of SOCKS4, SOCKS4a and SOCKS5."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from ...wire import socks5
from ...wire.words import Address, AddressType, Command, Reply
from ..check import Checks
from ..link import Link, ServerSilent
from ..outcome import Failed, expect
from ..subject import ProbedServer, echoed, granted, granted4, granted4_where_served, granted_where_served

CHECKS = Checks()


@CHECKS.add(
    "socks5.bind",
    "BIND: a first reply with a port that listens, a second one with the peer, then bytes both ways",
    "RFC 1928, 4 and 6",
    needs="socks5.connect",
)
def _bind(subject: ProbedServer) -> None:
    with subject.ask(Command.BIND, _peer(subject)) as client:
        _whole(subject, client, granted_where_served, granted)


@CHECKS.add("socks4.bind", "the same for SOCKS4", "SOCKS4, BIND", needs="socks4.connect")
def _bind4(subject: ProbedServer) -> None:
    with subject.ask4(Command.BIND, _peer(subject)) as client:
        _whole(subject, client, granted4_where_served, granted4)


@CHECKS.add(
    "socks4a.bind", "the same for SOCKS4a, whose request names the peer", "SOCKS4a", needs="socks4.bind"
)
def _bind4a(subject: ProbedServer) -> None:
    with subject.ask4(Command.BIND, Address(subject.name(), 1, AddressType.DOMAIN_NAME)) as client:
        _whole(subject, client, granted4_where_served, granted4)


@CHECKS.add(
    "socks5.bind-address",
    "the first reply of BIND has the address of an interface, which the client can tell its peer",
    "RFC 1928, 6",
    needs="socks5.bind",
)
def _address(subject: ProbedServer) -> None:
    with subject.ask(Command.BIND, _peer(subject)) as client:
        bound = granted(client)
        expect(not ip_address(bound.host).is_unspecified, f"BND.ADDR was {bound.host}")


@CHECKS.add(
    "socks5.bind-wrong-peer",
    "a connection from another address than DST.ADDR is not given to the client",
    "RFC 1928, 4: DST.ADDR evaluates the BIND request",
    needs="socks5.bind",
)
def _wrong_peer(subject: ProbedServer) -> str:
    source = subject.another_source()
    with subject.ask(Command.BIND, _peer(subject)) as client:
        place = _place(subject, granted(client))
        with _called(subject, place, source):
            try:
                reply = client.read(socks5.parse_reply).reply
            except ServerSilent:
                return "the server waits for the right peer"
            expect(reply != Reply.SUCCEEDED, f"the peer {source} was granted")
            return f"the second reply was {reply}"


@CHECKS.add(
    "socks5.bind-client-ends",
    "when the client closes while BIND waits, the port closes",
    "RFC 1928, 4: BIND belongs to its connection",
    needs="socks5.bind",
)
def _client_ends(subject: ProbedServer) -> None:
    with subject.ask(Command.BIND, _peer(subject)) as client:
        place = _place(subject, granted(client))
    until = time.monotonic() + subject.timeout
    while time.monotonic() < until:
        try:
            socket.create_connection((place.host, place.port), subject.timeout).close()
        except OSError:
            return
        time.sleep(0.05)
    raise Failed(f"the port took connections for {subject.timeout:g} s more")


def _peer(subject: ProbedServer) -> Address:
    """DST.ADDR of the peer that will come; DST.PORT is one that no test minds."""
    return subject.at(1)


def _whole(
    subject: ProbedServer, client: Link, first: Callable[[Link], Address], second: Callable[[Link], Address]
) -> None:
    place = _place(subject, first(client))
    with _called(subject, place) as peer:
        told = second(client)
        host, port = peer.socket.getsockname()[:2]
        expect(
            told.host == host and told.port == port,
            f"the second reply had {told}; the peer is {Address.of(host, port)}",
        )
        echoed(client, peer)


def _place(subject: ProbedServer, bound: Address) -> Address:
    """Where the peer connects: an address of zeros stands for the server's own (SOCKS4, BIND)."""
    expect(bound.port != 0, "the first reply has port 0")
    if bound.type is AddressType.DOMAIN_NAME or not ip_address(bound.host).is_unspecified:
        return bound
    return Address.of(subject.where.host, bound.port)


@contextmanager
def _called(subject: ProbedServer, place: Address, source: str = "") -> Iterator[Link]:
    """The peer's connection to *place*; it may be refused where BIND has ended."""
    try:
        connection = socket.create_connection(
            (place.host, place.port), subject.timeout, (source or subject.where.target, 0)
        )
    except OSError as problem:
        raise Failed(f"{place} takes no connection: {problem.strerror or problem}") from None
    with Link(connection, subject.timeout, "the server, at the peer,") as link:
        yield link
