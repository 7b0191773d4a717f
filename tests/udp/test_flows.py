"""
Datagrams that leave through proxies, over real loopback sockets.

Numbers such as "e 38" are those of known faults of other servers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import blockingCallFromThread

from socksproxy import UDPSettings
from socksproxy.limits import Limits
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.udp.flows import MAX_QUEUED, PAUSE
from socksproxy.values import Filtering
from socksproxy.values.limits import Rate
from socksproxy.values.pools import UpstreamPool
from socksproxy.values.timeouts import Timeouts
from socksproxy.values.upstreams import Upstream, UpstreamType
from socksproxy.wire.datagram import build_header
from socksproxy.wire.words import UNSPECIFIED, Address

from ..support.hosts import Hosts
from ..support.proxy import closed_port
from ..support.scripted_proxy import ScriptedProxy, Step, close, open5
from ..support.socket_marks import MARK, needs_marks, sockets_with_mark
from ..support.udp import (
    Client,
    Echo,
    Proxy,
    Refused,
    is_silent,
    kinds,
    reactor,
    serving,
    udp_socket,
    wait_for,
)
from ..support.upstreams import through, upstream

REFUSES = b"\x05\x07\x00\x01" + bytes(6)


def bnd(host: str, port: int, reply: int = 0) -> bytes:
    """A reply."""
    return bytes((5, reply)) + build_header(Address.of(host, port))[2:]


@asynccontextmanager
async def scripted(*steps: Step) -> AsyncIterator[ScriptedProxy]:
    """A proxy that does what the steps say."""
    proxy = ScriptedProxy(*steps)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


@asynccontextmanager
async def relaying(kind: str, host: str = "127.0.0.1", **more: Any) -> AsyncIterator[Any]:
    """A server whose upstream ``one`` is the test itself: the server, the upstream and its relay."""
    options = {key: more.pop(key) for key in ("policy", "resolver", "limits", "udp") if key in more}
    with udp_socket() as relay:
        async with (
            scripted(*open5(bnd(host, relay.getsockname()[1]))) as there,
            serving(kind, **through("socks5", there.port, **more), **options) as proxy,
        ):
            yield proxy, there, relay


def dropped(proxy: Proxy) -> dict[str, int]:
    """What the only association has dropped so far."""
    (association,) = proxy.factory.sessions.context.associations.live
    return {reason.value: count for reason, count in association.dropped.items()}


# Ways that work.


def directly(proxy: Proxy) -> None:
    counters = proxy.factory.sessions.context.ways.counters
    with Echo() as echo, Echo("::1") as six, Client(proxy) as client:
        for _ in range(3):
            assert client.ask(b"ping", echo.address) == b"ping"
        assert {peer[0] for _, peer in echo.seen} == {"127.0.0.7"}
        batch = [bytes([number]) * 700 for number in range(60)]
        for payload in batch:
            client.send(payload, echo.address)
        assert [client.receive()[1] for _ in batch] == batch
        # The member has no address of this family.
        client.send(b"lost", six.address)
        wait_for(lambda: dropped(proxy) == {"unreachable": 1})
        assert counters["here"].sessions == 1
        client.close()
        record = proxy.record()
        assert (record["via"], record["datagrams_sent"], record["datagrams_received"]) == ("here", 63, 63)
    wait_for(lambda: counters["here"].sessions == 0)


@kinds
@pytest_twisted.ensureDeferred
async def test_direct_member(kind: str) -> None:
    """Datagrams leave directly by a direct member, from its address; one that cannot leave is passed by."""
    ways = {
        "gone": Upstream(type=UpstreamType.DIRECT, interface="lost0"),
        "http": upstream("http", 9),
        "here": Upstream(type=UpstreamType.DIRECT, outgoing=["127.0.0.7"]),
    }
    pool = UpstreamPool(members=list(ways), down_after=1)
    async with serving(kind, upstreams=ways, pools={"eu": pool}, via="eu") as proxy:
        await proxy.run(directly)
        assert [member.up for member in proxy.factory.sessions.context.ways.pools["eu"]] == [
            False,
            True,
            True,
        ]


def by_interface(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client:
        assert client.ask(b"ping", echo.address) == b"ping"
        assert client.ask(b"pong", ("here.example", echo.address[1])) == b"pong"


@kinds
@pytest_twisted.ensureDeferred
async def test_direct_upstream(kind: str) -> None:
    """An upstream of type direct with an interface carries datagrams, too."""
    ways = {"home": Upstream(type=UpstreamType.DIRECT, interface="lo")}
    hosts = Hosts({"here.example": ["127.0.0.1"]})
    async with serving(kind, upstreams=ways, via="home", resolver=hosts) as proxy:
        await proxy.run(by_interface)


@kinds
@pytest_twisted.ensureDeferred
async def test_otherwise_direct(kind: str) -> None:
    """Where no member that carries datagrams lives, they leave as by a direct upstream: it is written."""
    hosts = Hosts({"here.example": ["127.0.0.1"]})
    pool = UpstreamPool(members=["dead"], otherwise="direct")
    ways = {"dead": upstream("socks5", closed_port())}
    options = {"upstreams": ways, "pools": {"eu": pool}, "via": "eu", "resolver": hosts}
    async with serving(kind, outgoing=["127.0.0.7"], **options) as proxy:
        await proxy.run(by_interface)
        await proxy.run(otherwise_directly)


def otherwise_directly(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client:
        assert client.ask(b"ping", echo.address) == b"ping"
        assert echo.seen[0][1][0] == "127.0.0.7"
        client.close()
        wait_for(lambda: len(proxy.records) == 2)
        assert proxy.records[1]["via"] == "direct"


def marked(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client:
        assert client.ask(b"ping", echo.address) == b"ping"
        assert (socket.SOCK_DGRAM, False) in sockets_with_mark()


@needs_marks
@pytest.mark.parametrize("direct", [True, False])
@kinds
@pytest_twisted.ensureDeferred
async def test_mark(kind: str, direct: bool) -> None:
    """All datagrams have the mark, to the destination and to a proxy."""
    async with serving("engine") as exit_:
        ways = through("socks5", exit_.address[1], mark=MARK)
        if direct:
            ways["upstreams"] = {"one": Upstream(type=UpstreamType.DIRECT, mark=MARK)}
        async with serving(kind, **ways) as proxy:
            await proxy.run(marked)


def there_and_back(proxy: Proxy) -> None:
    with Echo() as echo, Echo("::1") as six, Client(proxy) as client:
        for payload in (b"ping", b"", bytes(range(256)) * 5):
            assert client.ask(payload, echo.address) == payload
            assert client.ask(payload, six.address) == payload
        for each in (echo, six):
            batch = [bytes([number]) * 700 for number in range(60)]
            for payload in batch:
                client.send(payload, each.address)
            assert [client.receive()[1] for _ in batch] == batch
        assert client.ask(bytes(65485), echo.address) == bytes(65485)
        client.close()
        record = proxy.record()
        assert (record["via"], record["tries"], record["upstream_reply"]) == ("one", 1, 0)
        assert record["datagrams_sent"] == record["datagrams_received"] == 127
        assert record["sent"] == record["received"] == 2 * (4 + 1280 + 60 * 700) + 65485
        assert record["dropped"] == {}


@kinds
@pytest_twisted.ensureDeferred
async def test_through_our_own(kind: str) -> None:
    """All sizes and both families, alone and in batches; the upstream does the same for its client."""
    async with serving("engine") as exit_, serving(kind, **through("socks5", exit_.address[1])) as proxy:
        await proxy.run(there_and_back)
        await exit_.run(wait_for_record)
        assert exit_.records[0]["datagrams_sent"] == 127


def wait_for_record(proxy: Proxy) -> None:
    proxy.record()


def through_two(proxy: Proxy) -> None:
    with Echo() as echo, Echo("::1") as six, Client(proxy) as client:
        for size in (0, 1, 1472, 65507 - 20):
            assert client.ask(bytes(size), echo.address) == bytes(size)
        for size in (0, 1, 1472, 65507 - 32):
            assert client.ask(bytes(size), six.address) == bytes(size)
        for each in (echo, six):
            batch = [bytes([number]) * 300 for number in range(40)]
            for payload in batch:
                client.send(payload, each.address)
            assert [client.receive()[1] for _ in batch] == batch
        # With two headers it is longer than a datagram can be.
        client.send(bytes(65507 - 10), echo.address)
        wait_for(lambda: dropped(proxy) == {"too_big": 1})
        client.close()
        assert proxy.record()["via"] == "one>two"


@kinds
@pytest_twisted.ensureDeferred
async def test_chain(kind: str) -> None:
    """e 41: two headers, one in the other; a datagram arrives whole, or is dropped and counted."""
    async with serving("engine") as first, serving("engine") as second:
        ways = {
            "one": upstream("socks5", first.address[1]),
            "two": upstream("socks5", second.address[1], via="one"),
        }
        async with serving(kind, upstreams=ways, via="two") as proxy:
            await proxy.run(through_two)
        await first.run(lambda _: wait_for(lambda: len(first.records) == 2))
        await second.run(wait_for_record)
        # The second one sees the first one alone, by TCP and by UDP.
        assert second.records[0]["client"] != proxy.records[0]["client"]
        assert sorted(record["command"] for record in first.records) == ["CONNECT", "UDP_ASSOCIATE"]


def names_go_out(proxy: Proxy, relay: socket.socket) -> None:
    with Client(proxy) as client:
        client.send(b"question", ("Game.Example", 5000))
        data, peer = relay.recvfrom(1000)
        assert data == build_header(Address.of("game.example", 5000)) + b"question"
        # The proxy tells an address, or a name.
        for host, port in (("198.51.100.7", 5000), ("game.example", 5000)):
            relay.sendto(build_header(Address.of(host, port)) + b"answer", peer)
            assert client.receive() == (Address.of(host, port), b"answer")
        batch = [b"%d" % number for number in range(30)]
        for payload in batch:
            client.send(payload, ("game.example", 5000))
        assert [
            relay.recv(1000)[len(build_header(Address.of("game.example", 5000))) :] for _ in batch
        ] == batch


@kinds
@pytest_twisted.ensureDeferred
async def test_names_go_out_as_they_are(kind: str) -> None:
    """e 39: the resolver is asked for nothing."""
    hosts = Hosts({"game.example": ["127.0.0.1"]})
    async with relaying(kind, resolver=hosts) as (proxy, _, relay):
        await proxy.run(names_go_out, relay)
    assert hosts.asked == []


def addresses_go_out(proxy: Proxy, relay: socket.socket) -> None:
    with Client(proxy) as client:
        client.send(b"question", ("game.example", 5000))
        assert relay.recv(1000) == build_header(Address.of("198.51.100.7", 5000)) + b"question"


@pytest_twisted.ensureDeferred
async def test_names_are_looked_up_here() -> None:
    """With resolve = here, as for CONNECT."""
    hosts = Hosts({"game.example": ["198.51.100.7"]})
    async with relaying("engine", resolver=hosts, resolve="here") as (proxy, _, relay):
        await proxy.run(addresses_go_out, relay)
    assert hosts.asked == ["game.example"]


@pytest_twisted.ensureDeferred
async def test_names_are_judged_here() -> None:
    """With resolve = judge, the rules see the address, and the name goes out."""

    def scenario(proxy: Proxy, relay: socket.socket) -> None:
        with Client(proxy) as client:
            client.send(b"no", ("bad.example", 5000))
            client.send(b"yes", ("game.example", 5000))
            data, peer = relay.recvfrom(1000)
            assert data == build_header(Address.of("game.example", 5000)) + b"yes"
            relay.sendto(build_header(Address.of("198.51.100.7", 5000)) + b"answer", peer)
            assert client.receive()[1] == b"answer"
            assert dropped(proxy) == {"denied": 1}

    hosts = Hosts({"game.example": ["198.51.100.7"], "bad.example": ["192.0.2.1"]})
    rules = RulePolicy([Rule(name="net", allow=True, networks=["198.51.100.0/24"])])
    async with relaying("engine", resolver=hosts, policy=rules, resolve="judge") as (proxy, _, relay):
        await proxy.run(scenario, relay)
    assert sorted(hosts.asked) == ["bad.example", "game.example"]


def by_rules(proxy: Proxy) -> None:
    with Echo() as echo, Echo() as two, Echo() as home, Client(proxy) as client:
        ports = {"one": echo, "two": two, "home": home}
        reconfigure(
            proxy,
            policy=RulePolicy(
                [
                    Rule(name=name, allow=True, ports=[(each.address[1], each.address[1])], via=via)
                    for (name, each), via in zip(ports.items(), ("one", "two", "direct"), strict=True)
                ]
            ),
        )
        for _ in range(3):
            for each in ports.values():
                client.send(b"x", each.address)
            assert {client.receive()[0].port for _ in ports} == {each.address[1] for each in ports.values()}
        assert len({each.seen[0][1] for each in ports.values()}) == 3
        client.close()
        assert proxy.record()["via"] == "one,two"


@kinds
@pytest_twisted.ensureDeferred
async def test_rules(kind: str) -> None:
    """Datagrams of one association leave through two upstreams, and directly."""
    async with serving("engine") as first, serving("engine") as second:
        ways = {name: upstream("socks5", each.address[1]) for name, each in (("one", first), ("two", second))}
        rules = RulePolicy(
            [
                Rule(name="a", allow=True, ports=[(1, 1)], via="one"),
                Rule(name="b", allow=True, ports=[(2, 2)], via="two"),
                Rule(name="c", allow=True),
            ]
        )
        async with serving(kind, upstreams=ways, policy=rules) as proxy:
            await proxy.run(by_rules)


def reconfigure(proxy: Proxy, **more: Any) -> None:
    """Reconfigure *proxy*, from a thread."""
    blockingCallFromThread(reactor, lambda: proxy.factory.reconfigure(**more))


def the_flow(proxy: Proxy) -> Any:
    """The only flow of the only association."""
    (association,) = proxy.factory.sessions.context.associations.live
    assert association.flows is not None
    (flow,) = association.flows
    return flow


# The proxy's side.


@pytest.mark.parametrize(
    ("host", "told"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1")]
)
@pytest_twisted.ensureDeferred
async def test_unspecified_address(host: str, told: str) -> None:
    """e 36, 37: zeros of the connection's family go out; BND 0.0.0.0 is the proxy's own address."""

    def scenario(proxy: Proxy, relay: socket.socket) -> None:
        with Client(proxy) as client:
            client.send(b"x", ("198.51.100.1", 53))
            data, peer = relay.recvfrom(1000)
            assert data == build_header(Address.of("198.51.100.1", 53)) + b"x"
            assert peer[0] == told

    async with relaying("engine", host=host) as (proxy, there, relay):
        await proxy.run(scenario, relay)
        assert there.ends[0].received[3:] == b"\x05\x03\x00" + build_header(UNSPECIFIED)[3:]


@pytest.mark.parametrize(("word", "host"), [("server", "192.0.2.200"), ("127.0.0.1", "192.0.2.200")])
@pytest_twisted.ensureDeferred
async def test_udp_address(word: str, host: str) -> None:
    """e 37: a proxy behind NAT tells an address that leads nowhere."""

    def scenario(proxy: Proxy, relay: socket.socket) -> None:
        with Client(proxy) as client:
            client.send(b"x", ("198.51.100.1", 53))
            assert relay.recv(1000)[-1:] == b"x"

    async with relaying("engine", host=host, udp_address=word) as (proxy, _, relay):
        await proxy.run(scenario, relay)


@pytest_twisted.ensureDeferred
async def test_zeros_of_ipv6() -> None:
    """e 36: danted refuses zeros of the other family."""
    async with serving("engine", listen=r"tcp6:0:interface=\:\:1") as exit_:
        way = {"one": upstream("socks5", exit_.address[1], host="::1")}
        async with serving("engine", upstreams=way, via="one") as proxy:

            def scenario(proxy: Proxy) -> None:
                with Echo() as echo, Client(proxy) as client:
                    assert client.ask(b"x", echo.address) == b"x"

            await proxy.run(scenario)
        await exit_.run(wait_for_record)
    assert exit_.records[0]["destination"] == "[::]:0"


def strangers(proxy: Proxy, relay: socket.socket) -> None:
    with Client(proxy) as client, udp_socket() as other:
        client.send(b"x", ("198.51.100.1", 53))
        _, peer = relay.recvfrom(1000)
        answer = build_header(Address.of("198.51.100.1", 53)) + b"evil"
        other.sendto(answer, peer)
        # A fragment, rubbish, a source that the client has not sent to.
        relay.sendto(build_header(Address.of("198.51.100.1", 53), 1) + b"part", peer)
        relay.sendto(b"\0\0\0", peer)
        relay.sendto(build_header(Address.of("198.51.100.2", 53)) + b"unasked", peer)
        relay.sendto(b"\1\1" + build_header(Address.of("::ffff:198.51.100.1", 54))[2:] + b"good", peer)
        assert client.receive() == (Address.of("198.51.100.1", 54), b"good")
        assert client.is_silent()
        assert dropped(proxy) == {"fragment": 1, "malformed": 1, "filtered": 1}


@kinds
@pytest_twisted.ensureDeferred
async def test_only_from_the_relay(kind: str) -> None:
    """A spoofed source is not heard; FRAG and unasked sources are dropped."""
    async with relaying(kind) as (proxy, _, relay):
        await proxy.run(strangers, relay)


def answers_of_names(proxy: Proxy, relay: socket.socket, others: bool) -> None:
    with Client(proxy) as client:
        client.send(b"x", ("tftp.example", 69))
        _, peer = relay.recvfrom(1000)
        relay.sendto(build_header(Address.of("198.51.100.1", 69)) + b"same port", peer)
        assert client.receive()[1] == b"same port"
        relay.sendto(build_header(Address.of("198.51.100.1", 5000)) + b"another", peer)
        if others:
            assert client.receive()[1] == b"another"
        else:
            assert client.is_silent()


@pytest.mark.parametrize("filtering", [Filtering.ADDRESS_DEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT])
@pytest_twisted.ensureDeferred
async def test_answers_of_names(filtering: Filtering) -> None:
    """The address of a name is not known here: the port alone can be compared."""
    udp = UDPSettings(filtering=filtering)
    async with relaying("engine", udp=udp) as (proxy, _, relay):
        await proxy.run(answers_of_names, relay, filtering is Filtering.ADDRESS_DEPENDENT)


def control_ends(proxy: Proxy, there: ScriptedProxy, relay: socket.socket) -> None:
    with Client(proxy) as client:
        client.send(b"1", ("198.51.100.1", 53))
        _, first = relay.recvfrom(1000)
        flow = the_flow(proxy)
        flow._since -= 10  # it has stood for a while
        reactor.callFromThread(there.ends[0].transport.loseConnection)
        wait_for(lambda: flow.port is None)
        client.send(b"2", ("198.51.100.1", 53))
        data, second = relay.recvfrom(1000)
        assert data[-1:] == b"2"
        assert second != first
        assert len(there.ends) == 2
        relay.sendto(data, second)
        assert client.receive()[1] == b"2"
        client.close()
        wait_for(lambda: all(end.ended for end in there.ends))


@kinds
@pytest_twisted.ensureDeferred
async def test_control_connection(kind: str) -> None:
    """e 38: its end ends the flow, and the next datagram opens another; the client's end closes it."""
    async with relaying(kind) as (proxy, there, relay):
        await proxy.run(control_ends, there, relay)


