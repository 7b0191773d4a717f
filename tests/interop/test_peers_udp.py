"""
What other servers get wrong about UDP, as seen or read in 2026: each test fails for the peer's fault.

Against a running ``twistd socks``, where nothing but the outside can be looked at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted

from socksproxy import Address, UDPSettings
from socksproxy.wire.socks5 import build_reply
from socksproxy.wire.words import AddressType
from tests.interop.conftest import Proxy
from tests.support.udp import (
    KINDS,
    Client,
    Echo,
    Ports,
    Refused,
    free_udp_port,
    is_silent,
    serving,
    two_free_ports,
    udp_socket,
    wait_for,
)


class Reached:
    """A running proxy, as :class:`Client` wants it."""

    def __init__(self, proxy: Proxy) -> None:
        self.address = ("127.0.0.1", proxy.port)
        self.proxy = proxy


Start = Callable[..., Reached]


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[Start]:
    """``start_proxy("--option", ...)``"""
    running: list[Proxy] = []

    def started(*options: str) -> Reached:
        running.append(Proxy(tmp_path, *options))
        return Reached(running[-1])

    yield started
    for proxy in running:
        proxy.stop()


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as running:
        yield running


# The rows of the table.


def test_associate(start_proxy: Start, echo: Echo) -> None:
    """microsocks, pproxy, Twisted's own, ssh and Tor refuse it."""
    with Client(start_proxy()) as client:
        assert client.ask(b"hello", echo.address) == b"hello"


def test_bound_to_the_address_of_the_tcp_connection(start_proxy: Start, echo: Echo) -> None:
    """Dante: the first datagram from anywhere has the association; sing-box: the last sender has it."""
    with Client(start_proxy()) as client, udp_socket("127.0.0.2") as thief:
        client.send(b"first", echo.address, through=thief)
        assert is_silent(thief)
        assert client.ask(b"mine", echo.address) == b"mine"
        client.send(b"last", echo.address, through=thief)
        assert is_silent(thief)
        assert client.ask(b"mine", echo.address) == b"mine"
        assert [data for data, _ in echo.seen] == [b"mine", b"mine"]


def test_source_port_latched(start_proxy: Start, echo: Echo) -> None:
    """gost, sing-box, go-socks5 and asyncio-socks-server take datagrams from any port."""
    with Client(start_proxy()) as client, udp_socket() as thief:
        assert client.ask(b"mine", echo.address) == b"mine"
        client.send(b"stolen", echo.address, through=thief)
        assert is_silent(thief)
        echo.sock.sendto(b"news", echo.seen[0][1])
        assert client.receive()[1] == b"news"


def test_fragments(start_proxy: Start, echo: Echo) -> None:
    """Dante drops them, 3proxy ends the association; gost, sing-box and hev pass each on as whole."""
    with Client(start_proxy()) as client:
        client.send(b"one ", echo.address, 1)
        client.send(b"two ", echo.address, 2)
        client.send(b"three", echo.address, 0x83)
        assert client.receive()[1] == b"one two three"
        assert client.is_silent()
        assert [data for data, _ in echo.seen] == [b"one two three"]


def test_large_datagrams(start_proxy: Start, echo: Echo) -> None:
    """hev cuts them to 1,500 bytes, xray has room for 8 KB."""
    with Client(start_proxy()) as client:
        for size in (1501, 9000, 65507 - 10):
            payload = os.urandom(size)
            assert client.ask(payload, echo.address) == payload


def test_idle_timeout(start_proxy: Start) -> None:
    """gost and go-socks5 have none, Dante's is off, 3proxy's is half an hour."""
    assert UDPSettings().idle == 120
    with Client(start_proxy("--udp-idle-timeout", "0.3")) as client:
        assert client.closed()


def test_port_range(start_proxy: Start, echo: Echo) -> None:
    """3proxy, sing-box, microsocks and go-socks5 cannot be kept to the ports that a firewall lets through."""
    first, last = two_free_ports()
    proxy = start_proxy("--udp-ports", f"{first}-{last}")
    with Client(proxy) as one, Client(proxy) as other:
        assert {one.bound.port, other.bound.port} == {first, last}
        assert one.ask(b"x", echo.address) == other.ask(b"x", echo.address) == b"x"
        with pytest.raises(Refused):
            Client(proxy, "127.0.0.2")


def test_one_port(start_proxy: Start, echo: Echo) -> None:
    """What users ask for most (3proxy #353, hev #45, sing-box #3619, gost #737)."""
    port = free_udp_port()
    proxy = start_proxy("--udp-port", str(port))
    with Client(proxy) as one, Client(proxy) as other:
        assert one.bound.port == other.bound.port == port
        for number in range(10):
            one.send(b"one %d" % number, echo.address)
            other.send(b"other %d" % number, echo.address)
        assert [one.receive()[1] for _ in range(10)] == [b"one %d" % number for number in range(10)]
        assert [other.receive()[1] for _ in range(10)] == [b"other %d" % number for number in range(10)]


