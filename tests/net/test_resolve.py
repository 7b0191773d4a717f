"""From names to addresses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent
from zope.interface import implementer

from socksproxy.errors import NameNotFound, TooManyLookups, reply_for
from socksproxy.net.dns_resolver import DNSResolver
from socksproxy.net.hosts_file import HostsFile
from socksproxy.net.lookups import AddressLookups, IAddressLookup, TimedFound
from socksproxy.net.names import canonical
from socksproxy.net.resolve import NameLookups, make_resolver
from socksproxy.net.system_resolver import SystemResolver
from socksproxy.wire.words import Address, AddressType, Reply

from ..support.logs import heard, log_publisher
from ..support.names import NameServer

reactor: Any = _reactor
Playing = Generator[Any, Any, None]

HOSTS = {
    "dual.test": ["192.0.2.1", "2001:db8::1", "192.0.2.2"],
    "four.test": ["192.0.2.4"],
    "six.test": ["2001:db8::6"],
    "nothing.test": [],
}


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer(dict(HOSTS)) as server:
        yield server


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """What is logged during the test."""
    events: list[LogEvent] = []
    log_publisher.addObserver(events.append)
    yield events
    log_publisher.removeObserver(events.append)


class TestMakeResolver:
    """The option ``--resolver``."""

    def test_system(self) -> None:
        assert isinstance(make_resolver("system", reactor), SystemResolver)

    def test_system_of_an_embedder(self) -> None:
        """A resolver that was installed on the reactor is the system's."""
        host = MemoryReactorClock()
        assert make_resolver("system", host) is host.nameResolver

    @pytest.mark.parametrize(
        ("spec", "servers"),
        [
            ("dns:192.0.2.53", [("192.0.2.53", 53)]),
            ("dns:192.0.2.53:5353", [("192.0.2.53", 5353)]),
            ("dns:192.0.2.53:1", [("192.0.2.53", 1)]),
            ("dns:192.0.2.53:65535", [("192.0.2.53", 65535)]),
            ("dns:[::1]", [("::1", 53)]),
            ("dns:[2001:DB8:0::53]:5353", [("2001:db8::53", 5353)]),
            ("dns:192.0.2.53,192.0.2.54:5353", [("192.0.2.53", 53), ("192.0.2.54", 5353)]),
            ("dns:192.0.2.53,dns:[::1]:5353", [("192.0.2.53", 53), ("::1", 5353)]),
            ("dns:[::1]:53, 192.0.2.54", [("::1", 53), ("192.0.2.54", 53)]),
            ("dns:192.0.2.53,192.0.2.53:53", [("192.0.2.53", 53)]),
            (f"dns:{','.join(f'192.0.2.{n}' for n in range(6))}", [(f"192.0.2.{n}", 53) for n in range(6)]),
        ],
    )
    def test_dns(self, spec: str, servers: list[tuple[str, int]]) -> None:
        resolver = make_resolver(spec, reactor)
        assert isinstance(resolver, DNSResolver)
        assert list(resolver.servers) == servers

    def test_too_many_servers(self) -> None:
        with pytest.raises(ValueError, match="6 DNS servers are the most"):
            make_resolver(f"dns:{','.join(f'192.0.2.{n}' for n in range(7))}", reactor)

    def test_without_dnspython(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One line that says what to install."""
        monkeypatch.delitem(sys.modules, "socksproxy.net.dns_resolver")
        monkeypatch.setitem(sys.modules, "socksproxy.net.dns_client", None)
        with pytest.raises(ValueError, match=r"pip install 'twisted-socksproxy\[dns\]'"):
            make_resolver("dns:192.0.2.53", reactor)

    @pytest.mark.parametrize("spec", ["", "dns", "System", "system:", "doh:192.0.2.53", "192.0.2.53"])
    def test_neither(self, spec: str) -> None:
        with pytest.raises(
            ValueError, match="is neither 'system' nor 'dns:HOST' nor 'dns:HOST:PORT'"
        ) as caught:
            make_resolver(spec, reactor)
        assert repr(spec) in str(caught.value)

    @pytest.mark.parametrize(
        "spec",
        [
            *("dns:", "dns::53", "dns:localhost", "dns:127.1", "dns:::1", "dns:[::1", "dns:[]", "dns:[]:53"),
            *("dns:[localhost]:53", "dns:2001:db8::53", "dns:\x00", "dns:\udcff"),
            *("dns:192.0.2.53,", "dns:,192.0.2.53", "dns:[192.0.2.53]"),
        ],
    )
    def test_no_address(self, spec: str) -> None:
        with pytest.raises(ValueError, match="the DNS server must be a literal address"):
            make_resolver(spec, reactor)

    @pytest.mark.parametrize(
        "port", [":", ":0", ":65536", ":-1", ":+53", ":domain", ": 53", ":5_3", ":\u0665\u0663", "::53"]
    )
    @pytest.mark.parametrize("host", ["192.0.2.53", "[::1]"])
    def test_no_port(self, host: str, port: str) -> None:
        with pytest.raises(ValueError, match="the port must be a number from 1 to 65535"):
            make_resolver(f"dns:{host}{port}", reactor)

    def test_port_without_a_colon(self) -> None:
        with pytest.raises(ValueError, match="the port must be a number from 1 to 65535"):
            make_resolver("dns:[::1]53", reactor)


@pytest_twisted.inlineCallbacks
def test_system_resolver() -> Playing:
    """The one that everybody has: a literal address needs no server, so nothing leaves this machine."""
    names = NameLookups(make_resolver("system", reactor), reactor)
    found = yield names.lookup("127.0.0.1", 80)
    assert found == [Address.of("127.0.0.1", 80)]


@implementer(IHostnameResolver)
class FakeResolver:
    """Answers when the test wants it. :ivar asked: the names, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._receivers: list[IResolutionReceiver] = []

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, hostName: str, *args: Any, **options: Any
    ) -> Any:
        self.asked.append(hostName)
        self._receivers.append(resolutionReceiver)
        resolutionReceiver.resolutionBegan(None)  # type: ignore[arg-type]

    def answer(self, *hosts: str) -> None:
        """Answer the oldest question."""
        receiver = self._receivers.pop(0)
        for host in hosts:
            kind = IPv6Address if ":" in host else IPv4Address
            receiver.addressResolved(kind("TCP", host, 0))
        receiver.resolutionComplete()


