"""Associations on Twisted's UDP transports: see :mod:`socksproxy.udp.transports` and ``test_contract``."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from socksproxy.udp.demux import PrivateDemux
from socksproxy.udp.transports import ClientTransport

from ..support.relay import reactor
from ..support.udp import udp_socket


@pytest.fixture
def port() -> Iterator[ClientTransport]:
    opened = ClientTransport(reactor, "127.0.0.1", 0, PrivateDemux())
    yield opened
    if not opened.closed:
        opened.close()


def test_send(port: ClientTransport) -> None:
    with udp_socket() as peer:
        port.send(b"data", peer.getsockname())
        assert peer.recvfrom(100) == (b"data", port.address)


def test_a_datagram_that_is_too_big(port: ClientTransport) -> None:
    """Twisted has an error of its own for it; ours is the system's."""
    with udp_socket() as peer, pytest.raises(OSError, match=r".") as caught:
        port.send(bytes(65508), peer.getsockname())
    assert caught.value.errno == errno.EMSGSIZE


def test_closed_at_once(port: ClientTransport) -> None:
    """Another association may want the port in the same turn of the reactor."""
    host, number = port.address
    port.close()
    assert port.closed
    ClientTransport(reactor, host, number, PrivateDemux()).close()


def test_a_port_that_is_taken(port: ClientTransport) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        ClientTransport(reactor, *port.address, PrivateDemux())
    assert caught.value.errno == errno.EADDRINUSE
