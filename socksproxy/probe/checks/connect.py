"""CONNECT of SOCKS4, SOCKS4a and SOCKS5: that it is served, and what is answered where it fails."""

from __future__ import annotations

import socket
from collections.abc import Callable

from ...wire import socks4, socks5
from ...wire.words import Address, AddressType, Command, Reply, Reply4, Request, Version
from ..check import Checks
from ..link import Link, ServerClosed, ServerSilent
from ..outcome import Failed, NotPossible, expect
from ..subject import (
    ProbedServer,
    TargetPort,
    echoed,
    granted,
    granted4,
    granted4_where_served,
    granted_where_served,
)

CHECKS = Checks()

#: No name ends so (RFC 6761, section 6.4).
_NO_SUCH_NAME = Address("socksproxy-probe.invalid", 80, AddressType.DOMAIN_NAME)
_UNKNOWN_COMMAND, _UNKNOWN_TYPE = 0x09, 0x05
#: Seconds in which a connection ends after a refusal.
_SHORTLY = 10.0


def _served(client: Link, target: TargetPort, grant: Callable[[Link], Address]) -> Address:
    """Read the reply by *grant*, and move bytes both ways."""
    with client:
        bound = grant(client)
        with target.accept() as server:
            echoed(client, server)
    return bound


@CHECKS.add("socks5.connect", "CONNECT to an IPv4 address is served", "RFC 1928, 4", needs="socks5.greeting")
def _connect(subject: ProbedServer) -> None:
    with subject.listen() as target:
        _served(subject.ask(Command.CONNECT, subject.at(target.port)), target, granted)


@CHECKS.add("socks5.connect-name", "CONNECT to a name is served", "RFC 1928, 5", needs="socks5.connect")
def _name(subject: ProbedServer) -> None:
    with subject.listen_by_name() as target:
        destination = subject.named(target.port)
        _served(subject.ask(Command.CONNECT, destination), target, granted_where_served)


@CHECKS.add(
    "socks5.connect-ipv6", "CONNECT to an IPv6 address is served", "RFC 1928, 5", needs="socks5.connect"
)
def _ipv6(subject: ProbedServer) -> None:
    with subject.listen6() as target:
        destination = Address(subject.target6(), target.port, AddressType.IPV6)
        _served(subject.ask(Command.CONNECT, destination), target, granted_where_served)


@CHECKS.add(
    "socks5.connect-next-address",
    "where the first address of a name refuses, the server connects to the next one",
    "RFC 8305, 5",
    needs="socks5.connect-name",
)
def _next_address(subject: ProbedServer) -> None:
    name = subject.name()
    try:
        found = {row[0] for row in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}
    except OSError:
        found = set()
    if found != {socket.AF_INET, socket.AF_INET6}:
        raise NotPossible(f"{name} does not have an IPv4 and an IPv6 address here")
    first6 = socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)[0][0] == socket.AF_INET6
    with subject.listen() if first6 else subject.listen6() as target:
        _served(subject.ask(Command.CONNECT, subject.named(target.port)), target, granted)


@CHECKS.add(
    "socks5.bound-address",
    "BND.ADDR and BND.PORT are those from which the server connects",
    "RFC 1928, 6",
    needs="socks5.connect",
)
def _bound(subject: ProbedServer) -> None:
    with subject.listen() as target, subject.ask(Command.CONNECT, subject.at(target.port)) as client:
        bound = granted(client)
        with target.accept() as server:
            host, port = server.socket.getpeername()[:2]
    expect(
        bound.host == host and bound.port == port,
        f"{bound}; the connection came from {Address.of(host, port)}",
    )


@CHECKS.add("socks4.connect", "CONNECT of SOCKS4 is served", "SOCKS4, CONNECT")
def _connect4(subject: ProbedServer) -> None:
    with subject.listen() as target:
        _served(subject.ask4(Command.CONNECT, subject.at(target.port)), target, granted4_where_served)


@CHECKS.add(
    "socks4.reply-version", "the version in a reply of SOCKS4 is 0", "SOCKS4, CONNECT", needs="socks4.connect"
)
def _version4(subject: ProbedServer) -> None:
    with subject.listen() as target, subject.ask4(Command.CONNECT, subject.at(target.port)) as client:
        first = client.receive(8)[0]
        expect(first == 0, f"it was {first}")


@CHECKS.add(
    "socks4.userid-empty",
    "an empty USERID is accepted",
    "curl and OpenBSD's nc send it",
    needs="socks4.connect",
)
def _no_userid(subject: ProbedServer) -> None:
    with subject.listen() as target:
        _served(subject.ask4(Command.CONNECT, subject.at(target.port), b""), target, granted4)


@CHECKS.add("socks4a.connect", "CONNECT of SOCKS4a to a name is served", "SOCKS4a", needs="socks4.connect")
def _connect4a(subject: ProbedServer) -> None:
    with subject.listen_by_name() as target:
        _served(subject.ask4(Command.CONNECT, subject.named(target.port)), target, granted4_where_served)


@CHECKS.add("socks5.refused", "a closed port is answered with 5", "RFC 1928, 6", needs="socks5.connect")
def _refused(subject: ProbedServer) -> None:
    _replied(subject, Command.CONNECT, subject.at(subject.closed_port()), Reply.CONNECTION_REFUSED)


@CHECKS.add(
    "socks5.no-such-name",
    "a name that does not exist is answered with 4",
    "RFC 1928, 6",
    needs="socks5.connect-name",
)
def _no_such_name(subject: ProbedServer) -> None:
    _replied(subject, Command.CONNECT, _NO_SUCH_NAME, Reply.HOST_UNREACHABLE)


