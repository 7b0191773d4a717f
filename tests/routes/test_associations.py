"""Associations with the proxies of a way out: see :mod:`socksproxy.routes.associations`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from socksproxy.errors import UpstreamFailed
from socksproxy.net.dial import Destination, Dialed
from socksproxy.routes.associations import Associating
from socksproxy.routes.hops import Hop
from socksproxy.routes.interfaces import Trail
from socksproxy.wire.words import Address

from ..support.upstreams import upstream


class Link(StringTransport):
    """A connection to a proxy."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class World:
    """Proxies that answer when the test says so."""

    def __init__(self, *hops: Any) -> None:
        self.asked: dict[int, Deferred[Dialed]] = {}
        self.cancelled: list[int] = []
        self.links: dict[int, Destination] = {}
        self.trail = Trail("way")
        self.got: list[Any] = []
        ways = [Hop(f"hop{number}", each) for number, each in enumerate(hops)]
        self.associating = Associating(ways, self.ask, self.trail, None)
        self.result = self.associating.start()
        self.result.addBoth(self.got.append)

    def ask(self, number: int, trail: Trail) -> Deferred[Dialed]:
        trail.tries += 1
        asked: Deferred[Dialed] = Deferred(lambda _: self.cancelled.append(number))
        self.asked[number] = asked
        return asked

    def answer(self, number: int, bound: Address) -> Destination:
        link = self.links[number] = Destination()
        link.makeConnection(Link())
        self.asked[number].callback(
            Dialed(link, Address.of("192.0.2.1", 1080), Address.of("192.0.2.9", 4000), bound)
        )
        return link

    def open_links(self) -> list[int]:
        return [number for number, link in self.links.items() if not link.transport.aborted]  # type: ignore[attr-defined]


BOUND = Address.of("192.0.2.77", 5000)


@pytest.mark.parametrize(
    ("told", "settings", "relay"),
    [
        ("192.0.2.77", {}, "192.0.2.77"),
        ("0.0.0.0", {}, "192.0.2.1"),
        ("::", {}, "192.0.2.1"),
        ("127.0.0.1", {}, "192.0.2.1"),
        ("proxy.example", {}, "192.0.2.1"),
        ("192.0.2.77", {"udp_address": "server"}, "192.0.2.1"),
        ("192.0.2.77", {"udp_address": "198.51.100.1"}, "198.51.100.1"),
    ],
)
def test_relay(told: str, settings: Any, relay: str) -> None:
    """e 37: where the first proxy takes datagrams, by what it tells and what the settings say."""
    world = World(upstream("socks5", 1, **settings))
    world.answer(1, Address.of(told, 5000))
    (found,) = world.got
    assert found.relays == (Address.of(relay, 5000),)
    assert found.own == Address.of("192.0.2.9", 4000)


def test_relays_of_a_chain() -> None:
    """The second proxy's own address is what the first one knows it by."""
    world = World(upstream("socks5", 1), upstream("socks5", 2, host="two.example"))
    world.answer(2, Address.of("0.0.0.0", 6000))
    assert world.got == []
    world.answer(1, BOUND)
    (found,) = world.got
    assert found.relays == (BOUND, Address.of("two.example", 6000))
    assert world.trail.tries == 2


@pytest.mark.parametrize("ended", [1, 2])
def test_one_ends_all(ended: int) -> None:
    """The end of one connection ends the association, once."""
    world = World(upstream("socks5", 1), upstream("socks5", 2))
    world.answer(1, BOUND)
    world.answer(2, BOUND)
    told: list[int] = []
    world.got[0].watch(lambda: told.append(1))
    world.links[ended].dataReceived(b"talk")
    assert told == []
    world.links[ended].connectionLost()
    assert told == [1]
    assert world.open_links() == []


def test_ended_before_it_is_watched() -> None:
    """A proxy may close the connection at once."""
    world = World(upstream("socks5", 1))
    world.answer(1, BOUND).readConnectionLost()
    told: list[int] = []
    world.got[0].watch(lambda: told.append(1))
    assert told == [1]


def test_closed_by_us() -> None:
    """Who closes it is not told of the end."""
    world = World(upstream("socks5", 1))
    link = world.answer(1, BOUND)
    told: list[int] = []
    world.got[0].watch(lambda: told.append(1))
    world.got[0].close()
    link.connectionLost()
    assert told == []
    assert world.open_links() == []


def test_one_fails() -> None:
    """The others are given up."""
    world = World(*(upstream("socks5", number) for number in (1, 2, 3)))
    world.answer(1, BOUND)
    world.asked[2].errback(Failure(UpstreamFailed("no")))
    assert world.got[0].check(UpstreamFailed)
    assert world.cancelled == [3]
    assert world.open_links() == []


def test_cancelled() -> None:
    """Who asks may give up."""
    world = World(upstream("socks5", 1), upstream("socks5", 2))
    world.answer(1, BOUND)
    world.result.cancel()
    assert world.got[0].check(CancelledError)
    assert world.cancelled == [2]
    assert world.open_links() == []
