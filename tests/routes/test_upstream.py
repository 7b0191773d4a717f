"""
Connections that leave through upstream proxies, over real loopback sockets.

Numbers such as "e 21" are those of known faults of other servers.
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from cryptography import x509
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet import ssl
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock

from socksproxy.auth.users import Realm, User
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.settings import ServerSettings
from socksproxy.values.errors import ConfigError
from socksproxy.values.pools import UpstreamPool
from socksproxy.values.timeouts import Timeouts
from socksproxy.values.upstreams import Upstream
from socksproxy.wire.password import Credentials
from socksproxy.wire.words import Address, Command

from ..conftest import Serve
from ..support.authority import SERVER, Authority
from ..support.hosts import Hosts
from ..support.logs import heard
from ..support.origin import Origin, answer_at_the_end, echo
from ..support.proxy import (
    Playing,
    Proxy,
    ask4,
    ask5,
    ask_as,
    closed_port,
    echoes,
    greet,
    reply5,
    request5,
    until,
)
from ..support.scripted_proxy import (
    REQUEST,
    SUCCESS4,
    SUCCESS5,
    SUCCESS_HTTP,
    ScriptedProxy,
    Step,
    close,
    forward_to,
    open5,
    reset,
)
from ..support.upstreams import through, upstream

#: Bytes of a request of SOCKS4 for an address, without a userid.
_REQUEST4 = 9
_LOGIN = Credentials(b"office", b"hunter2")


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


def sent_and_heard(proxy: Proxy, host: str, port: int) -> Address:
    """BND, and a word there and back."""
    with proxy.connect() as sock:
        reply, bound = ask5(sock, host, port)
        assert reply == 0
        echoes(sock)
        return bound


# Ways that work.


@pytest.mark.parametrize("kind", ["socks4", "socks4a", "socks5"])
@pytest_twisted.inlineCallbacks
def test_through_our_own(serve: Serve, serve_as: Serve, origin: Origin, kind: str) -> Playing:
    """Bytes both ways; the record names the way, and the destination sees the upstream alone."""
    exit_: Proxy = yield serve_as()
    proxy: Proxy = yield serve(**through(kind, exit_.address[1]))
    yield proxy.play(sent_and_heard, proxy, "127.0.0.1", origin.port)
    record = yield proxy.record()
    assert (record["via"], record["tries"]) == ("one", 1)
    assert record["upstream_reply"] == (0 if kind == "socks5" else 90)
    assert record["reached"] == record["destination"] == f"127.0.0.1:{origin.port}"
    out = yield exit_.record()
    assert out["client"] == record["outgoing"]
    assert out["version"] == int(kind[5])


@pytest.mark.parametrize("pieces", [0, 1])
@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("socks4", [_REQUEST4, SUCCESS4]),
        ("socks5", open5(SUCCESS5)),
        ("socks5", open5(b"\x05\x00\x07" + SUCCESS5[3:])),
        ("socks5", open5(b"\x05\x00\x00\x03\x05local\x00\x50")),
        ("http", [59, SUCCESS_HTTP]),
    ],
)
@pytest_twisted.inlineCallbacks
def test_banner(serve: Serve, scripted: Any, kind: str, steps: Any, pieces: int) -> Playing:
    """e 26: what the destination says at once is delivered first, however the reply is split."""
    there = yield scripted(*steps[:-1], steps[-1] + b"220 hello\r\n", pieces=pieces)
    proxy: Proxy = yield serve(**through(kind, there.port))

    def scenario() -> bytes:
        with proxy.connect() as sock:
            greet(sock)
            sock.sendall(request5("192.0.2.77", 8080))
            data = b""
            while not data.endswith(b"hello\r\n"):
                piece = sock.recv(1000)
                assert piece
                data += piece
            assert data[10:] == b"220 hello\r\n"
            echoes(sock)
            return data[:10]

    reply = yield proxy.play(scenario)
    if SUCCESS5 in steps:
        assert reply == SUCCESS5
    record = yield proxy.record()
    assert record["received"] == 15


@pytest_twisted.inlineCallbacks
def test_names_go_out_as_they_are(serve: Serve, scripted: Any) -> Playing:
    """e 39: the resolver is asked for nothing, and the upstream gets the name."""
    hosts = Hosts({"www.example": ["127.0.0.1"]})
    there = yield scripted(*open5(SUCCESS5, request=18))
    proxy: Proxy = yield serve(**through("socks5", there.port), resolver=hosts)
    yield proxy.play(sent_and_heard, proxy, "WWW.example", 80)
    assert there.ends[0].received[3:21] == b"\x05\x01\x00\x03\x0bwww.example\x00\x50"
    assert hosts.asked == []
    record = yield proxy.record()
    assert record["reached"] == "www.example:80"


@pytest.mark.parametrize(("kind", "more"), [("socks5", {"resolve": "here"}), ("socks4", {})])
@pytest_twisted.inlineCallbacks
def test_names_are_looked_up_here(serve_as: Serve, scripted: Any, kind: str, more: Any) -> Playing:
    """The upstream gets the address, which the policy has seen."""
    hosts = Hosts({"www.example": ["192.0.2.1"], "bad.example": ["192.0.2.2"]})
    steps = open5(SUCCESS5) if kind == "socks5" else [_REQUEST4, SUCCESS4]
    there = yield scripted(*steps)
    rules = RulePolicy([Rule(name="one", allow=True, networks=["192.0.2.1"])])
    proxy: Proxy = yield serve_as(**through(kind, there.port, **more), resolver=hosts, policy=rules)
    yield proxy.play(sent_and_heard, proxy, "www.example", 80)
    assert bytes((192, 0, 2, 1)) in there.ends[0].received
    assert (yield proxy.play(asked, proxy, "bad.example", 80)) == 2
    assert len(there.ends) == 1


@pytest_twisted.inlineCallbacks
def test_next_address(serve_as: Serve, scripted: Any) -> Playing:
    """With resolve = here, an address that the upstream cannot reach is not the end (e 13)."""
    hosts = Hosts({"www.example": ["2001:db8::1", "192.0.2.1"]})

    def answer(end: Any) -> None:
        end.transport.write(b"\x05\x08\x00" + SUCCESS5[3:] if end.received[6] == 4 else SUCCESS5)

    there = yield scripted(*open5(answer))
    proxy: Proxy = yield serve_as(**through("socks5", there.port, resolve="here"), resolver=hosts)
    assert (yield proxy.play(asked, proxy, "www.example", 80)) == 0
    record = yield proxy.record()
    assert record["tries"] == 2


@pytest_twisted.inlineCallbacks
def test_name_of_the_upstream(serve_as: Serve, scripted: Any) -> Playing:
    """The server's resolver looks it up, and all addresses are tried."""
    there = yield scripted(*open5(SUCCESS5))
    hosts = Hosts({"proxy.example": ["127.0.0.9", "127.0.0.1"]})
    proxy: Proxy = yield serve_as(**through("socks5", there.port, host="proxy.example"), resolver=hosts)
    assert (yield proxy.play(asked, proxy, "192.0.2.1", 80)) == 0
    assert hosts.asked == ["proxy.example"]