def control_talks(proxy: Proxy, there: ScriptedProxy, relay: socket.socket) -> None:
    with Client(proxy) as client:
        reactor.callFromThread(there.ends[0].transport.write, bytes(100000))
        client.send(b"1", ("198.51.100.1", 53))
        assert relay.recv(1000)[-1:] == b"1"


@pytest_twisted.ensureDeferred
async def test_control_connection_is_drained() -> None:
    """What a proxy says there is read, and means nothing."""
    async with relaying("engine") as (proxy, there, relay):
        await proxy.run(control_talks, there, relay)


# From where they leave.


@kinds
@pytest_twisted.ensureDeferred
async def test_outgoing_address(kind: str) -> None:
    """e 40: the datagrams leave from the address from which the connection to the proxy leaves."""

    def scenario(proxy: Proxy, relay: socket.socket) -> None:
        with Client(proxy) as client:
            client.send(b"x", ("198.51.100.1", 53))
            assert relay.recvfrom(1000)[1][0] == "127.0.0.5"

    async with relaying(kind, outgoing=["127.0.0.5"]) as (proxy, there, relay):
        await proxy.run(scenario, relay)
        assert there.ends[0].transport.getPeer().host == "127.0.0.5"


@pytest.mark.skipif(os.geteuid() != 0, reason="an interface can be chosen with a privilege")
@kinds
@pytest_twisted.ensureDeferred
async def test_interface(kind: str) -> None:
    """e 40: sing-box forgets the interface of UDP ports."""

    def scenario(proxy: Proxy, relay: socket.socket) -> None:
        with Client(proxy) as client:
            client.send(b"x", ("198.51.100.1", 53))
            relay.recvfrom(1000)
            port = the_flow(proxy).port
            link = port.link if kind == "engine" else port.port.socket
            assert link.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"

    async with relaying(kind, interface="lo") as (proxy, _, relay):
        await proxy.run(scenario, relay)


