"""Names and addresses, looked up at DNS servers."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Generator, Iterator
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.logger import LogEvent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksproxy.errors import NameNotFound, TooManyLookups
from socksproxy.net import dns_client, dns_resolver
from socksproxy.net.dns_resolver import DNSResolver
from socksproxy.net.lookups import IAddressLookup
from socksproxy.net.resolve import NameLookups
from socksproxy.net.reverse import IReverseResolver, reverse_lookups
from socksproxy.net.sockets import Leaving
from socksproxy.wire.words import Address, AddressType

from ..support.dns import Reactor, fake_reactor, reply
from ..support.logs import log_publisher
from ..support.names import NameServer

__all__ = ["fake_reactor"]

reactor: Any = _reactor
Playing = Generator[Any, Any, None]
V4, V6 = AddressType.IPV4, AddressType.IPV6

HOSTS = {
    "dual.test": ["127.0.0.1", "::1", "127.0.0.2"],
    "four.test": ["127.0.0.4"],
    "six.test": ["2001:db8::6"],
    "nothing.test": [],
}


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer(dict(HOSTS)) as server:
        yield server


@pytest.fixture
def resolver(server: NameServer) -> DNSResolver:
    return DNSResolver(reactor, [("127.0.0.1", server.port)])


@implementer(IResolutionReceiver)
class Receiver:
    """Takes what a resolver tells. :ivar complete: fires with the addresses."""

    def __init__(self) -> None:
        self.began: IHostResolution | None = None
        self.addresses: list[Any] = []
        self.complete: Deferred[list[Any]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        assert self.began is None
        self.began = resolutionInProgress

    def addressResolved(self, address: Any) -> None:
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        self.complete.callback(self.addresses)


def resolved(resolver: IHostnameResolver, name: str, **options: Any) -> Deferred[list[Any]]:
    receiver = Receiver()
    resolution = resolver.resolveHostName(receiver, name, **options)
    assert receiver.began is resolution
    assert resolution.name == name
    return receiver.complete.addTimeout(60, reactor)


class TestForTwisted:
    """As :class:`IHostnameResolver`, against a real server, by real packets."""

    def test_interfaces(self, resolver: DNSResolver) -> None:
        for interface in (IHostnameResolver, IAddressLookup, IReverseResolver):
            verifyObject(interface, resolver)

    @pytest_twisted.inlineCallbacks
    def test_both_families(self, resolver: DNSResolver, server: NameServer) -> Playing:
        """Both are asked for at once, IPv6 comes first, and a family's own order stays."""
        found = yield resolved(resolver, "dual.test", portNumber=80)
        assert found == [
            IPv6Address("TCP", "::1", 80),
            IPv4Address("TCP", "127.0.0.1", 80),
            IPv4Address("TCP", "127.0.0.2", 80),
        ]
        assert sorted(server.asked) == [("dual.test", 1), ("dual.test", 28)]

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("four.test", [IPv4Address("TCP", "127.0.0.4", 0)]),
            ("six.test", [IPv6Address("TCP", "2001:db8::6", 0)]),
            ("nothing.test", []),
            ("unknown.test", []),
            ("a..b", []),
            ("x" * 64, []),
        ],
    )
    @pytest_twisted.inlineCallbacks
    def test_one_family_or_none(self, resolver: DNSResolver, name: str, found: list[Any]) -> Playing:
        assert (yield resolved(resolver, name)) == found

    @pytest.mark.parametrize(
        ("types", "kinds", "asked"),
        [([IPv4Address], [IPv4Address] * 2, [1]), ([IPv6Address], [IPv6Address], [28]), ([], [], [])],
    )
    @pytest_twisted.inlineCallbacks
    def test_address_types(
        self, resolver: DNSResolver, server: NameServer, types: list[Any], kinds: list[Any], asked: list[int]
    ) -> Playing:
        found = yield resolved(resolver, "dual.test", addressTypes=types)
        assert [type(address) for address in found] == kinds
        assert [kind for _, kind in server.asked] == asked

    @pytest_twisted.inlineCallbacks
    def test_nobody_waits(self, resolver: DNSResolver) -> Playing:
        """Giving up is no error. The receiver hears nothing more, and others have their answers."""
        receiver = Receiver()
        resolver.resolveHostName(receiver, "four.test").cancel()
        assert (yield resolved(resolver, "four.test")) == [IPv4Address("TCP", "127.0.0.4", 0)]
        assert receiver.began is not None
        assert not receiver.complete.called
        assert receiver.addresses == []