@pytest.mark.parametrize("kind", ["socks5", "http"])
@pytest_twisted.inlineCallbacks
def test_login(serve_as: Serve, scripted: Any, kind: str) -> Playing:
    """The login of the file, to a proxy that wants one."""
    if kind == "socks5":
        steps: list[Step] = [4, b"\x05\x02", 16, b"\x01\x00", REQUEST, SUCCESS5]
    else:
        steps = [len(_CONNECT), SUCCESS_HTTP]
    there = yield scripted(*steps)
    proxy: Proxy = yield serve_as(**through(kind, there.port, login=_LOGIN))
    yield proxy.play(sent_and_heard, proxy, "192.0.2.1", 80)
    expected = b"\x01\x06office\x07hunter2" if kind == "socks5" else b"Basic b2ZmaWNlOmh1bnRlcjI="
    assert expected in there.ends[0].received


_CONNECT = (
    b"CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: 192.0.2.1:80\r\n"
    b"Proxy-Authorization: Basic b2ZmaWNlOmh1bnRlcjI=\r\n\r\n"
)


def portal() -> Any:
    """Knows bob, whose password is ``secret``."""

    return Portal(Realm(), [InMemoryUsernamePasswordDatabaseDontUse(bob=b"secret")])


@pytest_twisted.inlineCallbacks
def test_login_of_the_client(serve_as: Serve, scripted: Any) -> Playing:
    """e 35: the client's own login goes to the proxy that it is for, and to no other one."""
    last = yield scripted(4, b"\x05\x02", 12, b"\x01\x00", REQUEST, SUCCESS5)
    first = yield scripted(*open5(forward_to(last.port), SUCCESS5))
    ways = {
        "first": upstream("socks5", first.port),
        "last": upstream("socks5", last.port, login="client", via="first"),
    }
    proxy: Proxy = yield serve_as(upstreams=ways, via="last", portal=portal())

    def scenario() -> int:
        with proxy.connect() as sock:
            return ask_as(sock, b"bob", 80)

    with heard() as lines:
        assert (yield proxy.play(scenario)) == 0
        record = yield proxy.record()
    assert first.ends[0].received[
        :13
    ] == b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + last.port.to_bytes(2, "big")
    assert last.ends[0].received[4:16] == b"\x01\x03bob\x06secret"
    assert record["via"] == "first>last"
    assert "secret" not in repr(lines) + repr(record) + repr(ways)


