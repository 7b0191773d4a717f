"""BIND through the proxies by which the client's connection leaves, over real loopback sockets."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from socksproxy.net.sockets import Leaving
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.routes.member_files import MembersFile
from socksproxy.values.pools import UpstreamPool
from socksproxy.values.upstreams import Upstream
from socksproxy.wire.words import Address, Command

from ..conftest import Serve
from ..net.test_sockets import namespace
from ..routes.test_upstream import scripted
from ..support.origin import Origin, echo
from ..support.programs import require
from ..support.proxy import (
    Playing,
    Proxy,
    ask4,
    ask5,
    closed_port,
    echoes,
    greet,
    reactor,
    reply4,
    reply5,
    request5,
    until,
)
from ..support.scripted_proxy import ScriptedEnd, Step, close, open5
from ..support.socket_marks import MARK, needs_marks, sockets_with_mark
from ..support.upstreams import through, upstream

assert scripted, namespace  # fixtures

#: The first and the second reply of a proxy that is none.
FIRST = b"\x05\x00\x00\x01\xc6\x33\x64\x01\x13\x88"
SECOND = b"\x05\x00\x00\x01\xc0\x00\x02\x4d\x00\x14"


def binds(proxy: Proxy, version: int, host: str = "127.0.0.1") -> tuple[Any, Any]:
    """Both replies' addresses, after bytes both ways."""
    ask, reply = (ask4, reply4) if version == 4 else (ask5, reply5)
    with proxy.connect() as sock:
        code, told = ask(sock, host, 0, Command.BIND)
        assert code == (90 if version == 4 else 0)
        with socket.create_connection((told.host, told.port), 20) as peer:
            own = peer.getsockname()
            code, came = reply(sock)
            assert code == (90 if version == 4 else 0)
            if version == 5:
                assert (came.host, came.port) == own
            peer.sendall(b"220 hello")
            data = b""
            while len(data) < 9:
                data += sock.recv(100)
            sock.sendall(b"answer")
            assert peer.recv(100) == b"answer"
        return told, came


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("kind", ["socks4", "socks5"])
@pytest_twisted.inlineCallbacks
def test_through_our_own(serve: Serve, serve_as: Serve, kind: str, version: int) -> Playing:
    """Both replies are the upstream's; the relay is like any other."""
    exit_: Proxy = yield serve_as()
    proxy: Proxy = yield serve(**through(kind, exit_.address[1], bind=True))
    yield proxy.play(binds, proxy, version)
    record = yield proxy.record()
    assert (record["via"], record["tries"], record["reply"]) == ("one", 1, 90 if version == 4 else 0)
    assert (record["sent"], record["received"]) == (6, 9)
    assert record["announced"]
    out = yield exit_.record()
    assert out["command"] == "BIND"


@pytest_twisted.inlineCallbacks
def test_chain(serve_as: Serve) -> Playing:
    """The last proxy listens, and the others carry the connection to it."""
    last: Proxy = yield serve_as()
    first: Proxy = yield serve_as()
    ways = {
        "first": upstream("socks5", first.address[1]),
        "last": upstream("socks5", last.address[1], via="first", bind=True),
    }
    proxy: Proxy = yield serve_as(upstreams=ways, via="last")
    yield proxy.play(binds, proxy, 5)
    record = yield first.record()
    assert record["command"] == "CONNECT"


@pytest.mark.parametrize("together", [True, False])
@pytest_twisted.inlineCallbacks
def test_replies(serve: Serve, scripted: Any, together: bool) -> Playing:
    """Both as they are, apart or together with the peer's first bytes; the name goes out as it is."""
    steps: list[Step] = [FIRST, later(SECOND + b"220 hello")]
    if together:
        steps = [FIRST + SECOND + b"220 hello"]
    there = yield scripted(*open5(*steps, request=18))
    proxy: Proxy = yield serve(**through("socks5", there.port, bind=True))

    def scenario() -> None:
        with proxy.connect() as sock:
            sock.sendall(b"\x05\x01\x00")
            assert sock.recv(2) == b"\x05\x00"
            sock.sendall(b"\x05\x02\x00\x03\x0bwww.example\x00\x15")
            data = b""
            while not data.endswith(b"hello"):
                data += sock.recv(1000) or pytest.fail(f"the end after {data!r}")
            assert data == FIRST + SECOND + b"220 hello"

    yield proxy.play(scenario)
    assert there.ends[0].received[3:] == b"\x05\x02\x00\x03\x0bwww.example\x00\x15"
    record = yield proxy.record()
    assert (record["announced"], record["reached"]) == ("198.51.100.1:5000", "192.0.2.77:20")


