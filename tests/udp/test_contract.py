"""
What UDP ASSOCIATE does, which the sockets in the engine and the transports both keep.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from socksproxy import Address, Client as Who, Command, UDPSettings
from socksproxy.commands.associate import MAX_IDLE_TALK
from socksproxy.limits import Limits, ServerLimits
from socksproxy.net import make_resolver
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.udp import sockets, targets as targets_module, transports
from socksproxy.values import Filtering
from socksproxy.wire.datagram import build_header
from socksproxy.wire.words import UNSPECIFIED, AddressType
from tests.support.certificates import self_signed
from tests.support.logs import log_publisher
from tests.support.names import NameServer
from tests.support.proxy import closed_port
from tests.support.udp import Ports, free_udp_port, is_free, kinds, serving, two_free_ports

from ..support.udp import (
    PATIENCE,
    Client,
    Echo,
    Proxy,
    Refused,
    is_silent,
    reactor,
    udp_socket,
    wait_for,
)


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    with NameServer(
        {
            "echo.test": ["127.0.0.1"],
            "six.test": ["::1"],
            "dual.test": ["127.0.0.1"],
            "meta.test": ["169.254.169.254"],
        }
    ) as server:
        yield server


def pattern(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# Datagrams and their ways.


def there_and_back(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client:
        client.send(b"ping", echo.address)
        address, answer = client.receive()
        assert (address, answer) == (Address("127.0.0.1", echo.address[1], AddressType.IPV4), b"ping")
        assert client.bound.host == "127.0.0.1"
        assert echo.seen[0][1] != client.udp.getsockname(), "it has not come from the proxy"
        client.close()
        record = proxy.record()
        assert record["command"] == "UDP_ASSOCIATE"
        assert record["reply"] == 0
        assert (record["sent"], record["received"]) == (4, 4)
        assert (record["datagrams_sent"], record["datagrams_received"]) == (1, 1)
        assert record["dropped"] == {}
        assert record["ended"] == "client"


@kinds
@pytest_twisted.ensureDeferred
async def test_there_and_back(kind: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(there_and_back)


SIZES = [0, 1, 8, 1472, 1500, 9000, 65507 - 10]


def sizes(proxy: Proxy) -> None:
    """hev cuts a datagram at 1,500 bytes."""
    with Echo() as echo, Client(proxy) as client:
        for size in SIZES:
            payload = pattern(size)
            assert client.ask(payload, echo.address) == payload
        # The same lengths, several at a time: neighbours that are alike, and neighbours that are not.
        batch = [pattern(size)[:-1] + bytes([n]) if size else b"" for size in SIZES[:-1] for n in range(5)]
        random.Random(1).shuffle(batch)
        batch += [pattern(100)[:-1] + bytes([n]) for n in range(100)]
        for start in range(0, len(batch), 20):
            part = batch[start : start + 20]
            for payload in part:
                client.send(payload, echo.address)
            assert [client.receive()[1] for _ in part] == part


@kinds
@pytest_twisted.ensureDeferred
async def test_sizes(kind: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(sizes)


def sizes_over_ipv6(proxy: Proxy) -> None:
    with Echo("::1") as echo, Client(proxy) as client:
        for size in [0, 1, 1452, 1500, 9000, 65507 - 22]:
            payload = pattern(size)
            client.send(payload, echo.address)
            address, answer = client.receive()
            assert address == Address("::1", echo.address[1], AddressType.IPV6)
            assert answer == payload
        batch = [pattern(300)[:-1] + bytes([n]) for n in range(50)]
        for payload in batch:
            client.send(payload, echo.address)
        assert [client.receive()[1] for _ in batch] == batch


@kinds
@pytest_twisted.ensureDeferred
async def test_an_ipv6_destination(kind: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(sizes_over_ipv6)


def client_over_ipv6(proxy: Proxy) -> None:
    with Echo() as echo, Echo("::1") as echo6, Client(proxy, "::1") as client:
        assert client.bound.host == "::1"
        for destination in (echo, echo6):
            batch = [pattern(500)[:-1] + bytes([n]) for n in range(30)]
            for payload in batch:
                client.send(payload, destination.address)
            assert [client.receive()[1] for _ in batch] == batch
        with udp_socket("::1") as other:
            client.send(b"x", echo6.address, through=other)
            assert is_silent(other)


@kinds
@pytest_twisted.ensureDeferred
async def test_a_client_over_ipv6(kind: str) -> None:
    async with serving(kind, listen=r"tcp6:0:interface=\:\:1") as proxy:
        await proxy.run(client_over_ipv6)


def mapped(proxy: Proxy) -> None:
    """An IPv4 client on a listener for both families, and an IPv4-mapped destination."""
    with Echo() as echo, Client(proxy) as client:
        assert client.bound.type is AddressType.IPV4
        assert client.bound.host == "127.0.0.1"
        data = build_header(Address("::ffff:127.0.0.1", echo.address[1], AddressType.IPV6)) + b"mapped"
        client.udp.sendto(data, client.relay)
        address, answer = client.receive()
        assert (address.type, answer) == (AddressType.IPV4, b"mapped")


@kinds
@pytest_twisted.ensureDeferred
async def test_ipv4_mapped_is_ipv4(kind: str) -> None:
    """xray and sing answer such clients from another address."""
    async with serving(kind, listen=rf"tcp6:{closed_port()}:interface=\:\:") as proxy:
        await proxy.run(lambda proxy: mapped(Front(proxy, "127.0.0.1")))  # type: ignore[arg-type]


class Front:
    """*proxy*, reached by another of its addresses."""

    def __init__(self, proxy: Proxy, host: str) -> None:
        self.address = (host, proxy.address[1])


def mixed(proxy: Proxy, names: NameServer) -> None:
    """IPv4, IPv6 and a name, in one association, and in one batch of the engine's."""
    with Echo() as one, Echo("::1") as six, Echo("127.0.0.3") as three, Client(proxy) as client:
        destinations = [one.address, six.address, three.address, ("echo.test", one.address[1])]
        for round in range(20):
            sent = []
            for number, destination in enumerate(destinations * 3):
                payload = b"%d %d" % (round, number)
                sent.append(payload)
                client.send(payload, destination)
            answers = [client.receive() for _ in sent]
            assert sorted(answer for _, answer in answers) == sorted(sent)
            assert {address.type for address, _ in answers} == {AddressType.IPV4, AddressType.IPV6}