def test_advertised_address(start_proxy: Start) -> None:
    """Dante and sing-box tell clients the address inside the container (3proxy #565, danted #76)."""
    proxy = start_proxy("--advertise", "203.0.113.7", "--advertise", "192.0.2.7@127.0.0.2/32")
    with Client(proxy) as client, Client(proxy, "127.0.0.2") as other:
        assert client.bound.host == "203.0.113.7"
        assert other.bound.host == "192.0.2.7"


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_each_destination_is_checked(kind: str) -> None:
    """sing-box looks at the first datagram's alone; hev, go-socks5 and others at none."""
    policy = Ports()

    def scenario(proxy: object) -> None:
        with Echo() as allowed, Echo() as denied, Client(proxy) as client:
            policy.denied.add(denied.address[1])
            assert client.ask(b"x", allowed.address) == b"x"
            client.send(b"x", denied.address)
            assert client.is_silent()
            assert denied.seen == []

    async with serving(kind, policy=policy) as proxy:
        await proxy.run(scenario)


# What users ask for and complain about.


def test_grace(start_proxy: Start, echo: Echo) -> None:
    """hev #62: the association ends with its TCP connection, which a NAT may lose."""
    with Client(start_proxy("--udp-grace", "3600")) as client:
        assert client.ask(b"x", echo.address) == b"x"
        client.tcp.close()
        assert client.ask(b"still", echo.address) == b"still"


def test_one_port_is_not_open_to_others(start_proxy: Start, echo: Echo) -> None:
    """xray #3371: who knew the port needed no TCP connection, and so no password."""
    port = free_udp_port()
    proxy = start_proxy("--udp-port", str(port))
    with Client(proxy) as client, udp_socket("127.0.0.2") as stranger:
        client.send(b"stolen", echo.address, through=stranger)
        assert is_silent(stranger)
        assert client.ask(b"x", echo.address) == b"x"
    wait_for(lambda: len(proxy.proxy.records()) == 1)
    with udp_socket() as late:
        client.send(b"stolen", echo.address, through=late)
        assert is_silent(late)
        assert len(echo.seen) == 1


def test_moving_port(start_proxy: Start, echo: Echo) -> None:
    """xray #6145: the latch broke Discord and games whose source port moves."""
    with Client(start_proxy("--udp-relatch")) as client, udp_socket() as moved:
        assert client.ask(b"x", echo.address) == b"x"
        client.send(b"moved", echo.address, through=moved)
        assert moved.recv(100).endswith(b"moved")


def test_replies_come_from_bnd_addr(tmp_path: Path, echo: Echo) -> None:
    """xray #1901, gost #1030, sing #75: another address answers, or an IPv4-mapped one does."""
    proxy = Proxy(tmp_path, "--interface", "127.0.0.1", "--udp-ports", "20000-31999")
    try:
        with Client(Reached(proxy)) as client:
            assert client.bound.type is AddressType.IPV4
            assert client.ask(b"x", echo.address) == b"x"  # which looks at who has sent it
    finally:
        proxy.stop()


def test_the_reply_is_what_small_clients_expect(start_proxy: Start) -> None:
    """sing-box #3495: ten bytes with ATYP 1 for IPv4, in one piece, and a port that is not 0."""
    with Client(start_proxy()) as client:
        assert client.bound.host == "127.0.0.1"
        assert client.bound.port
        assert len(build_reply(0, client.bound)) == 10
        assert client.answer == b"\5\0" + build_reply(0, client.bound)


def test_names_go_out_and_addresses_come_back(start_proxy: Start, echo: Echo) -> None:
    """libtorrent #6986, #6987: replies with ATYP 3, and datagrams to names that go nowhere."""
    with Client(start_proxy()) as client:
        client.send(b"x", ("localhost", echo.address[1]))
        address, _ = client.receive()
        assert address == Address("127.0.0.1", echo.address[1], AddressType.IPV4)


def test_the_request_is_no_destination(start_proxy: Start, echo: Echo) -> None:
    """sing-box #1370, #755: the ASSOCIATE's own DST.ADDR was routed, and refused, as a destination."""
    for hint in ("0.0.0.0", "::", "240.0.0.1", "unreachable.invalid"):
        with Client(start_proxy(), hint=Address.of(hint, 0)) as client:
            assert client.ask(b"x", echo.address) == b"x"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is open")
def test_nothing_is_left_behind(start_proxy: Start, echo: Echo) -> None:
    """hysteria #1677, ipt2socks #61: associations ate 42,000 sockets in half an hour."""
    proxy = start_proxy("--udp-idle-timeout", "0.5")
    descriptors = f"/proc/{proxy.proxy.pid}/fd"
    with Client(proxy) as first:
        assert first.ask(b"x", echo.address) == b"x"
        assert first.closed()
    before = len(os.listdir(descriptors))
    clients = [Client(proxy) for _ in range(50)]
    for client in clients:
        client.send(b"x", echo.address)
    wait_for(lambda: len(proxy.proxy.records()) == 51)
    wait_for(lambda: len(os.listdir(descriptors)) <= before)
    for client in clients:
        client.close()


def test_not_on_all_interfaces(start_proxy: Start) -> None:
    """wireproxy #199, gost #58: the relay socket is on every interface, open to everybody."""
    with Client(start_proxy()) as client:
        udp_socket("127.0.0.2", client.bound.port).close()  # which is free
        with pytest.raises(OSError, match="in use"):
            udp_socket("127.0.0.1", client.bound.port)