@pytest_twisted.inlineCallbacks
def test_peer_with_an_empty_name(serve_as: Serve, scripted: Any) -> Playing:
    """No reply has a form for it; the client is told an unspecified address."""
    there = yield scripted(*open5(FIRST, b"\x05\x00\x00\x03\x00\x00\x50"))
    proxy: Proxy = yield serve_as(**through("socks5", there.port, bind=True))

    def scenario() -> Any:
        with proxy.connect() as sock:
            greet(sock)
            sock.sendall(request5("192.0.2.1", 21, Command.BIND))
            assert reply5(sock, len(FIRST))[0] == 0
            return reply5(sock)

    assert (yield proxy.play(scenario)) == (0, Address.of("0.0.0.0", 0))


@pytest_twisted.inlineCallbacks
def test_unspecified_address(serve_as: Serve, scripted: Any) -> Playing:
    """An unspecified first BND is the upstream's address."""
    there = yield scripted(*open5(b"\x05\x00\x00\x01\0\0\0\0\x13\x88"))
    proxy: Proxy = yield serve_as(**through("socks5", there.port, bind=True))

    def scenario() -> Any:
        with proxy.connect() as sock:
            return ask5(sock, "192.0.2.1", 0, Command.BIND)

    reply, told = yield proxy.play(scenario)
    assert (reply, str(told)) == (0, "127.0.0.1:5000")


def later(data: bytes) -> Callable[[ScriptedEnd], object]:
    """A step: send *data* in a moment."""
    return lambda end: reactor.callLater(0.02, end.transport.write, data)


FAILURES = [
    (open5(b"\x05\x02" + FIRST[2:]), [2]),
    (open5(close), [1]),
    ([3, close], [1]),
    (open5(FIRST, later(b"\x05\x06" + SECOND[2:])), [0, 6]),
    (open5(FIRST + b"\x05\x06" + SECOND[2:]), [6]),
    (open5(FIRST, close), [0, 1]),
]


@pytest.mark.parametrize(("steps", "replies"), FAILURES)
@pytest_twisted.inlineCallbacks
def test_failures(serve: Serve, scripted: Any, steps: Any, replies: list[int]) -> Playing:
    """e 18: each of the two replies may be an error, and the connection may end between them."""
    there = yield scripted(*steps)
    proxy: Proxy = yield serve(**through("socks5", there.port, bind=True))

    def scenario() -> list[int]:
        with proxy.connect() as sock:
            sock.sendall(b"\x05\x01\x00")
            assert sock.recv(2) == b"\x05\x00"
            sock.sendall(b"\x05\x02\x00\x01\xc0\x00\x02\x01\x00\x00")
            data = b""
            while piece := sock.recv(1000):
                data += piece
            return list(data[1::10])

    assert (yield proxy.play(scenario)) == replies


@pytest_twisted.inlineCallbacks
def test_client_goes(serve_as: Serve, scripted: Any) -> Playing:
    """The connection to the upstream closes with the client's."""
    there = yield scripted(*open5(FIRST))
    proxy: Proxy = yield serve_as(**through("socks5", there.port, bind=True))

    def scenario() -> None:
        with proxy.connect() as sock:
            assert ask5(sock, "192.0.2.1", 0, Command.BIND)[0] == 0

    yield proxy.play(scenario)
    yield until(lambda: there.ends[0].ended is not None)


