"""An association without sockets, and everything around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.task import Clock
from zope.interface import implementer

from socksproxy import Address, Client, Command, UDPSettings
from socksproxy.net.resolve import NameLookups
from socksproxy.policy.asking import DestinationCheck
from socksproxy.runtime.deadlines import Deadlines
from socksproxy.udp.association import Association, AssociationContext, Outlet
from socksproxy.udp.reassembly import TIME, Reassembly
from socksproxy.udp.targets import (
    Target,
)
from socksproxy.values.outgoing import Outgoing
from socksproxy.wire.datagram import build_header

CLIENT = Client("192.0.2.1", 1000)


class Remembering(Outlet):
    """Remembers what it was given."""

    def __init__(self, association: Association) -> None:
        super().__init__(association, None, Outgoing())
        self.sent: list[tuple[tuple[str, int] | None, bytes]] = []
        self.closed = 0

    def send(self, target: Target, payload: bytes | memoryview) -> None:
        self.sent.append((target.sockaddr, bytes(payload)))
        self.association.datagrams_sent += 1
        self.association.active = self.association.check.clock.seconds()

    def close(self) -> None:
        self.closed += 1


class Policy:
    """Permits what is not in *denied*; what is in *late* is answered by hand."""

    def __init__(self) -> None:
        self.denied: set[str] = set()
        self.late: dict[str, list[Deferred[bool]]] = {}
        self.asked: list[Address] = []
        self.canceller: Callable[[Any], None] | None = None

    def permits(self, client: Client, command: Command, destination: Address) -> bool | Deferred[bool]:
        assert (client, command) == (CLIENT, Command.UDP_ASSOCIATE)
        self.asked.append(destination)
        if destination.host in self.late:
            answer: Deferred[bool] = Deferred(self.canceller)
            self.late[destination.host].append(answer)
            return answer
        return destination.host not in self.denied


@implementer(IHostnameResolver)
class Resolver:
    """Answers by hand."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Any]] = {}

    def resolveHostName(self, resolutionReceiver: Any, hostName: str, *_: Any, **__: Any) -> Any:
        self.waiting.setdefault(hostName, []).append(resolutionReceiver)

    def answer(self, name: str, *hosts: str) -> None:
        from twisted.internet.address import IPv4Address, IPv6Address

        for receiver in self.waiting.pop(name):
            for host in hosts:
                receiver.addressResolved((IPv6Address if ":" in host else IPv4Address)("TCP", host, 0))
            receiver.resolutionComplete()


def _nobody(association: Association) -> None:
    """Whom it tells, too."""


class World:
    """An association and everything around it."""

    def __init__(self, port: int | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.policy = Policy()
        self.resolver = Resolver()
        names = NameLookups(self.resolver, self.clock)
        reassemblies = Deadlines(self.clock, TIME, Reassembly.clear)
        self.ended: list[Association] = []
        check = DestinationCheck(self.policy, names, self.clock)  # type: ignore[arg-type]
        context = AssociationContext(check, UDPSettings(**settings), reassemblies, _nobody)
        self.association = Association(context, CLIENT, "192.0.2.1", port, self.ended.append)
        self.outlet = self.association.outlet = Remembering(self.association)

    def send(self, host: str, payload: bytes = b"x", port: int = 53, fragment: int = 0) -> None:
        self.association.from_client(build_header(Address.of(host, port), fragment) + payload)

    @property
    def sent(self) -> list[tuple[tuple[str, int] | None, bytes]]:
        sent, self.outlet.sent = self.outlet.sent, []
        return sent

    @property
    def dropped(self) -> dict[str, int]:
        return {reason.value: count for reason, count in self.association.dropped.items()}

    def passes(self, host: str, port: int) -> bool:
        return self.association.replies.header_for((host, port), host, port) is not None


DATAGRAM = build_header(Address.of("198.51.100.1", 53)) + b"x"
