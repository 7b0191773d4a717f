"""A reactor and replies for tests of the DNS client."""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from twisted.internet.task import Clock

from socksproxy.net import dns_client
from socksproxy.net.dns_client import Server


class Port:
    """One of the sockets. :ivar sent: the datagrams. :ivar incoming: what comes, or goes wrong."""

    def __init__(self, reactor: Reactor, server: Server) -> None:
        self.reactor = reactor
        self.server = server
        self.reader: Any = None
        self.incoming: list[bytes | OSError] = []
        self.open = True

    def fileno(self) -> int:
        return 1000 + self.reactor.ports.index(self) if self.open else -1

    def send(self, data: bytes) -> None:
        assert self.open
        if self.reactor.problems:
            raise self.reactor.problems.pop()
        self.reactor.sent.append((self, dns.message.from_wire(data)))

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        found = self.incoming.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    def receive(self, *incoming: bytes | OSError) -> None:
        """Let *incoming* come, and the reactor see it."""
        self.incoming += incoming
        if self.reader is not None:
            self.reader.doRead()

    def close(self) -> None:
        self.open = False


class Reactor(Clock):
    """
    :ivar ports: every socket that was opened.
    :ivar sent: what was sent: the socket and the query.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[Port] = []
        self.sent: list[tuple[Port, dns.message.Message]] = []
        self.problems: list[OSError] = []
        self.descriptors = 100

    def connected_socket(self, server: Server, new_socket: object) -> Port:
        """In place of the real one."""
        if len(self.open) >= self.descriptors:
            raise OSError(24, "Too many open files")
        self.ports.append(Port(self, server))
        return self.ports[-1]

    def addReader(self, reader: Any) -> None:
        self.ports[reader.fileno() - 1000].reader = reader

    def removeReader(self, reader: Any) -> None:
        self.ports[reader.fileno() - 1000].reader = None

    @property
    def open(self) -> list[Port]:
        return [port for port in self.ports if port.open]


@pytest.fixture
def fake_reactor(monkeypatch: pytest.MonkeyPatch) -> Reactor:
    """Time and sockets of the test's own."""
    reactor = Reactor()
    monkeypatch.setattr(dns_client, "connected_socket", reactor.connected_socket)
    return reactor


def reply(query: dns.message.Message, *hosts: str, rcode: int = 0) -> bytes:
    """What a server answers to *query*."""
    message = dns.message.make_response(query)
    message.set_rcode(dns.rcode.Rcode.make(rcode))
    for host in hosts:
        message.answer.append(
            dns.rrset.from_text(query.question[0].name, 60, "IN", query.question[0].rdtype, host)
        )
    return message.to_wire()
