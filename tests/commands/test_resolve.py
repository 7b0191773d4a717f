"""RESOLVE and RESOLVE_PTR: see :mod:`socksproxy.commands.resolve`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from socksproxy import Client, IPolicy
from socksproxy.negotiation import State
from socksproxy.policy import DefaultPolicy
from socksproxy.wire.words import Address, AddressType, Command, Reply

from ..conftest import Serve
from ..support.hosts import Both, Hosts
from ..support.proxy import Playing, Proxy, ask4, ask5, greet, greeting, reply5, request4, request5, until

NAME = "host.example"


def resolve(sock: socket.socket, version: int, host: str) -> tuple[int, Address]:
    ask: Callable[..., tuple[int, Address]] = ask4 if version == 4 else ask5
    answer = ask(sock, host, 0, Command.RESOLVE)
    # The conversation is over, and the client need not close to have it so.
    assert sock.recv(1) == b""
    return answer


def resolve_pointer(sock: socket.socket, host: str) -> tuple[int, Address]:
    answer = ask5(sock, host, 0, Command.RESOLVE_PTR)
    assert sock.recv(1) == b""
    return answer


# RESOLVE.


@pytest.mark.parametrize(
    ("version", "asked", "addresses", "answer"),
    [
        (5, NAME, ["192.0.2.1"], "192.0.2.1"),
        (5, NAME, ["2001:db8::1"], "2001:db8::1"),
        # torsocks takes IPv4 only, whatever the resolver prefers.
        (5, NAME, ["2001:db8::1", "192.0.2.1", "192.0.2.2"], "192.0.2.1"),
        (4, NAME, ["192.0.2.1"], "192.0.2.1"),
        (4, NAME, ["2001:db8::1", "192.0.2.1"], "192.0.2.1"),
        # A literal address is its own answer, in whatever form it comes.
        (5, "192.0.2.7", None, "192.0.2.7"),
        (5, "2001:db8::7", None, "2001:db8::7"),
        (4, "192.0.2.7", None, "192.0.2.7"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_resolve(serve: Serve, version: int, asked: str, addresses: Any, answer: str) -> Playing:
    """A client learns the address, in one reply, and the session is over."""
    hosts = Hosts({NAME: addresses} if addresses else {})
    proxy: Proxy = yield serve(resolver=hosts)
    with proxy.connect() as sock:
        code, address = yield proxy.play(resolve, sock, version, asked)
    record = yield proxy.record()
    assert (code, address) == (90 if version == 4 else 0, Address.of(answer, 0))
    assert (record["command"], record["destination"]) == ("RESOLVE", str(Address.of(asked, 0)))
    assert (record["reply"], record["announced"], record["ended"]) == (code, answer, "answered")
    assert (record["reached"], record["outgoing"], record["sent"]) == (None, None, 0)
    assert hosts.asked == ([NAME] if addresses else [])


@pytest.mark.parametrize("text", ["192.0.2.7", "[2001:db8::7]", "2001:db8::7"])
@pytest_twisted.inlineCallbacks
def test_literal_as_name(serve_as: Serve, text: str) -> Playing:
    """An address that is sent as a name needs no resolver either."""
    proxy: Proxy = yield serve_as(resolver=Hosts({}))

    def scenario(sock: socket.socket) -> tuple[int, Address]:
        greet(sock)
        sock.sendall(b"\x05\xf0\x00\x03" + bytes((len(text),)) + text.encode() + b"\x00\x00")
        return reply5(sock)

    with proxy.connect() as sock:
        answer = yield proxy.play(scenario, sock)
    assert answer == (0, Address.of(text.strip("[]"), 0))


@pytest.mark.parametrize(
    ("version", "addresses", "code"), [(5, [], 4), (4, [], 91), (4, ["2001:db8::1"], 91)]
)
@pytest_twisted.inlineCallbacks
def test_not_found(serve: Serve, version: int, addresses: list[str], code: int) -> Playing:
    """No such name, or none whose address the client's version can be told."""
    proxy: Proxy = yield serve(resolver=Hosts({NAME: list(addresses)}))
    with proxy.connect() as sock:
        answer = yield proxy.play(resolve, sock, version, NAME)
    record = yield proxy.record()
    assert answer == (code, Address.of("0.0.0.0", 0))
    assert record["announced"] is None
    assert record["ended"].startswith("refused: ")


@pytest.mark.parametrize("name", [".a", "a..b", "127.1", "x" * 64])
@pytest_twisted.inlineCallbacks
def test_no_name(serve_as: Serve, name: str) -> Playing:
    """What CONNECT would not look up is not looked up here."""
    hosts = Hosts({})
    proxy: Proxy = yield serve_as(resolver=hosts)
    with proxy.connect() as sock:
        assert (yield proxy.play(resolve, sock, 5, name))[0] == Reply.HOST_UNREACHABLE
    assert hosts.asked == []


