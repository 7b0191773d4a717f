"""What stands in the way of bytes that are protected."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure

from socksproxy.client.protected import Protected
from socksproxy.wire.words import ProtocolError

from ..support.scripted_proxy import MemoryTransport, Recorder
from .test_endpoints import Halves


class Rot:
    """A protection for tests: each byte plus one. A NUL is no byte of it."""

    def wrap(self, data: bytes) -> bytes:
        return bytes(byte + 1 for byte in data)

    def unwrap(self, data: bytes) -> bytes:
        if 0 in data:
            raise ProtocolError("a NUL")
        return bytes(byte - 1 for byte in data)


def test_both_ways() -> None:
    """The protocol sees plain bytes, and the transport protected ones; all else is the transport's."""
    protocol, transport = Recorder(), MemoryTransport()
    Protected(protocol, Rot()).makeConnection(transport)
    protocol.transport.write(b"abc")
    protocol.transport.writeSequence([b"d", b"e"])
    assert transport.value() == b"bcdef"
    protocol.transport.protocol = None
    wrapper = protocol.transport
    wrapper.dataReceived(b"bcd")
    wrapper.dataReceived(b"")
    assert protocol.heard == ["made", b"abc"]
    assert wrapper.getPeer() == transport.getPeer()
    wrapper.pauseProducing()
    assert transport.producerState == "paused"
    wrapper.connectionLost(Failure(ConnectionDone()))
    assert protocol.heard[-1] is ConnectionDone


def test_a_message_that_is_not_accepted() -> None:
    """The connection closes: bytes that an attacker has changed are no bytes."""
    protocol, transport = Recorder(), MemoryTransport()
    Protected(protocol, Rot()).makeConnection(transport)
    protocol.transport.dataReceived(b"a\0")
    assert transport.aborted
    assert protocol.heard == ["made"]


def test_half_close() -> None:
    """A protocol that knows half-close hears it, and another one is not asked."""
    protocol = Halves()
    wrapper = Protected(protocol, Rot())
    wrapper.makeConnection(MemoryTransport())
    assert IHalfCloseableProtocol.providedBy(wrapper)
    wrapper.readConnectionLost()
    wrapper.writeConnectionLost()
    assert protocol.heard == ["made", "read", "write"]
    plain = Protected(Recorder(), Rot())
    plain.makeConnection(MemoryTransport())
    assert not IHalfCloseableProtocol.providedBy(plain)
