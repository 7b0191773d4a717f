"""
BIND on real sockets, however the client's bytes are carried (``tests/support/proxy.py``).

After each test nothing may be left: no session, no listener, no descriptor.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from socksproxy import BindSettings, Client, IPolicy, Rule, RulePolicy
from socksproxy.commands import bind as module
from socksproxy.limits import Limits, ServerLimits
from socksproxy.negotiation import MAX_EARLY, State
from socksproxy.policy import DefaultPolicy
from socksproxy.session.session import Session
from socksproxy.wire.words import Address, AddressType, Command, Reply, Request, Version

from ..conftest import Serve
from ..support.bind import bind, meet, second, turned_away
from ..support.hosts import Hosts
from ..support.logs import log_publisher
from ..support.proxy import (
    PATIENCE,
    Playing,
    Proxy,
    ask5,
    echoes,
    greet,
    greeting,
    reply5,
    request4,
    request5,
    until,
)
from ..support.relay import is_reset, read_exactly, read_to_end, reset

NAME = "peer.example"
#: Where the proxy listens when the peer may be anybody; without it, on an address that others reach.
HERE = BindSettings(addresses=("127.0.0.1", "::1"))
BULK = os.urandom(3_000_000)


def granted(version: int) -> int:
    return 90 if version == 4 else 0


def is_open(address: Address) -> bool:
    """Whether this process listens there. A connection would be taken for a peer's."""
    return any(map(partial(listens_at, address.port), map(int, os.listdir("/proc/self/fd"))))


def listens_at(port: int, number: int) -> bool:
    """Whether the descriptor *number* is a socket that listens at *port*."""
    try:
        sock = socket.socket(fileno=number)
    except OSError:
        return False  # not a socket, or closed already
    try:
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return bool(listens and sock.family != socket.AF_UNIX and sock.getsockname()[1] == port)
    finally:
        sock.detach()


def the_session(proxy: Proxy) -> Session:
    (session,) = proxy.sessions.live
    return session


@pytest.fixture
def logged() -> Iterator[list[tuple[str, str]]]:
    """All that comes to the log: (level, text)."""
    seen: list[tuple[str, str]] = []

    def observe(event: Any) -> None:
        text = event.get("log_format") or event.get("log_text") or str(event.get("message"))
        seen.append((event["log_level"].name, text.format(**event)))

    log_publisher.addObserver(observe)
    yield seen
    log_publisher.removeObserver(observe)


# What a client of BIND sees.