@pytest_twisted.ensureDeferred
async def test_interface_that_is_not_there() -> None:
    """e 19: nothing leaves by another one."""
    async with relaying("engine", interface="none0") as (proxy, there, relay):
        with pytest.raises(Refused) as caught:
            await proxy.run(Client)
        assert caught.value.args == (1,)
        assert there.ends == []
        assert is_silent(relay, seconds=0.01)


# Failures: never directly.


@pytest.mark.parametrize(
    ("steps", "reply"), [(open5(REFUSES), 7), (open5(bnd("0.0.0.0", 0, 2)), 2), ([3, close], 1), (None, 1)]
)
@pytest_twisted.ensureDeferred
async def test_the_only_way_refuses(steps: Any, reply: int) -> None:
    """e 42, 19: where there is no other way, its answer is the client's."""
    async with scripted(*(steps or [])) as there:
        port = there.port if steps else closed_port()
        async with serving("engine", **through("socks5", port)) as proxy:
            with pytest.raises(Refused) as caught:
                await proxy.run(Client)
            assert caught.value.args == (reply,)
            await proxy.run(wait_for_record)
            assert not proxy.factory.sessions.context.associations.live


CARRIES_NONE = [
    upstream("socks5", 1, udp=False),
    upstream("http", 1),
    upstream("socks4a", 1),
    upstream("socks5", 1, via="none"),
]


