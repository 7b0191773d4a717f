"""
Loopback and private addresses in disguise, as clients send them: in the fields for names and for addresses.

Two policies must keep clients from there: rules that deny it, whoever asks; and what is there without
rules, for clients of other machines.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv6Address
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.interfaces import IHostnameResolver
from zope.interface import implementer

from socksproxy import BindSettings, Command, Reply, RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.wire.socks4 import parse_reply as parse_reply4
from socksproxy.wire.socks5 import parse_reply as parse_reply5
from tests.conftest import Serve
from tests.support.hosts import Hosts
from tests.support.origin import Origin, echo
from tests.support.proxy import Playing, Proxy
from tests.support.udp import Client as Datagrams, Echo, kinds, serving


def wide(text: str) -> str:
    """*text* in the wide letters, digits and dots of East Asian fonts; IDNA takes them for narrow ones."""
    return "".join(chr(ord(character) + 0xFEE0) for character in text)


#: Written as literal addresses may be.
LITERALS = [
    *("127.0.0.1", "127.255.0.1", "[127.0.0.1]", "0.0.0.0", "[0.0.0.0]", "::", "[::]"),
    *("::1", "[::1]", "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001", "::0.0.0.1"),
    *("::ffff:127.0.0.1", "::FFFF:127.0.0.1", "[::ffff:127.0.0.1]", "::ffff:7f00:1", "0:0:0:0:0:ffff:7f00:1"),
    *("::127.0.0.1", "::7f00:1", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:FF9B::7F00:1"),
    *("64:ff9b:1::7f00:1", "64:ff9b:1:7f00:0:100::", "64:ff9b:1:ca7f:0:1::", "64:ff9b:1:cafe:7f:0:100::"),
    *("2002:7f00:1::1", "2002:7f00:0001:0:0:0:0:1", "2001:0:c000:207::80ff:fffe"),
    *("2001:db8::5efe:127.0.0.1", "2001:db8::200:5efe:7f00:1", "fe80::5efe:127.0.0.1"),
]

#: What is neither the name of a host nor an address, though a lenient resolver would find one in it.
NOTHING = [
    *("127.1", "127.0.1", "127.1.", "127.0.0.1.", "0177.1", "0177.0.0.1", "0177.0.0.01", "017700000001"),
    *("0x7f.1", "0X7F.1", "0x7f.0.0.0x1", "0x7f000001", "0x7F000001.", "2130706433", "2130706433."),
    *("0", "0x", "1", "00000000177.0.0.1", "4294967295", "256.256.256.256", "0x0.0x0.0x0.0x0", "08.0.0.1"),
    *(wide("127") + ".0.0.1", wide("127.1"), wide("2130706433"), f"0{wide('x')}7f.1", "127.0.0.1\u3002"),
    *("127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1", "\u00b9\u00b2\u2077.1"),
    *("127.0.0.1 ", " 127.0.0.1", "127.0.0.1\t", "127.0.0.1\n", "\r127.1", "127 .0.0.1", "127.0.0.1/8"),
    *("localhost ", " localhost", "local host", "localhost\n", "localhost..", ".localhost", ".", ".."),
    *("::1%lo", "[::1%lo]", "fe80::1%eth0", "fe80::1%1", "[::1", "::1]", "[[::1]]", "[127.0.0.1"),
    *("[::1]:80", "127.0.0.1:80", "::ffff:127.1", "::0x7f.1", ":::1", "::1::", "1:2:3:4:5:6:7:8:9"),
    *("%31%32%37.0.0.1", "127.0.0.1#", "user@127.0.0.1", "http://127.0.0.1", "[localhost]"),
    "a" * 64 + ".example",
]
#: Only SOCKS5 can say these: a NUL ends the names of SOCKS4a.
WITH_NUL = ["127.0.0.1\0", "127.0.0.1\0.example", "localhost\0", "\0localhost", "inner.example\0.example"]

#: Names of hosts, one like the other, whose addresses are not for these clients.
NAMES = [
    *("localhost", "localhost.", "LOCALHOST", "LocalHost.", "localhost\u3002", "local\u00adhost"),
    *(f"{wide('l')}ocalhost", wide("localhost"), wide("LOCALHOST."), "\u24dbocalhost", "\u2170nner.example"),
    *("inner.example", "Inner.Example.", "inner\u3002example"),
    *("x127.0.0.1.example", "127.0.0.1.example", "0x7f.1.example", "1.2.3.4.5"),
    *("-", "-localhost", "9" * 20),
]
HOSTS: dict[str, list[str] | None] = {
    "localhost": ["127.0.0.1", "::1"],
    "localhost.": ["::1", "127.0.0.1"],
    "inner.example": ["::ffff:127.0.0.1", "64:ff9b::7f00:1"],
    "inner.example.": ["2002:7f00:1::1", "0.0.0.0"],
    "x127.0.0.1.example": ["127.0.0.1"],
    "127.0.0.1.example": ["::"],
    "0x7f.1.example": ["::127.0.0.1", "2001:db8::5efe:7f00:1"],
    "1.2.3.4.5": ["127.0.0.5"],
    "-": ["127.0.0.1"],
    "-localhost": ["127.0.0.1"],
    "9" * 20: ["127.0.0.1"],
}


@implementer(IHostnameResolver)
class Lenient(Hosts):
    """Like the C library's: numbers of every form are addresses, and blanks do not matter."""

    def resolveHostName(self, resolutionReceiver: Any, hostName: str, *more: Any, **named: Any) -> Any:
        """See :meth:`twisted.internet.interfaces.IHostnameResolver.resolveHostName`."""
        with suppress(OSError):
            self.hosts[hostName] = [socket.inet_ntoa(socket.inet_aton(hostName.strip().rstrip(".")))]
        return super().resolveHostName(resolutionReceiver, hostName, *more, **named)


