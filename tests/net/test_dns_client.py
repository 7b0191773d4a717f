"""Questions to DNS servers, by a clock and sockets that are a test's own."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from twisted.internet.defer import CancelledError, Deferred

from socksproxy.net import dns_client
from socksproxy.net.descriptors import reserve
from socksproxy.net.dns_client import DNSClient, NoAnswer, Server
from socksproxy.net.dns_messages import AAAA, A, Answer, Outcome, question_for
from tests.support.dns import Reactor, fake_reactor, reply

__all__ = ["fake_reactor"]  # a fixture

ONE, TWO, THREE = Server("192.0.2.53", 53), Server("2001:db8::53", 5353), Server("198.51.100.53", 53)


class Setting:
    """A client of DNS servers, by a clock and sockets of the test's own."""

    def __init__(self, reactor: Reactor, *servers: Server) -> None:
        self.reactor = reactor
        self.client = DNSClient(self.reactor, servers or (ONE,))

    def ask(self, name: str = "a.test") -> tuple[Deferred[Any], list[Any]]:
        results: list[Any] = []
        asked = self.client.ask(question_for(name, A))
        asked.addCallbacks(results.append, lambda failure: results.append(failure.type))
        return asked, results

    def answer(self, number: int = -1, *hosts: str, rcode: int = 0) -> None:
        """Answer what was sent as *number*."""
        port, query = self.reactor.sent[number]
        port.receive(reply(query, *hosts, rcode=rcode))

    @property
    def servers(self) -> list[Server]:
        """Those that were asked, in order."""
        return [port.server for port, _ in self.reactor.sent]

    def assert_over(self) -> None:
        """Nothing is left but sockets that close in a moment."""
        assert all(not port.reader.queries for port in self.reactor.open)
        assert len(self.reactor.getDelayedCalls()) <= 1
        self.reactor.advance(dns_client.IDLE)
        assert self.reactor.open == []
        assert self.reactor.getDelayedCalls() == []


@pytest.fixture
def setting(fake_reactor: Reactor) -> Setting:
    return Setting(fake_reactor)


ANSWER = Answer(Outcome.ANSWERED, ("192.0.2.1",), 60)


def test_answer(setting: Setting) -> None:
    _, results = setting.ask()
    ((port, query),) = setting.reactor.sent
    assert port.server == ONE
    assert query.question[0].to_text() == "a.test. IN A"
    setting.answer(-1, "192.0.2.1")
    assert results == [ANSWER]
    setting.answer(-1, "192.0.2.2")  # it is late
    setting.assert_over()


def test_what_is_ignored(setting: Setting) -> None:
    """None of it ends the look-up, and the answer that comes then counts."""
    _, results = setting.ask()
    ((port, query),) = setting.reactor.sent
    good = reply(query, "192.0.2.66")
    other = dns.message.from_wire(query.to_wire())
    other.id ^= 1
    port.receive(reply(other, "192.0.2.66"))
    for name, type in (("b.test", A), ("a.test", AAAA)):
        port.receive(reply(dns.message.make_query(name, type, id=query.id, use_edns=False)))
    unasked = dns.message.from_wire(good)
    unasked.question.clear()
    port.receive(unasked.to_wire())
    port.receive(query.to_wire())
    for data in (b"", good[:2], good[:11], good[:12], good[:-1], good[:2] + b"garbage" * 9):
        port.receive(data)
    assert results == []
    port.receive(good)
    assert results == [Answer(Outcome.ANSWERED, ("192.0.2.66",), 60)]
    setting.assert_over()


def test_another_owner(setting: Setting) -> None:
    """A record of another name does not end the question: the right answer counts."""
    _, results = setting.ask()
    ((port, query),) = setting.reactor.sent
    message = dns.message.make_response(query)
    message.answer.append(dns.rrset.from_text("b.test.", 60, "IN", "A", "192.0.2.66"))
    port.receive(message.to_wire())
    assert results == []
    setting.answer(0, "192.0.2.1")
    assert results == [Answer(Outcome.ANSWERED, ("192.0.2.1",), 60)]


def test_silence(setting: Setting) -> None:
    """A few attempts, each with an id of its own, and no error that is not told."""
    _, results = setting.ask()
    times = []
    while not results:
        times.append(setting.reactor.seconds())
        setting.reactor.advance(0.5)
    assert [time for time in times if time in (0, 1, 3)] == [0, 1, 3]
    assert len(setting.reactor.sent) == 3
    assert setting.reactor.seconds() == 7
    assert results == [NoAnswer]
    setting.assert_over()