@implementer(IPolicy)
class Denies:
    """Permits everything but some hosts; keeps what it is asked."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.asked: list[tuple[Command, str]] = []

    def permits(self, client: Client, command: Command, destination: Address) -> Deferred[bool]:
        self.asked.append((command, destination.host))
        return succeed(destination.host not in self.hosts)


@pytest.mark.parametrize(
    ("denied", "code", "answer"),
    [
        ((NAME,), 2, "0.0.0.0"),
        (("192.0.2.1",), 0, "192.0.2.2"),
        (("192.0.2.1", "192.0.2.2"), 0, "2001:db8::1"),
        (("192.0.2.1", "192.0.2.2", "2001:db8::1"), 2, "0.0.0.0"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_policy(serve: Serve, denied: tuple[str, ...], code: int, answer: str) -> Playing:
    """A client is told only what it may reach."""
    policy = Denies(*denied)
    hosts = Hosts({NAME: ["192.0.2.1", "192.0.2.2", "2001:db8::1"]})
    proxy: Proxy = yield serve(resolver=hosts, policy=policy)
    with proxy.connect() as sock:
        assert (yield proxy.play(resolve, sock, 5, NAME)) == (code, Address.of(answer, 0))
    assert {command for command, _ in policy.asked} == {Command.RESOLVE}


@pytest.mark.parametrize(
    ("client", "code"), [("192.0.2.9", Reply.NOT_ALLOWED), ("127.0.0.1", Reply.SUCCEEDED)]
)
@pytest.mark.parametrize("asked", [NAME, "127.0.0.1"])
@pytest_twisted.inlineCallbacks
def test_special(serve_as: Serve, client: str, code: int, asked: str) -> Playing:
    """Which names are loopback's, or a cloud's, is not for clients of other machines."""
    proxy: Proxy = yield serve_as("wrapped", resolver=Hosts({NAME: ["127.0.0.1"]}))
    with proxy.connect(client) as sock:
        assert (yield proxy.play(resolve, sock, 5, asked))[0] == code


# RESOLVE_PTR.


@pytest.mark.parametrize("asked", ["192.0.2.1", "2001:db8::1"])
@pytest_twisted.inlineCallbacks
def test_pointer(serve: Serve, asked: str) -> Playing:
    """A client learns the name, as a name."""
    proxy: Proxy = yield serve(
        resolver=Both({}, {"192.0.2.1": "four.example.", "2001:db8::1": "Six.example"})
    )
    name = "four.example" if ":" not in asked else "six.example"
    with proxy.connect() as sock:
        code, address = yield proxy.play(resolve_pointer, sock, asked)
    record = yield proxy.record()
    assert (code, address) == (0, Address(name, 0, AddressType.DOMAIN_NAME))
    assert (record["command"], record["announced"], record["ended"]) == ("RESOLVE_PTR", name, "answered")
    assert record["resolution_seconds"] is not None


@pytest_twisted.inlineCallbacks
def test_pointer_as_text(serve_as: Serve) -> Playing:
    """Some clients send the address as a name."""
    proxy: Proxy = yield serve_as(resolver=Both({}, {"2001:db8::1": "six.example"}))

    def scenario(sock: socket.socket) -> tuple[int, Address]:
        greet(sock)
        sock.sendall(b"\x05\xf1\x00\x03\x0b2001:db8::1\x00\x00")
        return reply5(sock)

    with proxy.connect() as sock:
        assert (yield proxy.play(scenario, sock))[1].host == "six.example"


@pytest.mark.parametrize("asked", ["192.0.2.2", NAME, "2001:db8::2"])
@pytest_twisted.inlineCallbacks
def test_no_pointer(serve: Serve, asked: str) -> Playing:
    """An address without a name, and a name, which has no address in reverse."""
    proxy: Proxy = yield serve(resolver=Both({NAME: ["192.0.2.1"]}, {"192.0.2.1": NAME}))
    with proxy.connect() as sock:
        answer = yield proxy.play(resolve_pointer, sock, asked)
    assert answer == (Reply.HOST_UNREACHABLE, Address.of("0.0.0.0", 0))


@pytest_twisted.inlineCallbacks
def test_resolver_without_pointers(serve_as: Serve) -> Playing:
    """A resolver of the program's own need not know names of addresses."""
    proxy: Proxy = yield serve_as(resolver=Hosts({}))
    with proxy.connect() as sock:
        assert (yield proxy.play(resolve_pointer, sock, "127.0.0.1"))[0] == Reply.HOST_UNREACHABLE
    record = yield proxy.record()
    assert record["ended"] == "refused: the resolver knows no names of addresses"