@pytest.mark.parametrize(
    ("version", "asked", "host"),
    [
        (4, "127.0.0.1", "127.0.0.1"),
        (4, NAME, "127.0.0.1"),
        (5, "127.0.0.1", "127.0.0.1"),
        (5, "::1", "::1"),
        (5, "::ffff:127.0.0.1", "127.0.0.1"),
        (5, NAME, "127.0.0.1"),
        (5, "127.0.0.2", "127.0.0.1"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_both_replies(serve: Serve, version: int, asked: str, host: str, logged: list[Any]) -> Playing:
    """The first reply is where the peer gets in, the second who came in, and then there is a relay."""
    proxy: Proxy = yield serve(resolver=Hosts({NAME: ["127.0.0.1"]}))
    logged.clear()
    source = "127.0.0.2" if asked == "127.0.0.2" else host

    def scenario(sock: socket.socket) -> tuple[Address, Any]:
        code, address = bind(sock, version, asked, 4242)
        assert code == granted(version)
        assert (address.host, address.type) == (host, Address.of(host, 0).type)
        assert address.port != 0
        with meet(address, source) as peer:
            own = peer.getsockname()[:2]
            assert second(sock, version) == (granted(version), Address.of(*own))
            peer.sendall(b"220 hello")
            assert read_exactly(sock, 9) == b"220 hello"
            sock.sendall(b"thanks")
            assert read_exactly(peer, 6) == b"thanks"
            assert not is_open(address)
            sock.close()
            assert peer.recv(1) == b""
        return address, own

    with proxy.connect() as sock:
        address, own = yield proxy.play(scenario, sock)
    record = yield proxy.record()
    assert record["command"] == "BIND"
    assert record["destination"] == str(Address.of(asked, 4242))
    assert record["announced"] == record["outgoing"] == str(address)
    assert record["reached"] == str(Address.of(*own))
    assert (record["reply"], record["strangers"], record["ended"]) == (granted(version), 0, "client")
    assert (record["sent"], record["received"]) == (6, 9)
    # Many FTP transfers a minute must not drown what an operator should read.
    assert logged == []


@pytest.mark.parametrize("version", [4, 5])
@pytest_twisted.inlineCallbacks
def test_any_split(serve: Serve, version: int) -> Playing:
    """The request comes byte by byte."""
    proxy: Proxy = yield serve()

    def scenario(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if version == 5:
            greet(sock)
        ask = request4 if version == 4 else request5
        for byte in ask("127.0.0.1", 0, Command.BIND):
            sock.sendall(bytes((byte,)))
        code, address = second(sock, version)
        assert code == granted(version)
        with meet(address):
            assert second(sock, version)[0] == granted(version)

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)


@pytest_twisted.inlineCallbacks
def test_all_at_once(serve: Serve) -> Playing:
    """What comes with the request, and what comes between the replies, is for the peer."""
    proxy: Proxy = yield serve()

    def scenario(sock: socket.socket) -> None:
        sock.sendall(greeting() + request5("127.0.0.1", 0, Command.BIND) + b"with it, ")
        assert read_exactly(sock, 2) == b"\x05\x00"
        _, address = reply5(sock)
        sock.sendall(b"between, ")
        with meet(address) as peer:
            assert reply5(sock)[0] == Reply.SUCCEEDED
            sock.sendall(b"behind")
            assert read_exactly(peer, 24) == b"with it, between, behind"
            peer.sendall(b"answer")
            assert read_exactly(sock, 6) == b"answer"

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
    record = yield proxy.record()
    assert (record["sent"], record["received"]) == (24, 6)


@pytest.mark.parametrize("kind", ["transports", "detached", "accepted"])
@pytest_twisted.inlineCallbacks
def test_half_closes(serve_as: Serve, kind: str) -> Playing:
    """The client has said all: the peer still answers."""
    proxy: Proxy = yield serve_as(kind)

    def scenario(sock: socket.socket) -> None:
        _, address = bind(sock, 5, "127.0.0.1")
        sock.sendall(b"early")
        with meet(address) as peer:
            assert reply5(sock)[0] == Reply.SUCCEEDED
            sock.shutdown(socket.SHUT_WR)
            assert read_to_end(peer) == b"early"
            peer.sendall(b"answer")
            peer.shutdown(socket.SHUT_WR)
            assert read_to_end(sock) == b"answer"

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)


@pytest.mark.parametrize("direction", ["to the peer", "from the peer"])
@pytest_twisted.inlineCallbacks
def test_bulk(serve: Serve, direction: str) -> Playing:
    """A file goes through whole, and its end too: an FTP transfer ends with the connection."""
    proxy: Proxy = yield serve()

    def scenario(sock: socket.socket) -> None:
        _, address = bind(sock, 5, "127.0.0.1")
        with meet(address) as peer:
            reply5(sock)
            source, sink = (sock, peer) if direction == "to the peer" else (peer, sock)
            writer = threading.Thread(target=lambda: (source.sendall(BULK), source.shutdown(1)))
            writer.start()
            received = read_to_end(sink)
            writer.join()
        assert hashlib.sha256(received).digest() == hashlib.sha256(BULK).digest()

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)


@pytest_twisted.inlineCallbacks
def test_peer_resets(serve: Serve) -> Playing:
    """A reset by the peer is one for the client."""
    proxy: Proxy = yield serve()

    def scenario(sock: socket.socket) -> None:
        _, address = bind(sock, 5, "127.0.0.1")
        peer = meet(address)
        reply5(sock)
        reset(peer)
        assert is_reset(sock)

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
    record = yield proxy.record()
    assert record["ended"] == "destination reset"


@pytest_twisted.inlineCallbacks
def test_idle(serve: Serve) -> Playing:
    """What holds for a relay holds for this one."""
    from socksproxy import Timeouts

    proxy: Proxy = yield serve(timeouts=Timeouts(idle=0.05))

    def scenario(sock: socket.socket) -> None:
        _, address = bind(sock, 5, "127.0.0.1")
        with meet(address) as peer:
            reply5(sock)
            assert is_reset(peer)

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
    record = yield proxy.record()
    assert record["ended"] == "idle timeout"


# Whom it lets in.


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("asked", ["127.0.0.2", NAME])
@pytest_twisted.inlineCallbacks
def test_strangers(serve: Serve, version: int, asked: str) -> Playing:
    """Others than the named host are closed at once, counted, and waited past."""
    proxy: Proxy = yield serve(resolver=Hosts({NAME: ["127.0.0.2"]}))

    def scenario(sock: socket.socket) -> None:
        _, address = bind(sock, version, asked)
        for source in ("127.0.0.1", "127.0.0.3", "127.0.0.1"):
            stranger = meet(address, source)
            assert turned_away(stranger)
        with meet(address, "127.0.0.2") as peer:
            assert second(sock, version) == (granted(version), Address.of(*peer.getsockname()))

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
    record = yield proxy.record()
    assert record["strangers"] == 3


@pytest_twisted.inlineCallbacks
def test_crowd(serve: Serve) -> Playing:
    """More strangers at once than are looked at in one turn: the peer among them is found."""
    proxy: Proxy = yield serve()

    def scenario(sock: socket.socket) -> None:
        _, address = bind(sock, 5, "127.0.0.2")
        # More cannot wait to be accepted: the kernel has others try again after a second.
        crowd = [meet(address, "127.0.0.3") for _ in range(16)]
        with meet(address, "127.0.0.2") as peer:
            crowd += [meet_if_open(address) for _ in range(3)]
            assert reply5(sock) == (0, Address.of(*peer.getsockname()))
            assert all(turned_away(stranger) for stranger in crowd)

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
    record = yield proxy.record()
    assert record["strangers"] == 16


def meet_if_open(address: Address) -> socket.socket:
    try:
        return meet(address)
    except ConnectionError:
        return socket.socketpair()[0]


@pytest.mark.parametrize("source", ["127.0.0.2", "127.0.0.3"])
@pytest_twisted.inlineCallbacks
def test_every_address_of_the_name(serve: Serve, source: str) -> Playing:
    """A host with several addresses may come from any of them."""
    proxy: Proxy = yield serve(resolver=Hosts({NAME: ["127.0.0.2", "127.0.0.3"]}))

    def scenario(sock: socket.socket) -> None:
        _, address = bind(sock, 5, NAME)
        with meet(address, source) as peer:
            assert reply5(sock) == (0, Address.of(*peer.getsockname()))

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)


