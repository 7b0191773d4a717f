"""RESOLVE and RESOLVE_PTR through a proxy that serves them, over real loopback sockets."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.values.pools import UpstreamPool
from socksproxy.values.upstreams import Upstream
from socksproxy.wire.words import Address, AddressType, Command

from ..conftest import Serve
from ..routes.test_upstream import scripted
from ..support.hosts import Both, Hosts
from ..support.proxy import Playing, Proxy, ask4, ask5, closed_port, until
from ..support.scripted_proxy import close, open5
from ..support.upstreams import through, upstream

assert scripted  # a fixture


def resolved(proxy: Proxy, host: str, command: int = Command.RESOLVE) -> tuple[int, Address]:
    """The reply."""
    with proxy.connect() as sock:
        return ask5(sock, host, 0, command)


@pytest.mark.parametrize("kind", ["one", "chain"])
@pytest_twisted.inlineCallbacks
def test_through_our_own(serve_as: Serve, kind: str) -> Playing:
    """e 39: the last proxy's resolver is asked, and ours is not."""
    there = Hosts({"www.example": ["198.51.100.7"]})
    here = Hosts({"www.example": ["127.0.0.1"]})
    exit_: Proxy = yield serve_as(resolver=there)
    first: Proxy = yield serve_as()
    ways = {
        "one": upstream("socks5", exit_.address[1], resolve_commands=True),
        "chain": upstream("socks5", exit_.address[1], resolve_commands=True, via="hop"),
        "hop": upstream("socks5", first.address[1]),
    }
    proxy: Proxy = yield serve_as(upstreams=ways, via=kind, resolver=here)
    reply, address = yield proxy.play(resolved, proxy, "WWW.example")
    assert (reply, address.host) == (0, "198.51.100.7")
    assert (here.asked, there.asked) == ([], ["www.example"])
    record = yield proxy.record()
    assert (record["announced"], record["end"]) == ("198.51.100.7", "answered")
    # A literal address is its own answer.
    assert (yield proxy.play(resolved, proxy, "192.0.2.9"))[1].host == "192.0.2.9"

    def socks4() -> Any:
        with proxy.connect() as sock:
            return ask4(sock, "www.example", 0, Command.RESOLVE)

    assert (yield proxy.play(socks4))[1].host == "198.51.100.7"


@pytest_twisted.inlineCallbacks
def test_direct_member(serve_as: Serve) -> Playing:
    """A pool with a direct member looks names and addresses up here."""
    hosts = Both({"www.example": ["127.0.0.1"]}, {"192.0.2.77": "back.example"})
    ways = {"one": upstream("http", 9), "here": Upstream(type="direct")}
    pool = UpstreamPool(members=list(ways))
    proxy: Proxy = yield serve_as(upstreams=ways, pools={"eu": pool}, via="eu", resolver=hosts)
    assert (yield proxy.play(resolved, proxy, "www.example"))[1].host == "127.0.0.1"
    found = yield proxy.play(resolved, proxy, "192.0.2.77", Command.RESOLVE_PTR)
    assert found == (0, Address("back.example", 0, AddressType.DOMAIN_NAME))
    assert (yield proxy.play(resolved, proxy, "192.0.2.78", Command.RESOLVE_PTR))[0] == 4


@pytest_twisted.inlineCallbacks
def test_otherwise_direct(serve_as: Serve) -> Playing:
    """So does a pool where no member lives, and direct is written."""
    hosts = Both({"www.example": ["127.0.0.1"]}, {"192.0.2.77": "back.example"})
    ways = {"dead": upstream("socks5", closed_port(), resolve_commands=True), "http": upstream("http", 9)}
    options = {"upstreams": ways, "via": "eu", "resolver": hosts}
    for member, reply in (("dead", 0), ("http", 7)):
        pool = UpstreamPool(members=[member], otherwise="direct")
        proxy: Proxy = yield serve_as(pools={"eu": pool}, **options)
        for command, host in ((Command.RESOLVE, "www.example"), (Command.RESOLVE_PTR, "192.0.2.77")):
            assert (yield proxy.play(resolved, proxy, host, command))[0] == reply


NAME = b"\x05\x00\x00\x03\x0bwww.example\x00\x00"
IPV4 = b"\x05\x00\x00\x01\xc6\x33\x64\x07\x00\x00"
IPV6 = b"\x05\x00\x00\x04" + bytes(15) + b"\x05\x00\x00"


@pytest.mark.parametrize(
    ("command", "host", "answer", "reply", "found"),
    [
        (Command.RESOLVE, "a.example", IPV4, 0, "198.51.100.7"),
        (Command.RESOLVE, "a.example", IPV6, 0, "::5"),
        (Command.RESOLVE, "a.example", NAME, 1, None),
        (Command.RESOLVE, "a.example", b"\x05\xf6" + IPV4[2:], 4, None),
        (Command.RESOLVE, "a.example", b"\x05\x04" + IPV4[2:], 4, None),
        (Command.RESOLVE, "a.example", close, 1, None),
        (Command.RESOLVE_PTR, "198.51.100.7", NAME, 0, "www.example"),
        (Command.RESOLVE_PTR, "198.51.100.7", IPV4, 1, None),
        (Command.RESOLVE_PTR, "198.51.100.7", b"\x05\x00\x00\x03\x00\x00\x00", 1, None),
        (Command.RESOLVE_PTR, "198.51.100.7", b"\x05\x04" + IPV4[2:], 4, None),
    ],
)
@pytest_twisted.inlineCallbacks
def test_answers(
    serve_as: Serve, scripted: Any, command: Command, host: str, answer: Any, reply: int, found: str | None
) -> Playing:
    """F0 and F1, as Tor has them; the connection closes."""
    hosts = Hosts({"a.example": ["127.0.0.1"]})
    there = yield scripted(*open5(answer, request=16 if command is Command.RESOLVE else 10))
    proxy: Proxy = yield serve_as(**through("socks5", there.port, resolve_commands=True), resolver=hosts)
    got = yield proxy.play(resolved, proxy, host, command)
    assert got[0] == reply
    if found is not None:
        assert got[1].host == found
    assert there.ends[0].received[3:5] == bytes((5, command))
    yield until(lambda: there.ends[0].ended is not None)
    assert hosts.asked == []


@pytest_twisted.inlineCallbacks
def test_the_answer_is_judged(serve_as: Serve, scripted: Any) -> Playing:
    """As an address that is looked up here."""
    there = yield scripted(*open5(IPV4, request=16))
    rules = RulePolicy(
        [
            Rule(name="no", allow=False, networks=["198.51.100.0/24"]),
            Rule(name="all", allow=True, names=["a.example"]),
        ]
    )
    proxy: Proxy = yield serve_as(**through("socks5", there.port, resolve_commands=True), policy=rules)
    assert (yield proxy.play(resolved, proxy, "a.example"))[0] == 2


@pytest.mark.parametrize("command", [Command.RESOLVE, Command.RESOLVE_PTR])
@pytest_twisted.inlineCallbacks
def test_an_upstream_that_does_not_serve_it(serve_as: Serve, scripted: Any, command: Command) -> Playing:
    """e 19: reply 7, without a connection, and never from here."""
    hosts = Hosts({"a.example": ["127.0.0.1"]})
    there = yield scripted(*open5(IPV4))
    proxy: Proxy = yield serve_as(**through("socks5", there.port), resolver=hosts)
    host = "a.example" if command is Command.RESOLVE else "198.51.100.7"
    assert (yield proxy.play(resolved, proxy, host, command))[0] == 7
    assert (there.ends, hosts.asked) == ([], [])
