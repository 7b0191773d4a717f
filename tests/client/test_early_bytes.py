"""Bytes that come with the reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from socksproxy.client import SOCKS5ClientEndpoint
from socksproxy.client.early_bytes import EarlyBytes

from ..support.proxy import Playing, until
from ..support.scripted_proxy import SUCCESS5, MemoryTransport, Recorder, Recorders, open5

BANNER = b"220 mail.example ESMTP\r\n"


@pytest.mark.parametrize("attribute", ["disconnecting", "disconnected"])
def test_closed(attribute: str) -> None:
    """A protocol that has closed its connection gets nothing more, as without a proxy."""
    protocol, transport = Recorder(), MemoryTransport()
    protocol.makeConnection(transport)
    setattr(transport, attribute, True)
    EarlyBytes(transport, protocol, BANNER).deliver()
    assert protocol.heard == ["made"]


def test_open() -> None:
    """Otherwise it gets them at once."""
    protocol, transport = Recorder(), MemoryTransport()
    protocol.makeConnection(transport)
    EarlyBytes(transport, protocol, BANNER).deliver()
    assert protocol.heard == ["made", BANNER]


@pytest_twisted.inlineCallbacks
def test_early_bytes_wait_for_a_protocol_that_pauses(scripted: Callable[..., Any]) -> Playing:
    """
    e 1, 9: a protocol that pauses its transport gets the early bytes when it resumes, before all later ones.
    """

    class Busy(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.pauseProducing()

    factory = Recorders()
    factory.protocol = Busy
    proxy: Any = yield scripted(*open5(SUCCESS5 + BANNER))
    protocol: Any = yield SOCKS5ClientEndpoint(proxy.endpoint, "192.0.2.9", 25).connect(factory)
    proxy.ends[0].transport.write(b"later")
    yield deferLater(reactor, 0.02)
    assert protocol.heard == ["made"]
    protocol.transport.resumeProducing()
    protocol.transport.pauseProducing()
    protocol.transport.resumeProducing()
    protocol.transport.pauseProducing()
    yield deferLater(reactor, 0.02)
    assert protocol.heard == ["made"]
    protocol.transport.resumeProducing()
    yield until(lambda: protocol.heard == ["made", BANNER + b"later"])
    protocol.transport.loseConnection()


@pytest_twisted.inlineCallbacks
def test_bound_methods_taken_before(scripted: Callable[..., Any]) -> Playing:
    """A protocol that schedules ``transport.resumeProducing`` while it pauses gets the early bytes, too."""

    class Later(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.pauseProducing()
            reactor.callLater(0.01, self.transport.resumeProducing)

    factory = Recorders()
    factory.protocol = Later
    proxy: Any = yield scripted(*open5(SUCCESS5 + BANNER))
    protocol: Any = yield SOCKS5ClientEndpoint(proxy.endpoint, "192.0.2.9", 25).connect(factory)
    assert protocol.heard == ["made"]
    proxy.ends[0].transport.write(b"later")
    yield until(lambda: protocol.heard == ["made", BANNER + b"later"])
    protocol.transport.loseConnection()
