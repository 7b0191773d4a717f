"""The system's resolver in threads: see :mod:`socksproxy.net.system_resolver`."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from socksproxy.errors import TooManyLookups
from socksproxy.net import system_resolver as module
from socksproxy.net.lookups import IAddressLookup
from socksproxy.net.resolve import NameLookups
from socksproxy.net.reverse import IReverseResolver
from socksproxy.net.system_resolver import SystemResolver, system_resolver
from socksproxy.runtime.pool import Pool
from socksproxy.wire.words import AddressType

from ..support.hosts import Hosts
from ..support.proxy import PATIENCE, ClockedReactor, reactor, until

Waiting = Generator[Any, Any, None]

FOUND = (("192.0.2.1", AddressType.IPV4),)


class Library:
    """A C library whose DNS server answers for names that begin with ``slow`` when the test lets it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gates: dict[str, threading.Event] = {}

    def getaddrinfo(self, host: bytes, port: None, type: int) -> list[Any]:
        assert type == socket.SOCK_STREAM
        name = host.decode()
        self.asked.append(name)
        if name.startswith("slow"):
            assert self.gates.setdefault(name, threading.Event()).wait(PATIENCE)
        if name.endswith("none.test"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = (
            ["fe80::1%lo", "::ffff:192.0.2.9", "192.0.2.1", "192.0.2.1"]
            if name == "all.test"
            else ["192.0.2.1"]
        )
        return [(0, 0, 0, "", (address, 0)) for address in addresses]

    def answer(self, name: str) -> None:
        self.gates.setdefault(name, threading.Event()).set()

    def answer_all(self) -> None:
        for gate in list(self.gates.values()):
            gate.set()


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    library = Library()
    monkeypatch.setattr(module, "getaddrinfo", library.getaddrinfo)
    yield library
    library.answer_all()


@pytest.fixture
def pools() -> Iterator[list[Pool]]:
    """Pools that are stopped after the test."""
    made: list[Pool] = []
    yield made
    for pool in made:
        pool.stop()


def resolver_with(pools: list[Pool], host: Any = reactor, **settings: Any) -> SystemResolver:
    pools.append(
        Pool(host, name="test", **{"threads": 4, "threads_per_share": 2, "waiting": 100, **settings})
    )
    return SystemResolver(host, pools[-1])


def failures(pending: Deferred[Any]) -> list[Any]:
    found: list[Any] = []
    pending.addErrback(lambda failure: found.append(failure.value))
    return found


def test_interfaces(pools: list[Pool]) -> None:
    resolver = resolver_with(pools)
    for interface in (IAddressLookup, IHostnameResolver, IReverseResolver):
        assert verifyObject(interface, resolver)


def test_which(pools: list[Pool]) -> None:
    """Twisted's own is replaced, and one that an embedder has installed is not."""
    assert isinstance(system_resolver(reactor), SystemResolver)

    class Embedder:
        nameResolver = Hosts({})

    assert system_resolver(Embedder) is Embedder.nameResolver


@pytest_twisted.inlineCallbacks
def test_found(library: Library, pools: list[Pool]) -> Waiting:
    """Addresses come in order, once, and without disguise or scope; a name that is unknown has none."""
    resolver = resolver_with(pools)
    found = yield resolver.lookup_addresses("all.test", "one")
    assert found == (
        ("fe80::1", AddressType.IPV6),
        ("192.0.2.9", AddressType.IPV4),
        ("192.0.2.1", AddressType.IPV4),
    )
    assert (yield resolver.lookup_addresses("none.test", "one")) == ()
    assert (yield resolver.lookup_addresses("a\udcff", "one")) == ()


@pytest_twisted.inlineCallbacks
def test_names_that_no_client_waits_for(library: Library, pools: list[Pool]) -> Waiting:
    """Several clients that leave while their names hang do not stop the look-ups of another client."""
    resolver = resolver_with(pools, spare=4)
    for client in range(4):
        names = {f"slow{client}.{number}.test" for number in range(2)}
        flood = [resolver.lookup_addresses(name, client) for name in names]
        yield until(partial(names.issubset, library.asked))
        if client == 3:
            break  # the last ones wait, and have the threads of the pool
        for answer in flood:
            answer.addErrback(lambda failure: failure.trap(CancelledError))
            answer.cancel()
        assert (yield resolver.lookup_addresses(f"{client}.test", "other")) == FOUND


@pytest_twisted.inlineCallbacks
def test_flood(library: Library, pools: list[Pool]) -> Waiting:
    """A client whose 300 names have no answer delays no other client, and itself no longer than they hang."""
    resolver = resolver_with(pools)
    flood = [resolver.lookup_addresses(f"slow{number}.test", "flood") for number in range(90)]
    for number in range(10):
        assert (yield resolver.lookup_addresses(f"{number}.test", "other")) == FOUND
    assert sum(name.startswith("slow") for name in library.asked) == 2
    for answer in flood:
        answer.addErrback(lambda failure: failure.trap(CancelledError))
        answer.cancel()
    library.answer_all()
    # What the client does not wait for any more is not asked for.
    assert (yield resolver.lookup_addresses("mine.test", "flood")) == FOUND
    assert sum(name.startswith("slow") for name in library.asked) == 2


@pytest_twisted.inlineCallbacks
def test_one_name_is_asked_for_once(library: Library, pools: list[Pool]) -> Waiting:
    """Clients who ask for a name that a thread is asking for get its answer, and take no thread."""
    resolver = resolver_with(pools)
    first = resolver.lookup_addresses("slow.test", "first")
    yield until(lambda: library.asked == ["slow.test"])
    others = [resolver.lookup_addresses("slow.test", number) for number in range(50)]
    assert (yield resolver.lookup_addresses("quick.test", "one more")) == FOUND
    library.answer("slow.test")
    assert (yield gatherResults([first, *others])) == [FOUND] * 51
    assert library.asked == ["slow.test", "quick.test"]


@pytest_twisted.inlineCallbacks
def test_not_behind_the_queue_of_another(library: Library, pools: list[Pool]) -> Waiting:
    """A name that waits behind a client's slow names is asked for at once when another client wants it."""
    resolver = resolver_with(pools)
    flood = [resolver.lookup_addresses(f"slow{number}.test", "flood") for number in range(5)]
    behind = resolver.lookup_addresses("wanted.test", "flood")
    assert (yield resolver.lookup_addresses("wanted.test", "other")) == FOUND
    assert behind.result == FOUND
    assert Counter(library.asked)["wanted.test"] == 1
    for number in range(5):
        library.answer(f"slow{number}.test")
    yield gatherResults(flood)


@pytest_twisted.inlineCallbacks
def test_the_first_client_leaves(library: Library, pools: list[Pool]) -> Waiting:
    """The clients who wait with it get the answer."""
    resolver = resolver_with(pools)
    first = resolver.lookup_addresses("slow.test", "first")
    yield until(lambda: bool(library.asked))
    second = resolver.lookup_addresses("slow.test", "second")
    gone = failures(first)
    first.cancel()
    assert isinstance(gone[0], CancelledError)
    third = resolver.lookup_addresses("slow.test", "first")
    library.answer("slow.test")
    assert (yield gatherResults([second, third])) == [FOUND, FOUND]
    assert library.asked == ["slow.test"]


@pytest_twisted.inlineCallbacks
def test_leaves_before_the_thread_begins(library: Library, pools: list[Pool]) -> Waiting:
    """Whoever else asked for the name has it looked up all the same."""
    for _ in range(50):
        resolver = resolver_with(pools, threads=2)
        first = resolver.lookup_addresses("a.test", "first")
        second = resolver.lookup_addresses("a.test", "second")
        first.addErrback(lambda failure: failure.trap(CancelledError))
        first.cancel()
        assert (yield second) == FOUND
        pools.pop().stop()


def test_no_answer_in_time(library: Library, pools: list[Pool]) -> None:
    """Nothing is known of the name; the next client who asks for it has it asked for anew."""
    clock = Clock()
    resolver = resolver_with(pools, ClockedReactor(clock), deadline=10)
    told = failures(resolver.lookup_addresses("slow.test", "one"))
    clock.advance(10)
    assert isinstance(told[0], TooManyLookups)
    assert str(told[0]) == "no answer in time"
    assert not resolver._asked


def test_too_many(library: Library, pools: list[Pool]) -> None:
    """The longest queue gives way, and other clients' look-ups stay."""
    resolver = resolver_with(pools, waiting=10, threads=2, threads_per_share=1)
    other = resolver.lookup_addresses("slow.test", "other")
    flood = [failures(resolver.lookup_addresses(f"slow{number}.test", "flood")) for number in range(30)]
    assert sum(map(len, flood)) == 19
    assert {type(problem) for told in flood for problem in told} == {TooManyLookups}
    assert not other.called


@pytest_twisted.inlineCallbacks
def test_names(library: Library, pools: list[Pool]) -> Waiting:
    """As the commands ask: a literal, a known name and a new one beside a flood of slow ones."""
    names = NameLookups(resolver_with(pools), reactor)
    found = yield names.lookup("known.test", 80, "one")
    flood = [names.lookup(f"slow{number}.test", 80, "flood") for number in range(40)]
    assert (yield names.lookup("known.test", 80, "flood")) == found
    assert (yield names.lookup("new.test", 80, "one")) == found
    for answer in flood:
        answer.addErrback(lambda failure: failure.trap(CancelledError))
        answer.cancel()
    assert len(library.asked) == 4


@pytest_twisted.inlineCallbacks
def test_as_twisted_asks(library: Library, pools: list[Pool]) -> Waiting:
    """It can take the place of Twisted's own."""
    told: Deferred[list[Any]] = Deferred()
    addresses: list[Any] = []

    class Receiver:
        def resolutionBegan(self, resolution: Any) -> None:
            assert resolution.name == "all.test"

        def addressResolved(self, address: Any) -> None:
            addresses.append(address)

        def resolutionComplete(self) -> None:
            told.callback(addresses)

    receiver: Any = Receiver()
    resolver_with(pools).resolveHostName(receiver, "all.test", 80)
    found = yield told
    assert [(address.host, address.port) for address in found] == [
        ("fe80::1", 80),
        ("192.0.2.9", 80),
        ("192.0.2.1", 80),
    ]
    cancelled = resolver_with(pools).resolveHostName(receiver, "all.test", 80)
    cancelled.cancel()
    assert len(addresses) == 3
