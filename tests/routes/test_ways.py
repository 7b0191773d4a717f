"""What an upstream can be told beside its place: where from, as whom, with which header."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from socksproxy.net import sockets
from socksproxy.net.dns_resolver import DNSResolver
from socksproxy.net.sockets import Leaving
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.values.upstreams import Upstream
from socksproxy.wire.proxy import parse_header
from socksproxy.wire.words import Address, Command

from ..conftest import Serve
from ..net.test_sockets import namespace
from ..support.hosts import Hosts
from ..support.logs import heard
from ..support.names import NameServer
from ..support.origin import Origin, echo
from ..support.programs import require
from ..support.proxy import Playing, Proxy, ask5, echoes, until
from ..support.scripted_proxy import (
    REQUEST,
    SUCCESS4,
    SUCCESS5,
    ScriptedProxy,
    Step,
    open5,
)
from ..support.upstreams import through, upstream

__all__ = ["namespace"]


@pytest.fixture
def origin() -> Iterator[Origin]:
    """A destination; it counts who comes."""
    with Origin(echo) as there:
        yield there


@pytest.fixture
def scripted() -> Iterator[Any]:
    """``yield scripted(step, ...)``: a proxy that does what the steps say."""
    proxies: list[ScriptedProxy] = []

    def started(*steps: Step, **more: Any) -> Any:
        proxy = ScriptedProxy(*steps, **more)
        proxies.append(proxy)
        return proxy.start()

    yield started
    for proxy in proxies:
        pytest_twisted.blockon(proxy.stop())


def asked(proxy: Proxy, host: str, port: int, command: int = Command.CONNECT) -> int:
    """The reply's code."""
    with proxy.connect() as sock:
        return ask5(sock, host, port, command)[0]


def sent_and_heard(proxy: Proxy, host: str, port: int) -> None:
    """A word there and back."""
    with proxy.connect() as sock:
        assert ask5(sock, host, port)[0] == 0
        echoes(sock)


# Where connections leave from.


@pytest_twisted.inlineCallbacks
def test_outgoing(serve: Serve, scripted: Any, origin: Origin) -> Playing:
    """The upstream's own address goes before the rule's and the server's, for proxies and direct ways."""
    there = yield scripted(*open5(SUCCESS5))
    rules = RulePolicy(
        [
            Rule(name="near", allow=True, networks=["127.0.0.0/8"], via="home", outgoing=["127.0.0.8"]),
            Rule(name="far", allow=True),
        ]
    )
    ways = {
        "one": upstream("socks5", there.port, outgoing=["127.0.0.7"]),
        "home": Upstream(type="direct", outgoing=["127.0.0.6"]),
    }
    proxy: Proxy = yield serve(upstreams=ways, via="one", policy=rules, outgoing=["127.0.0.9"])
    yield proxy.play(sent_and_heard, proxy, "192.0.2.1", 80)
    assert there.ends[0].transport.getPeer().host == "127.0.0.7"
    yield proxy.play(sent_and_heard, proxy, "127.0.0.1", origin.port)
    assert [peer[0] for peer in origin.peers] == ["127.0.0.6"]


@pytest.mark.parametrize(
    ("outgoing", "reply"),
    [(["192.0.2.55"], 1), (["::1"], 8)],
)
@pytest_twisted.inlineCallbacks
def test_no_such_outgoing(serve: Serve, origin: Origin, outgoing: list[str], reply: int) -> Playing:
    """e 19, 44: an address that this machine has not, or of the other family, is never another one."""
    ways = {"home": Upstream(type="direct", outgoing=outgoing)}
    proxy: Proxy = yield serve(upstreams=ways, via="home")
    assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == reply
    proxy.factory.reconfigure(**through("socks5", origin.port, outgoing=outgoing))
    assert (yield proxy.play(asked, proxy, "192.0.2.1", 80)) == 1
    assert origin.peers == []


@pytest_twisted.inlineCallbacks
def test_interface(serve: Serve, scripted: Any, origin: Origin) -> Playing:
    """By the interface that there is, and by no other; a direct way carries all commands."""
    there = yield scripted(*open5(SUCCESS5))
    ways = {
        "one": upstream("socks5", there.port, interface="lo"),
        "home": Upstream(type="direct", interface="lo"),
    }
    proxy: Proxy = yield serve(upstreams=ways, via="one")
    yield proxy.play(sent_and_heard, proxy, "192.0.2.1", 80)
    proxy.factory.reconfigure(upstreams=ways, via="home")
    yield proxy.play(sent_and_heard, proxy, "127.0.0.1", origin.port)
    record = yield proxy.record()
    for command in (Command.BIND, Command.UDP_ASSOCIATE, Command.RESOLVE):
        assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port, command)) == 0
    assert record
    counters = proxy.sessions.context.ways.counters["home"]
    yield until(lambda: counters.sessions == 0)
    gone = {"gone": Upstream(type="direct", interface="lost0")}
    proxy.factory.reconfigure(upstreams=gone, via="gone")
    for command in (Command.BIND, Command.UDP_ASSOCIATE):
        assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port, command)) == 1


