"""
Sticky sessions, over real loopback sockets.

Numbers such as "e 34" are those of known faults of other servers.
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import serverFromString
from zope.interface import implementer

from socksproxy.auth.chain import portal_of
from socksproxy.auth.checkers.ident import TrustedUserid
from socksproxy.auth.credentials import IUsernamePassword
from socksproxy.limits import Limits, ServerLimits
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.values.pools import UpstreamPool
from socksproxy.values.sticky import StickySettings
from socksproxy.values.upstreams import Upstream
from socksproxy.wire.datagram import build_header
from socksproxy.wire.password import Credentials, build_credentials
from socksproxy.wire.words import Address, Command, Reply

from ..conftest import Serve
from ..support.origin import Origin, echo
from ..support.pools import pooled
from ..support.proxy import Playing, Proxy, echoes, reactor, reply4, reply5, request4, request5
from ..support.scripted_proxy import REQUEST, SUCCESS5, ScriptedProxy
from ..support.upstreams import through, upstream

ADDRESSES = [f"127.0.0.{number}" for number in range(10, 30)]
STICKY = StickySettings(allow=("for",))


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


def portal() -> Portal:
    """bob's password is secret, and eve's is hidden; another user has the name of a sticky session."""
    users = {"bob": "secret", "eve": "hidden", "x-session-": "secret"}
    checker = InMemoryUsernamePasswordDatabaseDontUse(**{name: word.encode() for name, word in users.items()})
    return portal_of([checker], reactor)


def log_in(sock: socket.socket, name: str, password: str = "secret") -> int:
    """Greet and log in; the status, in which 0 is success."""
    sock.sendall(b"\x05\x01\x02" + build_credentials(Credentials(name.encode(), password.encode())))
    assert sock.recv(2) == b"\x05\x02"
    return sock.recv(2)[1]


def used(proxy: Proxy, port: int, name: str) -> None:
    """A session as *name*."""
    with proxy.connect() as sock:
        assert log_in(sock, name) == 0
        sock.sendall(request5("127.0.0.1", port))
        assert reply5(sock)[0] == 0
        echoes(sock)


@inlineCallbacks
def left_from(proxy: Proxy, port: int, name: str) -> Generator[Any, Any, tuple[str, dict[str, Any]]]:
    """The address that a session as *name* leaves from, and its record."""
    number = len(proxy.records)
    yield proxy.play(used, proxy, port, name)
    record = yield proxy.record(number)
    return record["outgoing"].partition(":")[0], record


@pytest.mark.parametrize("choice", ["round-robin", "random", "hash-client", "hash-user", "sticky"])
@pytest_twisted.inlineCallbacks
def test_word_decides(serve_as: Serve, origin: Origin, choice: str) -> Playing:
    """The word decides before the choice of the list does; the user and the record are bob's."""
    proxy: Proxy = yield serve_as(portal=portal(), sticky=STICKY, outgoing=[choice, *ADDRESSES])
    found: dict[str, str] = {}
    for word in ("one", "two", "three", "four", "five"):
        for suffix in ("", "-for-30", ""):
            host, record = yield left_from(proxy, origin.port, f"bob-session-{word}{suffix}")
            assert (record["user"], record["sticky"], record["end"]) == ("bob", word, "client")
            assert found.setdefault(word, host) == host
    assert len(set(found.values())) > 1


@pytest_twisted.inlineCallbacks
def test_without_a_word(serve_as: Serve, origin: Origin) -> Playing:
    """``sticky`` keeps the address of a user without a word; other choices are as without sticky names."""
    proxy: Proxy = yield serve_as(portal=portal(), sticky=STICKY, outgoing=["sticky", *ADDRESSES])
    first, record = yield left_from(proxy, origin.port, "bob")
    assert (record["user"], record["sticky"]) == ("bob", None)
    assert (yield left_from(proxy, origin.port, "bob"))[0] == first
    turns: Proxy = yield serve_as(portal=portal(), sticky=STICKY, outgoing=ADDRESSES)
    first, _ = yield left_from(turns, origin.port, "bob")
    assert (yield left_from(turns, origin.port, "bob"))[0] != first