@pytest.mark.parametrize("way", CARRIES_NONE)
@pytest_twisted.ensureDeferred
async def test_ways_that_carry_no_udp(way: Any) -> None:
    """Reply 7, without a connection to a proxy; each proxy of a chain must carry it."""
    ways = {"one": way, "none": upstream("http", 2)}
    async with serving("engine", upstreams=ways, via="one") as proxy:
        with pytest.raises(Refused) as caught:
            await proxy.run(Client)
        assert caught.value.args == (7,)


@pytest.mark.parametrize("first", ["refuses", "cannot", "dead"])
@pytest_twisted.ensureDeferred
async def test_pool(first: str) -> None:
    """e 42: the member that can do UDP is used, and the others are not."""
    async with scripted(*open5(REFUSES)) as there, serving("engine") as exit_:
        ways = {
            "refuses": upstream("socks5", there.port),
            "cannot": upstream("http", closed_port()),
            "dead": upstream("socks5", closed_port()),
            "can": upstream("socks5", exit_.address[1]),
        }
        pool = UpstreamPool(members=[first, "can"])
        async with serving("engine", upstreams=ways, pools={"eu": pool}, via="eu") as proxy:

            def scenario(proxy: Proxy) -> None:
                with Echo() as echo, Client(proxy) as client:
                    assert client.ask(b"x", echo.address) == b"x"
                    client.close()
                    record = proxy.record()
                    assert record["via"] == "can"
                    assert record["tries"] == (1 if first == "cannot" else 2)

            await proxy.run(scenario)


