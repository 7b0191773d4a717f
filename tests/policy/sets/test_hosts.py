"""Hosts of sets, whose names are looked up again and again: :mod:`socksproxy.policy.sets.hosts`."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from socksproxy import Client
from socksproxy.net.resolve import NameLookups
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.matching import Matcher, question_of
from socksproxy.policy.rules import BadValue, Rule, RuleError
from socksproxy.policy.sets import HostSet, HostWatch, Sets
from socksproxy.policy.sets.hosts import KEPT, LOOK_EVERY
from socksproxy.wire.words import Address, Command, Reply

from ...conftest import Serve
from ...support.hosts import Hosts
from ...support.logs import heard
from ...support.origin import Origin, echo
from ...support.proxy import Playing, Proxy, ask5

FROM_HOME = Rule(name="home", allow=True, clients=["home"])
DESTINATION = Address.of("203.0.113.9", 443)


class Watched:
    """A set of one host, and a clock and a resolver for its watch."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.clock = Clock()
        self.resolver = Hosts({name: ["192.0.2.1", "2001:db8::1"]})
        self.set = HostSet([name])
        names = NameLookups(self.resolver, self.clock)
        self.watch = HostWatch(self.clock, lambda: names, [*self.set.hosts, *self.set.hosts])
        rules, sets = [FROM_HOME], Sets({"home": [self.set, "198.51.100.0/24"]})
        self.policy, self._matcher = RulePolicy(rules, sets), Matcher(rules, sets)

    def allows(self, host: str) -> bool:
        """Whether a client may come from *host*, by both ways to decide."""
        client = Client(host, 1)
        slowly = self._matcher.decide(question_of(client, Command.CONNECT, DESTINATION, None), 0.0)
        allowed = self.policy.permits(client, Command.CONNECT, DESTINATION)
        assert slowly.allowed is allowed
        return allowed


def test_followed() -> None:
    """A rule follows the addresses of the name."""
    watched = Watched("one.example")
    assert not watched.allows("192.0.2.1")
    assert watched.allows("198.51.100.7")
    watched.watch.start()
    assert watched.allows("192.0.2.1")
    assert watched.allows("2001:db8::1")
    assert not watched.allows("192.0.2.2")
    watched.resolver.hosts[watched.name] = ["192.0.2.2"]
    watched.clock.advance(LOOK_EVERY - 1)
    assert watched.allows("192.0.2.1")
    watched.clock.advance(1)
    assert not watched.allows("192.0.2.1")
    assert watched.allows("192.0.2.2")
    watched.watch.stop()
    assert not watched.clock.getDelayedCalls()
    assert len(watched.resolver.asked) == 2
    # A configuration that is read again knows the addresses at once.
    assert RulePolicy([FROM_HOME], Sets({"home": HostSet([watched.name])})).permits(
        Client("192.0.2.2", 1), Command.CONNECT, DESTINATION
    )


def test_not_found() -> None:
    """While the name is not found its last addresses count for an hour; a line in the log names it."""
    watched = Watched("two.example")
    watched.watch.start()
    watched.resolver.hosts[watched.name] = []
    with heard() as lines:
        watched.clock.advance(LOOK_EVERY)
        assert watched.allows("192.0.2.1")
        for _ in range(int(KEPT / LOOK_EVERY)):
            watched.clock.advance(LOOK_EVERY)
    assert not watched.allows("192.0.2.1")
    assert lines[0] == "two.example, a host of a set, is not found; its last addresses count"
    assert len(lines) <= KEPT / LOOK_EVERY + 1
    watched.resolver.hosts[watched.name] = ["192.0.2.1"]
    watched.clock.advance(LOOK_EVERY)
    assert watched.allows("192.0.2.1")
    watched.watch.stop()


def test_silence() -> None:
    """A look-up that is not answered is not asked again, and its answer counts for nothing after the end."""
    watched = Watched("three.example")
    watched.resolver.hosts[watched.name] = None
    watched.watch.start()
    watched.clock.advance(LOOK_EVERY)
    watched.clock.advance(LOOK_EVERY)
    assert len(watched.resolver.asked) == 1
    watched.watch.stop()
    watched.resolver.answer(watched.name, "192.0.2.1")
    assert not watched.allows("192.0.2.1")


@pytest.mark.parametrize("name", ["*.example", "@home", "192.0.2.1", "", "a b", 5, "x?.example"])
def test_wrong(name: Any) -> None:
    with pytest.raises(BadValue):
        HostSet([name])


def test_clients_only() -> None:
    """Who has a name could lead a rule about destinations to any address, such as a special one."""
    sets = Sets({"home": HostSet(["home.example"])})
    with pytest.raises(RuleError, match="has hosts, which are for clients"):
        RulePolicy([Rule(name="out", allow=True, networks=["home"])], sets)


@pytest_twisted.inlineCallbacks
def test_server(serve_as: Serve) -> Playing:
    """A server looks the hosts of its rules up by its own resolver, also those of a later policy."""
    resolver = Hosts({"me.example": ["127.0.0.1"], "you.example": ["192.0.2.1"]})

    def policy(name: str) -> RulePolicy:
        return RulePolicy([FROM_HOME], Sets({"home": HostSet([name])}))

    def asked(proxy: Proxy, port: int) -> int:
        with proxy.connect() as sock:
            return ask5(sock, "127.0.0.1", port)[0]

    with Origin(echo) as origin:
        proxy: Proxy = yield serve_as(policy=policy("me.example"), resolver=resolver)
        assert (yield proxy.play(asked, proxy, origin.port)) == 0
        proxy.factory.reconfigure(policy=policy("you.example"))
        assert (yield proxy.play(asked, proxy, origin.port)) == Reply.NOT_ALLOWED
        proxy.factory.reconfigure(policy=policy("me.example"))
        assert (yield proxy.play(asked, proxy, origin.port)) == 0
    assert resolver.asked == ["me.example", "you.example"]  # the rest is remembered for a moment
