"""The endpoints. Numbers such as "e 1" are those of known faults of other clients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, strategies as st
from twisted.internet import error, reactor, tcp
from twisted.internet.address import HostnameAddress, IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksproxy.client import (
    HTTPConnectClientEndpoint,
    ProxiedConnectError,
    SOCKS4ClientEndpoint,
    SOCKS5ClientEndpoint,
    UsernamePassword,
    errors,
)

from ..conftest import Serve
from ..support.origin import Origin, answer_at_the_end, echo
from ..support.proxy import Playing, Proxy, closed_port, until
from ..support.scripted_proxy import (
    SUCCESS4,
    SUCCESS5,
    SUCCESS_HTTP,
    MemoryProxy,
    Recorder,
    Recorders,
    Step,
    close,
    reset,
)

BANNER = b"220 mail.example ESMTP\r\n"
ME = UsernamePassword("me", "secret")
ENDPOINTS = [SOCKS5ClientEndpoint, SOCKS4ClientEndpoint, HTTPConnectClientEndpoint]

#: What a proxy says until there is a connection.
SAYS: dict[Any, list[bytes]] = {
    SOCKS5ClientEndpoint: [b"\x05\x00", SUCCESS5],
    SOCKS4ClientEndpoint: [SUCCESS4],
    HTTPConnectClientEndpoint: [SUCCESS_HTTP],
}


def outcome(connecting: Deferred[Any]) -> list[Any]:
    """A list that gets what *connecting* fires with; a second firing would raise."""
    results: list[Any] = []
    connecting.addBoth(results.append)
    return results


def failed(results: list[Any]) -> Any:
    """The one error in *results*."""
    (failure,) = results
    return failure.value


def has_ended(protocol: Recorder) -> bool:
    return isinstance(protocol.heard[-1], type)


# Handing the connection over.


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_interface(endpoint: Any) -> None:
    """Whatever takes an endpoint takes these."""
    verifyObject(IStreamClientEndpoint, endpoint(MemoryProxy(), "example.org", 80, reactor=Clock()))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("banner", [b"", BANNER])
def test_bytes_behind_the_reply(endpoint: Any, banner: bytes) -> None:
    """
    e 1: bytes glued to the reply come after connectionMade and after the Deferred, wherever they are cut.
    """
    *first, last = SAYS[endpoint]
    last += banner
    for cut in range(1, len(last)):
        proxy, factory = MemoryProxy(), Recorders()
        connecting = endpoint(proxy, "192.0.2.9", 25, reactor=Clock()).connect(factory)
        connecting.addCallback(lambda protocol: protocol.heard.append("fired") or protocol)
        for piece in (*first, last[:cut], last[cut:]):
            proxy.say(piece)
        (protocol,) = factory.built
        assert protocol.heard == ["made", "fired", *([banner] if banner else [])]
        assert factory.addresses == [IPv4Address("TCP", "192.0.2.9", 25)]
        proxy.say(b"more")
        assert b"".join(protocol.heard[2:]) == banner + b"more"


@pytest.mark.parametrize("pieces", [0, 1, 7])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest_twisted.inlineCallbacks
def test_plain_transport(scripted: Callable[..., Any], endpoint: Any, pieces: int) -> Playing:
    """e 1, 9: on TCP no wrapper stays: the transport is Twisted's own and its protocol is the caller's."""
    *first, last = SAYS[endpoint]
    requests = {SOCKS5ClientEndpoint: [3, 10], SOCKS4ClientEndpoint: [9], HTTPConnectClientEndpoint: [53]}
    steps: list[Step] = []
    for wait, say in zip(requests[endpoint], [*first, last + BANNER], strict=True):
        steps += [wait, say]
    proxy = yield scripted(*steps, pieces=pieces)
    factory = Recorders()
    protocol: Any = yield endpoint(proxy.endpoint, "192.0.2.9", 25).connect(factory)
    assert type(protocol.transport) is tcp.Client
    assert protocol.transport.protocol == protocol
    yield until(lambda: protocol.heard == ["made", BANNER])
    protocol.transport.write(b"EHLO")
    yield until(lambda: protocol.heard == ["made", BANNER + b"EHLO"])
    protocol.transport.loseConnection()
    yield until(lambda: protocol.heard[2:] == [error.ConnectionDone])


def test_name_of_the_destination() -> None:
    """The proxy looks a name up, so the factory gets the name."""
    proxy, factory = MemoryProxy(), Recorders()
    SOCKS5ClientEndpoint(proxy, "Example.ORG", 25, reactor=Clock()).connect(factory)
    for piece in SAYS[SOCKS5ClientEndpoint]:
        proxy.say(piece)
    assert factory.addresses == [HostnameAddress(b"example.org", 25)]
    assert (factory.started, factory.stopped) == (1, 0)


@pytest.mark.parametrize(
    ("build", "problem"),
    [(lambda: None, error.NoProtocol), (lambda: 1 / 0, ZeroDivisionError)],
)
def test_factory_that_gives_no_protocol(build: Callable[[], Any], problem: type[Exception]) -> None:
    """The same errback as without a proxy, and the connection closes."""
    proxy = MemoryProxy()
    factory = Factory.forProtocol(build)
    factory.noisy = False
    results = outcome(SOCKS4ClientEndpoint(proxy, "192.0.2.9", 25, reactor=Clock()).connect(factory))
    proxy.say(SUCCESS4)
    assert type(failed(results)) in (problem, AttributeError)
    assert proxy.transports[0].aborted


def test_protocol_that_raises() -> None:
    """e 6: an error in connectionMade is one errback, not a Deferred that never fires."""

    class Faulty(Recorder):
        def connectionMade(self) -> None:
            raise ZeroDivisionError

    proxy, factory = MemoryProxy(), Recorders()
    factory.protocol = Faulty
    results = outcome(SOCKS4ClientEndpoint(proxy, "192.0.2.9", 25, reactor=Clock()).connect(factory))
    proxy.say(SUCCESS4)
    assert type(failed(results)) is ZeroDivisionError
    assert proxy.transports[0].aborted


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_no_bytes_for_a_connection_that_is_closed(endpoint: Any) -> None:
    """A protocol that closes at once gets nothing more, as without a proxy."""

    class Hasty(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.loseConnection()

    proxy, factory = MemoryProxy(), Recorders()
    factory.protocol = Hasty
    endpoint(proxy, "192.0.2.9", 25, reactor=Clock()).connect(factory)
    *first, last = SAYS[endpoint]
    for piece in (*first, last + BANNER):
        proxy.say(piece)
    assert factory.built[0].heard == ["made"]


# What is sent.


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("192.0.2.9", b"\x01\xc0\x00\x02\x09"),
        ("::1", b"\x04" + bytes(15) + b"\x01"),
        ("[::1]", b"\x04" + bytes(15) + b"\x01"),
        ("::ffff:1.2.3.4", b"\x04" + bytes(10) + b"\xff\xff\x01\x02\x03\x04"),
        (b"example.org", b"\x03\x0bexample.org"),
        ("b\u00fccher.example", b"\x03\x15xn--bcher-kva.example"),
        ("_xmpp._tcp.example", b"\x03\x12_xmpp._tcp.example"),
        ("a" * 63 + ".onion", b"\x03\x45" + b"a" * 63 + b".onion"),
    ],
)
def test_destination(host: str | bytes, sent: bytes) -> None:
    """e 3, 6: literal addresses as addresses, whole; names in the form of IDNA."""
    proxy = MemoryProxy()
    SOCKS5ClientEndpoint(proxy, host, 80, reactor=Clock()).connect(Recorders())
    proxy.say(b"\x05\x00")
    assert proxy.sent == b"\x05\x01\x00" + b"\x05\x01\x00" + sent + b"\x00\x50"


@pytest.mark.parametrize(
    ("endpoint", "host", "port"),
    [
        (SOCKS5ClientEndpoint, "fe80::1%lo", 80),
        (SOCKS5ClientEndpoint, "a" * 64 + ".example", 80),
        (SOCKS5ClientEndpoint, ".".join(["a" * 60] * 5), 80),
        (SOCKS5ClientEndpoint, "", 80),
        (SOCKS5ClientEndpoint, "exa mple.org", 80),
        (SOCKS5ClientEndpoint, "xn--\u00fc.example", 80),
        (SOCKS5ClientEndpoint, b"\xff\xfe", 80),
        (SOCKS5ClientEndpoint, "example.org", 65536),
        (SOCKS5ClientEndpoint, "example.org", -1),
        (SOCKS4ClientEndpoint, "::1", 80),
        (SOCKS4ClientEndpoint, "0.0.0.1", 80),
        (HTTPConnectClientEndpoint, "exa\r\nmple.org", 80),
    ],
)
def test_what_no_request_can_carry(endpoint: Any, host: str | bytes, port: int) -> None:
    """
    e 3, 6: one errback, before anything connects: neither an exception in the middle nor half a request.
    """
    proxy = MemoryProxy()
    problem = failed(outcome(endpoint(proxy, host, port, reactor=Clock()).connect(Recorders())))
    assert isinstance(problem, errors.InvalidDestination)
    assert isinstance(problem, ValueError)
    assert proxy.protocols == []


def test_http_request() -> None:
    """The target and Host with brackets where the address is IPv6; the login as Basic."""
    proxy = MemoryProxy()
    HTTPConnectClientEndpoint(proxy, "::1", 443, login=ME, reactor=Clock()).connect(Recorders())
    assert proxy.sent == (
        b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"
    )


# Errors.

S5, S4, HTTP = ENDPOINTS
OPEN = b"\x05\x00"


@pytest.mark.parametrize(
    ("endpoint", "says", "kind", "reply"),
    [
        (S5, [b"\x05\xff"], errors.NoAcceptableMethod, 255),
        (S5, [b"\x05\x02"], errors.ProxyProtocolError, None),
        (S5, [b"\x05\x7f"], errors.ProxyProtocolError, None),
        (S5, [b"\x04"], errors.ProxyProtocolError, None),
        (S5, [b"HTTP/1.0 400 Bad Request\r\n"], errors.ProxyProtocolError, None),
        (S5, [b"\x15\x03\x01\x00\x02\x02\x46"], errors.ProxyProtocolError, None),
        (S5, [OPEN, b"\x05\x01"], errors.GeneralFailure, 1),
        (S5, [OPEN, b"\x05\x02"], errors.NotAllowed, 2),
        (S5, [OPEN, b"\x05\x03"], errors.DestinationUnreachable, 3),
        (S5, [OPEN, b"\x05\x04"], errors.DestinationNameNotFound, 4),
        (S5, [OPEN, b"\x05\x05\x00\x03\x00"], errors.DestinationRefused, 5),
        (S5, [OPEN, b"\x05\x06"], errors.DestinationTimedOut, 6),
        (S5, [OPEN, b"\x05\x07"], errors.CommandNotSupported, 7),
        (S5, [OPEN, b"\x05\x08"], errors.AddressTypeNotSupported, 8),
        (S5, [OPEN, b"\x05\x09"], errors.GeneralFailure, 9),
        (S5, [OPEN, b"\x05\xf0"], errors.DestinationNameNotFound, 0xF0),
        (S5, [OPEN, b"\x05\xf4"], errors.NotAllowed, 0xF4),
        (S5, [OPEN, b"\x05\xf7"], errors.DestinationTimedOut, 0xF7),
        (S5, [OPEN, b"\x05\xff"], errors.GeneralFailure, 0xFF),
        (S4, [b"\x00\x5b"], errors.GeneralFailure, 91),
        (S4, [b"\x00\x5c" + bytes(6)], errors.ProxyRefusedLogin, 92),
        (S4, [b"\x05\x00"], errors.ProxyProtocolError, None),
        (HTTP, [b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n"], errors.NoAcceptableMethod, 407),
        (HTTP, [b"HTTP/1.1 403 No\r\n\r\n"], errors.NotAllowed, 403),
        (HTTP, [b"HTTP/1.1 404 No\r\n\r\n"], errors.DestinationNameNotFound, 404),
        (HTTP, [b"HTTP/1.1 405 No\r\n\r\n"], errors.ProxyProtocolError, 405),
        (HTTP, [b"HTTP/1.1 500 No\r\n\r\n"], errors.GeneralFailure, 500),
        (HTTP, [b"HTTP/1.1 504 No\r\n\r\n"], errors.DestinationTimedOut, 504),
        (HTTP, [b"HTTP/1.1 301 No\r\nLocation: /\r\n\r\n"], errors.GeneralFailure, 301),
        (
            HTTP,
            [b"HTTP/1.1 503 No\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n\r\n"],
            errors.DestinationRefused,
            503,
        ),
        (
            HTTP,
            [b"HTTP/1.1 502 No\r\nProxy-Status: x; error=connection_refused; rcvd=1\r\n\r\n"],
            errors.DestinationRefused,
            502,
        ),
        (HTTP, [b"\x05\x00\r\n\r\n"], errors.ProxyProtocolError, None),
        (HTTP, [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 17000], errors.ProxyProtocolError, None),
    ],
)
def test_errors(endpoint: Any, says: list[bytes], kind: type[ProxiedConnectError], reply: int | None) -> None:
    """e 5, 6, 10, 11: every answer gives exactly one errback, of its class, and the connection closes."""
    for pieces in (says, [bytes((byte,)) for say in says for byte in say]):
        proxy, factory = MemoryProxy(), Recorders()
        results = outcome(endpoint(proxy, "example.org", 80, reactor=Clock()).connect(factory))
        for piece in pieces:
            proxy.say(piece)
        problem = failed(results)
        assert type(problem) is kind
        assert (problem.reply, problem.hop) == (reply, 1)
        assert proxy.transports[0].aborted
        proxy.end(error.ConnectionDone())
        assert factory.built == []


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([close], errors.ProxyProtocolError),
        ([reset], errors.ProxyProtocolError),
        ([3, close], errors.ProxyProtocolError),
        ([3, b"\x05", close], errors.ProxyProtocolError),
        ([3, b"\x05\x00", 10, close], errors.ProxyClosed),
        ([3, b"\x05\x00", 10, reset], errors.ProxyClosed),
        ([3, b"\x05\x00", 10, b"\x05\x05", close], errors.DestinationRefused),
        ([3, b"\x05\x00", 10, b"\x05\x05\x00\x03\x00", close], errors.DestinationRefused),
    ],
)
@pytest_twisted.inlineCallbacks
def test_the_end_of_the_connection(
    scripted: Callable[..., Any], steps: list[Step], kind: type[Exception]
) -> Playing:
    """e 5, 6: FIN and RST in each phase, and behind replies that are cut short."""
    proxy = yield scripted(*steps)
    with pytest.raises(kind):
        yield SOCKS5ClientEndpoint(proxy.endpoint, "192.0.2.9", 25).connect(Recorders())


@pytest_twisted.inlineCallbacks
def test_no_proxy() -> Playing:
    """That nothing listens at the proxy's place is not the destination's refusal."""
    nowhere = TCP4ClientEndpoint(reactor, "127.0.0.1", closed_port())
    with pytest.raises(errors.ProxyUnreachable) as caught:
        yield SOCKS5ClientEndpoint(nowhere, "192.0.2.9", 25).connect(Recorders())
    assert not isinstance(caught.value, error.ConnectionRefusedError)
    assert isinstance(caught.value.__cause__, error.ConnectionRefusedError)


@given(
    st.sampled_from(ENDPOINTS),
    st.lists(
        st.one_of(st.binary(max_size=60), st.sampled_from([OPEN, SUCCESS5, SUCCESS4, SUCCESS_HTTP])),
        max_size=6,
    ),
)
def test_any_stream(endpoint: Any, says: list[bytes]) -> None:
    """e 6: whatever a proxy says, there is at most one result, and an end gives exactly one."""
    proxy, clock, factory = MemoryProxy(), Clock(), Recorders()
    results = outcome(endpoint(proxy, "192.0.2.9", 80, reactor=clock).connect(factory))
    for say in says:
        if say and not proxy.transports[0].aborted:
            proxy.say(say)
    proxy.end(error.ConnectionDone())
    assert len(results) == 1
    assert (results == factory.built) is not isinstance(results[0], Failure)
    if isinstance(results[0], Failure):
        assert results[0].check(ProxiedConnectError)
    assert clock.getDelayedCalls() == []


# As without a proxy.


@implementer(IHalfCloseableProtocol)
class Halves(Recorder):
    """A protocol that knows that one direction can end alone."""

    def readConnectionLost(self) -> None:
        self.heard.append("read")

    def writeConnectionLost(self) -> None:
        self.heard.append("write")


@pytest.fixture(params=["direct", "4", "5"])
def way(request: pytest.FixtureRequest, serve_as: Serve) -> Callable[[int], Any]:
    """``yield way(port)``: an endpoint for that port of 127.0.0.1, with and without a proxy."""

    def endpoint(port: int) -> Any:
        if request.param == "direct":
            return TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        made = SOCKS5ClientEndpoint if request.param == "5" else SOCKS4ClientEndpoint

        def through(proxy: Proxy) -> Any:
            return made(TCP4ClientEndpoint(reactor, *proxy.address), "127.0.0.1", port)

        return serve_as().addCallback(through)

    return endpoint


@pytest_twisted.inlineCallbacks
def test_half_close(way: Callable[[int], Any]) -> Playing:
    """e 9: one direction ends and the other goes on."""
    with Origin(answer_at_the_end) as origin:
        endpoint = yield way(origin.port)
        protocol = yield endpoint.connect(Factory.forProtocol(Halves))
        protocol.transport.write(b"question")
        protocol.transport.loseWriteConnection()
        yield until(lambda: "read" in protocol.heard)
        assert "write" in protocol.heard
        assert any(isinstance(heard, bytes) for heard in protocol.heard)
        protocol.transport.loseConnection()


@pytest_twisted.inlineCallbacks
def test_peer_and_reasons(way: Callable[[int], Any]) -> Playing:
    """e 9: getPeer is the destination, and an end is ConnectionDone, whoever closes."""
    with Origin(echo) as origin:
        endpoint = yield way(origin.port)
        protocol = yield endpoint.connect(Factory.forProtocol(Recorder))
        assert protocol.transport.getPeer() == IPv4Address("TCP", "127.0.0.1", origin.port)
        assert protocol.transport.getHost().host == "127.0.0.1"
        protocol.transport.write(b"bye")
        yield until(lambda: protocol.heard == ["made", b"bye"])
        protocol.transport.loseConnection()
        yield until(lambda: protocol.heard[-1] is error.ConnectionDone)
        protocol = yield endpoint.connect(Factory.forProtocol(Recorder))
        protocol.transport.abortConnection()
        yield until(lambda: protocol.heard[-1] is error.ConnectionAborted)


@pytest_twisted.inlineCallbacks
def test_closed_and_reset_by_the_peer(way: Callable[[int], Any]) -> Playing:
    """e 9: the peer's FIN is ConnectionDone and its RST is ConnectionLost."""
    ends: list[Any] = []

    class Server(Protocol):
        def connectionMade(self) -> None:
            ends.append(self.transport)

    factory = Factory.forProtocol(Server)
    factory.noisy = False
    port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    endpoint = yield way(port.getHost().port)
    for end, reason in (("loseConnection", error.ConnectionDone), ("abortConnection", error.ConnectionLost)):
        protocol = yield endpoint.connect(Factory.forProtocol(Recorder))
        yield until(lambda: ends)
        getattr(ends.pop(), end)()
        yield until(functools.partial(has_ended, protocol))
        assert protocol.heard == ["made", reason]
    yield port.stopListening()


@pytest_twisted.inlineCallbacks
def test_producers(way: Callable[[int], Any]) -> Playing:
    """e 9: a producer is paused while the peer does not read, and resumed."""
    told: list[str] = []

    class Producer:
        def pauseProducing(self) -> None:
            told.append("pause")

        def resumeProducing(self) -> None:
            told.append("resume")

        def stopProducing(self) -> None:
            told.append("stop")

    with Origin(answer_at_the_end) as origin:
        endpoint = yield way(origin.port)
        protocol = yield endpoint.connect(Factory.forProtocol(Halves))
        protocol.transport.registerProducer(Producer(), True)
        protocol.transport.write(bytes(1_000_000))
        yield until(lambda: told[-1:] == ["resume"])
        assert told[0] == "pause"
        protocol.transport.unregisterProducer()
        protocol.transport.loseConnection()
        yield until(lambda: protocol.heard[-1] is error.ConnectionDone)