def test_late_answer(setting: Setting) -> None:
    """What was sent first may be answered after it was sent again."""
    _, results = setting.ask()
    setting.reactor.advance(1)
    assert len(setting.reactor.sent) == 2
    setting.answer(0, "192.0.2.1")
    assert results == [ANSWER]
    setting.assert_over()


def test_servers_in_turn(fake_reactor: Reactor) -> None:
    setting = Setting(fake_reactor, ONE, TWO, THREE)
    _, results = setting.ask()
    for _ in range(3):
        setting.reactor.advance(1)
    for _ in range(3):
        setting.reactor.advance(2)
    assert setting.servers == [ONE, TWO, THREE] * 2
    assert results == [NoAnswer]
    setting.assert_over()


def test_a_server_that_is_down_is_not_the_first(fake_reactor: Reactor) -> None:
    """So one that is down costs its second once, and not with each name."""
    setting = Setting(fake_reactor, ONE, TWO)
    _, results = setting.ask()
    setting.reactor.advance(1)
    setting.answer(-1, "192.0.2.1")
    assert results == [ANSWER]
    setting.ask()
    assert setting.servers == [ONE, TWO, TWO]
    setting.reactor.advance(1.1)
    assert setting.servers[3:] == [ONE]
    setting.answer(-1, "192.0.2.1")
    setting.ask()
    assert setting.servers[4:] == [ONE]


def test_names_without_an_answer_do_not_change_the_first(fake_reactor: Reactor) -> None:
    """Else a client who asks for such names would send all others to a server that may be down."""
    setting = Setting(fake_reactor, ONE, TWO)
    for number in range(10):
        setting.ask(f"slow{number}.test")
    setting.reactor.advance(0.5)
    _, results = setting.ask()
    setting.answer(-1, "192.0.2.1")
    assert results == [ANSWER]
    setting.reactor.advance(0.5)
    assert setting.servers[11:] == [TWO] * 10
    setting.ask()
    assert setting.servers[21:] == [ONE]


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.FORMERR])
def test_server_that_fails(fake_reactor: Reactor, rcode: int) -> None:
    """The next one is asked at once; when all fail there is no answer."""
    setting = Setting(fake_reactor, ONE, TWO)
    _, results = setting.ask()
    setting.answer(-1, rcode=rcode)
    assert setting.servers == [ONE, TWO]
    setting.answer(-1, "192.0.2.1")
    _, others = setting.ask()
    setting.answer(-1, rcode=rcode)
    setting.answer(-1, rcode=rcode)
    assert (results, others) == ([ANSWER], [NoAnswer])
    assert len(setting.reactor.sent) == 4
    setting.assert_over()


def test_closed_port(fake_reactor: Reactor) -> None:
    """The system tells, and the next server is asked at once."""
    setting = Setting(fake_reactor, ONE, TWO)
    results = [setting.ask()[1] for _ in range(5)]
    for port in {port for port, _ in setting.reactor.sent}:
        port.receive(ConnectionRefusedError(), ConnectionRefusedError())
    assert setting.servers == [ONE] * 5 + [TWO] * 5
    for number in range(5, 10):
        setting.answer(number, "192.0.2.1")
    assert results == [[ANSWER]] * 5
    setting.assert_over()


def test_lost_socket(fake_reactor: Reactor) -> None:
    """The reactor may give one up."""
    setting = Setting(fake_reactor, ONE, TWO)
    _, results = setting.ask()
    ((port, _),) = setting.reactor.sent
    port.reader.connectionLost(None)
    assert setting.servers == [ONE, TWO]
    setting.answer(-1, "192.0.2.1")
    setting.ask()
    assert all(port.open for port, _ in setting.reactor.sent[1:])
    assert results == [ANSWER]


def test_no_way(fake_reactor: Reactor) -> None:
    """What cannot be sent has failed: another server is asked, or none."""
    setting = Setting(fake_reactor, ONE, TWO)
    setting.reactor.problems += [OSError(101, "Network is unreachable")] * 2
    assert setting.ask()[1] == [NoAnswer]
    _, results = setting.ask()
    setting.answer(-1, "192.0.2.1")
    assert results == [ANSWER]
    setting.assert_over()