@pytest_twisted.ensureDeferred
async def test_pool_without_udp() -> None:
    """e 19, 42: no member can, so that connections alone may leave directly when no member is left."""
    ways = {"one": upstream("http", 1), "two": upstream("socks5", 1, udp=False)}
    pool = UpstreamPool(members=["one", "two"], otherwise="direct")
    async with serving("engine", upstreams=ways, pools={"eu": pool}, via="eu") as proxy:
        with pytest.raises(Refused) as caught:
            await proxy.run(Client)
        assert caught.value.args == (7,)


def some_ways(proxy: Proxy, hosts: Hosts) -> None:
    with Echo() as echo, Echo() as lost, Client(proxy) as client:
        assert client.ask(b"x", echo.address) == b"x"
        for port in (7, 8):
            client.send(b"x", ("127.0.0.9", port))
            client.send(b"x", ("www.example", port))
        wait_for(lambda: dropped(proxy) == {"upstream": 4})
        assert lost.seen == []
        assert hosts.asked == []


@kinds
@pytest_twisted.ensureDeferred
async def test_one_way_of_several(kind: str) -> None:
    """e 19: 7 where no way carries UDP; else what goes by another way is dropped, and never goes directly."""
    rules = RulePolicy(
        [
            Rule(name="no", allow=True, ports=[(7, 7)], via="http"),
            Rule(name="dead", allow=True, ports=[(8, 8)], via="dead"),
            Rule(name="rest", allow=True),
        ]
    )
    ways = {"http": upstream("http", 1), "dead": upstream("socks5", closed_port())}
    hosts = Hosts({"www.example": ["127.0.0.1"]})
    async with serving(kind, policy=rules, upstreams=ways, resolver=hosts) as proxy:
        await proxy.run(some_ways, hosts)