@pytest.mark.parametrize("more", [{"interface": "lost0"}, {"mark": 7}, {"netns": "lost"}])
@pytest.mark.parametrize("kind", ["socks5", "direct"])
@pytest_twisted.inlineCallbacks
def test_cannot_leave(
    serve: Serve, scripted: Any, origin: Origin, monkeypatch: pytest.MonkeyPatch, kind: str, more: Any
) -> Playing:
    """e 19: no interface, no right to mark, no namespace: reply 1, no connection and no look-up."""
    there = yield scripted(*open5(SUCCESS5))

    def deny(link: Any, option: Any, value: Any, what: str) -> None:
        raise sockets._failed(OSError(errno.EPERM, os.strerror(errno.EPERM)), what)

    monkeypatch.setattr(sockets, "_set", deny)
    hosts = Hosts({})
    place = None if kind == "direct" else Address.of("127.0.0.1", there.port)
    ways = {"one": Upstream(type=kind, address=place, **more)}
    proxy: Proxy = yield serve(upstreams=ways, via="one", resolver=hosts)
    assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == 1
    record = yield proxy.record()
    assert "cannot be used" in record["ended"]
    assert (origin.peers, there.ends, hosts.asked) == ([], [], [])


@pytest_twisted.inlineCallbacks
def test_namespace(serve: Serve, namespace: str) -> Playing:
    """A destination that is in a namespace alone is reached from there, and from nowhere else."""
    subprocess.run([require("ip"), "-n", namespace, "link", "set", "lo", "up"], check=True)
    inside = Leaving(netns=namespace).new_socket(socket.AF_INET, socket.SOCK_STREAM)
    with socket.socket(fileno=inside.detach()) as listening, ThreadPoolExecutor() as threads:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]

        def answer() -> None:
            sock, _ = listening.accept()
            with sock:
                echo(sock)

        answered = threads.submit(answer)
        home = Upstream(type="direct", netns=namespace)
        proxy: Proxy = yield serve(upstreams={"home": home}, via="home")
        yield proxy.play(sent_and_heard, proxy, "127.0.0.1", port)
        yield until(answered.done)
        proxy.factory.reconfigure(via=None)
        assert (yield proxy.play(asked, proxy, "127.0.0.1", port)) == 5


@pytest_twisted.inlineCallbacks
def test_names_leave_likewise(serve_as: Serve, scripted: Any, origin: Origin) -> Playing:
    """e 40: questions about the upstream and about destinations leave by its interface, or not at all."""
    there = yield scripted(*open5(SUCCESS5))
    with NameServer({"proxy.test": ["127.0.0.1"], "www.test": ["127.0.0.1"]}) as server:
        resolver = DNSResolver(reactor, [("127.0.0.1", server.port)])
        for interface, reply in (("lo", 0), ("lost0", 4)):
            home = Upstream(type="direct", interface=interface)
            proxy: Proxy = yield serve_as(upstreams={"home": home}, via="home", resolver=resolver)
            assert (yield proxy.play(asked, proxy, "www.test", origin.port)) == reply
            reply = min(reply, 1)
            ways = through("socks5", there.port, host="proxy.test", interface=interface)
            proxy.factory.reconfigure(**ways)
            assert (yield proxy.play(asked, proxy, "192.0.2.1", 80)) == reply
    assert (len(server.asked), len(origin.peers)) == (4, 1)


# The PROXY header.


def behind_a_header(headers: list[Any]) -> Any:
    """A proxy of SOCKS5 that wants a PROXY header first, and then says success and echoes."""

    def serve(sock: socket.socket) -> None:
        data = b""
        while (parsed := parse_header(data)) is None:
            data += sock.recv(1000)
        headers.append(parsed[0])
        data = data[parsed[1] :]
        for length, answer in ((3, b"\x05\x00"), (REQUEST, SUCCESS5)):
            while len(data) < length:
                data += sock.recv(1000)
            data = data[length:]
            sock.sendall(answer)
        echo(sock)

    return serve


@pytest.mark.parametrize("version", [1, 2])
@pytest_twisted.inlineCallbacks
def test_header(serve: Serve, version: int) -> Playing:
    """e 43: the header is the first thing, and tells the client and what the client has reached."""
    headers: list[Any] = []
    with Origin(behind_a_header(headers)) as there:
        proxy: Proxy = yield serve(**through("socks5", there.port, proxy_protocol=version))

        def scenario() -> Any:
            with proxy.connect() as sock:
                assert ask5(sock, "192.0.2.77", 8080)[0] == 0
                echoes(sock)
                return sock.getsockname()

        client = yield proxy.play(scenario)
        assert [(each.source, each.destination) for each in headers] == [(client, proxy.address)]


