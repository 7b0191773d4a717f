"""One attempt. Numbers such as "e 7" are those of known faults of other clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error, ssl
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.task import Clock

from socksproxy.client import SOCKS5ClientEndpoint, errors
from socksproxy.client.connecting import address_of, hops_of, host_behind
from socksproxy.wire.words import Address, AddressType

from ..support.proxy import Playing, until
from ..support.scripted_proxy import (
    SUCCESS4,
    SUCCESS5,
    SUCCESS_HTTP,
    MemoryProxy,
    MemoryTransport,
    Recorder,
    Recorders,
    Step,
    open5,
)
from .test_endpoints import BANNER, HTTP, ME, OPEN, S4, S5, failed, outcome


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (Address.of("192.0.2.1", 80), IPv4Address("TCP", "192.0.2.1", 80)),
        (Address.of("2001:db8::1", 80), IPv6Address("TCP", "2001:db8::1", 80)),
        (Address.of("example.org", 80), HostnameAddress(b"example.org", 80)),
    ],
)
def test_address_of(address: Address, found: object) -> None:
    """What a factory gets."""
    assert address_of(address) == found


@pytest.mark.parametrize(
    ("told", "peer", "host"),
    [
        ("192.0.2.9", "192.0.2.1", "192.0.2.9"),
        ("0.0.0.0", "192.0.2.1", "192.0.2.1"),
        ("::", "192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "127.0.0.5", "127.0.0.1"),
        ("name.example", "192.0.2.1", "192.0.2.1"),
    ],
)
def test_host_behind(told: str, peer: str, host: str) -> None:
    """e 18: what a proxy tells of itself may say nothing, or be true for itself alone."""
    control = MemoryTransport(peerAddress=IPv4Address("TCP", peer, 1080))
    assert host_behind(Address.of(told, 1), control) == host


def test_host_behind_a_unix_socket() -> None:
    """Such a proxy has no address of its own."""
    control = MemoryTransport(peerAddress=UNIXAddress(b"/run/socks"))
    assert host_behind(Address("0.0.0.0", 1, AddressType.IPV4), control) == "0.0.0.0"


def test_hops_of() -> None:
    """A transport that knows nothing of proxies leads through none."""
    assert hops_of(MemoryTransport()) == 0


# Time and cancelling.

#: What a proxy has said before it is silent: in the greeting, the login and the reply.
SILENCES = [
    (S5, None, [], errors.ProxyTimedOut),
    (S5, None, [b"\x05"], errors.ProxyTimedOut),
    (S5, ME, [b"\x05\x02"], errors.ProxyTimedOut),
    (S5, ME, [b"\x05\x02", b"\x01\x00"], errors.ReplyTimedOut),
    (S5, None, [OPEN, b"\x05"], errors.ReplyTimedOut),
    (S5, None, [OPEN, b"\x05\x00\x00\x03\x09loca"], errors.ReplyTimedOut),
    (S4, None, [], errors.ReplyTimedOut),
    (HTTP, None, [b"HTTP/1.1 200"], errors.ReplyTimedOut),
    (HTTP, None, [b"HTTP/1.1 100 Continue\r\n\r\n"], errors.ReplyTimedOut),
]


@pytest.mark.parametrize(("endpoint", "login", "says", "kind"), SILENCES)
def test_silence(endpoint: Any, login: Any, says: list[bytes], kind: type[Exception]) -> None:
    """e 8: one limit for all phases, which bytes do not push back."""
    proxy, clock, factory = MemoryProxy(), Clock(), Recorders()
    more = {} if endpoint is S4 else {"login": login}
    results = outcome(endpoint(proxy, "192.0.2.9", 80, timeout=10, reactor=clock, **more).connect(factory))
    for say in says:
        clock.advance(2)
        proxy.say(say)
    clock.advance(9.9 - 2 * len(says))
    assert results == []
    clock.advance(0.1)
    problem = failed(results)
    assert type(problem) is kind
    assert isinstance(problem, error.TimeoutError)
    assert "10 seconds" in str(problem)
    assert proxy.transports[0].aborted
    assert factory.built == []
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("endpoint", [S4, S5, HTTP])
def test_no_tls(endpoint: Any) -> None:
    """e 8: a proxy has no request before TLS to it stands: silence and the end are the proxy's failures."""
    for ends in (False, True):
        proxy, clock, factory = MemoryProxy(), Clock(), Recorders()
        secured = wrapClientTLS(ssl.optionsForClientTLS("proxy.test"), proxy)
        results = outcome(endpoint(secured, "192.0.2.9", 80, timeout=10, reactor=clock).connect(factory))
        if ends:
            proxy.end(error.ConnectionDone())
        else:
            clock.advance(10)
        problem = failed(results)
        assert type(problem) is (errors.ProxyUnreachable if ends else errors.ProxyTimedOut)
        assert factory.built == []
        assert clock.getDelayedCalls() == []


