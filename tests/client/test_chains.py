"""Chains and TLS. Numbers such as "e 15" are those of known faults of other clients."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from service_identity import VerificationError
from twisted.internet import reactor, ssl
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import SSL4ClientEndpoint, wrapClientTLS
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOProtocol

from socksproxy.client import (
    HTTPConnectClientEndpoint,
    Proxy,
    SOCKS4ClientEndpoint,
    SOCKS5ClientEndpoint,
    errors,
)

from ..conftest import Serve
from ..support.authority import SERVER, Authority
from ..support.origin import Origin, echo
from ..support.proxy import Playing, closed_port, until
from ..support.scripted_proxy import (
    SUCCESS4,
    SUCCESS5,
    SUCCESS_HTTP,
    MemoryProxy,
    Recorders,
    Step,
    close,
    forward_to,
    open5,
)

HTTP = b"CONNECT 192.0.2.2:1080 HTTP/1.1\r\nHost: 192.0.2.2:1080\r\n\r\n"
BANNER = b"hello\r\n"


def chain(first: Any, **more: Any) -> Any:
    """HTTP, then SOCKS5, then SOCKS4a."""
    second = HTTPConnectClientEndpoint(first, "192.0.2.2", 1080, **more)
    third = SOCKS5ClientEndpoint(second, "192.0.2.3", 1080, **more)
    return SOCKS4ClientEndpoint(third, "far.example", 80, **more)


@pytest.mark.parametrize("pieces", [0, 1])
@pytest_twisted.inlineCallbacks
def test_three_proxies(scripted: Callable[..., Any], pieces: int) -> Playing:
    """e 1, 17: of three protocols, each inside the other; what is glued to the last reply arrives."""
    server: Any = yield scripted(
        len(HTTP), SUCCESS_HTTP, *open5(SUCCESS5), 21, SUCCESS4 + BANNER, pieces=pieces
    )
    factory = Recorders()
    protocol: Any = yield chain(server.endpoint).connect(factory)
    yield until(lambda: protocol.heard == ["made", BANNER])
    asked = server.ends[0].received[len(HTTP) :]
    assert asked == (
        b"\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x03\x04\x38"
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00far.example\x00"
    )
    assert protocol.transport.protocol is protocol
    assert (factory.started, len(factory.built)) == (1, 1)
    protocol.transport.loseConnection()
    yield until(lambda: factory.stopped)


@pytest.mark.parametrize(
    ("says", "kind", "hop", "reply"),
    [
        ([b"HTTP/1.1 407 Login\r\n\r\n"], errors.NoAcceptableMethod, 1, 407),
        ([b"HTTP/1.1 504 Late\r\n\r\n"], errors.ProxyUnreachable, 1, 504),
        ([SUCCESS_HTTP, b"\x05\xff"], errors.NoAcceptableMethod, 2, 255),
        ([SUCCESS_HTTP, b"\x05\x00", b"\x05\x05"], errors.ProxyUnreachable, 2, 5),
        ([SUCCESS_HTTP, b"\x05\x00", SUCCESS5, b"\x00\x5b"], errors.GeneralFailure, 3, 91),
        ([SUCCESS_HTTP, b"\x05\x00", SUCCESS5, b"\x00\x5d"], errors.ProxyRefusedLogin, 3, 93),
    ],
)
def test_the_hop_that_fails(says: list[bytes], kind: type[Any], hop: int, reply: int) -> None:
    """e 17: the error names the hop, and a refusal to reach the next proxy is not the destination's."""
    proxy = MemoryProxy()
    results: list[Any] = []
    chain(proxy, reactor=Clock()).connect(Recorders()).addBoth(results.append)
    for say in says:
        proxy.say(say)
    (failure,) = results
    assert type(failure.value) is kind
    assert (failure.value.hop, failure.value.reply) == (hop, reply)
    assert (f"proxy {hop} of the chain" in str(failure.value)) is (hop > 1)
    assert not isinstance(failure.value, errors.DestinationError)
    assert proxy.transports[0].aborted