@pytest.mark.parametrize("version", [1, 2])
@pytest_twisted.inlineCallbacks
def test_header_of_a_unix_client(serve_as: Serve, tmp_path: Path, version: int) -> Playing:
    """A client without an address is told as one."""
    headers: list[Any] = []
    with Origin(behind_a_header(headers)) as there:
        options = through("socks5", there.port, proxy_protocol=version)
        proxy: Proxy = yield serve_as("transports", listen=f"unix:{tmp_path}/socks", **options)
        yield proxy.play(sent_and_heard, proxy, "192.0.2.77", 8080)
        assert [(each.source, each.destination) for each in headers] == [(None, None)]


@pytest_twisted.inlineCallbacks
def test_header_within_a_chain(serve_as: Serve) -> Playing:
    """The header of a second proxy goes through the first one, before the second's greeting."""
    headers: list[Any] = []
    first: Proxy = yield serve_as()
    with Origin(behind_a_header(headers)) as there:
        ways = {
            "first": upstream("socks5", first.address[1]),
            "last": upstream("socks5", there.port, via="first", proxy_protocol=2),
        }
        proxy: Proxy = yield serve_as(upstreams=ways, via="last")
        yield proxy.play(sent_and_heard, proxy, "192.0.2.77", 8080)
        assert headers[0].destination == proxy.address


# The login.


def _shown(received: bytes) -> tuple[bytes, bytes]:
    """The name and the password in what a proxy of SOCKS5 has received, behind a greeting of 3 bytes."""
    length = received[4]
    name, rest = received[5 : 5 + length], received[5 + length :]
    return name, rest[1 : 1 + rest[0]]


@pytest_twisted.inlineCallbacks
def test_login_of_each_session(serve_as: Serve, scripted: Any) -> Playing:
    """Tor keeps sessions apart by name and password: each session has its own, which the RFC allows."""
    there = yield scripted(3, b"\x05\x02", 2 + 32 + 1 + 32, b"\x01\x00", REQUEST, SUCCESS5)
    proxy: Proxy = yield serve_as(**through("socks5", there.port, login="session"))
    with heard() as lines:
        for _ in range(2):
            yield proxy.play(sent_and_heard, proxy, "192.0.2.1", 80)
        yield until(lambda: len(proxy.records) == 2)
    logins = [_shown(end.received) for end in there.ends]
    assert all(end.received[:3] == b"\x05\x01\x02" for end in there.ends)  # no way around the login
    assert len({word for login in logins for word in login}) == 4
    assert all(len(word) == 32 for login in logins for word in login)
    assert all(word.decode() not in repr(lines) + repr(proxy.records) for word in logins[0])


@pytest_twisted.inlineCallbacks
def test_same_login_for_each_try(serve_as: Serve, scripted: Any) -> Playing:
    """The tries of one session show one login."""
    hosts = Hosts({"www.example": ["192.0.2.1", "192.0.2.2"]})
    refusal = b"\x05\x05\x00" + SUCCESS5[3:]
    there = yield scripted(3, b"\x05\x02", 2 + 32 + 1 + 32, b"\x01\x00", REQUEST, refusal)
    proxy: Proxy = yield serve_as(
        **through("socks5", there.port, login="session", resolve="here"), resolver=hosts
    )
    assert (yield proxy.play(asked, proxy, "www.example", 80)) == 5
    assert len(there.ends) == 2
    assert len({_shown(end.received) for end in there.ends}) == 1


@pytest_twisted.inlineCallbacks
def test_session_without_a_login(serve_as: Serve, scripted: Any) -> Playing:
    """A proxy that takes no login keeps nothing apart: that is its failure, and not a session like others."""
    there = yield scripted(3, b"\x05\x00")
    proxy: Proxy = yield serve_as(**through("socks5", there.port, login="session"))
    assert (yield proxy.play(asked, proxy, "192.0.2.1", 80)) == 1


@pytest_twisted.inlineCallbacks
def test_userid_of_each_session(serve_as: Serve, scripted: Any) -> Playing:
    """SOCKS4 has a name alone."""
    there = yield scripted(9 + 32, SUCCESS4)
    proxy: Proxy = yield serve_as(**through("socks4", there.port, login="session"))
    for _ in range(2):
        yield proxy.play(sent_and_heard, proxy, "192.0.2.1", 80)
    names = {end.received[8:40] for end in there.ends}
    assert len(names) == 2


# An endpoint in place of an address.