# Chains.


@pytest.mark.parametrize("kinds", [("socks5", "socks5"), ("socks4a", "http", "socks5"), ("http", "socks4")])
@pytest_twisted.inlineCallbacks
def test_chain(serve: Serve, scripted: Any, origin: Origin, kinds: Any) -> Playing:
    """Each proxy is asked for the next one, and the last one for the destination (e 17)."""
    ports: list[int] = []
    made: list[Any] = []
    for number, kind in enumerate(reversed(kinds)):
        onward = origin.port if number == 0 else ports[-1]
        target = f"127.0.0.1:{onward}"
        if kind == "http":
            length = len(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
            steps: list[Step] = [length, forward_to(onward), SUCCESS_HTTP]
        elif kind == "socks5":
            steps = open5(forward_to(onward), SUCCESS5)
        else:
            steps = [_REQUEST4, forward_to(onward), SUCCESS4]
        made.append((yield scripted(*steps)))
        ports.append(made[-1].port)
    ways = {}
    for number, (kind, port) in enumerate(zip(kinds, reversed(ports), strict=True)):
        ways[f"hop{number}"] = upstream(kind, port, via=f"hop{number - 1}" if number else None)
    proxy: Proxy = yield serve(upstreams=ways, via=f"hop{len(kinds) - 1}")
    yield proxy.play(sent_and_heard, proxy, "127.0.0.1", origin.port)
    record = yield proxy.record()
    assert record["via"] == ">".join(ways)
    yield until(lambda: len(origin.peers) == 1)


@pytest_twisted.inlineCallbacks
def test_failure_within_a_chain(serve_as: Serve, scripted: Any) -> Playing:
    """A hop that refuses the way to the next one is the way's own failure: 1, and the line names the hop."""
    first = yield scripted(*open5(b"\x05\x05\x00" + SUCCESS5[3:]))
    ways = {
        "first": upstream("socks5", first.port),
        "last": upstream("socks5", 9, via="first"),
    }
    proxy: Proxy = yield serve_as(upstreams=ways, via="last")
    with heard() as lines:
        assert (yield proxy.play(asked, proxy, "192.0.2.1", 80)) == 1
    record = yield proxy.record()
    assert (record["end"], record["upstream_reply"]) == ("upstream", None)
    assert "first: the proxy refuses the request (reply 5)" in record["ended"]
    assert lines


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def context_of(authority: Authority, name: str = "127.0.0.1") -> Any:
    import ipaddress

    alternative = x509.IPAddress(ipaddress.ip_address(name))
    pem = authority.issue("proxy", alternatives=[alternative], usage=SERVER).read_bytes()
    return ssl.PrivateCertificate.loadPEM(pem).options()


@pytest.mark.parametrize("hops", [1, 2])
@pytest_twisted.inlineCallbacks
def test_tls(serve: Serve, scripted: Any, origin: Origin, authority: Authority, hops: int) -> Playing:
    """HTTP over TLS, and TLS inside TLS, with a banner behind the reply."""
    context = context_of(authority)
    target = f"127.0.0.1:{origin.port}"
    length = len(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
    there = yield scripted(length, forward_to(origin.port), SUCCESS_HTTP + b"hello", context=context)
    ways = {"one": upstream("https", there.port, ca_file=str(authority.ca_file))}
    if hops == 2:
        inner = f"127.0.0.1:{there.port}"
        length = len(f"CONNECT {inner} HTTP/1.1\r\nHost: {inner}\r\n\r\n")
        outer = yield scripted(length, forward_to(there.port), SUCCESS_HTTP, context=context)
        ways["outer"] = upstream("https", outer.port, ca_file=str(authority.ca_file))
        ways["one"] = attrs.evolve(ways["one"], via="outer")
    proxy: Proxy = yield serve(upstreams=ways, via="one")

    def scenario() -> None:
        with proxy.connect() as sock:
            greet(sock)
            sock.sendall(request5("127.0.0.1", origin.port))
            data = b""
            while not data.endswith(b"hello"):
                data += sock.recv(1000) or pytest.fail(f"the end after {data!r}")
            assert data[1] == 0
            echoes(sock, bytes(200000))

    yield proxy.play(scenario)


@pytest_twisted.inlineCallbacks
def test_tls_wrong_certificate(serve: Serve, scripted: Any, origin: Origin, authority: Authority) -> Playing:
    """e 22: a proxy that is another one is the way's own failure, and gets no request."""
    there = yield scripted(1, SUCCESS_HTTP, context=context_of(authority, "192.0.2.9"))
    proxy: Proxy = yield serve(**through("https", there.port, ca_file=str(authority.ca_file)))
    assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == 1
    assert there.ends[0].received == b""
    assert origin.peers == []
    record = yield proxy.record()
    assert record["end"] == "upstream"


@pytest.mark.parametrize("how", ["silent", "closes", "another certificate"])
@pytest_twisted.inlineCallbacks
def test_no_tls(serve: Serve, scripted: Any, origin: Origin, authority: Authority, how: str) -> Playing:
    """Before TLS stands the proxy has no request: its own failure, and the pool takes the next member."""
    if how == "another certificate":
        there = yield scripted(1, SUCCESS_HTTP, context=context_of(authority, "192.0.2.9"))
    else:
        there = yield scripted(*([1, close] if how == "closes" else [100000]))
    good = yield scripted(*open5(forward_to(origin.port), SUCCESS5))
    ways = {
        "one": upstream("https", there.port, ca_file=str(authority.ca_file), try_timeout=0.5),
        "two": upstream("socks5", good.port),
    }
    proxy: Proxy = yield serve(upstreams=ways, pools={"all": UpstreamPool(members=["one", "two"])}, via="all")
    yield proxy.play(sent_and_heard, proxy, "127.0.0.1", origin.port)
    record = yield proxy.record()
    assert (record["via"], record["tries"]) == ("two", 2)


@pytest_twisted.inlineCallbacks
def test_plain_bytes_before_tls(serve_as: Serve, scripted: Any, authority: Authority) -> Playing:
    """A proxy cannot answer in the place of the next one, which speaks TLS."""
    inner = "127.0.0.1:9"
    length = len(f"CONNECT {inner} HTTP/1.1\r\nHost: {inner}\r\n\r\n")
    outer = yield scripted(length, SUCCESS_HTTP + SUCCESS_HTTP, 100000)
    ways = {
        "outer": upstream("http", outer.port),
        "one": upstream("https", 9, ca_file=str(authority.ca_file), via="outer"),
    }
    proxy: Proxy = yield serve_as(upstreams=ways, via="one")
    assert (yield proxy.play(asked, proxy, "192.0.2.1", 80)) == 1
    record = yield proxy.record()
    assert "plain bytes come before TLS" in record["ended"]


# Failures: truthful replies, and never directly.


def _replied(code: int) -> list[Step]:
    return open5(b"\x05" + bytes([code]) + SUCCESS5[2:])


REPLIES = [
    *((code, code) for code in range(1, 9)),
    (9, 1),
    (0xFF, 1),
    *((code, 2 if code in (0xF4, 0xF5) else 4) for code in range(0xF0, 0xF8)),
]


@pytest.mark.parametrize(("told", "reply"), REPLIES)
@pytest_twisted.inlineCallbacks
def test_reply_of_the_last(serve_as: Serve, scripted: Any, origin: Origin, told: int, reply: int) -> Playing:
    """e 22, 23: the upstream's reply as it is, though the upstream holds the connection."""
    there = yield scripted(*_replied(told))
    proxy: Proxy = yield serve_as(**through("socks5", there.port))
    assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == reply

    def as_socks4() -> int:
        with proxy.connect() as sock:
            return ask4(sock, "127.0.0.1", origin.port)[0]

    assert (yield proxy.play(as_socks4)) == 91
    assert origin.peers == []
    record = yield proxy.record()
    assert record["upstream_reply"] == told


HTTP = [
    (b"403 Forbidden\r\n", 2),
    (b"404 Not Found\r\n", 4),
    (b"504 Timeout\r\n", 6),
    (b"502 Bad Gateway\r\n", 1),
    (b"500 Unable to connect\r\n", 1),
    (b"407 Login\r\n", 1),
    (b"400 Bad\r\n", 1),
    (b"502 Bad\r\nProxy-Status: a; error=connection_refused\r\n", 5),
    (b"502 Bad\r\nProxy-Status: a; error=connection_timeout\r\n", 6),
    (b"502 Bad\r\nProxy-Status: a; error=dns_error\r\n", 4),
    (b"502 Bad\r\nProxy-Status: a; error=destination_ip_prohibited\r\n", 2),
    (b"502 Bad\r\nProxy-Status: a; error=destination_ip_unroutable\r\n", 3),
    (b"503 Bad\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n", 5),
    (b"503 Bad\r\nX-Squid-Error: ERR_CONNECT_FAIL 110\r\n", 6),
    (b"403 Bad\r\nProxy-Status: a; error=dns_timeout\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n", 4),
]


@pytest.mark.parametrize(("head", "reply"), HTTP)
@pytest_twisted.inlineCallbacks
def test_http_errors(serve_as: Serve, scripted: Any, origin: Origin, head: bytes, reply: int) -> Playing:
    """e 25: by Proxy-Status, then X-Squid-Error, then status; never a byte of HTML to the client."""
    there = yield scripted(1, b"HTTP/1.1 " + head + b"Content-Length: 6\r\n\r\n<html>")
    proxy: Proxy = yield serve_as(**through("http", there.port))

    def scenario() -> bytes:
        with proxy.connect() as sock:
            greet(sock)
            sock.sendall(request5("127.0.0.1", origin.port))
            data = b""
            while piece := sock.recv(1000):
                data += piece
            return data

    assert (yield proxy.play(scenario)) == bytes((5, reply, 0, 1, 0, 0, 0, 0, 0, 0))
    assert origin.peers == []


OWN = {
    "closed port": None,
    "closes at once": [close],
    "resets at once": [reset],
    "no method": [3, b"\x05\xff"],
    "method that was not offered": [3, b"\x05\x02"],
    "other protocol": [3, b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    "closes in the greeting": [3, b"\x05", close],
}
AFTER = {
    "closes after the request": open5(close),
    "closes within the reply": open5(b"\x05\x00\x00", close),
    "resets after the request": open5(reset),
}


@pytest.mark.parametrize("how", [*OWN, *AFTER])
@pytest_twisted.inlineCallbacks
def test_never_directly(serve: Serve, scripted: Any, origin: Origin, how: str) -> Playing:
    """e 19, 22: a way that fails is 1, and neither the destination nor the resolver hears of the client."""
    hosts = Hosts({"www.example": ["127.0.0.1"]})
    steps = {**OWN, **AFTER}[how]
    port = closed_port()
    if steps is not None:
        there = yield scripted(*steps)
        port = there.port
    proxy: Proxy = yield serve(**through("socks5", port), resolver=hosts)
    for host in ("127.0.0.1", "www.example", "localhost"):
        assert (yield proxy.play(asked, proxy, host, origin.port)) == 1
    assert (origin.peers, hosts.asked) == ([], [])
    record = yield proxy.record()
    assert record["end"] == "upstream"


@pytest.mark.parametrize("host", ["127.0.0.1", "www.example"])
@pytest.mark.parametrize("command", [Command.BIND, Command.UDP_ASSOCIATE, Command.RESOLVE])
@pytest_twisted.inlineCallbacks
def test_other_commands(serve_as: Serve, origin: Origin, host: str, command: Command) -> Playing:
    """e 19, 39: what the way cannot do is refused with 7, and is never done from here."""
    udp = None if command is not Command.UDP_ASSOCIATE else False
    hosts = Hosts({"www.example": ["127.0.0.1"]})
    for options in (
        through("socks5", closed_port(), udp=udp),
        {
            "upstreams": {"one": upstream("socks5", closed_port(), udp=udp)},
            "policy": RulePolicy([Rule(name="all", allow=True, via="one")]),
        },
    ):
        proxy: Proxy = yield serve_as(**options, resolver=hosts)
        assert (yield proxy.play(asked, proxy, host, origin.port, command)) == 7
    assert hosts.asked == []


@pytest_twisted.inlineCallbacks
def test_resolve_ptr(serve_as: Serve) -> Playing:
    """The same for RESOLVE_PTR."""
    proxy: Proxy = yield serve_as(**through("socks5", closed_port()))
    assert (yield proxy.play(asked, proxy, "127.0.0.1", 0, Command.RESOLVE_PTR)) == 7


@inlineCallbacks
def _silent(
    serve_as: Serve, port: int, seconds: float, clock: Clock, ready: Any, **more: Any
) -> Generator[Any, Any, tuple[int, Proxy]]:
    """The reply after that many seconds."""
    proxy: Proxy = yield serve_as(clock=clock, **through("socks5", port, **more))
    sock = proxy.connect()
    with sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5("192.0.2.1", 80))
        yield until(ready)
        clock.advance(seconds - 0.01)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(100)
        sock.settimeout(20)
        clock.advance(0.02)
        reply = yield proxy.play(reply5, sock)
    return reply[0], proxy


@pytest.mark.parametrize(("steps", "reply", "seconds"), [([3], 1, 5), (open5(), 6, 30)])
@pytest_twisted.inlineCallbacks
def test_silence(serve_as: Serve, scripted: Any, steps: Any, reply: int, seconds: int) -> Playing:
    """e 21: silence before the request is the upstream's, 1; afterwards it is 6, by the connect-timeout."""
    there = yield scripted(*steps)
    clock = Clock()
    length = sum(step for step in steps if isinstance(step, int))
    got, proxy = yield _silent(
        serve_as, there.port, seconds, clock, lambda: there.ends and len(there.ends[0].received) == length
    )
    assert got == reply
    record = yield proxy.record()
    assert record["end"] == ("upstream" if reply == 1 else "timeout")
    yield until(lambda: there.ends[0].ended)


@pytest_twisted.inlineCallbacks
def test_silence_longer_than_the_connect_timeout(serve_as: Serve, scripted: Any) -> Playing:
    """A connect-timeout that ends first changes nothing about what is said."""
    there = yield scripted(3)
    clock = Clock()
    proxy: Proxy = yield serve_as(
        clock=clock, **through("socks5", there.port, try_timeout=60.0), timeouts=Timeouts(connect=2)
    )
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5("192.0.2.1", 80))
        yield until(lambda: there.ends and there.ends[0].received)
        clock.advance(2.1)
        assert (yield proxy.play(reply5, sock))[0] == 1


@pytest_twisted.inlineCallbacks
def test_client_goes(serve: Serve, scripted: Any) -> Playing:
    """A client that leaves meanwhile takes the connection to the upstream with it."""
    there = yield scripted(*open5())
    proxy: Proxy = yield serve(**through("socks5", there.port))
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5("192.0.2.1", 80))
        yield until(lambda: there.ends and len(there.ends[0].received) == 13)
    yield until(lambda: there.ends[0].ended is not None)
    yield until(lambda: not proxy.sessions.live)