def test_refused_while_sending(fake_reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may tell of an earlier datagram when another one is sent."""
    monkeypatch.setattr(dns_client, "MOST_SOCKETS", 1)
    setting = Setting(fake_reactor)
    first = setting.ask()[1]
    setting.reactor.problems.append(ConnectionRefusedError())
    second = setting.ask()[1]
    assert (first, second) == ([], [])
    setting.reactor.advance(0)
    assert first == [NoAnswer]
    setting.answer(-1, "192.0.2.1")
    assert second == [ANSWER]
    setting.assert_over()


def test_no_room(setting: Setting) -> None:
    """What cannot be sent just now is sent again."""
    setting.reactor.problems.append(BlockingIOError())
    _, results = setting.ask()
    setting.reactor.advance(1)
    setting.answer(-1, "192.0.2.1")
    assert results == [ANSWER]
    setting.assert_over()


def test_out_of_descriptors(setting: Setting) -> None:
    """The sockets that are open serve; without any there is no answer, until there are descriptors again."""
    setting.reactor.descriptors = 0
    assert setting.ask()[1] == [NoAnswer]
    setting.reactor.descriptors = 1
    results = [setting.ask(f"a{number}.test")[1] for number in range(100)]
    assert len(setting.reactor.ports) == 1
    for number in range(100):
        setting.answer(number, "192.0.2.1")
    assert results == [[ANSWER]] * 100
    setting.assert_over()


@pytest.mark.parametrize("servers", [(ONE,), (ONE, TWO), (ONE, TWO, THREE)])
def test_few_sockets(fake_reactor: Reactor, servers: tuple[Server, ...]) -> None:
    """However many questions there are, and whoever answers."""
    setting = Setting(fake_reactor, *servers)
    for number in range(200):
        setting.ask(f"a{number}.test")
        assert len(setting.reactor.open) <= dns_client.MOST_SOCKETS
    for _ in range(9):
        setting.reactor.advance(1)
        assert len(setting.reactor.open) <= dns_client.MOST_SOCKETS
    setting.assert_over()


def test_descriptors_are_in_the_reserve() -> None:
    """What is kept for look-ups is enough for them, and for others."""
    assert reserve(64) - 6 >= dns_client.MOST_SOCKETS + dns_client.MOST_STREAMS


def test_cancelled(setting: Setting) -> None:
    """A client that has gone leaves nothing behind."""
    asked = [setting.ask(f"a{number}.test") for number in range(600)]
    for pending, _ in asked:
        pending.cancel()
    assert all(results == [CancelledError] for _, results in asked)
    for number in range(600):
        setting.answer(number, "192.0.2.1")
    setting.assert_over()
    _, results = setting.ask()
    setting.answer(-1, "192.0.2.1")
    assert results == [ANSWER]


def test_ports_and_ids_change(setting: Setting) -> None:
    """RFC 5452, section 9.2: many ids, and not the same port for long."""
    for number in range(1000):
        setting.ask(f"a{number}.test")
        setting.answer(-1, "192.0.2.1")
    asked = Counter(map(id, (port for port, _ in setting.reactor.sent)))
    assert max(asked.values()) == dns_client.QUESTIONS_PER_SOCKET
    assert len(setting.reactor.ports) > 10
    assert len({query.id for _, query in setting.reactor.sent}) > 900
    used = set(asked)
    waiting = setting.ask()[0]  # as long as one waits, sockets stay
    setting.reactor.advance(dns_client.IDLE)
    assert setting.reactor.open
    waiting.cancel()
    setting.reactor.advance(dns_client.IDLE)
    assert setting.reactor.open == []
    setting.ask()
    assert id(setting.reactor.sent[-1][0]) not in used


def test_ids_differ_in_a_socket(fake_reactor: Reactor) -> None:
    """Two questions that wait have not the same."""
    numbers = itertools.cycle([7, 7, 8])

    class Chance(random.Random):
        def getrandbits(self, k: int) -> int:
            return next(numbers)

        def randrange(self, *arguments: Any) -> int:
            return 0

    client = DNSClient(fake_reactor, [ONE], Chance())
    for name in ("a.test", "b.test"):
        client.ask(question_for(name, A))
    assert [query.id for _, query in fake_reactor.sent] == [7, 8]
