"""Where forwards listen and lead, and what passes."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, capturedLogs, formatEvent

from socksproxy import SOCKSFactory
from socksproxy.client.proxy import Proxy
from socksproxy.socksify.forward import ForwardService, Place, parse_place

from ..support.machine import needs_ipv6
from ..support.origin import Origin, answer_at_the_end, echo
from ..support.proxy import until
from ..support.udp import Echo


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8080", Place(False, "127.0.0.1", 8080)),
        ("tcp:8080", Place(False, "127.0.0.1", 8080)),
        ("udp:53", Place(True, "127.0.0.1", 53)),
        ("0.0.0.0:0", Place(False, "0.0.0.0", 0)),
        ("udp:[::1]:53", Place(True, "::1", 53)),
        ("example.org:443", Place(False, "example.org", 443)),
    ],
)
def test_a_place(text: str, place: Place) -> None:
    assert parse_place(text, "127.0.0.1") == place


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "1:2:3", "::1:53", "host:0", "host:65536", "sctp:host:1", "[::1]"]
)
def test_a_place_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT is due"):
        parse_place(text)


def test_a_destination_needs_a_host() -> None:
    with pytest.raises(ValueError, match=r"80: HOST:PORT is due"):
        parse_place("80")


def test_each_port_has_a_destination() -> None:
    with pytest.raises(ValueError, match="2 ports to listen on have 1 destinations"):
        ForwardService(Proxy.from_url("socks5://127.0.0.1"), ["1", "2"], ["a:1"])


@pytest.mark.parametrize(
    ("listen", "destination", "told"),
    [
        ("localhost:1", "a:1", "localhost:1: an address such as 127.0.0.1 is due, not localhost"),
        ("udp:localhost:1", "a:1", "udp:localhost:1: an address such as 127.0.0.1 is due, not localhost"),
        ("1", "udp:a:1", "udp:a:1: the port to listen on needs udp:, too"),
        ("1", "a..b:1", "'a..b' is neither an address nor a name that the DNS allows"),
    ],
)
def test_what_cannot_be_forwarded(listen: str, destination: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        ForwardService(Proxy.from_url("socks5://127.0.0.1"), [listen], [destination])


class Forwarding:
    """A proxy and a forward in this process."""

    def __init__(self, listen: list[str], destinations: list[str], scheme: str) -> None:
        any_reactor: Any = reactor
        self._port = any_reactor.listenTCP(0, SOCKSFactory(any_reactor), interface="127.0.0.1")
        proxy = Proxy.from_url(f"{scheme}://127.0.0.1:{self._port.getHost().port}", timeout=5)
        self._service = ForwardService(proxy, listen, destinations)
        self._service.startService()
        self.ports = self._service.ports

    def run(self, scenario: Callable[..., Any], *arguments: Any) -> Any:
        return deferToThread(scenario, *arguments)

    @inlineCallbacks
    def stop(self) -> Any:
        yield self._service.stopService()
        yield self._port.stopListening()


def exchange(address: tuple[str, int], data: bytes) -> bytes:
    """Send *data* and the end of it, and receive to the end."""
    with socket.create_connection(address, 20) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        whole = b""
        while part := sock.recv(65536):
            whole += part
    return whole


@pytest_twisted.inlineCallbacks
@pytest.mark.parametrize("scheme", ["socks5", "socks4a"])
def test_connections(scheme: str) -> Any:
    """The answer comes after our end: half-closes go both ways."""
    with Origin(answer_at_the_end) as answers, Origin(echo) as echoes:
        forwarding = Forwarding(
            ["0", "127.0.0.1:0"], [f"localhost:{answers.port}", f"127.0.0.1:{echoes.port}"], scheme
        )
        first, second = forwarding.ports
        assert (yield forwarding.run(exchange, first, b"x" * 100_000)).startswith(b"100000 ")
        assert (yield forwarding.run(exchange, second, b"hello")) == b"hello"
        yield forwarding.stop()


@needs_ipv6
@pytest_twisted.inlineCallbacks
def test_ipv6_beside_ipv4() -> Any:
    with Origin(echo) as echoes:
        to = f"127.0.0.1:{echoes.port}"
        forwarding = Forwarding(["[::1]:0", "0"], [to, to], "socks5")
        for address in forwarding.ports:
            assert (yield forwarding.run(exchange, address, b"six")) == b"six"
        yield forwarding.stop()


def attempt(address: tuple[str, int]) -> str:
    with socket.create_connection(address, 20) as sock:
        try:
            return f"{sock.recv(1)!r}"
        except ConnectionResetError:
            return "reset"


@pytest_twisted.inlineCallbacks
def test_a_destination_that_refuses() -> Any:
    """The client sees a reset, not an answer that has ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        forwarding = Forwarding(["0"], [f"127.0.0.1:{free.getsockname()[1]}"], "socks5")
        assert (yield forwarding.run(attempt, forwarding.ports[0])) == "reset"
        yield forwarding.stop()


def ask(address: tuple[str, int], data: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.connect(address)
        sock.send(data)
        return sock.recv(65535)


@pytest_twisted.inlineCallbacks
def test_datagrams() -> Any:
    """Each client has an association of its own."""
    with Echo() as there:
        forwarding = Forwarding(["udp:0"], [f"127.0.0.1:{there.address[1]}"], "socks5")
        assert (yield forwarding.run(ask, forwarding.ports[0], b"one")) == b"one"
        assert (yield forwarding.run(ask, forwarding.ports[0], b"two" * 9000)) == b"two" * 9000
        assert len({source for _, source in there.seen}) == 2
        yield forwarding.stop()


@pytest_twisted.inlineCallbacks
def test_datagrams_that_the_proxy_does_not_take() -> Any:
    """One line says why, and not one for each datagram."""
    forwarding = Forwarding(["udp:0"], ["127.0.0.1:1"], "socks4a")
    with capturedLogs() as events, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(3):
            sock.sendto(b"x", forwarding.ports[0])
        yield until(lambda: bool(told(events)))
        yield forwarding.stop()
    assert told(events) == [
        "datagrams are not forwarded: a proxy that speaks socks4a does not serve UDP",
    ]


def told(events: Sequence[LogEvent]) -> list[str]:
    """What *events* say of datagrams."""
    return [words for words in map(formatEvent, events) if words.startswith("datagrams")]