@pytest_twisted.inlineCallbacks
def test_half_close(serve: Serve, serve_as: Serve) -> Playing:
    """e 45: the end of one direction goes through, and the other one goes on."""
    exit_: Proxy = yield serve_as()
    with Origin(answer_at_the_end) as origin:
        proxy: Proxy = yield serve(**through("socks5", exit_.address[1]))

        def scenario() -> bytes:
            with proxy.connect() as sock:
                assert ask5(sock, "127.0.0.1", origin.port)[0] == 0
                sock.sendall(b"all of it")
                sock.shutdown(socket.SHUT_WR)
                data = b""
                while piece := sock.recv(1000):
                    data += piece
                return data

        answer = yield proxy.play(scenario)
        assert answer
        yield until(lambda: origin.peers)


# Who goes which way.


@pytest_twisted.inlineCallbacks
def test_rules_users_server(serve_as: Serve, scripted: Any, origin: Origin) -> Playing:
    """The rule's way goes before the user's, and the user's before the server's; direct is said."""
    there = yield scripted(*open5(SUCCESS5))
    rules = RulePolicy(
        [
            Rule(name="home", allow=True, networks=["127.0.0.0/8"], via="direct"),
            Rule(name="far", allow=True, networks=["192.0.2.0/24"]),
            Rule(name="dead", allow=True, networks=["198.51.100.0/24"], via="dead"),
        ]
    )
    ways = {"one": upstream("socks5", there.port), "dead": upstream("socks5", closed_port())}
    proxy: Proxy = yield serve_as(upstreams=ways, via="one", policy=rules)
    for host, reply in (("127.0.0.1", 0), ("192.0.2.1", 0), ("198.51.100.1", 1)):
        assert (yield proxy.play(asked, proxy, host, origin.port)) == reply
    yield until(lambda: len(proxy.records) == 3)
    taken = {str(each["destination"]).partition(":")[0]: each["via"] for each in proxy.records}
    assert taken == {"127.0.0.1": None, "192.0.2.1": "one", "198.51.100.1": "dead"}
    yield until(lambda: len(origin.peers) == 1)