def rules() -> RulePolicy:
    return RulePolicy(
        [
            Rule(name="inside", allow=False, networks=["loopback", "private"]),
            Rule(name="rest", allow=True),
        ]
    )


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


class Asking:
    """
    Clients of *proxy* that ask for a host at the port of *origin*.

    :param version: 5, or 4 for SOCKS4a.
    """

    def __init__(self, proxy: Proxy, origin: Origin, version: int, command: Command) -> None:
        self._proxy = proxy
        self._port = origin.port.to_bytes(2, "big")
        self._version = version
        self._command = bytes([command])

    def name(self, host: str) -> int:
        """The reply to *host* in the field for names."""
        raw = host.encode("utf-8")
        if self._version == 4:
            return self._told(b"\4" + self._command + self._port + b"\0\0\0\1me\0" + raw + b"\0")
        return self._told(b"\5\1\0\5" + self._command + b"\0\3" + bytes([len(raw)]) + raw + self._port)

    def address(self, host: str) -> int:
        """The reply to *host* in the field for IPv6 addresses."""
        return self._told(b"\5\1\0\5" + self._command + b"\0\4" + IPv6Address(host).packed + self._port)

    def names(self, hosts: Sequence[str]) -> dict[str, int]:
        """The replies to *hosts*."""
        return {host: self.name(host) for host in hosts}

    def _told(self, data: bytes) -> int:
        with self._proxy.connect("192.0.2.7") as sock:
            sock.sendall(data)
            answer = b""
            while True:
                piece = sock.recv(1000)
                if not piece:
                    break
                answer += piece
        parsed = parse_reply4(answer) if self._version == 4 else parse_reply5(answer[2:])
        assert parsed is not None, answer
        reply: int = parsed[0].reply
        return reply


policies = pytest.mark.parametrize("local", [True, False], ids=["rules", "default"])
versions = pytest.mark.parametrize("version", [4, 5], ids=["SOCKS4a", "SOCKS5"])
commands = pytest.mark.parametrize(
    "command", [Command.CONNECT, Command.BIND, Command.RESOLVE], ids=lambda c: c.name
)


def serving_who(serve_as: Serve, local: bool, hosts: Hosts) -> Any:
    """A proxy with rules and clients on this machine, or without rules and with clients elsewhere."""
    options: dict[str, Any] = {"policy": rules()} if local else {}
    bind = BindSettings(any_peer=False)
    return serve_as("accepted" if local else "wrapped", resolver=hosts, bind=bind, **options)