class Setting:
    """Names, and what they ask and go by."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.resolver = FakeResolver()
        self.names = NameLookups(self.resolver, self.clock, **options)

    def lookup(self, name: str = "a.test", port: int = 80) -> list[Any]:
        """Ask; the list has the answer, or the failure's value, when it is there."""
        results: list[Any] = []
        self.names.lookup(name, port).addCallbacks(
            results.append, lambda failure: results.append(failure.value)
        )
        return results


@pytest.fixture
def setting() -> Setting:
    return Setting()


ONE, OTHER = "192.0.2.1", "2001:db8::1"


class TestNames:
    """Asked once for many, remembered for a moment, given up without harm."""

    def test_order(self, setting: Setting) -> None:
        """The resolver's order is the system administrator's (gai.conf): it stays."""
        results = setting.lookup()
        setting.resolver.answer(ONE, OTHER, "192.0.2.0")
        assert results == [[Address.of(ONE, 80), Address.of(OTHER, 80), Address.of("192.0.2.0", 80)]]

    @pytest.mark.parametrize(("prefer", "first"), [(AddressType.IPV4, ONE), (AddressType.IPV6, OTHER)])
    def test_prefer(self, prefer: AddressType, first: str) -> None:
        """The preferred family comes first, in the resolver's order; the other one is there, too."""
        setting = Setting(prefer=prefer)
        for _ in range(2):  # the second answer is a remembered one
            results = setting.lookup()
            if not results:
                setting.resolver.answer(OTHER, ONE, "2001:db8::2", "192.0.2.0")
            ((one, two, *others),) = results
            assert one == Address.of(first, 80)
            assert one.type is two.type is prefer
            assert not [other for other in others if other.type is prefer]

    def test_repeats(self, setting: Setting) -> None:
        """The C library gives an address once for each kind of socket."""
        results = setting.lookup()
        setting.resolver.answer(ONE, OTHER, ONE, OTHER)
        assert results == [[Address.of(ONE, 80), Address.of(OTHER, 80)]]

    def test_many(self, setting: Setting) -> None:
        """Each is asked about, and remembered: not as many as the owner of the name likes."""
        results = setting.lookup()
        setting.resolver.answer(*(f"192.0.{high}.{low}" for high in range(8) for low in range(256)))
        assert results == [[Address.of(f"192.0.0.{low}", 80) for low in range(64)]]

    def test_scope(self, setting: Setting) -> None:
        results = setting.lookup()
        setting.resolver.answer("fe80::1%lo")
        assert results == [[Address.of("fe80::1", 80)]]

    def test_mapped(self, setting: Setting) -> None:
        """Else a rule on the IPv4 address, and ``--outgoing``, are gone round by who owns the name."""
        results = setting.lookup()
        setting.resolver.answer("::ffff:192.0.2.1", ONE)
        assert results == [[Address.of(ONE, 80)]]

    def test_what_is_no_address(self, setting: Setting) -> None:
        results = setting.lookup()
        (receiver,) = setting.resolver._receivers
        receiver.addressResolved(object())  # type: ignore[arg-type]
        setting.resolver.answer(ONE)
        assert results == [[Address.of(ONE, 80)]]

    def test_not_found(self, setting: Setting) -> None:
        results = setting.lookup()
        setting.resolver.answer()
        assert [type(result) for result in results] == [NameNotFound]

    def test_not_found_is_not_remembered(self, setting: Setting) -> None:
        """A name that has just been made, or a resolver that just came back, is there at once."""
        setting.lookup()
        setting.resolver.answer()
        results = setting.lookup()
        setting.resolver.answer(ONE)
        assert results == [[Address.of(ONE, 80)]]

    def test_shared(self, setting: Setting) -> None:
        """A browser opens many connections to one host at once; each has its own port."""
        first, second = setting.lookup(port=80), setting.lookup(port=443)
        assert setting.resolver.asked == ["a.test"]
        setting.resolver.answer(ONE)
        assert (first, second) == ([[Address.of(ONE, 80)]], [[Address.of(ONE, 443)]])

    def test_not_found_is_shared(self, setting: Setting) -> None:
        first, second = setting.lookup(), setting.lookup()
        setting.resolver.answer()
        assert [type(result) for result in first + second] == [NameNotFound] * 2

    def test_another_name_is_another_question(self, setting: Setting) -> None:
        first, second = setting.lookup("a.test"), setting.lookup("b.test")
        assert setting.resolver.asked == ["a.test", "b.test"]
        setting.resolver.answer(ONE)
        setting.resolver.answer(OTHER)
        assert (first, second) == ([[Address.of(ONE, 80)]], [[Address.of(OTHER, 80)]])

    def test_remembered(self, setting: Setting) -> None:
        setting.lookup()
        setting.resolver.answer(ONE)
        setting.clock.advance(1.9)
        assert setting.lookup(port=81) == [[Address.of(ONE, 81)]]
        assert setting.resolver.asked == ["a.test"]

    def test_lasting(self, setting: Setting) -> None:
        """The addresses of a proxy hold for some time where the resolver does not say how long."""

        def found(port: int) -> list[Any]:
            results: list[Any] = []
            setting.names.lookup_lasting("a.test", port).addCallback(results.append)
            return results

        waiting = found(80)
        setting.resolver.answer(ONE, OTHER)
        assert waiting == [[Address.of(ONE, 80), Address.of(OTHER, 80)]]
        setting.clock.advance(29)
        assert found(81) == [[Address.of(ONE, 81), Address.of(OTHER, 81)]]
        setting.clock.advance(2)
        assert found(81) == []
        assert setting.resolver.asked == ["a.test"] * 2

    def test_lasting_is_no_failure(self, setting: Setting) -> None:
        """A name that is not found is asked for again."""
        for _ in range(2):
            failed = setting.names.lookup_lasting("a.test", 80).addErrback(lambda failure: failure.value)
            setting.resolver.answer()
            assert type(failed.result) is NameNotFound
        assert len(setting.resolver.asked) == 2

    @pytest.mark.parametrize(("ttl", "holds"), [(0, 1.9), (7, 6.9), (10**6, 86399)])
    def test_lasting_by_its_ttl(self, ttl: int, holds: float) -> None:
        """The answer's own time counts, within bounds."""
        asked: list[str] = []

        class Timed(AddressLookups):
            def lookup_addresses(self, name: str, share: Any = None, types: Any = ()) -> Deferred[Any]:
                asked.append(name)
                found = TimedFound([(ONE, AddressType.IPV4)])
                found.ttl = ttl
                return succeed(found)

        clock = Clock()
        names = NameLookups(Timed(), clock)
        for seconds, count in ((0, 1), (holds, 1), (2, 2)):
            clock.advance(seconds)
            names.lookup_lasting("a.test", 80)
            assert len(asked) == count

    def test_not_for_long(self, setting: Setting) -> None:
        """From the answer on, however often it is used: DNS has moved on."""
        setting.lookup()
        setting.clock.advance(5)
        setting.resolver.answer(ONE)
        setting.clock.advance(1)
        setting.lookup()
        setting.clock.advance(1)
        assert setting.lookup() == []
        assert setting.resolver.asked == ["a.test"] * 2
        setting.resolver.answer(OTHER)
        assert setting.lookup() == [[Address.of(OTHER, 80)]]

    def test_answers_can_be_changed(self, setting: Setting) -> None:
        """What one session does with its list is no other's business."""
        first = setting.lookup()
        setting.resolver.answer(ONE, OTHER)
        first[0].clear()
        assert len(setting.lookup()[0]) == 2

    def test_remembering_nothing(self) -> None:
        setting = Setting(keep=0)
        setting.lookup()
        setting.resolver.answer(ONE)
        assert setting.lookup() == []
        assert setting.resolver.asked == ["a.test"] * 2

    def test_bound(self) -> None:
        """A client that asks for names without end does not fill the memory; the oldest goes first."""
        setting = Setting(most=3)
        for name in ("a.test", "b.test", "c.test", "d.test"):
            setting.lookup(name)
            setting.resolver.answer(ONE)
        assert len(setting.names._known) == 3
        assert setting.lookup("b.test") != []
        assert setting.lookup("a.test") == []

    def test_a_new_answer_takes_no_other_name_s_place(self) -> None:
        setting = Setting(most=2)
        for name in ("a.test", "b.test"):
            setting.lookup(name)
            setting.resolver.answer(ONE)
        setting.clock.advance(3)
        for name in ("b.test", "a.test"):
            setting.lookup(name)
            setting.resolver.answer(OTHER)
        assert setting.lookup("a.test") == setting.lookup("b.test") == [[Address.of(OTHER, 80)]]

    def test_one_gives_up(self, setting: Setting) -> None:
        """Those who share the question with him get their answer."""
        gone = setting.names.lookup("a.test", 80)
        results = setting.lookup()
        gone.cancel()
        setting.resolver.answer(ONE)
        assert results == [[Address.of(ONE, 80)]]
        gone.addErrback(lambda failure: failure.trap(CancelledError))

    def test_all_give_up(self, setting: Setting) -> None:
        """The answer comes, is remembered, and who asks meanwhile waits for it."""
        for _ in range(2):
            gone = setting.names.lookup("a.test", 80)
            gone.addErrback(lambda failure: failure.trap(CancelledError))
            gone.cancel()
        results = setting.lookup()
        assert setting.resolver.asked == ["a.test"]
        setting.resolver.answer(ONE)
        assert results == [[Address.of(ONE, 80)]]

    def test_who_gave_up_is_forgotten(self, setting: Setting) -> None:
        """A client that comes again and again does not fill the memory while a name server is slow."""
        results = setting.lookup()
        for _ in range(100):
            gone = setting.names.lookup("a.test", 80)
            gone.addErrback(lambda failure: failure.trap(CancelledError))
            gone.cancel()
        assert len(setting.names._waiting["a.test"][None].waiting) == 1
        setting.resolver.answer(ONE)
        assert results == [[Address.of(ONE, 80)]]
        assert setting.names._waiting == {}

    def test_giving_up_twice(self, setting: Setting) -> None:
        gone = setting.names.lookup("a.test", 80)
        gone.addErrback(lambda failure: failure.trap(CancelledError))
        gone.cancel()
        gone.cancel()
        setting.resolver.answer(ONE)
        gone.cancel()

    def test_an_answer_that_makes_another_give_up(self, setting: Setting) -> None:
        """One session's end may be another's; a third still gets its answer."""
        first = setting.names.lookup("a.test", 80)
        second = setting.names.lookup("a.test", 80)
        third = setting.lookup()
        first.addCallback(lambda _: second.cancel())
        problems: list[Any] = []
        first.addErrback(problems.append)
        second.addErrback(lambda failure: failure.trap(CancelledError))
        setting.resolver.answer(ONE)
        assert third == [[Address.of(ONE, 80)]]
        assert problems == []

    def test_asking_again_from_the_answer(self, setting: Setting) -> None:
        again: list[Any] = []
        answered = setting.names.lookup("a.test", 80)
        answered.addCallback(lambda _: again.extend(setting.lookup()))
        setting.resolver.answer(ONE)
        assert again == [[Address.of(ONE, 80)]]

    @pytest.mark.parametrize("when", ["first", "second"])
    def test_resolver_that_raises(
        self, setting: Setting, logged: list[LogEvent], when: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An embedder's own may; the name is not found, the log says why, and the next question is asked."""
        ask: Callable[..., Any] = setting.resolver.resolveHostName

        def broken(receiver: IResolutionReceiver, name: str) -> None:
            if when == "second":
                receiver.resolutionBegan(None)  # type: ignore[arg-type]
            raise ZeroDivisionError

        monkeypatch.setattr(setting.resolver, "resolveHostName", broken)
        assert [type(result) for result in setting.lookup()] == [NameNotFound]
        assert [event["log_failure"].type for event in logged] == [ZeroDivisionError]
        monkeypatch.setattr(setting.resolver, "resolveHostName", ask)
        results = setting.lookup()
        setting.resolver.answer(ONE)
        assert results == [[Address.of(ONE, 80)]]

    def test_resolver_that_answers_at_once(self) -> None:
        """As one with a table of its own does."""

        @implementer(IHostnameResolver)
        class Table:
            def resolveHostName(self, receiver: IResolutionReceiver, name: str, *args: Any) -> Any:
                receiver.resolutionBegan(None)  # type: ignore[arg-type]
                receiver.addressResolved(IPv4Address("TCP", ONE, 0))
                receiver.resolutionComplete()

        results: list[Any] = []
        NameLookups(Table(), Clock()).lookup("a.test", 80).addCallback(results.append)
        assert results == [[Address.of(ONE, 80)]]


class TestHosts:
    """A hosts file answers before the resolver, and at once."""

    @pytest.fixture
    def setting(self, tmp_path: Path) -> Setting:
        (tmp_path / "hosts").write_text("192.0.2.7 here.test 127.1 123456789012\n")
        return Setting(hosts=HostsFile(Clock(), Mock(), str(tmp_path / "hosts")))

    @pytest.mark.parametrize("name", ["here.test", "here.test.", "127.1", "123456789012"])
    def test_defined(self, setting: Setting, name: str) -> None:
        assert setting.lookup(name) == [[Address.of("192.0.2.7", 80)]]
        assert setting.resolver.asked == []
        assert canonical(Address(name, 80, AddressType.DOMAIN_NAME), setting.names.defines).host == name

    def test_localhost(self, setting: Setting) -> None:
        for name in ("localhost", "a.localhost."):
            assert setting.lookup(name) == [[Address.of("127.0.0.1", 80), Address.of("::1", 80)]]
        assert setting.resolver.asked == []

    @pytest.mark.parametrize("name", ["127.2", "2130706433", "0x7f000001", "192.0.2.1."])
    def test_numbers_never_reach_a_resolver(self, setting: Setting, name: str) -> None:
        assert [type(result) for result in setting.lookup(name)] == [NameNotFound]
        with pytest.raises(NameNotFound):
            canonical(Address(name, 80, AddressType.DOMAIN_NAME), setting.names.defines)
        assert setting.resolver.asked == []

    def test_reverse(self, setting: Setting) -> None:
        found: list[str] = []
        setting.names.reverse("192.0.2.7").addCallback(found.append)
        assert found == ["here.test"]


@implementer(IHostnameResolver, IAddressLookup)
class FairResolver(FakeResolver):
    """Answers when the test wants it, for each client. :ivar running: the look-ups."""

    def __init__(self) -> None:
        super().__init__()
        self.running: dict[tuple[str, Any], Deferred[Any]] = {}

    def lookup_addresses(self, name: str, share: Any) -> Deferred[Any]:
        pending: Deferred[Any] = Deferred(lambda _: self.running.__delitem__((name, share)))
        self.running[name, share] = pending
        return pending


class TestFairNames:
    """A resolver that is fair to its clients has a look-up for each."""

    @pytest.fixture
    def setting(self, monkeypatch: pytest.MonkeyPatch) -> Setting:
        setting = Setting()
        setting.resolver = FairResolver()
        setting.names = NameLookups(setting.resolver, setting.clock)
        return setting

    def ask(self, setting: Setting, share: str) -> tuple[Deferred[Any], list[Any]]:
        results: list[Any] = []
        pending = setting.names.lookup("a.test", 80, share)
        pending.addCallbacks(results.append, lambda failure: results.append(failure.type))
        return pending, results

    def test_the_first_answer_is_for_all(self, setting: Setting) -> None:
        """One client's queue does not hold up another client who asks for the same name."""
        results = [self.ask(setting, share)[1] for share in ("one", "one", "two")]
        running: dict[Any, Deferred[Any]] = setting.resolver.running  # type: ignore[attr-defined]
        assert list(running) == [("a.test", "one"), ("a.test", "two")]
        running.pop(("a.test", "two")).callback(((ONE, AddressType.IPV4),))
        assert results == [[[Address.of(ONE, 80)]]] * 3
        assert running == {}
        assert setting.names._waiting == {}

    def test_what_nobody_waits_for_is_cancelled(self, setting: Setting) -> None:
        first, second = (self.ask(setting, "one") for _ in range(2))
        running: dict[Any, Deferred[Any]] = setting.resolver.running  # type: ignore[attr-defined]
        first[0].cancel()
        assert len(running) == 1
        second[0].cancel()
        assert running == {}
        assert setting.names._waiting == {}
        assert first[1] == second[1] == [CancelledError]

    def test_too_many(self, setting: Setting) -> None:
        """It says nothing about the name: only the client with the full queue is told so, by reply 1."""
        one, two = (self.ask(setting, share)[1] for share in ("one", "two"))
        running: dict[Any, Deferred[Any]] = setting.resolver.running  # type: ignore[attr-defined]
        running["a.test", "one"].errback(TooManyLookups("too many"))
        assert one == [TooManyLookups]
        assert reply_for(TooManyLookups("too many")) is Reply.GENERAL_FAILURE
        assert two == []
        running["a.test", "two"].callback(((ONE, AddressType.IPV4),))
        assert two == [[Address.of(ONE, 80)]]
        assert setting.names._waiting == {}

    def test_cancelled_by_the_resolver(self, setting: Setting) -> None:
        """It is logged as any other failure, and who waits is told."""
        with heard() as lines:
            _, results = self.ask(setting, "one")
            setting.resolver.running["a.test", "one"].errback(CancelledError())  # type: ignore[attr-defined]
        assert results == [NameNotFound]
        assert "the resolver failed" in lines[0]