@pytest_twisted.inlineCallbacks
def test_reload(serve_as: Serve, origin: Origin, tmp_path: Any) -> Playing:
    """e 32: the address is the same after a reload, in another process, and mostly with another list."""
    settings = StickySettings(file=str(tmp_path / "sticky"))
    proxy: Proxy = yield serve_as(portal=portal(), sticky=settings, outgoing=ADDRESSES)
    first, _ = yield left_from(proxy, origin.port, "bob-session-abc")
    rest = [host for host in ADDRESSES if host == first or host[-1] != "9"]
    proxy.factory.reconfigure(sticky=StickySettings(file=settings.file), outgoing=rest)
    assert (yield left_from(proxy, origin.port, "bob-session-abc"))[0] == first
    other: Proxy = yield serve_as(portal=portal(), sticky=settings, outgoing=ADDRESSES)
    assert (yield left_from(other, origin.port, "bob-session-abc"))[0] == first
    proxy.factory.reconfigure(sticky=None)
    with proxy.connect() as sock:
        assert (yield proxy.play(log_in, sock, "bob-session-abc")) == 1


@pytest_twisted.inlineCallbacks
def test_time(serve_as: Serve, origin: Origin) -> Playing:
    """e 33: by the first use, and the connections that there are go on."""
    proxy: Proxy = yield serve_as(portal=portal(), sticky=StickySettings(seconds=600), outgoing=ADDRESSES)
    pins = proxy.sessions.context.pins
    assert pins is not None
    now = 1_000_000.0
    pins._wall = pins._in_memory._wall = lambda: now
    first, _ = yield left_from(proxy, origin.port, "bob-session-abc")
    number = len(proxy.records)
    with proxy.connect() as sock:

        def begin() -> None:
            assert log_in(sock, "bob-session-abc") == 0
            sock.sendall(request5("127.0.0.1", origin.port))
            assert reply5(sock)[0] == 0

        yield proxy.play(begin)
        now += 599
        assert (yield left_from(proxy, origin.port, "bob-session-abc"))[0] == first
        found = set()
        for _ in range(4):
            now += 601
            found.add((yield left_from(proxy, origin.port, "bob-session-abc"))[0])
        assert found - {first}
        yield proxy.play(echoes, sock)
    record = yield proxy.record(number + 5)
    assert record["outgoing"].partition(":")[0] == first


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("bob-session-", "secret"),
        ("-session-x", "secret"),
        ("bob-session-" + 65 * "x", "secret"),
        ("bob-session-a-session-b", "secret"),
        ("bob-session-x-for-0", "secret"),
        ("bob-session-x-country-de", "secret"),
        ("bob-session-x", "wrong"),
        ("eve-session-x", "secret"),
        # A checker of the operator's own lets this one in.
        ("x-session-", "secret"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_refused(serve_as: Serve, name: str, password: str) -> Playing:
    """e 34: a wrong name is refused as a wrong password is."""
    proxy: Proxy = yield serve_as(portal=portal(), sticky=STICKY)
    with proxy.connect() as sock:
        assert (yield proxy.play(log_in, sock, name, password)) == 1
    record = yield proxy.record()
    assert (record["user"], record["sticky"], record["reply"]) == (None, None, None)
    assert (record["end"], record["ended"]) == ("auth", "refused: not authenticated")


@implementer(ICredentialsChecker)
class Slow:
    """Counts the passwords that are checked; each takes its time."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked.append(credentials.username)
        return credentials.username


@pytest_twisted.inlineCallbacks
def test_constant_time(serve_as: Serve) -> Playing:
    """e 34: the password of a wrong name is checked like any other, so that it takes as long."""
    checker = Slow()
    proxy: Proxy = yield serve_as(portal=portal_of([checker], reactor), sticky=STICKY)
    for name in ("bob-session-", "bob-session-a-session-b"):
        with proxy.connect() as sock:
            assert (yield proxy.play(log_in, sock, name)) == 1
    assert checker.asked == [b"bob-session-", b"bob-session-a-session-b"]


@pytest_twisted.inlineCallbacks
def test_limits(serve_as: Serve, origin: Origin) -> Playing:
    """e 34: the limits of bob, and rules about bob, hold over all sessions of the name."""
    limits = ServerLimits(user=Limits(sessions=2))
    policy = RulePolicy(
        [
            Rule(name="bob", allow=True, users=["bob"], networks=["127.0.0.0/8"]),
            Rule(name="others", allow=False),
        ]
    )
    proxy: Proxy = yield serve_as(portal=portal(), sticky=STICKY, limits=limits, policy=policy)
    with proxy.connect() as one, proxy.connect() as two, proxy.connect() as three:

        def scenario() -> None:
            for number, sock in enumerate((one, two, three)):
                assert log_in(sock, f"bob-session-{number}") == 0
                sock.sendall(request5("127.0.0.1", origin.port))
                assert reply5(sock)[0] == (0 if sock is not three else Reply.NOT_ALLOWED)

        yield proxy.play(scenario)
    yield proxy.record(2)
    records = proxy.records
    assert {record["user"] for record in records} == {"bob"}
    assert {record["sticky"] for record in records} == {"0", "1", "2"}
    assert sorted(record["end"] for record in records) == ["client", "client", "limit"]
    assert {record["rule"] for record in records if record["end"] == "client"} == {"bob"}


@pytest_twisted.inlineCallbacks
def test_other_names(serve_as: Serve, origin: Origin) -> Playing:
    """e 34: a name that is no name of a password stays as it is."""
    proxy: Proxy = yield serve_as(portal=portal_of([TrustedUserid()], reactor), sticky=STICKY)

    def scenario() -> None:
        with proxy.connect() as sock:
            sock.sendall(request4("127.0.0.1", origin.port, userid=b"bob-session-x"))
            assert reply4(sock)[0] == 90
            echoes(sock)

    yield proxy.play(scenario)
    record = yield proxy.record()
    assert (record["user"], record["sticky"]) == ("bob-session-x", None)


# Pools.


@inlineCallbacks
def reopened(exit_: Proxy) -> Generator[Any, Any, None]:
    """The exit listens again, where it has listened before."""
    port = exit_.address[1]
    exit_.port = yield serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1").listen(exit_.factory)


@inlineCallbacks
def gone_through(proxy: Proxy, port: int, name: str) -> Generator[Any, Any, str]:
    """The member that a session as *name* leaves through."""
    _, record = yield left_from(proxy, port, name)
    return str(record["via"])


@pytest.mark.parametrize("choose", ["first", "round-robin", "random", "least-sessions", "hash-client"])
@pytest_twisted.inlineCallbacks
def test_word_decides_in_pools(serve_as: Serve, origin: Origin, choose: str) -> Playing:
    """The word decides before the choice of a pool does, and users with the same word are apart."""
    upstreams = {
        f"m{number}": Upstream(type="direct", outgoing=[host]) for number, host in enumerate(ADDRESSES)
    }
    pool = UpstreamPool(members=list(upstreams), choose=choose)
    proxy: Proxy = yield serve_as(
        portal=portal(), sticky=STICKY, upstreams=upstreams, pools={"eu": pool}, via="eu"
    )
    found: dict[str, str] = {}
    for word in ("one", "two", "three", "four", "five"):
        for _ in range(2):
            host, _ = yield left_from(proxy, origin.port, f"bob-session-{word}")
            assert found.setdefault(word, host) == host
    assert len(set(found.values())) > 1
    # A member that is new moves the words that it gets, and no others.
    host = "127.0.0.99"
    more = {**upstreams, "new": Upstream(type="direct", outgoing=[host])}
    pool = attrs.evolve(pool, members=list(more))
    proxy.factory.reconfigure(upstreams=more, pools={"eu": pool}, sticky=attrs.evolve(STICKY))
    for word, before in found.items():
        assert (yield left_from(proxy, origin.port, f"bob-session-{word}"))[0] in (before, host)


def bound(proxy: Proxy, name: str) -> None:
    """A BIND as *name*, whose peer comes."""
    with proxy.connect() as sock:
        assert log_in(sock, name) == 0
        sock.sendall(request5("127.0.0.1", 0, Command.BIND))
        code, told = reply5(sock)
        assert code == 0
        with socket.create_connection((told.host, told.port), 20) as peer:
            assert reply5(sock)[0] == 0
            peer.sendall(b"220")
            assert sock.recv(3) == b"220"


def datagrams(proxy: Proxy, name: str) -> None:
    """A datagram as *name*, to a destination and back."""
    with (
        proxy.connect() as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as destination,
    ):
        for each in (own, destination):
            each.bind(("127.0.0.1", 0))
            each.settimeout(20)
        assert log_in(sock, name) == 0
        sock.sendall(request5("0.0.0.0", 0, Command.UDP_ASSOCIATE))
        code, relay = reply5(sock)
        assert code == 0
        header = build_header(Address.of(*destination.getsockname()))
        own.sendto(header + b"ping", (relay.host, relay.port))
        payload, peer = destination.recvfrom(100)
        destination.sendto(payload[::-1], peer)
        assert own.recv(100) == header + b"gnip"


@pytest.mark.parametrize("command", [bound, datagrams])
@pytest_twisted.inlineCallbacks
def test_word_decides_for_all_commands(serve_as: Serve, origin: Origin, command: Any) -> Playing:
    """BIND and datagrams leave by the member of the session's connections, and move with it."""
    exits: dict[str, Proxy] = {}
    for number in range(3):
        exits[f"m{number}"] = yield serve_as()
    upstreams = {name: upstream("socks5", exit_.address[1], bind=True) for name, exit_ in exits.items()}
    pool = UpstreamPool(members=list(upstreams), choose="round-robin")
    proxy: Proxy = yield serve_as(
        portal=portal(), sticky=STICKY, upstreams=upstreams, pools={"eu": pool}, via="eu"
    )
    ways = {}
    for word in "abcdefghijkl":  # all of them have one way once in 180,000 runs
        ways[word] = yield gone_through(proxy, origin.port, f"bob-session-{word}")
    assert len(set(ways.values())) > 1
    for word, way in ways.items():
        number = len(proxy.records)
        yield proxy.play(command, proxy, f"bob-session-{word}")
        record = yield proxy.record(number)
        assert (record["via"], record["sticky"], record["user"]) == (way, word, "bob")
    yield exits[ways["a"]].port.stopListening()
    moved = yield gone_through(proxy, origin.port, "bob-session-a")
    assert moved != ways["a"]
    number = len(proxy.records)
    yield proxy.play(command, proxy, "bob-session-a")
    record = yield proxy.record(number)
    assert record["via"] == moved


@pytest_twisted.inlineCallbacks
def test_moves(serve_as: Serve, origin: Origin, tmp_path: Path) -> Playing:
    """e 31: a session whose member dies moves to another one, and stays there, also after a restart."""
    exits: dict[str, Proxy] = {}
    for number in range(3):
        exits[f"m{number}"] = yield serve_as()
    ports = [each.address[1] for each in exits.values()]
    sticky = attrs.evolve(STICKY, file=str(tmp_path / "sticky"))
    options = {"portal": portal(), "sticky": sticky, **pooled(*ports, choose="round-robin")}
    proxy: Proxy = yield serve_as(**options)
    first = yield gone_through(proxy, origin.port, "bob-session-abc")
    yield exits[first].port.stopListening()
    second = yield gone_through(proxy, origin.port, "bob-session-abc")
    assert second != first
    yield reopened(exits[first])
    for _ in range(3):
        assert (yield gone_through(proxy, origin.port, "bob-session-abc")) == second
    restarted: Proxy = yield serve_as(**options)
    assert (yield gone_through(restarted, origin.port, "bob-session-abc")) == second
    # The first one is back for words that are new.
    for number in range(40):
        if (yield gone_through(proxy, origin.port, f"bob-session-{number}")) == first:
            break
    else:
        raise AssertionError("it is never chosen again")


@pytest_twisted.inlineCallbacks
def test_strict(serve_as: Serve, origin: Origin) -> Playing:
    """e 31: with ``strict`` a session whose member dies is refused, and served when the member is back."""
    exits: dict[str, Proxy] = {}
    for number in range(2):
        exits[f"m{number}"] = yield serve_as()
    ports = [each.address[1] for each in exits.values()]
    sticky = attrs.evolve(STICKY, strict=True)
    proxy: Proxy = yield serve_as(portal=portal(), sticky=sticky, **pooled(*ports, choose="random"))
    first = yield gone_through(proxy, origin.port, "bob-session-abc")
    yield exits[first].port.stopListening()

    def refused() -> int:
        with proxy.connect() as sock:
            assert log_in(sock, "bob-session-abc") == 0
            sock.sendall(request5("127.0.0.1", origin.port))
            return int(reply5(sock)[0])

    for _ in range(4):
        assert (yield proxy.play(refused)) == Reply.GENERAL_FAILURE
    other = yield gone_through(proxy, origin.port, "bob")
    assert other != first
    yield reopened(exits[first])
    assert (yield gone_through(proxy, origin.port, "bob-session-abc")) == first


@pytest_twisted.inlineCallbacks
def test_login_of_each_sticky_session(serve_as: Serve) -> Playing:
    """Tor keeps the connections of one sticky session together, and those of others apart."""
    there: ScriptedProxy = yield ScriptedProxy(
        3, b"\x05\x02", 2 + 32 + 1 + 32, b"\x01\x00", REQUEST, SUCCESS5
    ).start()
    options = through("socks5", there.port, login="session")
    proxy: Proxy = yield serve_as(portal=portal(), sticky=STICKY, **options)

    def scenario(name: str) -> None:
        with proxy.connect() as sock:
            assert log_in(sock, name) == 0
            sock.sendall(request5("192.0.2.1", 80))
            assert reply5(sock)[0] == 0

    for name in ("bob-session-one", "bob-session-one", "bob-session-two", "bob", "bob"):
        yield proxy.play(scenario, name)
    logins = [end.received[3:70] for end in there.ends]
    assert logins[0] == logins[1]
    assert len(set(logins)) == 4
    yield there.stop()