@policies
@versions
@commands
@pytest_twisted.inlineCallbacks
def test_names(serve_as: Serve, origin: Origin, local: bool, version: int, command: Command) -> Playing:
    hosts = Lenient(dict(HOSTS))
    proxy: Proxy = yield serving_who(serve_as, local, hosts)
    asking = Asking(proxy, origin, version, command)
    denied, missing = (91, 91) if version == 4 else (Reply.NOT_ALLOWED, Reply.HOST_UNREACHABLE)

    told = yield proxy.play(asking.names, LITERALS)
    assert told == dict.fromkeys(LITERALS, denied)
    assert hosts.asked == [], "an address was looked up"

    nothing = NOTHING + ([] if version == 4 else WITH_NUL)
    told = yield proxy.play(asking.names, nothing)
    assert told == dict.fromkeys(nothing, missing)
    assert hosts.asked == [], "what is no name was looked up"

    told = yield proxy.play(asking.names, NAMES)
    assert told == dict.fromkeys(NAMES, denied)
    assert set(hosts.asked) <= set(HOSTS), "a name was looked up in another form"
    assert origin.peers == []


@policies
@commands
@pytest_twisted.inlineCallbacks
def test_addresses(serve_as: Serve, origin: Origin, local: bool, command: Command) -> Playing:
    """IPv6 addresses with loopback inside; all are denied, and not tried first."""
    proxy: Proxy = yield serving_who(serve_as, local, Hosts({}))
    asking = Asking(proxy, origin, 5, command)
    bare = [host for host in LITERALS if ":" in host and "[" not in host]
    told = yield proxy.play(lambda: {host: asking.address(host) for host in bare})
    assert told == dict.fromkeys(bare, Reply.NOT_ALLOWED)
    assert origin.peers == []


@pytest_twisted.inlineCallbacks
def test_private_addresses(serve_as: Serve, origin: Origin) -> Playing:
    """Rules that deny private addresses deny them in every form."""
    proxy: Proxy = yield serving_who(serve_as, True, Hosts({}))
    asking = Asking(proxy, origin, 5, Command.CONNECT)
    disguised = [
        *(
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "::ffff:0:192.168.1.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::172.16.0.1",
        ),
        *("64:ff9b:1:a00:0:100::", "2002:c0a8:101::1", "2001:0:c000:207::f5ff:fffe"),
        *("2001:db8::5efe:10.0.0.1", "fd00::1", "fc00::1", "fdff:ffff::1"),
    ]
    told = yield proxy.play(lambda: {host: asking.address(host) for host in disguised})
    assert told == dict.fromkeys(disguised, Reply.NOT_ALLOWED)


@pytest_twisted.inlineCallbacks
def test_others_pass(serve_as: Serve, origin: Origin) -> Playing:
    """It is the rules that keep clients away: without them, the same names lead there."""
    hosts = Lenient(dict(HOSTS))
    proxy: Proxy = yield serve_as("accepted", resolver=hosts)
    asking = Asking(proxy, origin, 5, Command.RESOLVE)
    told = yield proxy.play(asking.names, NAMES)
    assert told == dict.fromkeys(NAMES, 0)


# UDP has no reply: a datagram comes to its destination or not.


def datagrams(proxy: Any) -> None:
    with Echo() as echo, Datagrams(proxy) as client:
        port = echo.address[1].to_bytes(2, "big")
        hosts = LITERALS + NOTHING + WITH_NUL + NAMES
        for host in hosts:
            raw = host.encode("utf-8")
            client.udp.sendto(b"\0\0\0\3" + bytes([len(raw)]) + raw + port + host.encode(), client.relay)
        for host in LITERALS:
            if ":" in host and "[" not in host:
                data = b"\0\0\0\4" + IPv6Address(host).packed + port + b"address"
                client.udp.sendto(data, client.relay)
        assert client.is_silent()
        assert echo.seen == []
        client.close()
        record = proxy.record()
        assert record["datagrams_sent"] == 0
        assert set(record["dropped"]) == {"denied", "unresolvable"}
        assert record["dropped"]["unresolvable"] == len(NOTHING) + len(WITH_NUL)


@kinds
@pytest_twisted.ensureDeferred
async def test_datagrams(kind: str) -> None:
    async with serving(kind, policy=rules(), resolver=Lenient(dict(HOSTS))) as proxy:
        await proxy.run(datagrams)