@kinds
@pytest_twisted.ensureDeferred
async def test_all_kinds_of_destinations(kind: str, names: NameServer) -> None:
    resolver = make_resolver(f"dns:127.0.0.1:{names.port}", reactor)
    async with serving(kind, resolver=resolver) as proxy:
        await proxy.run(mixed, names)


def names_in_order(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client:
        sent = [b"%d" % number for number in range(40)]
        for payload in sent:
            client.send(payload, ("echo.test", echo.address[1]))
        answers = [client.receive() for _ in sent]
        assert [answer for _, answer in answers] == sent
        # libtorrent and others cannot read a name here.
        assert {address for address, _ in answers} == {
            Address("127.0.0.1", echo.address[1], AddressType.IPV4)
        }
        client.send(b"x", ("no.test", 53))
        client.send(b"x", ("-bad-.test", 53))
        client.send(b"x", ("127.1", 53))
        assert client.ask(b"still there", echo.address) == b"still there"
        wait_for(lambda: len(proxy.factory.sessions.context.associations.live) == 1)
        (association,) = proxy.factory.sessions.context.associations.live
        wait_for(
            lambda: {reason.value: n for reason, n in association.dropped.items()} == {"unresolvable": 3}
        )


@kinds
@pytest_twisted.ensureDeferred
async def test_names_keep_their_order(kind: str, names: NameServer) -> None:
    """What waits for a name is sent in order, and one name that is not found harms no other."""
    resolver = make_resolver(f"dns:127.0.0.1:{names.port}", reactor)
    async with serving(kind, resolver=resolver) as proxy:
        await proxy.run(names_in_order)


def many_at_once(proxy: Proxy) -> None:
    with ExitStack() as stack:
        echoes = [stack.enter_context(Echo()) for _ in range(3)]
        clients = [stack.enter_context(Client(proxy)) for _ in range(20)]
        for round in range(10):
            for number, client in enumerate(clients):
                for echo in echoes:
                    client.send(b"%d %d" % (round, number), echo.address)
            for number, client in enumerate(clients):
                answers = [client.receive()[1] for _ in echoes]
                assert answers == [b"%d %d" % (round, number)] * 3


@kinds
@pytest.mark.parametrize("shared", [False, True], ids=["own ports", "one port"])
@pytest_twisted.ensureDeferred
async def test_many_clients_of_one_address(kind: str, shared: bool) -> None:
    settings = UDPSettings(port=free_udp_port()) if shared else UDPSettings()
    async with serving(kind, udp=settings) as proxy:
        await proxy.run(many_at_once)
    assert len(proxy.records) == 20
    assert {record["datagrams_received"] for record in proxy.records} == {30}


# Who may speak.


def strangers(proxy: Proxy, hint: bool) -> None:
    """Dante lets the first datagram's sender have the association, whoever it is."""
    with (
        Echo() as echo,
        Client(proxy, hint=hint) as client,
        udp_socket("127.0.0.2") as other_host,
        udp_socket() as other_port,
    ):
        # Before the latch: nobody from another address.
        client.send(b"stolen", echo.address, through=other_host)
        assert client.ask(b"mine", echo.address) == b"mine"
        # After it: neither from another address nor from another port, and the client goes on.
        for stranger in (other_host, other_port):
            for _ in range(3):
                client.send(b"stolen", echo.address, through=stranger)
        assert client.ask(b"still mine", echo.address) == b"still mine"
        # What answers there are to the others have come before this one.
        assert is_silent(client.udp, other_host, other_port, seconds=0.05)
        assert [data for data, _ in echo.seen] == [b"mine", b"still mine"]
        client.close()
        assert proxy.record()["dropped"] == {"foreign": 7}


@kinds
@pytest.mark.parametrize("hint", [False, True], ids=["first datagram", "request"])
@pytest_twisted.ensureDeferred
async def test_strangers_on_the_client_side(kind: str, hint: bool) -> None:
    async with serving(kind) as proxy:
        await proxy.run(strangers, hint)


def in_one_batch(proxy: Proxy) -> None:
    """A stranger between the client's datagrams, all of them waiting when they are read."""
    with Echo() as echo, Client(proxy) as client, udp_socket() as stranger:
        client.ask(b"mine", echo.address)
        for number in range(200):
            client.send(b"good", echo.address)
            client.send(b"evil", echo.address, through=stranger)
            if number % 20 == 19:
                assert {client.receive()[1] for _ in range(20)} == {b"good"}
        assert is_silent(stranger)
        assert b"evil" not in {data for data, _ in echo.seen}


@kinds
@pytest_twisted.ensureDeferred
async def test_strangers_among_many(kind: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(in_one_batch)


def rubbish_does_not_latch(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client, udp_socket() as other:
        for rubbish in (b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\1\x7f\0\0", b"\0\0\0\3\0\0\x35"):
            other.sendto(rubbish, client.relay)
        assert client.ask(b"mine", echo.address) == b"mine"
        client.udp.sendto(b"rubbish", client.relay)
        assert client.ask(b"still", echo.address) == b"still"
        client.close()
        assert proxy.record()["dropped"] == {"malformed": 6}


@kinds
@pytest_twisted.ensureDeferred
async def test_rubbish_does_not_latch(kind: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(rubbish_does_not_latch)


def moving(proxy: Proxy, may: bool) -> None:
    with Echo() as echo, Client(proxy) as client, udp_socket() as moved, udp_socket("127.0.0.2") as stranger:
        assert client.ask(b"first", echo.address) == b"first"
        client.send(b"moved", echo.address, through=moved)
        if not may:
            assert is_silent(moved)
            return
        assert moved.recv(65536)[-5:] == b"moved"
        client.send(b"stolen", echo.address, through=stranger)
        assert is_silent(stranger)
        moved.sendto(b"rubbish", client.relay)
        # What comes from outside now goes to where the client is now.
        echo.sock.sendto(b"news", echo.seen[0][1])
        assert moved.recv(65536)[-4:] == b"news"
        assert client.is_silent()
        # And back again: a program may have two sockets.
        assert client.ask(b"back", echo.address) == b"back"


@kinds
@pytest.mark.parametrize("may", [False, True])
@pytest_twisted.ensureDeferred
async def test_relatch(kind: str, may: bool) -> None:
    """Xray's latch broke Discord and games, whose port moves."""
    async with serving(kind, udp=UDPSettings(relatch=may)) as proxy:
        await proxy.run(moving, may)


def hint_is_no_destination(proxy: Proxy, hint: Address) -> None:
    """sing-box sent datagrams to the request's DST.ADDR."""
    with Echo() as echo, Echo() as elsewhere:
        hint = hint._replace(port=elsewhere.address[1])
        with Client(proxy, hint=hint) as client:
            assert client.ask(b"ping", echo.address) == b"ping"
            assert elsewhere.seen == []


@kinds
@pytest.mark.parametrize(
    "hint",
    [
        Address.of("192.0.2.99", 0),
        Address.of("name.invalid", 0),
        Address.of("2001:db8::1", 0),
        Address("not a name!", 0, AddressType.DOMAIN_NAME),
    ],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_the_request_names_no_destination(kind: str, hint: Address) -> None:
    """Whatever a client writes there: behind NAT it does not even know its own address."""
    async with serving(kind) as proxy:
        await proxy.run(hint_is_no_destination, hint)


def wrong_hint(proxy: Proxy, host: str, port: int) -> None:
    """*port* 0: that of another socket of the client's, from which the client does not send."""
    with Echo() as echo, udp_socket() as other, udp_socket("127.0.0.2") as stranger:
        hint = Address.of(host, port or other.getsockname()[1])
        if port == DESTINATION:
            hint = Address.of(*echo.address)
        with Client(proxy, hint=hint) as client, Client(proxy) as neighbour:
            # The hint lets nobody in: neither from another address, nor what is no datagram of SOCKS.
            client.send(b"stolen", echo.address, through=stranger)
            other.sendto(b"rubbish", client.relay)
            assert client.ask(b"mine", echo.address) == b"mine"
            assert neighbour.ask(b"the neighbour's", echo.address) == b"the neighbour's"
            # And after the first datagram no other port has the association, not even the named one.
            for sock in (other, stranger):
                client.send(b"stolen", echo.address, through=sock)
            assert client.ask(b"still mine", echo.address) == b"still mine"
            # What answers there are to the others have come before this one.
            assert is_silent(other, stranger, seconds=0.05)
            assert b"stolen" not in {data for data, _ in echo.seen}


DESTINATION = -1


@kinds
@pytest.mark.parametrize("shared", [False, True], ids=["own ports", "one port"])
@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("0.0.0.0", 53),
        ("::", 53),
        ("127.0.0.1", 53),
        ("127.0.0.1", 0),
        ("0.0.0.0", 0),
        ("10.0.0.1", 5000),
        ("198.51.100.1", 53),
        ("name.test", 53),
        ("127.0.0.1", DESTINATION),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_wrong_hint(kind: str, shared: bool, host: str, port: int) -> None:
    """Clients write port 53, the port before NAT, another socket's, or the destination."""
    settings = UDPSettings(port=free_udp_port()) if shared else UDPSettings()
    async with serving(kind, udp=settings) as proxy:
        await proxy.run(wrong_hint, host, port)


# Who may answer.


def answers_from(proxy: Proxy, expected: dict[str, bool]) -> None:
    with Echo(answers=False) as asked, Client(proxy) as client:
        client.send(b"hello", asked.address)
        wait_for(lambda: asked.seen)
        relay = asked.seen[0][1]
        dropped = 0
        for who, passes in expected.items():
            if who == "the one that was asked":
                sender = asked.sock
            else:
                sender = udp_socket("127.0.0.1" if who == "another port" else "127.0.0.2")
            sender.sendto(who.encode(), relay)
            if passes:
                address, data = client.receive()
                assert (address.host, address.port, data) == (*sender.getsockname(), who.encode())
            else:
                assert client.is_silent(), who
                dropped += 1
            if sender is not asked.sock:
                sender.close()
        client.close()
        assert proxy.record()["dropped"] == ({"filtered": dropped} if dropped else {})


@kinds
@pytest.mark.parametrize(
    ("filtering", "port", "host"),
    [
        (Filtering.ENDPOINT_INDEPENDENT, True, True),
        (Filtering.ADDRESS_DEPENDENT, True, False),
        (Filtering.ADDRESS_AND_PORT_DEPENDENT, False, False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_filtering(kind: str, filtering: Filtering, port: bool, host: bool) -> None:
    expected = {"another port": port, "another host": host, "the one that was asked": True}
    async with serving(kind, udp=UDPSettings(filtering=filtering)) as proxy:
        await proxy.run(answers_from, expected)


def nobody_was_asked(proxy: Proxy) -> None:
    """A stranger who finds the outgoing port before the client has spoken, or after."""
    with Client(proxy) as client, Echo(answers=False) as asked, udp_socket("127.0.0.4") as stranger:
        stranger.sendto(b"spam", client.relay)
        client.send(b"hello", asked.address)
        wait_for(lambda: asked.seen)
        for _ in range(50):
            stranger.sendto(b"spam", asked.seen[0][1])
        asked.sock.sendto(b"answer", asked.seen[0][1])
        assert client.receive()[1] == b"answer"
        assert client.is_silent()
        client.close()
        assert proxy.record()["dropped"] == {"foreign": 1, "filtered": 50}


@kinds
@pytest_twisted.ensureDeferred
async def test_strangers_on_the_other_side(kind: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(nobody_was_asked)


# What is allowed.


def each_destination_is_asked_for(proxy: Proxy, policy: Ports) -> None:
    with Echo() as good, Echo() as bad, Client(proxy) as client:
        policy.denied.add(bad.address[1])
        for _ in range(5):
            client.send(b"no", bad.address)
            client.send(b"no", ("denied.test", good.address[1]))
            assert client.ask(b"yes", good.address) == b"yes"
        assert bad.seen == []
        assert client.is_silent()
        assert {command for _, command, _ in policy.asked} == {Command.UDP_ASSOCIATE}
        assert {who.host for who, _, _ in policy.asked} == {"127.0.0.1"}
        assert len([None for _, _, asked in policy.asked if asked.port == good.address[1]]) == 2
        client.close()
        assert proxy.record()["dropped"] == {"denied": 10}


@kinds
@pytest_twisted.ensureDeferred
async def test_every_destination_is_authorized(kind: str) -> None:
    """By each datagram's own destination, and asked once for many."""
    policy = Ports()
    policy.denied.add("denied.test")
    async with serving(kind, policy=policy) as proxy:
        await proxy.run(each_destination_is_asked_for, policy)


def changes_its_mind(proxy: Proxy, policy: Ports) -> None:
    with Echo() as echo, Client(proxy) as client:
        assert client.ask(b"x", echo.address) == b"x"
        policy.denied.add(echo.address[1])
        wait_for(lambda: _is_dropped(proxy, client, echo))
        assert client.is_silent()
        policy.denied.clear()
        wait_for(lambda: not _is_dropped(proxy, client, echo))


def _is_dropped(proxy: Proxy, client: Client, echo: Echo) -> bool:
    """Whether a datagram to *echo* is denied; an answer is read away."""
    association = one_of(proxy)
    before = sum(association.dropped.values()), association.datagrams_received
    client.send(b"x", echo.address)
    wait_for(lambda: (sum(association.dropped.values()), association.datagrams_received) != before)
    if sum(association.dropped.values()) > before[0]:
        return True
    client.receive()
    return False


@kinds
@pytest_twisted.ensureDeferred
async def test_a_policy_that_changes_its_mind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was allowed once is not allowed for ever, nor is what was denied denied."""
    monkeypatch.setattr(targets_module, "LIFETIME", 0.2)
    policy = Ports()
    async with serving(kind, policy=policy) as proxy:
        await proxy.run(changes_its_mind, policy)


def waits_for_the_policy(proxy: Proxy, policy: Ports) -> None:
    with Echo() as good, Echo() as bad, Client(proxy) as client:
        policy.late = {good.address[1]: [], bad.address[1]: []}
        for number in range(5):
            client.send(b"%d" % number, good.address)
            client.send(b"%d" % number, bad.address)
        wait_for(lambda: policy.late[good.address[1]] and policy.late[bad.address[1]])
        assert not good.seen
        reactor.callFromThread(policy.late[good.address[1]][0].callback, True)
        reactor.callFromThread(policy.late[bad.address[1]][0].callback, False)
        assert [client.receive()[1] for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        assert client.is_silent()
        assert bad.seen == []
        client.close()
        assert proxy.record()["dropped"] == {"denied": 5}


@kinds
@pytest_twisted.ensureDeferred
async def test_a_policy_that_takes_its_time(kind: str) -> None:
    policy = Ports()
    async with serving(kind, policy=policy) as proxy:
        await proxy.run(waits_for_the_policy, policy)


def never(proxy: Proxy, echo: Echo) -> None:
    with Client(proxy) as client:
        for host in ("0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "::ffff:255.255.255.255"):
            client.send(b"x", (host, echo.address[1]))
        client.send(b"x", ("127.255.255.255", echo.address[1]))
        client.send(b"x", ("127.0.0.1", 0))
        assert client.ask(b"y", echo.address) == b"y"
        assert [data for data, _ in echo.seen] == [b"y"]
        client.close()
        assert proxy.record()["dropped"] == {"denied": 7, "malformed": 1}


@kinds
@pytest_twisted.ensureDeferred
async def test_nobody_in_particular(kind: str) -> None:
    """No broadcast and no multicast, though the client is on this machine and may do all else."""
    with Echo() as echo:
        async with serving(kind) as proxy:
            await proxy.run(never, echo)


def special_addresses(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy, "127.0.0.1") as client:
        client.send(b"x", echo.address)
        client.send(b"x", ("169.254.169.254", 80))
        client.send(b"x", ("meta.test", 80))
        client.send(b"x", ("64:ff9b::7f00:1", echo.address[1]))
        client.send(b"x", ("echo.test", echo.address[1]))
        wait_for(lambda: sum(one_of(proxy).dropped.values()) == 5)
        assert echo.seen == []
        client.close()
        assert proxy.record()["dropped"] == {"denied": 5}


def one_of(proxy: Proxy) -> Any:
    (association,) = proxy.factory.sessions.context.associations.live
    return association


@kinds
@pytest_twisted.ensureDeferred
async def test_special_addresses(kind: str, names: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What CONNECT may not reach, datagrams may not either."""
    monkeypatch.setattr(Who, "local", property(lambda _: False))
    resolver = make_resolver(f"dns:127.0.0.1:{names.port}", reactor)
    async with serving(kind, resolver=resolver) as proxy:
        await proxy.run(special_addresses)


# Fragments.


def fragments(proxy: Proxy) -> None:
    """Nobody else puts them together; 3proxy ends the association."""
    with Echo() as echo, Client(proxy) as client:
        to = echo.address
        parts = [pattern(1000 + n) for n in range(3)]
        client.send(parts[0], to, 1)
        client.send(b"whole", to)
        client.send(parts[1], to, 2)
        client.send(parts[2], to, 3 | 0x80)
        assert [client.receive()[1] for _ in range(2)] == [b"whole", b"".join(parts)]
        client.send(b"alone", to, 0x81)
        assert client.receive()[1] == b"alone"
        many = [bytes([n]) * 400 for n in range(127)]
        for number, part in enumerate(many, 1):
            client.send(part, to, number | (0x80 if number == 127 else 0))
        assert client.receive()[1] == b"".join(many)
        # Lost, swapped, too long: the set is gone, and the association goes on.
        for order in ([1, 3, 0x84], [2, 1, 0x83], [1, 2, 2, 0x83], [0x80], [1, 0x82, 0x83]):
            for number in order:
                client.send(b"%d " % number, to, number)
        assert client.receive()[1] == b"1 130 "
        for number in range(1, 5):
            client.send(bytes(30000), to, number | (0x80 if number == 4 else 0))
        client.send(b"a", to, 1)
        client.send(b"b", ("127.0.0.2", to[1]), 0x82)
        assert client.is_silent()
        assert client.ask(b"fine", to) == b"fine"
        client.close()
        assert proxy.record()["dropped"] == {"fragment": 3 + 3 + 4 + 1 + 1 + 4 + 2}


@kinds
@pytest_twisted.ensureDeferred
async def test_fragments(kind: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(fragments)


# What goes wrong outside.


def closed_destination(proxy: Proxy) -> None:
    """An ICMP error, and the association goes on."""
    with Echo() as echo, Client(proxy) as client:
        gone = udp_socket()
        address = gone.getsockname()
        gone.close()
        for _ in range(20):
            client.send(b"anybody?", address)
            assert client.ask(b"x", echo.address) == b"x"
        for payload in [bytes([n]) * 50 for n in range(64)]:
            client.send(payload, address)
        assert client.ask(b"x", echo.address) == b"x"


@kinds
@pytest_twisted.ensureDeferred
async def test_icmp_errors(kind: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(closed_destination)


def errors_of_the_system(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client:
        for _ in range(3):
            client.send(b"x", ("::1", 9))
        assert client.ask(b"x", echo.address) == b"x"
        client.close()
        assert proxy.record()["dropped"] == {"unreachable": 3}


@kinds
@pytest_twisted.ensureDeferred
async def test_no_socket_for_a_family(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor, or a machine without IPv6: that family's datagrams are dropped, others go on."""
    module, name = (sockets, "bound") if kind == "engine" else (transports, "listen")
    real = getattr(module, name)

    def refuses(*arguments: Any, **named: Any) -> Any:
        if "::" in arguments:
            raise OSError(errno.EMFILE, "too many open files")
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, refuses)
    async with serving(kind) as proxy:
        await proxy.run(errors_of_the_system)


def too_big(proxy: Proxy) -> None:
    """A reply that has no room for its header is dropped whole, and counted."""
    with Echo(answers=False) as echo, Client(proxy) as client:
        client.send(b"hello", echo.address)
        wait_for(lambda: echo.seen)
        relay = echo.seen[0][1]
        echo.sock.sendto(bytes(65507), relay)
        echo.sock.sendto(bytes(65507 - 9), relay)
        echo.sock.sendto(bytes(65507 - 10), relay)
        assert len(client.receive()[1]) == 65507 - 10
        client.close()
        assert proxy.record()["dropped"] == {"too_big": 2}


@kinds
@pytest_twisted.ensureDeferred
async def test_too_big(kind: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(too_big)


# Life.


def tcp_closes(proxy: Proxy, how: str) -> None:
    with Echo() as echo, Client(proxy) as client:
        assert client.ask(b"x", echo.address) == b"x"
        client.tcp.sendall(b"nothing is due here" * 1000)
        assert client.ask(b"x", echo.address) == b"x"
        if how == "reset":
            client.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.tcp.close()
        assert proxy.record()["ended"] == ("client reset" if how == "reset" else "client")
        wait_for(lambda: is_free(client.relay))
        client.send(b"anybody?", echo.address)
        assert client.is_silent()
        assert len(echo.seen) == 2


@kinds
@pytest.mark.parametrize("how", ["whole", "reset"])
@pytest_twisted.ensureDeferred
async def test_ends_with_its_connection(kind: str, how: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(tcp_closes, how)
        assert len(proxy.records) == 1


def grace(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client:
        assert client.ask(b"x", echo.address) == b"x"
        client.tcp.close()
        wait_for(lambda: len(proxy.factory.sessions.context.graces) == 1)
        assert client.ask(b"still", echo.address) == b"still"
        assert proxy.records == []
        proxy.factory.reactor.callFromThread(one_of(proxy).abort)
        assert proxy.record()["ended"] == "client"


@kinds
@pytest_twisted.ensureDeferred
async def test_grace(kind: str) -> None:
    """A NAT that has lost the TCP connection, and a game that goes on."""
    async with serving(kind, udp=UDPSettings(grace=3600)) as proxy:
        await proxy.run(grace)


def grace_over_tls(proxy: Proxy, pem: Path) -> None:
    context = ssl.create_default_context(cafile=str(pem))
    with socket.create_connection(proxy.address, PATIENCE) as plain:
        client = context.wrap_socket(plain, server_hostname="localhost")
        client.sendall(b"\5\1\0\5\3\0\1\0\0\0\0\0\0")
        while len(client.recv(64)) < 10:
            pass
        client.close()
        wait_for(lambda: len(proxy.factory.sessions.context.graces) == 1)


@kinds
@pytest_twisted.ensureDeferred
async def test_stopped_in_the_grace_time_over_tls(kind: str, tmp_path: Path) -> None:
    """A connection of TLS's that is gone cannot be aborted, and that keeps nothing else from ending."""
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}"
    async with serving(kind, listen=listen, udp=UDPSettings(grace=3600)) as proxy:
        await proxy.run(grace_over_tls, pem)
        proxy.factory.stop_sessions()
        assert len(proxy.records) == 1
        assert not proxy.factory.sessions.live


def half_closes(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client:
        assert client.ask(b"before", echo.address) == b"before"
        client.tcp.shutdown(socket.SHUT_WR)
        for number in range(5):
            assert client.ask(b"%d" % number, echo.address) == b"%d" % number
            time.sleep(0.05)
        client.tcp.settimeout(0)
        with pytest.raises(BlockingIOError):
            client.tcp.recv(100)  # neither an end nor anything else
        client.tcp.settimeout(PATIENCE)
        assert client.closed(), "it has been silent"
        assert proxy.record()["ended"] == "idle timeout"
        wait_for(lambda: is_free(client.relay))


@kinds
@pytest.mark.parametrize("listen", ["tcp", "unix", "haproxy"])
@pytest_twisted.ensureDeferred
async def test_half_closed(kind: str, listen: str, tmp_path: Path) -> None:
    """The association goes on; its idle timeout ends it."""
    places = {
        "tcp": "tcp:0:interface=127.0.0.1",
        "unix": f"unix:{tmp_path / 'socks'}",
        "haproxy": "haproxy:tcp:0:interface=127.0.0.1",
    }
    first = b"PROXY TCP4 127.0.0.1 127.0.0.1 5000 1080\r\n" if listen == "haproxy" else b""
    async with serving(kind, listen=places[listen], udp=UDPSettings(idle=1.0)) as proxy:
        await proxy.run(half_closes if not first else lambda proxy: half_closes(Announced(proxy, first)))  # type: ignore[arg-type]


class Announced:
    """*proxy* behind a balancer, which sends *first*."""

    def __init__(self, proxy: Proxy, first: bytes) -> None:
        self.address, self.first, self.record = proxy.address, first, proxy.record


def half_closes_and_goes(proxy: Proxy, how: str) -> None:
    with Echo() as echo, Client(proxy) as client:
        client.tcp.shutdown(socket.SHUT_WR)
        assert client.ask(b"x", echo.address) == b"x"
        if how == "reset":
            client.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.tcp.close()
        else:
            client.tcp.shutdown(socket.SHUT_RDWR)
            client.tcp.close()
        if how == "whole" and not isinstance(proxy.address, str):
            return  # keepalive tells, or the idle timeout
        assert proxy.record()["ended"] == "client"
        wait_for(lambda: is_free(client.relay))


@kinds
@pytest.mark.parametrize("how", ["whole", "reset"])
@pytest.mark.parametrize("listen", ["tcp", "unix"])
@pytest_twisted.ensureDeferred
async def test_half_closed_and_gone(kind: str, listen: str, how: str, tmp_path: Path) -> None:
    """A client that goes later is noticed as far as the system tells."""
    place = f"unix:{tmp_path / 'socks'}" if listen == "unix" else "tcp:0:interface=127.0.0.1"
    async with serving(kind, listen=place) as proxy:
        await proxy.run(half_closes_and_goes, how)


def asks_and_half_closes(proxy: Proxy) -> None:
    """All that the client has to say on TCP comes in one segment, with its end."""
    sock = socket.create_connection(proxy.address, PATIENCE)
    sock.sendall(b"\5\1\0" + b"\5\3" + build_header(UNSPECIFIED)[2:])
    sock.shutdown(socket.SHUT_WR)
    answer = b""
    while len(answer) < 12:
        answer += sock.recv(100)
    relay = ("127.0.0.1", int.from_bytes(answer[-2:], "big"))
    with Echo() as echo, udp_socket() as udp:
        udp.sendto(build_header(Address.of(*echo.address)) + b"x", relay)
        assert udp.recv(100)[-1:] == b"x"
    sock.close()


@kinds
@pytest_twisted.ensureDeferred
async def test_half_closed_from_the_beginning(kind: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(asks_and_half_closes)


def grace_ends(proxy: Proxy) -> None:
    with Client(proxy) as client:
        client.tcp.close()
        assert proxy.record()["ended"] == "client"
        wait_for(lambda: is_free(client.relay))


@kinds
@pytest_twisted.ensureDeferred
async def test_grace_ends(kind: str) -> None:
    async with serving(kind, udp=UDPSettings(grace=0.05)) as proxy:
        await proxy.run(grace_ends)


def idle(proxy: Proxy) -> None:
    with Client(proxy) as client:
        assert client.closed()
        assert proxy.record()["ended"] == "idle timeout"
        wait_for(lambda: is_free(client.relay))


@kinds
@pytest_twisted.ensureDeferred
async def test_idle(kind: str) -> None:
    """gost and others keep a socket for ever."""
    async with serving(kind, udp=UDPSettings(idle=0.2)) as proxy:
        await proxy.run(idle)


def passes_both_ways(proxy: Proxy) -> None:
    with Client(proxy) as client, udp_socket() as destination:
        (association,) = proxy.factory.sessions.context.associations.live
        began = association.active
        client.send(b"there", destination.getsockname())
        source = destination.recvfrom(16)[1]
        wait_for(lambda: association.active > began)
        sent = association.active
        destination.sendto(b"back", source)
        assert client.receive()[1] == b"back"
        wait_for(lambda: association.active > sent)


@kinds
@pytest_twisted.ensureDeferred
async def test_each_direction_keeps_it_alive(kind: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(passes_both_ways)


def talks_over_tcp(proxy: Proxy) -> None:
    with Client(proxy) as client:
        try:
            for _ in range(64):
                client.tcp.sendall(bytes(MAX_IDLE_TALK // 16))
        except OSError:
            pass
        assert proxy.record()["ended"].startswith("protocol error")


@kinds
@pytest_twisted.ensureDeferred
async def test_talk_on_the_connection_has_a_bound(kind: str) -> None:
    async with serving(kind) as proxy:
        await proxy.run(talks_over_tcp)


@kinds
@pytest.mark.parametrize("shared", [False, True], ids=["own ports", "one port"])
@pytest_twisted.ensureDeferred
async def test_shutdown(kind: str, shared: bool) -> None:
    """Nothing is left: no session, no port, no descriptor."""
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    settings = UDPSettings(port=free_udp_port()) if shared else UDPSettings()
    with Echo() as echo:
        async with serving(kind, udp=settings) as proxy:
            client = await proxy.run(Client)
            assert (await proxy.run(lambda _: client.ask(b"x", echo.address))) == b"x"
        assert (await proxy.run(lambda _: client.closed())) is True
        assert [record["ended"] for record in proxy.records] == ["aborted"]
        assert is_free(client.relay)
        client.close()
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 8  # those of the engine and of threads


# Ports and caps.


def capped(proxy: Proxy) -> None:
    with ExitStack() as stack, Echo() as echo:
        other = stack.enter_context(Client(proxy, "127.0.0.2"))
        first, second, third = [stack.enter_context(Client(proxy)) for _ in range(3)]
        for client in (third, second, first, third):
            assert client.ask(b"x", echo.address) == b"x"
        fourth = stack.enter_context(Client(proxy))
        assert second.closed(), "it has been idle for longest"
        assert proxy.record()["ended"] == "made room for another"
        assert fourth.ask(b"x", echo.address) == b"x"
        fifth = stack.enter_context(Client(proxy))
        assert first.closed()
        for client in (third, fourth, fifth, other):
            assert client.ask(b"still", echo.address) == b"still"
        fifth.close()
        wait_for(lambda: len(proxy.factory.sessions.context.associations.live) == 3)
        sixth = stack.enter_context(Client(proxy))
        for client in (third, fourth, sixth, other):
            assert client.ask(b"still", echo.address) == b"still"


@kinds
@pytest_twisted.ensureDeferred
async def test_most_associations_of_a_client(kind: str) -> None:
    async with serving(kind, limits=ServerLimits(client=Limits(associations=3))) as proxy:
        await proxy.run(capped)


def one_for_each_socket(proxy: Proxy) -> None:
    """200 sockets of programs, each of which asks one DNS server, and keeps its association."""
    hint = Address.of("0.0.0.0", 53)
    with ExitStack() as stack, Echo() as server:
        for number in range(200):
            client = stack.enter_context(Client(proxy, hint=hint))
            assert client.ask(b"query %d" % number, server.address) == b"query %d" % number
        assert client.ask(b"again", server.address) == b"again"
        assert len(server.seen) == 201


@kinds
@pytest.mark.parametrize("ports", [None, 4], ids=["any port", "4 ports"])
@pytest_twisted.ensureDeferred
async def test_one_association_for_each_socket(kind: str, ports: int | None) -> None:
    """What tun2socks and its kin do: every query has its answer, on however few ports."""
    first = two_free_ports()[0]
    settings = UDPSettings(ports=None if ports is None else (first - ports, first))
    async with serving(kind, udp=settings) as proxy:
        await proxy.run(one_for_each_socket)


def exhausted(proxy: Proxy, ports: tuple[int, int]) -> None:
    with ExitStack() as stack, Echo() as echo:
        clients = [stack.enter_context(Client(proxy)) for _ in range(2)]
        assert {client.bound.port for client in clients} == set(ports)
        # Another client's associations make no room.
        for _ in range(3):
            with pytest.raises(Refused) as caught:
                Client(proxy, "127.0.0.2")
            assert caught.value.args == (1,)
        for client in clients:
            assert client.ask(b"x", echo.address) == b"x"
        # The client's own do.
        clients.append(stack.enter_context(Client(proxy)))
        assert clients[0].closed()
        assert clients[2].bound.port == clients[0].bound.port
        for client in clients[1:]:
            assert client.ask(b"still", echo.address) == b"still"
        del clients[0]
        clients[0].close()
        wait_for(lambda: is_free(clients[0].relay))
        assert stack.enter_context(Client(proxy)).bound.port == clients[0].bound.port


@kinds
@pytest_twisted.ensureDeferred
async def test_port_range(kind: str, warnings: list[str]) -> None:
    ports = two_free_ports()
    async with serving(kind, udp=UDPSettings(ports=ports)) as proxy:
        await proxy.run(exhausted, ports)
    assert len([line for line in warnings if "no free UDP port" in line]) == 1


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    from twisted.logger import LogEvent, LogLevel, formatEvent

    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.warn:
            lines.append(formatEvent(event))

    log_publisher.addObserver(observe)
    yield lines
    log_publisher.removeObserver(observe)


def on_one_port(proxy: Proxy, port: int) -> None:
    with ExitStack() as stack:
        echo = stack.enter_context(Echo())
        first, second, named = (
            stack.enter_context(Client(proxy)),
            stack.enter_context(Client(proxy)),
            stack.enter_context(Client(proxy, hint=True)),
        )
        other = stack.enter_context(Client(proxy, "127.0.0.2"))
        assert {client.bound.port for client in (first, second, named, other)} == {port}
        # The one that named its port is known by it; of the others the oldest has the first datagram.
        assert named.ask(b"named", echo.address) == b"named"
        assert second.ask(b"second", echo.address) == b"second"
        assert first.ask(b"first", echo.address) == b"first"
        assert other.ask(b"other", echo.address) == b"other"
        with udp_socket() as stranger, udp_socket("127.0.0.3") as far:
            for sock in (stranger, far):
                first.send(b"stolen", echo.address, through=sock)
                assert is_silent(sock)
        # One that ends takes nobody along.
        named.close()
        wait_for(lambda: len(proxy.factory.sessions.context.associations.live) == 3)
        assert first.ask(b"first", echo.address) == b"first"


@kinds
@pytest_twisted.ensureDeferred
async def test_one_port_for_all(kind: str) -> None:
    port = free_udp_port()
    async with serving(kind, udp=UDPSettings(port=port)) as proxy:
        await proxy.run(on_one_port, port)


def again_from_the_same_socket(proxy: Proxy) -> None:
    with Echo() as echo, udp_socket() as udp:
        for number in range(3):
            client = Client(proxy, udp=udp)
            assert client.ask(b"%d" % number, echo.address) == b"%d" % number
            client.tcp.close()
            wait_for(lambda number=number: len(proxy.records) == number + 1)  # type: ignore[misc]


@kinds
@pytest_twisted.ensureDeferred
async def test_a_client_comes_back(kind: str) -> None:
    """With the socket that it had before, while others keep the one port open."""
    async with serving(kind, udp=UDPSettings(port=free_udp_port())) as proxy:
        other = await proxy.run(lambda proxy: Client(proxy, "127.0.0.2"))
        await proxy.run(again_from_the_same_socket)
        other.close()


def moves_on_one_port(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as alone, udp_socket() as moved:
        assert alone.ask(b"x", echo.address) == b"x"
        alone.send(b"moved", echo.address, through=moved)
        assert moved.recv(65536)[-5:] == b"moved"
        # With two of one address nobody can tell whose a new port is.
        with Client(proxy) as second, udp_socket() as again:
            assert second.ask(b"y", echo.address) == b"y"
            alone.send(b"moved", echo.address, through=again)
            assert is_silent(again)


@kinds
@pytest_twisted.ensureDeferred
async def test_relatch_on_one_port(kind: str) -> None:
    async with serving(kind, udp=UDPSettings(port=free_udp_port(), relatch=True)) as proxy:
        await proxy.run(moves_on_one_port)


def several_addresses(proxy: Proxy, shared: int | None) -> None:
    """The address that the client has reached is the one that answers."""
    with Echo() as echo:
        for host in ("127.0.0.1", "127.0.0.5"):
            with Client(Front(proxy, host), "127.0.0.1") as client:
                assert client.bound.host == host
                assert shared in (None, client.bound.port)
                assert client.ask(b"x", echo.address) == b"x"  # which looks at where it comes from


@kinds
@pytest.mark.parametrize("shared", [False, True], ids=["own ports", "one port"])
@pytest_twisted.ensureDeferred
async def test_multihomed(kind: str, shared: bool) -> None:
    """xray, gost and sing answer from another address."""
    port = free_udp_port() if shared else None
    async with serving(kind, listen=f"tcp:{closed_port()}", udp=UDPSettings(port=port)) as proxy:
        await proxy.run(several_addresses, port)


def link_local() -> tuple[str, int] | None:
    """A link-local address of this machine, and the number of its zone; None: there is none."""
    with suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            digits, zone, *_ = line.split()
            if digits.startswith("fe80"):
                return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)), int(zone, 16)
    return None


def by_link_local(proxy: Proxy, host: str, zone: int) -> None:
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.socket(socket.AF_INET6))
        tcp.settimeout(PATIENCE)
        tcp.connect((host, proxy.address[1], 0, zone))
        tcp.sendall(b"\5\1\0" + b"\5\3" + build_header(UNSPECIFIED)[2:])
        answer = b""
        while len(answer) < 2 + 22:
            answer += tcp.recv(100)
        assert answer[2:6] == b"\5\0\0\4"
        assert answer[6:22] == socket.inet_pton(socket.AF_INET6, host)
        echo = stack.enter_context(Echo("::1"))
        relay = (host, int.from_bytes(answer[22:], "big"), 0, zone)
        stranger = stack.enter_context(udp_socket("::1"))
        udp = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        udp.settimeout(PATIENCE)
        udp.bind((host, 0, 0, zone))
        data = build_header(Address.of(*echo.address)) + b"x"
        with suppress(OSError):
            stranger.sendto(data, relay)
        for _ in range(2):
            udp.sendto(data, relay)
            answer, peer = udp.recvfrom(100)
            assert answer[-1:] == b"x"
            assert peer[1] == relay[1]


@kinds
@pytest.mark.parametrize("shared", [False, True], ids=["own ports", "one port"])
@pytest_twisted.ensureDeferred
async def test_a_link_local_client(kind: str, shared: bool) -> None:
    """Its address needs a zone, and the port that it sends to as well."""
    found = link_local()
    if found is None:
        pytest.skip("this machine has no link-local IPv6 address")
    settings = UDPSettings(port=free_udp_port()) if shared else UDPSettings()
    # The client is not on loopback, as far as the policy knows, and the echo server is.
    policy = RulePolicy([Rule(name="all", allow=True, networks=["loopback"])])
    place = rf"tcp6:{closed_port()}:interface=\:\:"
    async with serving(kind, listen=place, udp=settings, policy=policy) as proxy:
        for _ in range(2):  # the engine accepts from the second client on
            await proxy.run(by_link_local, *found)


def told_another_address(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client:
        assert client.bound.host == "203.0.113.7"
        client.relay = ("127.0.0.1", client.bound.port)
        assert client.ask(b"x", echo.address) == b"x"
    with Client(proxy, "127.0.0.2") as client:
        assert client.bound.host == "198.51.100.7"


@kinds
@pytest_twisted.ensureDeferred
async def test_advertised(kind: str) -> None:
    """In a container our own address is of no use to a client."""
    advertise = ["203.0.113.7", "198.51.100.7@127.0.0.2/32", "2001:db8::7"]
    async with serving(kind, advertise=advertise) as proxy:
        await proxy.run(told_another_address)


def by_unix_socket(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client, udp_socket("127.0.0.2") as stranger:
        assert client.bound.host == "127.0.0.1"
        client.send(b"stolen", echo.address, through=stranger)
        assert client.ask(b"x", echo.address) == b"x"
        client.close()
        assert proxy.record()["dropped"] == {"foreign": 1}


@kinds
@pytest_twisted.ensureDeferred
async def test_unix_socket(kind: str, tmp_path: Path) -> None:
    """Its client is on this machine, so its datagrams come from loopback."""
    async with serving(kind, listen=f"unix:{tmp_path / 'socks'}") as proxy:
        await proxy.run(by_unix_socket)


def behind_a_balancer(proxy: Proxy) -> None:
    """The balancer connects from 127.0.0.1 to an address that only it has; the client is 127.0.0.7."""
    first = b"PROXY TCP4 127.0.0.7 192.0.2.80 5000 1080\r\n"
    with Echo() as echo, Client(proxy, first=first, udp="127.0.0.7") as client, udp_socket() as balancer:
        assert client.bound.host == "127.0.0.1"
        client.send(b"stolen", echo.address, through=balancer)
        assert is_silent(balancer)
        assert client.ask(b"x", echo.address) == b"x"


@kinds
@pytest_twisted.ensureDeferred
async def test_behind_a_balancer(kind: str) -> None:
    """The client's datagrams come from where the PROXY header says, and to where we really are."""
    async with serving(kind, listen="haproxy:tcp:0:interface=127.0.0.1") as proxy:
        await proxy.run(behind_a_balancer)


def from_outgoing(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client:
        assert client.ask(b"x", echo.address) == b"x"
        assert echo.seen[0][1][0] == "127.0.0.9"


@kinds
@pytest_twisted.ensureDeferred
async def test_outgoing(kind: str) -> None:
    async with serving(kind, outgoing=["127.0.0.9"]) as proxy:
        await proxy.run(from_outgoing)


# Floods.


def flood(proxy: Proxy) -> None:
    """Names that never come, at line rate: most of it is dropped, and the rest is bounded."""
    with Client(proxy) as client, Client(proxy) as other, Echo() as echo:
        for number in range(3000):
            client.send(bytes(1000), (f"{number % 100}.slow.test", 9))
        assert other.ask(b"x", echo.address) == b"x"
        associations = proxy.factory.sessions.context.associations.live
        waiting = max(association.targets.waiting_bytes for association in associations)
        assert 0 < waiting <= 131072
        assert max(len(association.targets.by_header) for association in associations) <= 32
        assert client.ask(b"still there", echo.address) == b"still there"


class NeverResolver:
    """Does not answer."""

    def resolveHostName(self, receiver: Any, *_: Any, **__: Any) -> Any:
        receiver.resolutionBegan(None)


@kinds
@pytest_twisted.ensureDeferred
async def test_a_flood_is_bounded(kind: str) -> None:
    async with serving(kind, resolver=NeverResolver()) as proxy:
        await proxy.run(flood)


def many_destinations(proxy: Proxy) -> None:
    with Echo() as echo, Client(proxy) as client:
        assert client.ask(b"x", echo.address) == b"x"
        for number in range(300):
            client.send(b"", (f"127.1.{number // 100}.{number % 100 + 1}", 9))
            if number % 10 == 0:  # one that is in use is not forgotten
                assert client.ask(b"x", echo.address) == b"x"
        (association,) = proxy.factory.sessions.context.associations.live
        assert len(association.targets.by_header) <= 64
        assert len(association.targets._contacts) <= 64
        assert len(association.replies.headers) <= 64
        assert client.ask(b"x", echo.address) == b"x"


@kinds
@pytest_twisted.ensureDeferred
async def test_destinations_are_bounded(kind: str) -> None:
    async with serving(kind, udp=UDPSettings(destinations=64)) as proxy:
        await proxy.run(many_destinations)