def first_datagrams(proxy: Proxy, relay: socket.socket, there: ScriptedProxy) -> None:
    with Client(proxy) as client:
        for number in range(MAX_QUEUED + 4):
            client.send(bytes([number]), ("198.51.100.1", 53))
        wait_for(lambda: dropped(proxy) == {"overflow": 4})
        reactor.callFromThread(there.ends[0].transport.write, bnd("127.0.0.1", relay.getsockname()[1]))
        assert [relay.recv(1000)[-1] for _ in range(MAX_QUEUED)] == list(range(MAX_QUEUED))
        client.send(b"x", ("198.51.100.1", 53))
        assert relay.recv(1000)[-1:] == b"x"


TWO_WAYS = [Rule(name="far", allow=True, networks=["198.51.100.0/24"], via="one"), Rule(name="x", allow=True)]


@kinds
@pytest_twisted.ensureDeferred
async def test_queue(kind: str) -> None:
    """A few datagrams wait until the association stands."""
    with udp_socket() as relay:
        async with scripted(*open5()) as there:
            ways = {"one": upstream("socks5", there.port)}
            async with serving(kind, upstreams=ways, policy=RulePolicy(TWO_WAYS)) as proxy:
                await proxy.run(first_datagrams, relay, there)


def _has_dropped(proxy: Proxy, number: int) -> bool:
    return dropped(proxy) == {"upstream": number}


