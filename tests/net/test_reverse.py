"""From an address to its name: see :mod:`socksproxy.net.reverse`."""

from __future__ import annotations

import socket
from collections.abc import Generator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksproxy.errors import NameNotFound, TooManyLookups
from socksproxy.net.dns_resolver import DNSResolver
from socksproxy.net.resolve import make_resolver
from socksproxy.net.reverse import IReverseResolver, ReverseLookups, reverse_lookups
from socksproxy.net.system_resolver import SystemResolver

from ..support.hosts import Hosts
from ..support.names import NameServer

Waiting = Generator[Any, Any, None]


class Asker:
    """Looks up when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Deferred[str]]] = []

    def __call__(self, host: str) -> Deferred[str]:
        answer: Deferred[str] = Deferred()
        self.asked.append((host, answer))
        return answer


def failure(pending: Deferred[Any]) -> BaseException:
    failures: list[Any] = []
    pending.addErrback(failures.append)
    (found,) = failures
    problem: BaseException = found.value
    return problem


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ("host.example", "host.example"),
        ("Host.Example.", "host.example"),
        ("a_b.example", "a_b.example"),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_name(found: str, name: str) -> None:
    """A name as a client can use it."""
    results: list[str] = []
    ReverseLookups(lambda host: succeed(found)).lookup("192.0.2.1").addCallback(results.append)
    assert results == [name]


@pytest.mark.parametrize(
    "found", ["", ".", "127.0.0.1", "::1", "[::1]", "a b", "a\nb", "a..b", "x" * 300, "1.2"]
)
def test_no_name(found: str) -> None:
    """Whoever owns an address writes what he wants into the DNS: it is not passed on as a name."""
    problem = failure(ReverseLookups(lambda host: succeed(found)).lookup("192.0.2.1"))
    assert isinstance(problem, NameNotFound)


@pytest.mark.parametrize("problem", [OSError("no"), NameNotFound("none"), ValueError()])
def test_not_found(problem: Exception) -> None:
    """However a look-up fails, the client is told that there is no name."""

    def raises(host: str) -> Deferred[str]:
        raise problem

    for ask in (raises, lambda host: fail(problem)):
        assert isinstance(failure(ReverseLookups(ask).lookup("192.0.2.1")), NameNotFound)


def test_few_at_once() -> None:
    """Look-ups that hang do not take all threads; the others have their turn when one ends."""
    asker = Asker()
    lookups = ReverseLookups(asker, at_once=2, waiting=3)
    answers = [lookups.lookup(f"192.0.2.{number}") for number in range(5)]
    assert [host for host, _ in asker.asked] == ["192.0.2.0", "192.0.2.1"]
    assert "too many" in str(failure(lookups.lookup("192.0.2.9")))
    asker.asked[0][1].callback("zero.example")
    assert answers[0].result == "zero.example"
    assert [host for host, _ in asker.asked][2:] == ["192.0.2.2"]
    asker.asked[1][1].errback(OSError())
    asker.asked[2][1].callback("two.example")
    assert [host for host, _ in asker.asked][3:] == ["192.0.2.3", "192.0.2.4"]
    assert isinstance(failure(answers[1]), NameNotFound)


def test_cancelled_while_waiting() -> None:
    """What nobody waits for is not looked up."""
    asker = Asker()
    lookups = ReverseLookups(asker, at_once=1, waiting=1)
    first = lookups.lookup("192.0.2.1")
    gone = lookups.lookup("192.0.2.2")
    gone.cancel()
    assert isinstance(failure(gone), CancelledError)
    third = lookups.lookup("192.0.2.3")
    asker.asked[0][1].callback("one.example")
    assert [host for host, _ in asker.asked] == ["192.0.2.1", "192.0.2.3"]
    assert first.result == "one.example"
    third.cancel()
    assert isinstance(failure(third), CancelledError)


def test_cancelled_while_asking() -> None:
    """
    A thread cannot be called back: it counts until it has ended, or clients that come and
    go would have all of them.
    """
    asker = Asker()
    lookups = ReverseLookups(asker, at_once=1)
    gone = lookups.lookup("192.0.2.1")
    gone.cancel()
    assert isinstance(failure(gone), CancelledError)
    second = lookups.lookup("192.0.2.2")
    assert len(asker.asked) == 1
    assert not asker.asked[0][1].called
    asker.asked[0][1].callback("one.example")
    asker.asked[1][1].callback("two.example")
    assert second.result == "two.example"


def test_nobody_to_ask() -> None:
    """A resolver without reverse look-ups has no names to tell; the system's are not told in its place."""
    lookups = reverse_lookups(Hosts({}))
    assert "knows no names" in str(failure(lookups.lookup("127.0.0.1")))


