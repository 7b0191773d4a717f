"""Listeners that open at once, later, or not at all."""

from __future__ import annotations

import errno
from typing import Any

import attrs
import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory

from socksproxy.config.command_line import SOCKSOptions
from socksproxy.config.plan import Listener
from socksproxy.service.opening import CannotStart, Opening, check_place, close, where_listens

FACTORY = Factory()


class Endpoint:
    """Opens what the test gives it."""

    def __init__(self) -> None:
        self.answer: Deferred[Any] = Deferred()

    def listen(self, factory: Factory) -> Deferred[Any]:
        assert factory is FACTORY
        return self.answer


class Port:
    """Listens at *address*."""

    def __init__(self, address: Any) -> None:
        self.address = address
        self.closed = False

    def getHost(self) -> Any:
        return self.address

    def stopListening(self) -> None:
        self.closed = True


def begun(opening: Opening) -> tuple[Endpoint, list[Any]]:
    """A listener that is about to open, and how that ends."""
    endpoint: Any = Endpoint()
    outcome: list[Any] = []
    opening.open(Listener("tcp:7", endpoint)).addBoth(outcome.append)
    return endpoint, outcome


def test_opens() -> None:
    opening = Opening(FACTORY)
    finished: list[Any] = []
    (first, one), (second, two) = begun(opening), begun(opening)
    opening.finished().addCallback(finished.append)
    first.answer.callback("port")
    assert (one, two, finished) == (["port"], [], [])
    assert opening.unfinished
    second.answer.errback(OSError(errno.EADDRINUSE, "Address already in use"))
    assert not opening.unfinished
    assert len(finished) == 1
    assert str(two[0].value) == "tcp:7: address already in use"


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (CannotListenError("", 7, OSError(errno.EACCES, "Permission denied")), "permission denied"),
        (ValueError("two\n lines"), "two lines"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_cannot(problem: Exception, reason: str) -> None:
    """Whatever the endpoint raises becomes one line."""
    endpoint, outcome = begun(Opening(FACTORY))
    endpoint.answer.errback(problem)
    assert outcome[0].check(CannotStart)
    assert str(outcome[0].value) == f"tcp:7: {reason}"
    assert outcome[0].value.code == 1


def test_cancelled() -> None:
    opening = Opening(FACTORY)
    _, one = begun(opening)
    _, two = begun(opening)
    opening.cancel()
    assert not opening.unfinished
    assert one[0].check(CannotStart)
    assert two[0].check(CannotStart)


@pytest.mark.parametrize(
    ("address", "where", "local"),
    [
        (IPv4Address("TCP", "127.0.0.1", 7), "tcp:127.0.0.1:7", True),
        (IPv4Address("TCP", "192.0.2.1", 7), "tcp:192.0.2.1:7", False),
        (IPv6Address("TCP", "::1", 7), "tcp6:[::1]:7", True),
        (IPv6Address("TCP", "::", 7), "tcp6:[::]:7", False),
        (UNIXAddress(b"/run/socks"), "unix:/run/socks", True),
        ("elsewhere", "elsewhere", False),
    ],
)
def test_places(address: Any, where: str, local: bool) -> None:
    """Without authentication or --open, only this machine reaches a listener."""
    port: Any = Port(address)
    options = SOCKSOptions()
    options.parseOptions([])
    assert where_listens(port) == (where, local)
    if local:
        check_place(port, options.plan)
    else:
        with pytest.raises(CannotStart, match="is not a loopback address"):
            check_place(port, options.plan)
    check_place(port, attrs.evolve(options.plan, open=True))
    check_place(port, attrs.evolve(options.plan, guarded=True))
    close(port)
    assert port.closed