def pauses(proxy: Proxy, there: ScriptedProxy) -> None:
    with Client(proxy) as client:
        for number in range(1, 4):
            client.send(b"x", ("198.51.100.1", 53))
            wait_for(partial(_has_dropped, proxy, number))
        assert len(there.ends) == 1
        flow = the_flow(proxy)
        for pause in (2, 4, 8, 16, 30, 30):
            assert flow._pause == pause * PAUSE
            flow._not_before = 0.0
            client.send(b"x", ("198.51.100.1", 53))
            wait_for(lambda: flow._not_before and not flow._queued)


@pytest_twisted.ensureDeferred
async def test_a_way_that_fails_is_not_asked_for_each_datagram() -> None:
    """It has a pause, which doubles."""
    async with scripted(*open5(REFUSES)) as there:
        ways = {"one": upstream("socks5", there.port)}
        async with serving("engine", upstreams=ways, policy=RulePolicy(TWO_WAYS)) as proxy:
            await proxy.run(pauses, there)


@pytest_twisted.ensureDeferred
async def test_silent_proxy() -> None:
    """A proxy that never answers is given up after connect-timeout; the client's end gives it up at once."""
    async with scripted(*open5()) as there:
        ways = {"one": upstream("socks5", there.port)}
        async with serving("engine", upstreams=ways, policy=RulePolicy(TWO_WAYS)) as proxy:

            def scenario(proxy: Proxy) -> None:
                with Client(proxy) as client:
                    client.send(b"x", ("198.51.100.1", 53))
                    wait_for(lambda: bool(there.ends) and len(there.ends[0].received) == 13)
                    client.close()
                    wait_for(lambda: there.ends[0].ended is not None)
                    assert proxy.record()["dropped"] == {"upstream": 1}

            await proxy.run(scenario)


# What holds for datagrams holds for these.