def test_silence_of_the_network() -> None:
    """e 8: the same limit while there is no connection."""
    proxy, clock = MemoryProxy(connects=False), Clock()
    results = outcome(S5(proxy, "192.0.2.9", 80, timeout=10, reactor=clock).connect(Recorders()))
    clock.advance(10)
    assert type(failed(results)) is errors.ProxyTimedOut
    assert proxy.cancelled == 1


@pytest.mark.parametrize(("endpoint", "login", "says", "kind"), SILENCES)
def test_cancel(endpoint: Any, login: Any, says: list[bytes], kind: type[Exception]) -> None:
    """e 7: in every phase cancelling closes the connection; the factory is never asked."""
    proxy, clock, factory = MemoryProxy(), Clock(), Recorders()
    more = {} if endpoint is S4 else {"login": login}
    connecting = endpoint(proxy, "192.0.2.9", 80, reactor=clock, **more).connect(factory)
    results = outcome(connecting)
    for say in says:
        proxy.say(say)
    connecting.cancel()
    assert type(failed(results)) is error.ConnectingCancelledError
    assert proxy.transports[0].aborted
    proxy.say(SUCCESS5 + BANNER)
    proxy.end(error.ConnectionAborted())
    assert len(results) == 1
    assert factory.built == []
    assert clock.getDelayedCalls() == []


def test_cancel_before_there_is_a_connection() -> None:
    """e 7: the attempt to connect is given up."""
    proxy = MemoryProxy(connects=False)
    connecting = S5(proxy, "192.0.2.9", 80, reactor=Clock()).connect(Recorders())
    results = outcome(connecting)
    connecting.cancel()
    assert type(failed(results)) is error.ConnectingCancelledError
    assert proxy.cancelled == 1


@pytest.mark.parametrize("steps", [[3], [3, b"\x05"], open5(), open5(b"\x05\x00\x00\x01")])
@pytest_twisted.inlineCallbacks
def test_the_proxy_sees_that_it_is_cancelled(scripted: Callable[..., Any], steps: list[Step]) -> Playing:
    """e 7: on a real connection the proxy sees the end, and no transport is left."""
    proxy = yield scripted(*steps)
    connecting = SOCKS5ClientEndpoint(proxy.endpoint, "192.0.2.9", 25).connect(Recorders())
    results = outcome(connecting)
    sent = sum(step for step in steps if isinstance(step, int))
    yield until(lambda: proxy.ends and len(proxy.ends[0].received) == sent)
    connecting.cancel()
    yield until(lambda: proxy.ends[0].ended)
    assert type(failed(results)) is error.ConnectingCancelledError


def test_silence_in_tls() -> None:
    """e 8: the same limit while a proxy over TLS does not answer the hello."""
    proxy, clock = MemoryProxy(), Clock()
    over_tls = wrapClientTLS(ssl.optionsForClientTLS("proxy.test"), proxy, clock)
    results = outcome(S5(over_tls, "192.0.2.9", 80, timeout=10, reactor=clock).connect(Recorders()))
    assert proxy.sent
    clock.advance(10)
    assert type(failed(results)) is errors.ProxyTimedOut
    assert proxy.transports[0].aborted


@pytest.mark.parametrize("endpoint", [S5, S4, HTTP])
def test_cancel_in_connection_made(endpoint: Any) -> None:
    """The protocol itself may cancel: the connection closes, and nothing else is told."""
    proxy, factory = MemoryProxy(), Recorders()

    class Cancels(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            connecting.cancel()

    factory.protocol = Cancels
    connecting = endpoint(proxy, "192.0.2.9", 80, reactor=Clock()).connect(factory)
    results = outcome(connecting)
    if endpoint is S5:
        proxy.say(OPEN)
    proxy.say({S5: SUCCESS5, S4: SUCCESS4, HTTP: SUCCESS_HTTP}[endpoint] + BANNER)
    assert type(failed(results)) is error.ConnectingCancelledError
    assert proxy.transports[0].aborted
    assert factory.built[0].heard == ["made"]