@pytest_twisted.inlineCallbacks
def test_networks_do_not_decide_on_names(serve_as: Serve, scripted: Any) -> Playing:
    """A rule by network allows no name that an upstream looks up; the name is not looked up here instead."""
    hosts = Hosts({"www.example": ["192.0.2.1"]})
    rules = RulePolicy([Rule(name="net", allow=True, networks=["192.0.2.0/24"], names=["a.example"])])
    for host, request, reply in (("www.example", 18, 2), ("192.0.2.1", 10, 0), ("a.example", 16, 0)):
        there = yield scripted(*open5(SUCCESS5, request=request))
        proxy: Proxy = yield serve_as(**through("socks5", there.port), resolver=hosts, policy=rules)
        assert (yield proxy.play(asked, proxy, host, 80)) == reply
    assert hosts.asked == []


@pytest_twisted.inlineCallbacks
def test_unknown_way(serve_as: Serve, origin: Origin) -> Playing:
    """e 19: a rule of Python that names a way which there is not leads nowhere."""
    hosts = Hosts({"www.example": ["127.0.0.1"]})
    proxy: Proxy = yield serve_as(
        policy=RulePolicy([Rule(name="all", allow=True, via="lost")]), resolver=hosts
    )
    for host in ("127.0.0.1", "www.example"):
        assert (yield proxy.play(asked, proxy, host, origin.port)) == 1
    assert (origin.peers, hosts.asked) == ([], [])