@pytest_twisted.inlineCallbacks
def test_endpoint(serve: Serve, scripted: Any, tmp_path: Path) -> Playing:
    """A Unix socket, as any client endpoint: bytes both ways, and a chain that begins with it."""
    path = str(tmp_path / "proxy")
    exit_ = yield scripted(*open5(SUCCESS5))
    with Origin(behind_a_header([]), path) as there:
        assert there
        proxy: Proxy = yield serve(
            upstreams={"one": Upstream(type="socks5", endpoint=f"unix:{path}", proxy_protocol=1)}, via="one"
        )
        yield proxy.play(sent_and_heard, proxy, "192.0.2.77", 8080)
    ways = {
        "one": Upstream(type="socks5", endpoint=f"tcp:127.0.0.1:{exit_.port}"),
        "two": upstream("socks5", 9, via="one"),
    }
    exit_.steps = open5(SUCCESS5, *open5(SUCCESS5))
    proxy = yield serve(upstreams=ways, via="two")
    yield proxy.play(sent_and_heard, proxy, "192.0.2.77", 8080)
    proxy.factory.reconfigure(
        upstreams={"one": Upstream(type="socks5", endpoint=f"unix:{path}-lost")}, via="one"
    )
    assert (yield proxy.play(asked, proxy, "192.0.2.77", 8080)) == 1


@pytest_twisted.inlineCallbacks
def test_wrong_endpoint(serve_as: Serve) -> Playing:
    """An endpoint of Python's, which no file has been checked for: reply 1, and no word of it is told."""
    ways = {"one": Upstream(type="socks5", endpoint="tcp:a:hunter2")}
    proxy: Proxy = yield serve_as(upstreams=ways, via="one")
    with heard() as lines:
        assert (yield proxy.play(asked, proxy, "192.0.2.1", 80)) == 1
        record = yield proxy.record()
    assert "the endpoint cannot be used" in record["ended"]
    assert "hunter2" not in repr((lines, record))
    assert proxy.sessions.context.ways.counters["one"].sessions == 0


# Names that are looked up for the rules alone.


@pytest_twisted.inlineCallbacks
def test_judge(serve: Serve, scripted: Any) -> Playing:
    """The rules see the addresses, and the upstream gets the name, once."""
    hosts = Hosts({"www.example": ["192.0.2.1", "192.0.2.3"], "bad.example": ["198.51.100.1"]})
    there = yield scripted(*open5(SUCCESS5, request=18))
    rules = RulePolicy([Rule(name="one", allow=True, networks=["192.0.2.0/24"])])
    proxy: Proxy = yield serve(**through("socks5", there.port, resolve="judge"), resolver=hosts, policy=rules)
    yield proxy.play(sent_and_heard, proxy, "WWW.example", 80)
    assert (yield proxy.play(asked, proxy, "bad.example", 80)) == 2
    assert [end.received[3:21] for end in there.ends] == [b"\x05\x01\x00\x03\x0bwww.example\x00\x50"]
    assert set(hosts.asked) == {"www.example", "bad.example"}
    record = next(each for each in proxy.records if each["reply"] == 0)
    assert (record["reached"], record["rule"], record["tries"]) == ("192.0.2.1:80", "one", 1)


@pytest_twisted.inlineCallbacks
def test_judge_tries_once(serve_as: Serve, scripted: Any) -> Playing:
    """A name with several addresses is asked for once, though the proxy refuses."""
    hosts = Hosts({"www.example": ["192.0.2.1", "192.0.2.3"]})
    there = yield scripted(*open5(b"\x05\x05\x00" + SUCCESS5[3:], request=18))
    proxy: Proxy = yield serve_as(**through("socks5", there.port, resolve="judge"), resolver=hosts)
    assert (yield proxy.play(asked, proxy, "www.example", 80)) == 5
    assert len(there.ends) == 1


@pytest_twisted.inlineCallbacks
def test_judge_after_a_reload(serve: Serve, scripted: Any) -> Playing:
    """A session goes on where the new rules permit the address, and ends where they do not."""
    hosts = Hosts({"www.example": ["192.0.2.1"]})
    there = yield scripted(*open5(SUCCESS5, request=18))
    options = through("socks5", there.port, resolve="judge")
    proxy: Proxy = yield serve(
        **options, resolver=hosts, policy=RulePolicy([Rule(name="a", allow=True, networks=["192.0.2.0/24"])])
    )
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "www.example", 80))[0] == 0
        proxy.factory.reconfigure(policy=RulePolicy([Rule(name="b", allow=True, networks=["192.0.2.1"])]))
        yield proxy.play(echoes, sock)
        proxy.factory.reconfigure(policy=RulePolicy([Rule(name="c", allow=True, networks=["192.0.2.9"])]))
        yield until(lambda: not proxy.sessions.live)