@pytest.mark.parametrize(
    ("policy", "code"), [(Denies("192.0.2.1"), Reply.NOT_ALLOWED), (DefaultPolicy(), Reply.SUCCEEDED)]
)
@pytest_twisted.inlineCallbacks
def test_pointer_policy(serve: Serve, policy: IPolicy, code: int) -> Playing:
    """Whoever may not reach an address need not know its name."""
    resolver = Both({}, {"192.0.2.1": NAME})
    proxy: Proxy = yield serve(resolver=resolver, policy=policy)
    with proxy.connect() as sock:
        assert (yield proxy.play(resolve_pointer, sock, "192.0.2.1"))[0] == code


@pytest_twisted.inlineCallbacks
def test_socks4_has_no_pointer(serve: Serve) -> Playing:
    """Its reply has no room for a name."""
    proxy: Proxy = yield serve(resolver=Both({}, {"192.0.2.1": NAME}))

    def scenario(sock: socket.socket) -> bytes:
        sock.sendall(request4("192.0.2.1", 0, Command.RESOLVE_PTR))
        return sock.recv(100)

    with proxy.connect() as sock:
        assert (yield proxy.play(scenario, sock)) == b"\x00\x5b" + bytes(6)


# Both.


@pytest.mark.parametrize("command", [Command.RESOLVE, Command.RESOLVE_PTR])
@pytest.mark.parametrize("leave", ["close", "half-close"])
@pytest_twisted.inlineCallbacks
def test_client_leaves(serve: Serve, command: Command, leave: str) -> Playing:
    """An answer that comes too late disturbs nobody."""
    resolver = Both({NAME: None}, {"192.0.2.1": None})
    proxy: Proxy = yield serve(resolver=resolver)
    asked = NAME if command is Command.RESOLVE else "192.0.2.1"

    def scenario(sock: socket.socket) -> None:
        greet(sock)
        sock.sendall(request5(asked, 0, command))

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
        yield until(lambda: resolver.asked or resolver.waiting)
        sock.close() if leave == "close" else sock.shutdown(socket.SHUT_WR)
        record = yield proxy.record()
    if command is Command.RESOLVE:
        resolver.answer(NAME, "192.0.2.1")
    else:
        resolver.waiting[0].callback(NAME)
    assert (record["ended"], record["reply"]) == ("client", None)


@pytest.mark.parametrize("command", [Command.RESOLVE, Command.RESOLVE_PTR])
@pytest_twisted.inlineCallbacks
def test_timeout(serve: Serve, command: Command) -> Playing:
    """A resolver that does not answer costs a client as much time as with CONNECT."""
    clock = Clock()
    proxy: Proxy = yield serve(resolver=Both({NAME: None}, {"192.0.2.1": None}), clock=clock)
    asked = NAME if command is Command.RESOLVE else "192.0.2.1"

    def scenario(sock: socket.socket) -> None:
        greet(sock)
        sock.sendall(request5(asked, 0, command))

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
        yield until(lambda: [s for s in proxy.sessions.live if s.negotiation.state is State.SERVING])
        clock.advance(30.1)
        assert (yield proxy.play(reply5, sock))[0] == Reply.TTL_EXPIRED


@pytest_twisted.inlineCallbacks
def test_all_at_once(serve: Serve) -> Playing:
    """The whole conversation of the client in one segment, as tor-resolve might send it."""
    proxy: Proxy = yield serve(resolver=Hosts({NAME: ["192.0.2.1"]}))

    def scenario(sock: socket.socket) -> bytes:
        sock.sendall(greeting() + request5(NAME, 0, Command.RESOLVE))
        data = b""
        while piece := sock.recv(100):
            data += piece
        return data

    with proxy.connect() as sock:
        answer = yield proxy.play(scenario, sock)
    assert answer == b"\x05\x00" + b"\x05\x00\x00\x01\xc0\x00\x02\x01\x00\x00"


@pytest.mark.parametrize("command", [Command.RESOLVE, Command.RESOLVE_PTR])
@pytest_twisted.inlineCallbacks
def test_turned_off(serve: Serve, command: Command) -> Playing:
    """A proxy that does not serve them says so; CONNECT goes on."""
    proxy: Proxy = yield serve(resolver=Both({}, {"192.0.2.1": NAME}), resolve_commands=False)
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "192.0.2.1", 0, command))[0] == Reply.COMMAND_NOT_SUPPORTED
    with proxy.connect() as sock:
        assert (yield proxy.play(ask4, sock, "192.0.2.1", 0, command))[0] == 91