@pytest_twisted.inlineCallbacks
def test_localhost_is_judged(serve_as: Serve, scripted: Any) -> Playing:
    """The upstream's own loopback is not reached by a name that means it."""
    there = yield scripted(*open5(SUCCESS5))
    rules = RulePolicy(
        [Rule(name="no", allow=False, networks=["loopback"]), Rule(name="all", allow=True)],
    )
    proxy: Proxy = yield serve_as(**through("socks5", there.port), policy=rules)
    for host in ("localhost", "a.localhost", "LOCALHOST."):
        assert (yield proxy.play(asked, proxy, host, 80)) == 2
    assert there.ends == []


@pytest_twisted.inlineCallbacks
def test_reload(serve: Serve, scripted: Any, origin: Origin) -> Playing:
    """e 47: sessions go on; new ones take the new way; what hangs in the old one ends by its time."""
    one = yield scripted(*open5(SUCCESS5))
    two = yield scripted(*open5(SUCCESS5))
    proxy: Proxy = yield serve(**through("socks5", one.port))
    sock = proxy.connect()
    assert (yield proxy.play(ask5, sock, "192.0.2.1", 80))[0] == 0
    proxy.factory.reconfigure(**through("socks5", two.port))
    assert (yield proxy.play(asked, proxy, "192.0.2.1", 80)) == 0
    yield proxy.play(echoes, sock)
    sock.close()
    assert (len(one.ends), len(two.ends)) == (1, 1)
    proxy.factory.reconfigure(upstreams={}, via=None)
    assert (yield proxy.play(asked, proxy, "127.0.0.1", origin.port)) == 0
    yield until(lambda: len(origin.peers) == 1)