@CHECKS.add(
    "socks5.unknown-command", "an unknown command is answered with 7", "RFC 1928, 6", needs="socks5.greeting"
)
def _unknown_command(subject: ProbedServer) -> None:
    _replied(subject, _UNKNOWN_COMMAND, subject.at(subject.closed_port()), Reply.COMMAND_NOT_SUPPORTED)


@CHECKS.add(
    "socks5.unknown-address-type",
    "an unknown address type is answered with 8",
    "RFC 1928, 6",
    needs="socks5.greeting",
)
def _unknown_type(subject: ProbedServer) -> None:
    with subject.ready() as client:
        client.send(bytes((Version.SOCKS5, Command.CONNECT, 0, _UNKNOWN_TYPE, 127, 0, 0, 1, 0, 80)))
        _code(client, Reply.ADDRESS_TYPE_NOT_SUPPORTED)


@CHECKS.add("socks5.empty-name", "a name of no bytes is refused", "RFC 1928, 5", needs="socks5.greeting")
def _empty_name(subject: ProbedServer) -> None:
    with subject.ready() as client:
        client.send(bytes((Version.SOCKS5, Command.CONNECT, 0, AddressType.DOMAIN_NAME, 0, 0, 80)))
        _not_granted(client)


@CHECKS.add("socks5.port-0", "port 0 is refused", "RFC 1928, 6", needs="socks5.connect")
def _port_0(subject: ProbedServer) -> None:
    with subject.ask(Command.CONNECT, subject.at(0)) as client:
        _not_granted(client)


@CHECKS.add(
    "socks5.ends-after-refusal",
    "the server closes the connection within 10 s after it has refused",
    "RFC 1928, 6",
    needs="socks5.connect",
)
def _ends(subject: ProbedServer) -> None:
    with subject.ask(Command.CONNECT, subject.at(subject.closed_port())) as client:
        client.wait_for_end(_SHORTLY)


@CHECKS.add("socks4.refused", "a closed port is answered with 91", "SOCKS4, CONNECT", needs="socks4.connect")
def _refused4(subject: ProbedServer) -> None:
    with subject.ask4(Command.CONNECT, subject.at(subject.closed_port())) as client:
        _code4(client)


@CHECKS.add(
    "socks4.unknown-command",
    "an unknown command of SOCKS4 is answered with 91",
    "SOCKS4",
    needs="socks4.connect",
)
def _unknown4(subject: ProbedServer) -> None:
    with subject.ask4(_UNKNOWN_COMMAND, subject.at(subject.closed_port())) as client:
        _code4(client)


@CHECKS.add(
    "socks5.segments",
    "a handshake whose bytes come one by one is served",
    "RFC 9293, 3.8.5: segments are no messages",
    needs="socks5.connect",
)
def _segments(subject: ProbedServer) -> None:
    with subject.listen() as target, subject.connect() as client:
        client.send_apart(subject.hello())
        subject.log_in(client)
        client.send_apart(socks5.build_request(Command.CONNECT, subject.at(target.port)))
        _served(client, target, granted)


@CHECKS.add(
    "socks4.segments",
    "the same for SOCKS4",
    "RFC 9293, 3.8.5: segments are no messages",
    needs="socks4.connect",
)
def _segments4(subject: ProbedServer) -> None:
    with subject.listen() as target, subject.connect() as client:
        request = Request(Version.SOCKS4, Command.CONNECT, subject.at(target.port), b"probe")
        client.send_apart(socks4.build_request(request))
        _served(client, target, granted4)


@CHECKS.add(
    "socks5.pipelined",
    "what follows the request without a wait for the reply reaches the destination",
    "Tor Browser and torsocks send data at once",
    needs="socks5.connect",
)
def _pipelined(subject: ProbedServer) -> None:
    early = b"early data"
    with subject.listen() as target, subject.connect() as client:
        request = socks5.build_request(Command.CONNECT, subject.at(target.port))
        if subject.where.login is None:
            client.send(subject.hello() + request + early)
            subject.log_in(client)
        else:
            client.send(subject.hello())
            subject.log_in(client)
            client.send(request + early)
        granted(client)
        with target.accept() as server:
            data = server.receive(len(early))
            expect(data == early, f"{data!r} arrived for {early!r}")


@CHECKS.add(
    "socks4.pipelined",
    "the same for SOCKS4",
    "Tor Browser and torsocks send data at once",
    needs="socks4.connect",
)
def _pipelined4(subject: ProbedServer) -> None:
    early = b"early data"
    with subject.listen() as target, subject.connect() as client:
        request = Request(Version.SOCKS4, Command.CONNECT, subject.at(target.port), b"probe")
        client.send(socks4.build_request(request) + early)
        granted4(client)
        with target.accept() as server:
            data = server.receive(len(early))
            expect(data == early, f"{data!r} arrived for {early!r}")


def _replied(subject: ProbedServer, command: int, destination: Address, reply: Reply) -> None:
    with subject.ask(command, destination) as client:
        _code(client, reply)


def _code(client: Link, expected: Reply) -> None:
    found = client.read(socks5.parse_reply).reply
    expect(found == expected, f"the reply was {found}")


def _code4(client: Link) -> None:
    found = client.read(socks4.parse_reply).reply
    expect(found in (Reply4.REJECTED, Reply4.NO_IDENT, Reply4.IDENT_MISMATCH), f"the reply was {found}")


def _not_granted(client: Link) -> None:
    """A refusal in any form will do, but it has to come."""
    try:
        found = client.read(socks5.parse_reply).reply
    except ServerSilent:
        raise Failed(f"no answer for {client.timeout:g} s") from None
    except ServerClosed:
        return
    expect(found != Reply.SUCCEEDED, "the reply was 0")