@pytest_twisted.inlineCallbacks
def test_the_way_of_the_connection(serve_as: Serve) -> Playing:
    """The upstream that carries the client's CONNECT listens, whatever the rule of the BIND says."""
    one: Proxy = yield serve_as()
    two: Proxy = yield serve_as()
    ways = {
        "one": upstream("socks5", one.address[1], bind=True),
        "two": upstream("socks5", two.address[1], bind=True),
    }
    with Origin(echo) as origin:
        rules = RulePolicy(
            [
                Rule(name="ftp", allow=True, ports=[(origin.port, origin.port)], via="one"),
                Rule(name="rest", allow=True, via="two"),
            ]
        )
        proxy: Proxy = yield serve_as(upstreams=ways, policy=rules)

        def connected() -> None:
            with proxy.connect() as sock:
                assert ask5(sock, "127.0.0.1", origin.port)[0] == 0
                echoes(sock)
                binds(proxy, 5)

        # Without a connection, by the rule.
        yield proxy.play(binds, proxy, 5)
        assert (yield two.record())["command"] == "BIND"
        # During a connection, and after it, for any host and for this one.
        yield proxy.play(connected)
        yield proxy.play(binds, proxy, 5)
        yield proxy.play(binds, proxy, 5, "0.0.0.0")
        yield one.record(3)
        assert [record["command"] for record in one.records].count("BIND") == 3
        assert len(two.records) == 1
        # What a reload removes is no way any more.
        proxy.factory.reconfigure(upstreams={"two": ways["two"]}, policy=RulePolicy(rules.rules[1:]))
        yield proxy.play(binds, proxy, 5)
        yield two.record(1)


@pytest_twisted.inlineCallbacks
def test_the_member_of_the_connection(serve_as: Serve, tmp_path: Path) -> Playing:
    """The same where the file of a pool alone has the members, which take turns."""
    exits: list[Proxy] = []
    for _ in range(3):
        exits.append((yield serve_as()))
    path = tmp_path / "exits"
    path.write_text("".join(f"socks5://bob:x@127.0.0.1:{each.address[1]}?bind=true\n" for each in exits))
    file = MembersFile(str(path))
    file.load()
    pool = UpstreamPool(members_file=file, choose="round-robin")
    proxy: Proxy = yield serve_as(pools={"eu": pool}, via="eu")
    with Origin(echo) as origin:

        def connected() -> None:
            with proxy.connect() as sock:
                assert ask5(sock, "127.0.0.1", origin.port)[0] == 0
                echoes(sock)
                binds(proxy, 5)
                binds(proxy, 5)

        yield proxy.play(connected)
        yield until(lambda: sum(len(each.records) for each in exits) == 3)
        assert sorted(len(each.records) for each in exits) == [0, 0, 3]
        # What the file has no more is no way any more.
        path.write_text("# none\n")
        file.load()

    def refused() -> int:
        with proxy.connect() as sock:
            return ask5(sock, "127.0.0.1", 0, Command.BIND)[0]

    assert (yield proxy.play(refused)) != 0
    assert sum(len(each.records) for each in exits) == 3


@pytest_twisted.inlineCallbacks
def test_direct_member(serve: Serve) -> Playing:
    """A direct member listens here, at its own address; one that has no such address is passed by."""
    ways = {
        "lost": Upstream(type="direct", outgoing=["192.0.2.7"]),
        "here": Upstream(type="direct", outgoing=["127.0.0.7"], max_sessions=1),
    }
    pool = UpstreamPool(members=list(ways), down_after=1)
    proxy: Proxy = yield serve(upstreams=ways, pools={"eu": pool}, via="eu")
    told, _ = yield proxy.play(binds, proxy, 5)
    assert told.host == "127.0.0.7"
    record = yield proxy.record()
    assert (record["via"], record["tries"], record["sent"]) == ("here", 2, 6)
    context = proxy.sessions.context
    assert not context.ways.pools["eu"]._by_name["lost"].up
    yield until(lambda: context.ways.counters["here"].sessions == 0)

    def other_peer() -> int:
        """A peer that the client has not named."""
        with proxy.connect() as sock:
            reply, told = ask5(sock, "127.0.0.1", 0, Command.BIND)
            assert reply == 0
            with socket.create_connection((told.host, told.port), 20, ("127.0.0.9", 0)) as peer:
                assert peer.recv(1) == b""
            with proxy.connect() as another:
                return ask5(another, "127.0.0.1", 0, Command.BIND)[0]

    assert (yield proxy.play(other_peer)) == 1
    yield until(lambda: context.ways.counters["here"].sessions == 0)