@pytest.mark.parametrize("silent_after", range(4))
def test_time_and_cancelling_in_a_chain(silent_after: int) -> None:
    """e 7, 8: in each hop the limit holds, and cancelling closes the connection."""
    says = [SUCCESS_HTTP, b"\x05\x00", SUCCESS5]
    for cancel in (True, False):
        proxy, clock = MemoryProxy(), Clock()
        results: list[Any] = []
        connecting = chain(proxy, reactor=clock, timeout=10).connect(Recorders())
        connecting.addBoth(results.append)
        for say in says[:silent_after]:
            proxy.say(say)
        if cancel:
            connecting.cancel()
        else:
            clock.advance(10)
        assert len(results) == 1
        assert proxy.transports[0].aborted
        assert clock.getDelayedCalls() == []


@pytest_twisted.inlineCallbacks
def test_chain_of_urls(serve_as: Serve) -> Playing:
    """Two real proxies, and the second one that is not there."""
    with Origin(echo) as origin:
        one: Any = yield serve_as()
        two: Any = yield serve_as()
        first = Proxy.from_url(f"socks5://127.0.0.1:{one.address[1]}")
        second = Proxy.from_url(f"socks4a://127.0.0.1:{two.address[1]}", via=first)
        protocol: Any = yield second.connect_endpoint("127.0.0.1", origin.port).connect(Recorders())
        protocol.transport.write(b"ping")
        yield until(lambda: protocol.heard[1:] == [b"ping"])
        protocol.transport.loseConnection()
        nowhere = Proxy.from_url(f"socks5://127.0.0.1:{closed_port()}", via=first)
        with pytest.raises(errors.ProxyUnreachable) as caught:
            yield nowhere.connect_endpoint("127.0.0.1", origin.port).connect(Recorders())
        assert (caught.value.hop, caught.value.reply) == (1, 5)


# TLS.


class Certificates:
    """Server contexts by name, and the authority that clients trust."""

    def __init__(self, directory: Path) -> None:
        self._authority = Authority(directory)
        self.trust = ssl.Certificate.loadPEM(self._authority.ca_file.read_bytes())

    def server(self, name: str) -> Any:
        file = self._authority.issue(name, alternatives=[x509.DNSName(name)], usage=SERVER)
        return ssl.PrivateCertificate.loadPEM(file.read_bytes()).options()

    def client(self, name: str) -> Any:
        return ssl.optionsForClientTLS(name, trustRoot=self.trust)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


Tunnel = Callable[..., Any]


@pytest.fixture
def tunnel(scripted: Callable[..., Any], certificates: Certificates) -> Tunnel:
    """``yield tunnel(name)``: a TLS server for that name, and a proxy over TLS that leads to it."""

    @inlineCallbacks
    def made(name: str, ask: int, *says: Step) -> Generator[Any, Any, Any]:
        destination: Any = yield scripted(context=certificates.server(name))
        steps: list[Step] = [ask, *says, forward_to(destination.port)]
        proxy: Any = yield scripted(*steps, context=certificates.server("proxy.test"))
        return wrapClientTLS(certificates.client("proxy.test"), proxy.endpoint)

    return made


@pytest.mark.parametrize("endpoint", [SOCKS4ClientEndpoint, HTTPConnectClientEndpoint])
@pytest_twisted.inlineCallbacks
def test_tls_in_tls(tunnel: Tunnel, certificates: Certificates, endpoint: Any) -> Playing:
    """e 15: TLS to the proxy and, inside, TLS to the destination, whose certificate has its own name."""
    ask, says = (19, SUCCESS4) if endpoint is SOCKS4ClientEndpoint else (55, SUCCESS_HTTP)
    proxy = yield tunnel("dest.test", ask, says)
    through = endpoint(proxy, "dest.test", 443)
    protocol: Any = yield wrapClientTLS(certificates.client("dest.test"), through).connect(Recorders())
    assert isinstance(protocol.transport, TLSMemoryBIOProtocol)
    protocol.transport.write(b"ping")
    yield until(lambda: protocol.heard[1:] == [b"ping"])
    protocol.transport.loseConnection()
    yield until(lambda: len(protocol.heard) == 3)


