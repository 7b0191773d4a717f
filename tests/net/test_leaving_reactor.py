"""TCP connections by sockets of the caller's."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol

from socksproxy.errors import CannotLeave
from socksproxy.net.leaving_reactor import LeavingReactor
from socksproxy.net.sockets import Leaving

from ..support.origin import Origin, echo
from ..support.proxy import Playing, until


@pytest_twisted.inlineCallbacks
def test_connects() -> Playing:
    with Origin(echo) as origin:
        leaving = LeavingReactor(reactor, Leaving(interface="lo").new_socket)
        endpoint = TCP4ClientEndpoint(leaving, "127.0.0.1", origin.port)
        protocol: Any = yield endpoint.connect(Factory.forProtocol(Protocol))
        bound = protocol.transport.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
        assert bound.rstrip(b"\0") == b"lo"
        protocol.transport.abortConnection()
        yield until(lambda: not protocol.transport.connected)


@pytest_twisted.inlineCallbacks
def test_cannot() -> Playing:
    leaving = LeavingReactor(reactor, Leaving(interface="lost0").new_socket)
    with pytest.raises(CannotLeave, match="the interface lost0 cannot be used"):
        yield TCP4ClientEndpoint(leaving, "127.0.0.1", 9).connect(Factory.forProtocol(Protocol))