@pytest_twisted.inlineCallbacks
def test_names(resolver: DNSResolver, server: NameServer) -> Playing:
    """As the commands use it: a hundred sessions of a client ask one question for each family."""
    names = NameLookups(resolver, reactor)
    found = yield gatherResults([names.lookup("dual.test", port, "one") for port in range(1, 101)])
    assert found[6] == [Address.of("::1", 7), Address.of("127.0.0.1", 7), Address.of("127.0.0.2", 7)]
    assert len(server.asked) == 2
    with pytest.raises(NameNotFound):
        yield names.lookup("unknown.test", 443)


@pytest_twisted.inlineCallbacks
def test_closed_port(monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A server that is not there: the system says so at once, and another one answers."""
    monkeypatch.setattr(dns_client, "ROUNDS", (60.0,) * 3)
    monkeypatch.setattr(dns_client, "LONGEST", 180.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        closed = gone.getsockname()
    before = reactor.seconds()
    assert (yield DNSResolver(reactor, [closed]).lookup_addresses("four.test")) == ()
    with NameServer(dict(HOSTS)) as server:
        resolver = DNSResolver(reactor, [closed, ("127.0.0.1", server.port)])
        assert (yield resolver.lookup_addresses("four.test")) == (("127.0.0.4", V4),)
    assert reactor.seconds() - before < 30


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """What is logged during the test, by us and by Twisted."""
    events: list[LogEvent] = []
    log_publisher.addObserver(events.append)
    yield events
    log_publisher.removeObserver(events.append)


@pytest_twisted.inlineCallbacks
def test_nothing_is_logged(resolver: DNSResolver, logged: list[LogEvent]) -> Playing:
    for name in ("dual.test", "unknown.test"):
        yield resolver.lookup_addresses(name)
    resolver.lookup_addresses("four.test").addErrback(lambda _: None).cancel()
    assert logged == []


class Truncating:
    """Answers by UDP that TCP is needed, and by TCP as *told*. :ivar streams: the connections."""

    def __init__(self, *told: bytes | None) -> None:
        self.told = told
        self.streams = 0
        while True:
            self._tcp = socket.create_server(("127.0.0.1", 0))
            self.port = self._tcp.getsockname()[1]
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self._udp.bind(("127.0.0.1", self.port))
            except OSError:
                continue
            break
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def close(self) -> None:
        for port in (self._udp, self._tcp):
            port.shutdown(socket.SHUT_RDWR) if port is self._tcp else None
            port.close()

    def _serve_udp(self) -> None:
        while True:
            try:
                data, client = self._udp.recvfrom(512)
            except OSError:
                return
            message = dns.message.make_response(dns.message.from_wire(data))
            message.flags |= dns.flags.TC
            self._udp.sendto(message.to_wire(), client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                link, _ = self._tcp.accept()
            except OSError:
                return
            self.streams += 1
            with link, link.makefile("rwb") as stream:
                (length,) = struct.unpack("!H", stream.read(2))
                query = dns.message.from_wire(stream.read(length))
                whole = dns.message.make_response(query)
                if query.question[0].rdtype == 1:
                    hosts = [f"127.0.{number}.1" for number in range(100)]
                    whole.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", *hosts))
                for told in self.told:
                    data = whole.to_wire() if told is None else told
                    stream.write(struct.pack("!H", len(data)) + data)
                    stream.flush()


@pytest.fixture
def truncating(request: pytest.FixtureRequest) -> Iterator[Truncating]:
    server = Truncating(*request.param)
    yield server
    server.close()


@pytest.mark.parametrize(
    ("truncating", "count"), [((None,), 64), ((b"garbage", None), 64), ((), 0)], indirect=["truncating"]
)
@pytest_twisted.inlineCallbacks
def test_truncated(truncating: Truncating, logged: list[LogEvent], count: int) -> Playing:
    """The whole answer comes by TCP. A server that closes has no answer."""
    found = yield DNSResolver(reactor, [("127.0.0.1", truncating.port)]).lookup_addresses("many.test")
    assert len(found) == count
    assert set(found) <= {(f"127.0.{number}.1", V4) for number in range(100)}
    assert truncating.streams == 2
    assert logged == []


@pytest_twisted.inlineCallbacks
def test_pointers() -> Playing:
    pointers = {"192.0.2.1": "host.test", "2001:db8::1": "six.test", "192.0.2.3": "127.0.0.1"}
    with NameServer({}, pointers) as server:
        resolver = DNSResolver(reactor, [("127.0.0.1", server.port)])
        names = NameLookups(resolver, reactor, reverse=reverse_lookups(resolver))
        for host, name in list(pointers.items())[:2]:
            assert (yield names.reverse(host, "one")) == name
        for host in ("192.0.2.3", "192.0.2.9"):
            with pytest.raises(NameNotFound):
                yield names.reverse(host)


class Setting:
    """A resolver by a clock and sockets of the test's own."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.resolver = DNSResolver(self.reactor, [("192.0.2.53", 53)])

    def look_up(self, name: str = "a.test", share: str | None = None) -> tuple[Deferred[Any], list[Any]]:
        results: list[Any] = []
        pending = self.resolver.lookup_addresses(name, share)
        pending.addCallbacks(results.append, lambda failure: results.append(failure.type))
        return pending, results

    def answer(self, type: int, *hosts: str, rcode: int = 0) -> None:
        """Answer the question for *type* that was asked last."""
        port, query = next(sent for sent in reversed(self.reactor.sent) if sent[1].question[0].rdtype == type)
        port.receive(reply(query, *hosts, rcode=rcode))


@pytest.fixture
def setting(fake_reactor: Reactor) -> Setting:
    return Setting(fake_reactor)


FOUR, SIX = ("127.0.0.1", V4), ("::1", V6)
DELAY = dns_resolver.RESOLUTION_DELAY


@pytest.mark.parametrize(("type", "found"), [(1, FOUR), (28, SIX)])
def test_one_family_is_silent(setting: Setting, type: int, found: Any) -> None:
    """RFC 8305, section 3: what is there does after 50 ms, and the other question ends."""
    _, results = setting.look_up()
    setting.reactor.advance(0.02)
    setting.answer(type, found[0])
    setting.reactor.advance(DELAY * 0.9)
    assert results == []
    setting.reactor.advance(DELAY * 0.2)
    assert results == [(found,)]
    setting.reactor.advance(dns_client.IDLE)
    assert setting.reactor.open == []


@pytest.mark.parametrize("types", [(1, 28), (28, 1)])
def test_both_families_come_in_time(setting: Setting, types: tuple[int, int]) -> None:
    """IPv6 is the first in any case."""
    _, results = setting.look_up()
    for type in types:
        assert results == []
        setting.reactor.advance(DELAY * 0.9)
        setting.answer(type, "127.0.0.1" if type == 1 else "::1")
    assert results == [(SIX, FOUR)]


def test_an_address_that_cannot_be_reached_does_not_do(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a route for IPv6 the answer for IPv4 is waited for, as long as it takes."""
    monkeypatch.setattr(dns_resolver, "has_route", lambda host: ":" not in host)
    _, results = setting.look_up()
    setting.answer(28, "2001:db8::1")
    setting.reactor.advance(0.9)
    assert results == []
    setting.answer(1, "127.0.0.1")
    assert results == [(("2001:db8::1", V6), FOUR)]


def test_no_address_of_one_family_and_silence(setting: Setting) -> None:
    """That there is none does not do; that there is no such name does."""
    _, results = setting.look_up()
    setting.answer(1)
    setting.reactor.advance(0.9)
    assert results == []
    setting.answer(28, "::1")
    assert results == [(SIX,)]
    _, results = setting.look_up()
    setting.answer(1, rcode=3)
    setting.reactor.advance(DELAY)
    assert results == [()]
    # Some servers know no AAAA, and say that there is no such name.
    _, results = setting.look_up()
    setting.answer(28, rcode=3)
    setting.reactor.advance(0.9)
    assert results == []
    setting.answer(1, "127.0.0.1")
    assert results == [(FOUR,)]


def test_silence(setting: Setting) -> None:
    _, results = setting.look_up()
    for _ in range(dns_client.LONGEST.__ceil__()):
        setting.reactor.advance(1)
    assert results == [()]


def test_mapped_and_repeated_addresses(setting: Setting) -> None:
    """An IPv4-mapped address is the IPv4 address; each address is told once."""
    _, results = setting.look_up()
    setting.answer(28, "::ffff:127.0.0.1")
    setting.answer(1, "127.0.0.1")
    assert results == [(FOUR,)]


def test_cancelled(setting: Setting) -> None:
    """Both questions end, and nothing is left."""
    pending, results = setting.look_up()
    setting.answer(1, "127.0.0.1")
    pending.cancel()
    assert results == [CancelledError]
    assert all(not port.reader.queries for port in setting.reactor.open)
    assert len(setting.reactor.getDelayedCalls()) == 1
    setting.reactor.advance(dns_client.IDLE)
    assert setting.reactor.open == []


def test_a_flood_costs_its_client_only(setting: Setting) -> None:
    """600 names that no server answers for; another client is served at once."""
    flood = [setting.look_up(f"slow{number}.test", "attacker") for number in range(600)]
    assert len(setting.reactor.sent) == 2 * dns_resolver.MOST_PER_CLIENT
    _, results = setting.look_up("a.test", "other")
    for type in (1, 28):
        setting.answer(type, "127.0.0.1" if type == 1 else "::1")
    assert results == [(SIX, FOUR)]
    assert len(setting.reactor.open) <= dns_client.MOST_SOCKETS
    for pending, _ in flood:
        pending.cancel()
    assert all(told == [CancelledError] for _, told in flood)
    assert all(not port.reader.queries for port in setting.reactor.open)


def test_too_many(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much is told at once, to the client who has most."""
    monkeypatch.setattr(dns_resolver, "MOST_WAITING", 100)
    setting.resolver = DNSResolver(setting.reactor, [("192.0.2.53", 53)])
    flood = [setting.look_up(f"slow{number}.test", "attacker")[1] for number in range(165)]
    assert flood[-1] == [TooManyLookups]
    assert not any(flood[:-1])
    others = [setting.look_up(f"a{number}.test", "other")[1] for number in range(70)]
    assert not any(others)
    assert flood[-7:] == [[TooManyLookups]] * 7


def test_a_cancelled_pointer(setting: Setting) -> None:
    """Nothing is left of it, and another look-up has its turn."""
    lookups = reverse_lookups(setting.resolver)
    flood = [lookups.lookup(f"192.0.2.{number}", "attacker") for number in range(100)]
    assert len(setting.reactor.sent) == 32
    other: list[str] = []
    lookups.lookup("198.51.100.1", "other").addCallback(other.append)
    setting.answer(12, "host.test.")
    assert other == ["host.test"]
    for pending in flood:
        pending.addErrback(lambda _: None)
        pending.cancel()
    assert all(not port.reader.queries for port in setting.reactor.open)
    assert len(setting.reactor.getDelayedCalls()) == 1


@pytest_twisted.inlineCallbacks
def test_leaving(resolver: DNSResolver, server: NameServer) -> Playing:
    """e 40: questions leave by an interface, or not at all."""
    names = NameLookups(resolver, reactor)
    found = yield names.leaving_by(Leaving(interface="lo").new_socket).lookup("four.test", 80)
    assert found == [Address.of("127.0.0.4", 80)]
    asked = len(server.asked)
    with pytest.raises(NameNotFound):
        yield names.leaving_by(Leaving(interface="lost0").new_socket).lookup("four.test", 80)
    assert len(server.asked) == asked
