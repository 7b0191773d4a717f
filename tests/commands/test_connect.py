"""CONNECT without sockets: which addresses are dialed, and when."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from socksproxy import Client
from socksproxy.commands.connect import connect
from socksproxy.errors import ConnectFailed, NameNotFound, NotAllowed
from socksproxy.net.dial import ATTEMPT_DELAY, Dialed
from socksproxy.net.resolve import NameLookups
from socksproxy.policy.asking import DestinationCheck
from socksproxy.wire.words import Address, Reply
from tests.support.hosts import Hosts
from tests.support.policy import Policy

CLIENT = Client("192.0.2.7", 1234)


class Attempts:
    """A dialer whose attempts end as the test says."""

    def __init__(self) -> None:
        self.running: dict[str, Deferred[Any]] = {}
        self.cancelled: list[str] = []

    def __call__(self, destination: Address) -> Deferred[Any]:
        host = destination.host
        self.running[host] = Deferred(lambda _: self.cancelled.append(host))
        return self.running[host]


class Connecting:
    """One CONNECT, and how it goes."""

    def __init__(
        self,
        destination: Address,
        answers: dict[str, Any] | None = None,
        hosts: dict[str, list[str] | None] | None = None,
    ) -> None:
        self.clock = Clock()
        self.policy = Policy(answers or {})
        self.hosts = Hosts(hosts or {})
        self.attempts = Attempts()
        self.resolved = 0
        self.results: list[Any] = []
        means = DestinationCheck(self.policy, NameLookups(self.hosts, self.clock), self.clock)
        self.pending: Deferred[Any] = maybeDeferred(
            connect, means, CLIENT, destination, self.attempts, self.has_resolved
        )
        self.pending.addBoth(self.results.append)

    def has_resolved(self) -> None:
        self.resolved += 1

    @property
    def dialed(self) -> list[str]:
        return list(self.attempts.running)

    def problem(self) -> Any:
        (failure,) = self.results
        assert isinstance(failure, Failure)
        return failure.value


@pytest.mark.parametrize(
    ("host", "dialed"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
    ],
)
def test_literal(host: str, dialed: str) -> None:
    """An address goes straight to dialing, though it comes as a name: no resolver sees it."""
    connecting = Connecting(Address.of(host, 80))
    assert connecting.dialed == [dialed]
    assert (connecting.resolved, connecting.hosts.asked) == (0, [])
    assert [asked.host for _, _, asked in connecting.policy.asked] == [dialed]
    connecting.attempts.running[dialed].callback("connected")
    assert connecting.results == ["connected"]


@pytest.mark.parametrize("answer", [False, None, lambda: succeed(False)])
def test_literal_denied(answer: Any) -> None:
    connecting = Connecting(Address.of("192.0.2.1", 80), {"192.0.2.1": answer})
    assert isinstance(connecting.problem(), NotAllowed)
    assert connecting.dialed == []


def test_literal_permitted_later() -> None:
    """Nothing is dialed before the answer."""
    answer: Deferred[bool] = Deferred()
    connecting = Connecting(Address.of("192.0.2.1", 80), {"192.0.2.1": lambda: answer})
    assert connecting.dialed == []
    answer.callback(True)
    assert connecting.dialed == ["192.0.2.1"]


def test_name() -> None:
    """Looked up in lower case, raced with both families in turn; the losers are cancelled."""
    connecting = Connecting(
        Address.of("A.Example", 80),
        hosts={"a.example": ["2001:db8::1", "2001:db8::2", "192.0.2.1"]},
    )
    assert connecting.hosts.asked == ["a.example"]
    assert connecting.resolved == 1
    assert connecting.dialed == ["2001:db8::1"]
    connecting.clock.advance(ATTEMPT_DELAY)
    assert connecting.dialed == ["2001:db8::1", "192.0.2.1"]
    connecting.attempts.running["192.0.2.1"].callback("connected")
    assert connecting.results == ["connected"]
    assert connecting.attempts.cancelled == ["2001:db8::1"]
    assert connecting.clock.getDelayedCalls() == []


def test_denied_addresses_are_left_out() -> None:
    """Not even as a last resort."""
    connecting = Connecting(
        Address.of("a.example", 80),
        {"192.0.2.1": False},
        {"a.example": ["192.0.2.1", "192.0.2.2"]},
    )
    assert connecting.dialed == ["192.0.2.2"]
    connecting.attempts.running["192.0.2.2"].errback(ConnectionRefusedError(111, "refused"))
    connecting.clock.advance(10)
    assert connecting.dialed == ["192.0.2.2"]
    assert isinstance(connecting.problem(), ConnectionRefusedError)


def test_all_fail() -> None:
    """The most telling failure is told."""
    connecting = Connecting(Address.of("a.example", 80), hosts={"a.example": ["192.0.2.1", "192.0.2.2"]})
    connecting.attempts.running["192.0.2.1"].errback(ConnectionRefusedError(111, "Connection refused"))
    connecting.attempts.running["192.0.2.2"].errback(OSError(113, "No route to host"))
    problem = connecting.problem()
    assert isinstance(problem, ConnectFailed)
    assert problem.reply is Reply.CONNECTION_REFUSED


def test_no_such_name() -> None:
    assert isinstance(Connecting(Address.of("a.example", 80)).problem(), NameNotFound)


@pytest.mark.parametrize("host", ["", "a..example", "0177.0.0.1", "a" * 64])
def test_cannot_be_a_name(host: str) -> None:
    """It is refused at once, and no resolver makes something of it."""
    connecting = Connecting(Address.of(host, 80))
    assert isinstance(connecting.problem(), NameNotFound)


@pytest.mark.parametrize("until", ["asked", "resolving", "dialing"])
def test_cancelled(until: str) -> None:
    """A client that goes leaves nothing that goes on."""
    answer: Deferred[bool] = Deferred()
    connecting = Connecting(
        Address.of("a.example", 80),
        {"a.example": (lambda: answer) if until == "asked" else True},
        {"a.example": None if until == "resolving" else ["192.0.2.1", "192.0.2.2"]},
    )
    connecting.clock.advance(ATTEMPT_DELAY)
    connecting.pending.cancel()
    assert isinstance(connecting.problem(), CancelledError)
    dialed = ["192.0.2.1", "192.0.2.2"] if until == "dialing" else []
    assert connecting.dialed == dialed
    assert sorted(connecting.attempts.cancelled) == dialed
    if until == "resolving":
        connecting.hosts.answer("a.example", "192.0.2.1")
    connecting.clock.advance(10)
    assert connecting.dialed == dialed
    assert connecting.clock.getDelayedCalls() == []


def test_result_is_the_dialers() -> None:
    connecting = Connecting(Address.of("192.0.2.1", 80))
    dialed = Dialed(None, Address.of("192.0.2.1", 80), Address.of("192.0.2.9", 1))  # type: ignore[arg-type]
    connecting.attempts.running["192.0.2.1"].callback(dialed)
    assert connecting.results == [dialed]