def limited(proxy: Proxy, relay: socket.socket) -> None:
    with Client(proxy) as client:
        client.send(bytes(1000), ("game.example", 53))
        _, peer = relay.recvfrom(2000)
        for _ in range(40):
            client.send(bytes(1000), ("game.example", 53))
            relay.sendto(build_header(Address.of("198.51.100.1", 53)) + bytes(1000), peer)
        assert len(client.receive()[1]) == 1000
        wait_for(lambda: dropped(proxy).get("limited", 0) > 20)


@kinds
@pytest_twisted.ensureDeferred
async def test_limits_of_a_rule(kind: str) -> None:
    """The limits of the rule hold in both directions, for a name whose address is not known, too."""
    limits = Limits(upload=Rate(4000), download=Rate(4000))
    rules = RulePolicy([Rule(name="slow", allow=True, limits=limits)])
    async with relaying(kind, policy=rules) as (proxy, _, relay):
        await proxy.run(limited, relay)


def reloaded(proxy: Proxy, relay: socket.socket, there: ScriptedProxy, ways: Any) -> None:
    with Echo() as echo, Client(proxy) as client:
        client.send(b"1", echo.address)
        _, first = relay.recvfrom(1000)
        # Nothing changes: the proxy's association stays, and so does the port that others know.
        reconfigure(proxy, policy=RulePolicy([Rule(name="all", allow=True)]), upstreams=dict(ways))
        client.send(b"2", echo.address)
        assert relay.recvfrom(1000)[1] == first
        assert len(there.ends) == 1
        # The way is gone: not directly, and the old association closes.
        reconfigure(proxy, policy=RulePolicy([Rule(name="all", allow=True, via="lost")]))
        client.send(b"3", echo.address)
        wait_for(lambda: dropped(proxy) == {"upstream": 1})
        wait_for(lambda: there.ends[0].ended is not None)
        assert echo.seen == []
        # A way that is direct is one.
        reconfigure(proxy, policy=RulePolicy([Rule(name="all", allow=True, via="direct")]))
        assert client.ask(b"4", echo.address) == b"4"


@kinds
@pytest_twisted.ensureDeferred
async def test_reload(kind: str) -> None:
    """e 19: a reload that changes nothing keeps the flow; one that takes the way leads nowhere."""
    with udp_socket() as relay:
        async with scripted(*open5(bnd("127.0.0.1", relay.getsockname()[1]))) as there:
            ways = through("socks5", there.port)
            async with serving(kind, **ways, policy=RulePolicy([Rule(name="all", allow=True)])) as proxy:
                await proxy.run(reloaded, relay, there, ways["upstreams"])


@pytest_twisted.ensureDeferred
async def test_the_only_way_is_silent() -> None:
    """The client waits for connect-timeout, and may go before; the connection to the proxy goes with it."""
    async with scripted(*open5()) as there:
        more: Any = {"timeouts": Timeouts(connect=0.3)}
        async with serving("engine", **through("socks5", there.port), **more) as proxy:

            def scenario(proxy: Proxy) -> None:
                with pytest.raises(Refused) as caught:
                    Client(proxy)
                assert caught.value.args == (6,)
                wait_for(lambda: there.ends[0].ended is not None)
                with socket.create_connection(proxy.address) as sock:
                    sock.sendall(b"\5\1\0\5\3\0\1" + bytes(6))
                    wait_for(lambda: len(there.ends) == 2 and len(there.ends[1].received) == 13)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
                wait_for(lambda: there.ends[1].ended is not None)

            await proxy.run(scenario)


@pytest_twisted.ensureDeferred
async def test_nothing_is_left() -> None:
    """Sockets of a flow close with the association, and the upstream has no session more."""
    async with relaying("engine", max_sessions=1) as (proxy, there, relay):
        counters = proxy.factory.sessions.context.ways.counters["one"]

        def scenario(proxy: Proxy) -> None:
            with Client(proxy) as client:
                client.send(b"x", ("198.51.100.1", 53))
                _, peer = relay.recvfrom(1000)
                assert counters.sessions == 1
                with pytest.raises(Refused) as caught:
                    Client(proxy)
                assert caught.value.args == (1,)
                client.close()
                wait_for(lambda: counters.sessions == 0)
                wait_for(lambda: there.ends[0].ended is not None)
                udp_socket(*peer).close()

        await proxy.run(scenario)