@implementer(IPolicy)
class Denies:
    """Permits everything but some hosts; keeps what it is asked."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.asked: list[tuple[Command, str]] = []

    def permits(self, client: Client, command: Command, destination: Address) -> Deferred[bool]:
        self.asked.append((command, destination.host))
        return succeed(destination.host not in self.hosts)


@pytest_twisted.inlineCallbacks
def test_only_permitted_addresses(serve: Serve) -> Playing:
    """An address of the name that the policy denies is a stranger's."""
    policy = Denies("127.0.0.3")
    proxy: Proxy = yield serve(policy=policy, resolver=Hosts({NAME: ["127.0.0.3", "127.0.0.2"]}))

    def scenario(sock: socket.socket) -> None:
        _, address = bind(sock, 5, NAME)
        assert turned_away(meet(address, "127.0.0.3"))
        with meet(address, "127.0.0.2"):
            assert reply5(sock)[0] == Reply.SUCCEEDED

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
    assert policy.asked == [(Command.BIND, host) for host in (NAME, "127.0.0.3", "127.0.0.2")]


@pytest.mark.parametrize("denied", [(NAME,), ("127.0.0.2",)])
@pytest.mark.parametrize(("version", "code"), [(4, 91), (5, Reply.NOT_ALLOWED)])
@pytest_twisted.inlineCallbacks
def test_policy_denies(serve: Serve, denied: tuple[str, ...], version: int, code: int) -> Playing:
    """No listener for a peer that the policy does not want."""
    proxy: Proxy = yield serve(policy=Denies(*denied), resolver=Hosts({NAME: ["127.0.0.2"]}))
    with proxy.connect() as sock:
        answer = yield proxy.play(bind, sock, version, NAME)
        assert answer[0] == code
    record = yield proxy.record()
    assert record["ended"].startswith("refused: the policy denies")
    assert record["announced"] is None


@pytest.mark.parametrize(("version", "code"), [(4, 91), (5, Reply.HOST_UNREACHABLE)])
@pytest_twisted.inlineCallbacks
def test_no_such_name(serve: Serve, version: int, code: int) -> Playing:
    """A peer whose name nobody knows cannot be told from others."""
    proxy: Proxy = yield serve(resolver=Hosts({}))
    with proxy.connect() as sock:
        answer = yield proxy.play(bind, sock, version, NAME)
    assert answer[0] == code


@pytest.mark.parametrize(
    ("check", "port", "admitted"), [(False, 1, True), (True, 0, True), (True, 1, False), (True, -1, True)]
)
@pytest_twisted.inlineCallbacks
def test_port_of_the_peer(serve: Serve, check: bool, port: int, admitted: bool) -> Playing:
    """FTP's data comes from port 20 or not, so the port is looked at only where that is wanted."""
    proxy: Proxy = yield serve(bind=BindSettings(check_port=check))

    def scenario(sock: socket.socket) -> None:
        with socket.socket() as peer:
            peer.settimeout(PATIENCE)
            peer.bind(("127.0.0.1", 0))
            own = peer.getsockname()[1]
            _, address = bind(sock, 5, "127.0.0.1", own if port == -1 else port)
            peer.connect((address.host, address.port))
            if admitted:
                assert reply5(sock) == (0, Address.of("127.0.0.1", own))
            else:
                assert turned_away(peer)

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)


# Any peer.