@pytest_twisted.inlineCallbacks
def test_removed_while_it_hangs(serve_as: Serve, scripted: Any, origin: Origin) -> Playing:
    """e 47: a handshake in an upstream that is removed ends by try-timeout, and not directly."""
    there = yield scripted(3)
    clock = Clock()
    proxy: Proxy = yield serve_as(clock=clock, **through("socks5", there.port))
    with proxy.connect() as sock:
        yield proxy.play(greet, sock)
        sock.sendall(request5("127.0.0.1", origin.port))
        yield until(lambda: there.ends and there.ends[0].received)
        proxy.factory.reconfigure(upstreams={}, via=None)
        clock.advance(5.1)
        assert (yield proxy.play(reply5, sock))[0] == 1
    assert origin.peers == []


def test_loops() -> None:
    """e 46: a loop is a mistake; so is a way that there is not."""
    one, two = upstream("socks5", 1, via="two"), upstream("socks5", 2, via="one")
    with pytest.raises(ConfigError, match="the way is a loop"):
        ServerSettings(upstreams={"one": one, "two": two})
    with pytest.raises(ConfigError, match="no such upstream"):
        ServerSettings(via="one")
    with pytest.raises(ConfigError, match="no such upstream"):
        ServerSettings(upstreams={"one": one})