@pytest_twisted.inlineCallbacks
def test_certificate_of_the_proxy_is_not_the_destinations(
    tunnel: Tunnel, certificates: Certificates
) -> Playing:
    """e 15: a destination that shows the proxy's certificate is refused."""
    proxy = yield tunnel("proxy.test", 19, SUCCESS4)
    through = SOCKS4ClientEndpoint(proxy, "dest.test", 443)
    protocol: Any = yield wrapClientTLS(certificates.client("dest.test"), through).connect(Recorders())
    yield until(lambda: protocol.heard == ["made", VerificationError])


@pytest_twisted.inlineCallbacks
def test_wrong_certificate_of_the_proxy(tunnel: Tunnel, certificates: Certificates) -> Playing:
    """It is the proxy's failure, told with the cause, and nothing has been asked."""
    proxy = yield tunnel("dest.test", 19, SUCCESS4)
    endpoint = proxy._wrappedEndpoint
    wrong = wrapClientTLS(certificates.client("other.test"), endpoint)
    with pytest.raises(errors.ProxyUnreachable) as caught:
        yield SOCKS4ClientEndpoint(wrong, "dest.test", 443).connect(Recorders())
    assert caught.value.__cause__ is not None


@pytest_twisted.inlineCallbacks
def test_cancel_in_tls(scripted: Callable[..., Any], certificates: Certificates) -> Playing:
    """e 7: while a proxy over TLS says nothing, cancelling closes the connection."""
    server: Any = yield scripted(1_000_000)
    proxy = wrapClientTLS(certificates.client("proxy.test"), server.endpoint)
    connecting = SOCKS5ClientEndpoint(proxy, "dest.test", 443).connect(Recorders())
    connecting.addErrback(lambda failure: None)
    yield until(lambda: server.ends and server.ends[0].received)
    connecting.cancel()
    yield until(lambda: server.ends[0].ended)


@pytest_twisted.inlineCallbacks
def test_https_proxy_from_url(tunnel: Tunnel, certificates: Certificates) -> Playing:
    """``https://`` is TLS to the proxy; a context replaces the one for the URL's host."""
    endpoint = (yield tunnel("dest.test", 55, SUCCESS_HTTP))._wrappedEndpoint
    url = f"https://127.0.0.1:{endpoint._port}"
    proxy = Proxy.from_url(url, context=certificates.client("proxy.test"))
    through = proxy.connect_endpoint("dest.test", 443)
    protocol: Any = yield wrapClientTLS(certificates.client("dest.test"), through).connect(Recorders())
    protocol.transport.write(b"ping")
    yield until(lambda: protocol.heard[1:] == [b"ping"])
    protocol.transport.loseConnection()
    with pytest.raises(errors.ProxyUnreachable):  # no authority that this machine knows
        yield Proxy.from_url(url).connect_endpoint("dest.test", 443).connect(Recorders())


@pytest_twisted.inlineCallbacks
def test_refusal_over_tls(scripted: Callable[..., Any], certificates: Certificates) -> Playing:
    """e 5: a short reply and the end of TLS in one flight."""
    server: Any = yield scripted(*open5(b"\x05\x05", close), context=certificates.server("proxy.test"))
    proxy = wrapClientTLS(certificates.client("proxy.test"), server.endpoint)
    with pytest.raises(errors.DestinationRefused):
        yield SOCKS5ClientEndpoint(proxy, "192.0.2.1", 443).connect(Recorders())


@pytest_twisted.inlineCallbacks
def test_old_tls_endpoint(scripted: Callable[..., Any], certificates: Certificates) -> Playing:
    """An endpoint that starts TLS on its TCP transport works, too, and the bytes stay encrypted."""
    server: Any = yield scripted(*open5(SUCCESS5 + BANNER), context=certificates.server("proxy.test"))
    proxy = SSL4ClientEndpoint(reactor, "127.0.0.1", server.port, certificates.client("proxy.test"))
    protocol: Any = yield SOCKS5ClientEndpoint(proxy, "192.0.2.1", 443).connect(Recorders())
    protocol.transport.write(b"ping")
    yield until(lambda: protocol.heard[1:] == [BANNER + b"ping"])
    protocol.transport.loseConnection()