@pytest.mark.parametrize(
    ("version", "asked"), [(4, "0.0.0.0"), (5, "0.0.0.0"), (5, "::"), (5, "::ffff:0.0.0.0")]
)
@pytest_twisted.inlineCallbacks
def test_any_peer(serve: Serve, version: int, asked: str) -> Playing:
    """A client on this machine may leave open who comes."""
    proxy: Proxy = yield serve(bind=HERE)
    host = "::1" if asked == "::" else "127.0.0.1"

    def scenario(sock: socket.socket) -> None:
        code, address = bind(sock, version, asked)
        assert (code, address.host) == (granted(version), host)
        with meet(address) as peer:
            assert second(sock, version) == (granted(version), Address.of(*peer.getsockname()[:2]))

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)


@pytest.mark.parametrize(
    ("client", "setting", "policy", "code"),
    [
        ("127.0.0.1", None, DefaultPolicy(), 0),
        ("127.0.0.1", False, DefaultPolicy(), 2),
        ("127.0.0.1", None, Denies("0.0.0.0"), 2),
        ("192.0.2.9", None, DefaultPolicy(), 2),
        ("192.0.2.9", None, Denies(), 2),
        ("192.0.2.9", True, DefaultPolicy(), 0),
        ("192.0.2.9", True, Denies("0.0.0.0"), 2),
    ],
)
@pytest_twisted.inlineCallbacks
def test_who_may_name_none(
    serve_as: Serve, client: str, setting: bool | None, policy: IPolicy, code: int
) -> Playing:
    """A client of another machine must name its peer, or it could have a listener for the whole network."""
    proxy: Proxy = yield serve_as("wrapped", policy=policy, bind=attrs.evolve(HERE, any_peer=setting))
    with proxy.connect(client) as sock:
        answer = yield proxy.play(bind, sock, 5, "0.0.0.0", 1080)
    assert answer[0] == code


NO_HOSTS = ["0.0.0.5", "0.1.2.3", "0.255.255.255", "::ffff:0.0.0.5", "::0.0.0.5", "64:ff9b::0.0.0.5"]


@pytest.mark.parametrize("setting", [None, True])
@pytest.mark.parametrize("client", ["127.0.0.1", "192.0.2.9"])
@pytest.mark.parametrize("asked", [*NO_HOSTS, "none.example"])
@pytest_twisted.inlineCallbacks
def test_no_peer_comes_from_there(serve_as: Serve, asked: str, client: str, setting: bool | None) -> Playing:
    """0.0.0.0/8 is nobody's network: of it only 0.0.0.0 means something, which is anybody."""
    resolver = Hosts({"none.example": ["0.0.0.5", "::5", "0.0.0.0", "::"]})
    proxy: Proxy = yield serve_as(
        "wrapped",
        policy=DefaultPolicy(allow_special=True),
        bind=attrs.evolve(HERE, any_peer=setting),
        resolver=resolver,
    )
    with proxy.connect(client) as sock:
        answer = yield proxy.play(bind, sock, 5, asked, 1080)
    assert answer[0] == 2
    assert not proxy.sessions.context.binds._listening


@pytest_twisted.inlineCallbacks
def test_no_peer_comes_from_there_with_socks4(serve_as: Serve) -> Playing:
    """Here 0.0.0.5 is the mark of a name (SOCKS4a), and 0.1.2.3 is an address."""
    proxy: Proxy = yield serve_as("accepted", bind=attrs.evolve(HERE, any_peer=True))
    with proxy.connect() as sock:
        answer = yield proxy.play(bind, sock, 4, "0.1.2.3")
    assert answer[0] == 91


@pytest.mark.parametrize("asked", NO_HOSTS)
@pytest_twisted.inlineCallbacks
def test_no_rule_lets_them_come(serve_as: Serve, asked: str) -> Playing:
    rule = Rule(name="all", allow=True, networks=["special", "0.0.0.0/0", "::/0"])
    proxy: Proxy = yield serve_as("accepted", policy=RulePolicy([rule]), bind=HERE)
    with proxy.connect() as sock:
        answer = yield proxy.play(bind, sock, 5, asked)
    assert answer[0] == 2


@pytest.mark.parametrize(
    ("client", "asked", "code"),
    [
        ("192.0.2.9", "127.0.0.1", 2),
        ("192.0.2.9", "::ffff:127.0.0.1", 2),
        ("192.0.2.9", "169.254.169.254", 2),
        ("192.0.2.9", NAME, 2),
        ("127.0.0.1", "127.0.0.1", 0),
        ("127.0.0.1", NAME, 0),
    ],
)
@pytest_twisted.inlineCallbacks
def test_special_peers(serve_as: Serve, client: str, asked: str, code: int) -> Playing:
    """This machine's own programs do not serve clients of other machines: not by CONNECT, not by BIND."""
    proxy: Proxy = yield serve_as("wrapped", resolver=Hosts({NAME: ["127.0.0.1"]}))
    with proxy.connect(client) as sock:
        answer = yield proxy.play(bind, sock, 5, asked)
    assert answer[0] == code


@pytest_twisted.inlineCallbacks
def test_own_port(serve_as: Serve) -> Playing:
    """The proxy's own port is no peer's: that it happens to be named says nothing."""
    proxy: Proxy = yield serve_as()
    with proxy.connect() as sock:
        answer = yield proxy.play(bind, sock, 5, *proxy.address)
    assert answer[0] == 0