def test_no_secrets() -> None:
    """A password is not shown."""
    assert "hunter2" not in repr(Upstream(type="socks5", address=Address.of("a.example", 1), login=_LOGIN))


class Bob(User):
    """A user with a way of its own."""

    via = "bobs"


@pytest_twisted.inlineCallbacks
def test_way_of_a_user(serve_as: Serve, scripted: Any) -> Playing:
    """The user's way goes before the server's, and the rule's before the user's."""

    class Bobs(Realm):
        def user(self, name: str | None) -> User:
            return Bob(name)

    there = yield scripted(*open5(SUCCESS5))
    ways = {"one": upstream("socks5", closed_port()), "bobs": upstream("socks5", there.port)}
    knows = Portal(Bobs(), [InMemoryUsernamePasswordDatabaseDontUse(bob=b"secret")])

    def scenario(proxy: Proxy) -> int:
        with proxy.connect() as sock:
            return ask_as(sock, b"bob", 80)

    proxy: Proxy = yield serve_as(upstreams=ways, via="one", portal=knows)
    assert (yield proxy.play(scenario, proxy)) == 0
    rules = RulePolicy([Rule(name="all", allow=True, via="one")])
    proxy = yield serve_as(upstreams=ways, portal=knows, policy=rules)
    assert (yield proxy.play(scenario, proxy)) == 1
    assert len(there.ends) == 1