@pytest_twisted.inlineCallbacks
def test_otherwise_direct(serve: Serve) -> Playing:
    """Where no member that carries BIND lives, this machine listens as for a direct upstream."""
    ways = {"dead": upstream("socks5", closed_port(), bind=True), "http": upstream("http", 9)}
    pool = UpstreamPool(members=["dead"], otherwise="direct")
    options = {"upstreams": ways, "pools": {"eu": pool}, "via": "eu"}
    proxy: Proxy = yield serve(outgoing=["127.0.0.7"], **options)
    told, _ = yield proxy.play(binds, proxy, 5)
    assert told.host == "127.0.0.7"
    record = yield proxy.record()
    assert (record["via"], record["tries"]) == ("direct", 2)
    never = (["dead"], "refuse", 1), (["http"], "direct", 7)
    for members, otherwise, reply in never:
        proxy.factory.reconfigure(pools={"eu": UpstreamPool(members=members, otherwise=otherwise)})
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", 0, Command.BIND))[0] == reply


@pytest_twisted.inlineCallbacks
def test_namespace(serve: Serve, namespace: str) -> Playing:
    """A direct way of a network namespace listens there, where alone the peer can come."""
    subprocess.run([require("ip"), "-n", namespace, "link", "set", "lo", "up"], check=True)
    home = Upstream(type="direct", netns=namespace)
    proxy: Proxy = yield serve(upstreams={"home": home}, via="home")

    def scenario() -> None:
        with proxy.connect() as sock:
            code, told = ask5(sock, "127.0.0.1", 0, Command.BIND)
            assert code == 0
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((told.host, told.port), 20)
            inside = Leaving(netns=namespace).new_socket(socket.AF_INET, socket.SOCK_STREAM)
            with socket.socket(fileno=inside.detach()) as peer:
                peer.settimeout(20)
                peer.connect((told.host, told.port))
                assert reply5(sock)[0] == 0
                echoed = b"220 hello"
                peer.sendall(echoed)
                assert sock.recv(100) == echoed

    yield proxy.play(scenario)


@needs_marks
@pytest_twisted.inlineCallbacks
def test_mark(serve: Serve) -> Playing:
    """The port of a direct way with a mark has it, so that the answers to the peer have it."""
    proxy: Proxy = yield serve(upstreams={"home": Upstream(type="direct", mark=MARK)}, via="home")

    def scenario() -> None:
        with proxy.connect() as sock:
            assert ask5(sock, "127.0.0.1", 0, Command.BIND)[0] == 0
            assert sockets_with_mark() == [(socket.SOCK_STREAM, True)]

    yield proxy.play(scenario)


@pytest_twisted.inlineCallbacks
def test_the_peer_is_judged(serve_as: Serve, scripted: Any) -> Playing:
    """The address of a name is known when the peer has come: a rule by network denies it."""
    there = yield scripted(*open5(FIRST + SECOND, request=18))
    rules = RulePolicy(
        [
            Rule(name="no", allow=False, networks=["192.0.2.0/24"]),
            Rule(name="all", allow=True, names=["www.example"]),
        ]
    )
    proxy: Proxy = yield serve_as(**through("socks5", there.port, bind=True), policy=rules)

    def scenario() -> list[int]:
        with proxy.connect() as sock:
            sock.sendall(b"\x05\x01\x00")
            assert sock.recv(2) == b"\x05\x00"
            sock.sendall(b"\x05\x02\x00\x03\x0bwww.example\x00\x15")
            data = b""
            while piece := sock.recv(1000):
                data += piece
            return list(data[1::10])

    assert (yield proxy.play(scenario)) == [0, 2]