# How it ends without a peer.


@pytest.mark.parametrize(("version", "code"), [(4, 91), (5, Reply.TTL_EXPIRED)])
@pytest_twisted.inlineCallbacks
def test_timeout(serve: Serve, version: int, code: int) -> Playing:
    """Two minutes, whatever strangers do; then the second reply says so and the port is closed."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock)
    with proxy.connect() as sock:
        answer = yield proxy.play(bind, sock, version, "127.0.0.2")
        clock.advance(60)
        assert (yield proxy.play(lambda: turned_away(meet(answer[1], "127.0.0.1"))))
        clock.advance(59.9)
        assert is_open(answer[1])
        clock.advance(0.2)
        assert not is_open(answer[1])
        refused = yield proxy.play(second, sock, version)
        assert refused[0] == code
        assert (yield proxy.play(sock.recv, 1)) == b""
        sock.close()
    record = yield proxy.record()
    assert record["ended"] == "refused: the peer did not come in time"
    assert (record["strangers"], record["reply"], record["reached"]) == (1, code, None)
    assert record["announced"] == str(answer[1])


@pytest_twisted.inlineCallbacks
def test_no_timeout_after_the_peer(serve: Serve) -> Playing:
    """A transfer may take longer than its beginning."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock)
    with proxy.connect() as sock:
        _, address = yield proxy.play(bind, sock, 5, "127.0.0.1")
        with (yield proxy.play(meet, address)) as peer:
            assert (yield proxy.play(reply5, sock))[0] == 0
            assert len(proxy.sessions.context.peers) == 0
            clock.advance(1000)
            peer.sendall(b"still here")
            assert (yield proxy.play(read_exactly, sock, 10)) == b"still here"


@pytest_twisted.inlineCallbacks
def test_slow_name(serve: Serve) -> Playing:
    """Looking up the peer has the time of looking up a destination."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock, resolver=Hosts({NAME: None}))

    def scenario(sock: socket.socket) -> None:
        greet(sock)
        sock.sendall(request5(NAME, 0, Command.BIND))

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
        yield until(lambda: the_session(proxy).negotiation.state is State.SERVING)
        clock.advance(30.1)
        assert (yield proxy.play(reply5, sock))[0] == Reply.TTL_EXPIRED


def early(sock: socket.socket) -> None:
    sock.sendall(b"early")


def much(sock: socket.socket) -> None:
    """More than is kept: nothing is read any more."""
    sock.settimeout(0.2)
    try:
        while True:
            sock.sendall(bytes(MAX_EARLY))
    except TimeoutError:
        pass


@pytest.mark.parametrize("before", [None, early])
@pytest.mark.parametrize(
    ("leave", "ended"),
    [("close", "client"), ("half-close", "client"), ("reset", "client reset")],
)
@pytest_twisted.inlineCallbacks
def test_client_leaves(serve: Serve, before: Any, leave: str, ended: str) -> Playing:
    """A listener without its client is an open port for nobody."""
    proxy: Proxy = yield serve()
    with proxy.connect() as sock:
        _, address = yield proxy.play(bind, sock, 5, "127.0.0.1")
        if before is not None:
            yield proxy.play(before, sock)
            yield until(lambda: the_session(proxy).negotiation.early)
        if leave == "reset":
            reset(sock)
        elif leave == "close":
            sock.close()
        else:
            sock.shutdown(socket.SHUT_WR)
        record = yield proxy.record()
        assert not is_open(address)
    assert (record["ended"], record["reached"]) == (ended, None)


@pytest_twisted.inlineCallbacks
def test_client_leaves_unread(serve_as: Serve) -> Playing:
    """Not even when so much has come that nothing is read any more."""
    proxy: Proxy = yield serve_as("accepted")
    with proxy.connect() as sock:
        _, address = yield proxy.play(bind, sock, 5, "127.0.0.1")
        yield proxy.play(much, sock)
        reset(sock)
        record = yield proxy.record()
        assert not is_open(address)
    assert record["ended"] == "client reset"


@pytest_twisted.inlineCallbacks
def test_client_leaves_while_looking_up(serve: Serve) -> Playing:
    """There is no listener when the answer comes."""
    hosts = Hosts({NAME: None})
    proxy: Proxy = yield serve(resolver=hosts, limits=ServerLimits(client=Limits(binds=1)))

    def scenario(sock: socket.socket) -> None:
        greet(sock)
        sock.sendall(request5(NAME, 0, Command.BIND))

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)
        yield until(lambda: hosts.asked)
    record = yield proxy.record()
    hosts.answer(NAME, "127.0.0.1")
    assert record["ended"] == "client"
    # Nor is it counted any more.
    with proxy.connect() as sock:
        assert (yield proxy.play(bind, sock, 5, "127.0.0.1"))[0] == 0


@pytest_twisted.inlineCallbacks
def test_shutdown(serve: Serve) -> Playing:
    """The end of all sessions is the end of their listeners."""
    proxy: Proxy = yield serve()
    with proxy.connect() as sock:
        _, address = yield proxy.play(bind, sock, 5, "127.0.0.1")
        proxy.factory.stop_sessions()
        assert not is_open(address)
    record = yield proxy.record()
    assert record["ended"] == "aborted"


@pytest.mark.parametrize("kind", ["transports", "detached", "accepted"])
@pytest_twisted.inlineCallbacks
def test_peer_comes_after_the_last_port(serve_as: Serve, kind: str) -> Playing:
    """Stopping to listen ends no session, and none that waits for its peer."""
    proxy: Proxy = yield serve_as(kind)
    with proxy.connect() as sock:
        _, address = yield proxy.play(bind, sock, 5, "127.0.0.1")
        yield proxy.port.stopListening()
        with (yield proxy.play(meet, address)) as peer:
            assert (yield proxy.play(reply5, sock))[0] == Reply.SUCCEEDED
            peer.sendall(b"late")
            assert (yield proxy.play(read_exactly, sock, 4)) == b"late"


# Ports and addresses.


@pytest.fixture
def free_port() -> int:
    """A port that is free, for a range of one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(("version", "code"), [(4, 91), (5, Reply.GENERAL_FAILURE)])