def test_own_resolver() -> None:
    """A resolver that says that it can is asked."""

    @implementer(IReverseResolver)
    class Reverse(Hosts):
        def resolveAddress(self, host: str) -> Deferred[str]:
            return succeed(f"of-{host.replace('.', '-')}.example")

    resolver = Reverse({})
    assert verifyObject(IReverseResolver, resolver)
    answer = reverse_lookups(resolver).lookup("192.0.2.1")
    assert answer.result == "of-192-0-2-1.example"


@pytest_twisted.inlineCallbacks
def test_system(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    """The C library is asked, in a thread, and a number is no name."""
    asked: list[Any] = []
    names = {"192.0.2.1": "host.example"}

    def getnameinfo(address: tuple[str, int], flags: int) -> tuple[str, str]:
        asked.append((address, flags))
        if address[0] not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return names[address[0]], "0"

    monkeypatch.setattr("socksproxy.net.system_resolver.getnameinfo", getnameinfo)
    lookups = reverse_lookups(make_resolver("system", reactor))
    assert (yield lookups.lookup("192.0.2.1")) == "host.example"
    with pytest.raises(NameNotFound):
        yield lookups.lookup("2001:db8::1")
    assert asked == [(("192.0.2.1", 0), socket.NI_NAMEREQD), (("2001:db8::1", 0), socket.NI_NAMEREQD)]


def test_interfaces() -> None:
    """Both resolvers of the command line can do it."""
    assert verifyObject(IReverseResolver, SystemResolver(reactor))
    assert verifyObject(IReverseResolver, DNSResolver(reactor, [("127.0.0.1", 53)]))


@pytest_twisted.inlineCallbacks
def test_dns() -> Waiting:
    """A DNS server is asked for the PTR record, of both families."""
    pointers = {"192.0.2.1": "host.example", "2001:db8::1": "six.example", "192.0.2.2": "127.0.0.1"}
    with NameServer({"1.0.0.127.in-addr.arpa": []}, pointers) as server:
        lookups = reverse_lookups(make_resolver(f"dns:127.0.0.1:{server.port}", reactor))
        assert (yield lookups.lookup("192.0.2.1")) == "host.example"
        assert (yield lookups.lookup("2001:db8::1")) == "six.example"
        for host in ("192.0.2.2", "192.0.2.3", "127.0.0.1"):
            with pytest.raises(NameNotFound):
                yield lookups.lookup(host)
        assert [kind for _, kind in server.asked] == [12] * 5


def test_clients_take_turns() -> None:
    """A client whose look-ups hang has a quarter of those that go on at once, and delays itself only."""
    asker = Asker()
    lookups = ReverseLookups(asker, at_once=8, waiting=8)
    floods = [lookups.lookup(f"192.0.2.{number}", "one") for number in range(10)]
    assert len(asker.asked) == 2
    other = lookups.lookup("198.51.100.1", "two")
    assert asker.asked[-1][0] == "198.51.100.1"
    lookups.lookup("192.0.2.99", "one").addErrback(lambda failure: failure.trap(TooManyLookups))
    later = lookups.lookup("198.51.100.2", "three")
    asker.asked[-1][1].callback("later.example")
    asker.asked[2][1].callback("other.example")
    assert (other.result, later.result) == ("other.example", "later.example")
    for flood in floods[2:]:
        flood.addErrback(lambda failure: failure.trap(CancelledError, TooManyLookups))
        flood.cancel()
    asker.asked[0][1].callback("zero.example")
    assert len(asker.asked) == 4