@pytest_twisted.inlineCallbacks
def test_exhaustion(serve: Serve, version: int, code: int, free_port: int, logged: list[Any]) -> Playing:
    """All ports are taken: each client is told so, the operator once a while; a freed port serves again."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock, bind=BindSettings(ports=(free_port, free_port)))

    @pytest_twisted.inlineCallbacks
    def refused() -> Playing:
        with proxy.connect() as another:
            answer = yield proxy.play(bind, another, version, "127.0.0.1")
            assert answer[0] == code

    with proxy.connect() as sock:
        granted_first = yield proxy.play(bind, sock, version, "127.0.0.1")
        assert granted_first == (granted(version), Address.of("127.0.0.1", free_port))
        logged.clear()
        for _ in range(3):
            yield refused()
        text = (
            "no port is free for BIND, {} refused since the last such line: "
            f"all ports from {free_port} to {free_port} are taken"
        )
        assert logged == [("warn", text.format(1))]
        clock.advance(61)
        yield refused()
        assert logged[1:] == [("warn", text.format(3))]
    yield until(lambda: not is_open(granted_first[1]))
    with proxy.connect() as sock:
        again = yield proxy.play(bind, sock, version, "127.0.0.1")
        assert again == granted_first
        # The same port once more, though a connection over it was closed a moment ago.
        with (yield proxy.play(meet, again[1])):
            yield proxy.play(second, sock, version)
    yield until(lambda: not proxy.sessions.live)
    with proxy.connect() as sock:
        assert (yield proxy.play(bind, sock, version, "127.0.0.1")) == granted_first


@pytest_twisted.inlineCallbacks
def test_range(serve_as: Serve, free_port: int) -> Playing:
    """A range is used up to its last port: a firewall knows no others."""
    last = min(free_port + 4, 65535)
    proxy: Proxy = yield serve_as(bind=BindSettings(ports=(last - 4, last)))
    socks = []
    ports = set()
    for _ in range(40):
        socks.append(proxy.connect())
        code, address = yield proxy.play(bind, socks[-1], 5, "127.0.0.1")
        if code:
            break
        ports.add(address.port)
    for sock in socks:
        sock.close()
    # Other programs may have one of them.
    assert code == Reply.GENERAL_FAILURE
    assert 1 <= len(ports) == len(socks) - 1
    assert ports <= set(range(last - 4, last + 1))


@pytest_twisted.inlineCallbacks
def test_per_client(serve_as: Serve) -> Playing:
    """One client cannot have all listeners; what has met its peer, or is over, is not counted."""
    proxy: Proxy = yield serve_as("wrapped", limits=ServerLimits(client=Limits(binds=2)))
    first, second_, third, other = [proxy.connect() for _ in range(3)] + [proxy.connect("127.0.0.9")]
    _, address = yield proxy.play(bind, first, 5, "127.0.0.1")
    yield proxy.play(bind, second_, 5, "127.0.0.1")
    assert (yield proxy.play(bind, third, 5, "127.0.0.1"))[0] == Reply.NOT_ALLOWED
    assert (yield proxy.play(bind, other, 5, "127.0.0.1"))[0] == Reply.SUCCEEDED
    with (yield proxy.play(meet, address)):
        yield proxy.play(reply5, first)
        with proxy.connect() as fourth:
            assert (yield proxy.play(bind, fourth, 5, "127.0.0.1"))[0] == Reply.SUCCEEDED
            with proxy.connect() as fifth:
                assert (yield proxy.play(bind, fifth, 5, "127.0.0.1"))[0] == Reply.NOT_ALLOWED
    for sock in (first, second_, third, other):
        sock.close()
    yield until(lambda: not proxy.sessions.live)
    with proxy.connect() as sixth, proxy.connect() as seventh:
        for sock in (sixth, seventh):
            assert (yield proxy.play(bind, sock, 5, "127.0.0.1"))[0] == Reply.SUCCEEDED


@pytest_twisted.inlineCallbacks
def test_no_cap(serve_as: Serve) -> Playing:
    """None is no limit."""
    proxy: Proxy = yield serve_as(limits=ServerLimits(client=Limits(binds=None)))
    socks = [proxy.connect() for _ in range(40)]
    for sock in socks:
        assert (yield proxy.play(bind, sock, 5, "127.0.0.1"))[0] == Reply.SUCCEEDED
        sock.close()


@pytest.mark.parametrize(
    ("options", "told", "meeting"),
    [
        ({"bind": BindSettings(addresses=("127.0.0.5",))}, "127.0.0.5", "127.0.0.5"),
        ({"outgoing": ("127.0.0.6",)}, "127.0.0.6", "127.0.0.6"),
        (
            {"outgoing": ("127.0.0.6",), "bind": BindSettings(addresses=("127.0.0.5",))},
            "127.0.0.5",
            "127.0.0.5",
        ),
        ({"bind": BindSettings(addresses=("0.0.0.0",))}, "127.0.0.1", "127.0.0.7"),
        # Not an address of ours: whoever maps it to ours may map it to any.
        ({"advertise": ("203.0.113.5",)}, "203.0.113.5", "127.0.0.7"),
        ({"advertise": ("127.0.0.8",)}, "127.0.0.8", "127.0.0.8"),
        (
            {"advertise": ("203.0.113.5@127.0.0.0/8", "203.0.113.6")},
            "203.0.113.5",
            "127.0.0.7",
        ),
        ({"advertise": ("203.0.113.5@10.0.0.0/8", "::2")}, "127.0.0.1", "127.0.0.1"),
        (
            {"advertise": ("203.0.113.5",), "bind": BindSettings(addresses=("127.0.0.5",))},
            "203.0.113.5",
            "127.0.0.5",
        ),
    ],
)
@pytest_twisted.inlineCallbacks
def test_place(serve_as: Serve, options: dict[str, Any], told: str, meeting: str) -> Playing:
    """What the client is told, and where the listener is."""
    proxy: Proxy = yield serve_as(**options)

    def scenario(sock: socket.socket) -> None:
        code, address = bind(sock, 5, "127.0.0.1")
        assert (code, address.host) == (0, told)
        if meeting not in ("127.0.0.7", "127.0.0.1"):
            with pytest.raises(ConnectionRefusedError):
                meet(address._replace(host="127.0.0.1"))
        with meet(address._replace(host=meeting), "127.0.0.1"):
            assert reply5(sock)[0] == 0

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)


@pytest.mark.parametrize(
    ("version", "addresses", "spoken", "type"),
    [
        (5, ["::1", "127.0.0.1"], None, AddressType.IPV6),
        (5, ["127.0.0.1", "::1"], None, AddressType.IPV4),
        (5, ["::1", "127.0.0.1"], "127.0.0.1", AddressType.IPV4),
        (5, ["127.0.0.1", "::1"], "::1", AddressType.IPV6),
        (4, ["::1", "127.0.0.1"], None, AddressType.IPV4),
        (4, ["::1", "127.0.0.1"], "::1", AddressType.IPV4),
    ],
)
@pytest_twisted.inlineCallbacks
def test_two_families(
    serve_as: Serve, version: int, addresses: list[str], spoken: str | None, type: AddressType
) -> Playing:
    """
    An FTP server connects in the family of its control connection only: where the proxy has made
    that one, it knows; a SOCKS4 client can be told IPv4 only.
    """
    hosts = Hosts({"Peer.Example".lower(): addresses})
    proxy: Proxy = yield serve_as(resolver=hosts)
    with socket.create_server((spoken or "127.0.0.1", 0), family=family_of(spoken)) as control:
        port = control.getsockname()[1]
        with proxy.connect() as first, proxy.connect() as sock:
            if spoken is not None:
                assert (yield proxy.play(ask5, first, "Peer.Example", port))[0] == 0
            code, address = yield proxy.play(bind, sock, version, "PEER.example")
            assert (code, address.type) == (granted(version), type)


@pytest_twisted.inlineCallbacks
def test_families_of_local_users(serve_as: Serve) -> Playing:
    """On a Unix socket it is what this local user has spoken with, where that is known."""
    proxy: Proxy = yield serve_as()
    request = Request(Version.SOCKS5, Command.CONNECT, Address.of("Peer.example", 21))
    spoken = []
    for uid in (None, 1000):
        service = SimpleNamespace(reached=Address.of("::1", 21))
        session = SimpleNamespace(client=Client(None, uid=uid), request=request, service=service)
        live: Any = [session]
        proxy.sessions.live = live
        spoken.append(
            [proxy.sessions.spoken(Client(None, uid=of), "peer.example") for of in (None, 1000, 1001)]
        )
    proxy.sessions.live = {}
    ipv6 = AddressType.IPV6
    assert spoken == [[ipv6, None, None], [None, ipv6, None]]


def family_of(host: str | None) -> int:
    return socket.AF_INET6 if host is not None and ":" in host else socket.AF_INET


@pytest_twisted.inlineCallbacks
def test_socks4_and_ipv6(serve: Serve) -> Playing:
    """A listener that the client cannot be told of is not opened."""
    proxy: Proxy = yield serve(resolver=Hosts({NAME: ["::1"]}))
    with proxy.connect() as sock:
        assert (yield proxy.play(bind, sock, 4, NAME))[0] == 91
    record = yield proxy.record()
    assert record["ended"] == "refused: SOCKS4 has no form for the peer's address"


# What the system denies.


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENETUNREACH, Reply.NETWORK_UNREACHABLE), (errno.EMFILE, Reply.GENERAL_FAILURE)],
)
@pytest_twisted.inlineCallbacks
def test_no_way(serve: Serve, number: int, code: Reply, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A peer to which there is no way cannot come, and a proxy without descriptors cannot listen."""

    def fails(*_: Any, **__: Any) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "address_towards", fails)
    proxy: Proxy = yield serve()
    with proxy.connect() as sock:
        assert (yield proxy.play(bind, sock, 5, "127.0.0.1"))[0] == code
    record = yield proxy.record()
    assert record["ended"] == f"refused: {os.strerror(number).lower()}"


@pytest_twisted.inlineCallbacks
def test_no_way_in_one_family(serve_as: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A name with IPv6 does not stop a machine that has none."""
    towards = module.address_towards  # type: ignore[attr-defined]

    def no_ipv6(host: str, *more: Any) -> str:
        if ":" in host:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        return towards(host, *more)

    monkeypatch.setattr(module, "address_towards", no_ipv6)
    proxy: Proxy = yield serve_as(resolver=Hosts({NAME: ["::1", "127.0.0.1"]}))
    with proxy.connect() as sock:
        code, address = yield proxy.play(bind, sock, 5, NAME)
    assert (code, address.host) == (0, "127.0.0.1")


@pytest.mark.parametrize(("asked", "host"), [("0.0.0.0", "0.0.0.0"), ("::", "::")])
@pytest_twisted.inlineCallbacks
def test_no_network(serve_as: Serve, asked: str, host: str, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """Without any network and without a named peer there is nothing better to tell than the wildcard."""

    def unreachable(host: str, *_: Any, **__: Any) -> str:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(module, "address_towards", unreachable)
    proxy: Proxy = yield serve_as()
    with proxy.connect() as sock:
        code, address = yield proxy.play(bind, sock, 5, asked)
        assert (code, address.host) == (0, host)
        with (yield proxy.play(meet, address._replace(host="::1" if host == "::" else "127.0.0.1"))):
            assert (yield proxy.play(reply5, sock))[0] == 0


@pytest_twisted.inlineCallbacks
def test_no_descriptors_for_the_listener(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """It costs this request and nothing else, and it is not ports that are short."""

    def fails(*_: Any) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    proxy: Proxy = yield serve(limits=ServerLimits(client=Limits(binds=1)))
    with monkeypatch.context() as patch:
        patch.setattr(module, "listening_socket", fails)
        with proxy.connect() as sock:
            assert (yield proxy.play(bind, sock, 5, "127.0.0.1"))[0] == Reply.GENERAL_FAILURE
    assert (yield proxy.record())["ended"] == "refused: too many open files"
    with proxy.connect() as sock:
        assert (yield proxy.play(bind, sock, 5, "127.0.0.1"))[0] == Reply.SUCCEEDED


@pytest_twisted.inlineCallbacks
def test_echo_after_bind(serve: Serve) -> Playing:
    """The proxy serves on: CONNECT beside a BIND that waits."""
    proxy: Proxy = yield serve()

    def talk(peer: socket.socket, client: socket.socket) -> None:
        thread = threading.Thread(target=lambda: peer.sendall(peer.recv(100)))
        thread.start()
        echoes(client)
        thread.join()

    with proxy.connect() as waiting, proxy.connect() as sock:
        _, address = yield proxy.play(bind, waiting, 5, "127.0.0.1")
        # Through the proxy to its own listener: it is open for whoever is named.
        assert (yield proxy.play(ask5, sock, address.host, address.port))[0] == 0
        assert (yield proxy.play(reply5, waiting))[0] == 0
        yield proxy.play(talk, waiting, sock)
