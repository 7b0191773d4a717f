"""
What the associations of one factory have in common: ports, caps, timers.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import SystemRandom
from typing import Any, Protocol as Shape

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..auth.methods import IWrapping
from ..commands.means import Means
from ..deadlines import Deadlines, look_every
from ..dial import Outgoing
from ..errors import NoFreePort
from ..policy import Client
from ..ports import Advertised, PortRange, opened
from ..relay.outcome import End
from ..seldom import Seldom
from ..wire.words import Address, AddressType
from . import batch
from .association import LIFETIME, Association, Outlet, Terms
from .desk import Desk, OwnDesk, SharedDesk
from .reassembly import TIME
from .settings import UDPSettings, check
from .transports import TransportSockets

_log = Logger(namespace="socksproxy")

_LOOPBACK = {AddressType.IPV4: "127.0.0.1", AddressType.IPV6: "::1"}
_ANY = {AddressType.IPV4: "0.0.0.0", AddressType.IPV6: "::"}

_random = SystemRandom()


class Port(Shape):
    """
    What clients send to.

    :ivar address: the host and the port that it is bound to.
    :ivar closed: whether its last association has left it, and it is closed.
    """

    @property
    def address(self) -> tuple[str, int]: ...

    @property
    def closed(self) -> bool: ...


class Kind(Shape):
    """Makes the sockets of associations, of one kind."""

    def open(self, host: str, port: int, desk: Desk) -> Port:
        """
        What clients send to, on *host* and *port* (0: any).

        :raises OSError: as the system gives it.
        """

    def outlet(self, association: Association, port: Any) -> Outlet:
        """The sockets of *association*, of which *port* is one."""


class Associations:
    """
    The associations of one factory.

    :param reactor: keeps time, and makes transports where there is no engine.
    :param means: the policy and the names.
    :param settings: what the operator said.
    :param advertised: what clients are told in place of our addresses.
    :param outgoing: where datagrams to destinations leave from.
    :raises ValueError: for settings that make no sense.
    """

    def __init__(
        self, reactor: Any, means: Means, settings: UDPSettings, advertised: Advertised, outgoing: Outgoing
    ) -> None:
        self.live: set[Association] = set()
        self._reactor = reactor
        self._reassemblies = Deadlines(reactor, TIME, Association.fragments_expired)
        self._shared: dict[tuple[str, int], tuple[Port, SharedDesk]] = {}
        self._timer: IDelayedCall | None = None
        self._shortest: float | None = None
        self._renewed = 0.0
        self._without_port = Seldom(reactor)
        self.reconfigure(means, settings, advertised, outgoing)

    def reconfigure(
        self, means: Means, settings: UDPSettings, advertised: Advertised, outgoing: Outgoing
    ) -> None:
        """
        Have associations that begin from now on be so; the others go on as they are.

        See the class for the parameters.

        :raises ValueError: for settings that make no sense.
        """
        check(settings)
        self.settings = settings
        self._advertised = advertised
        self._outgoing = outgoing
        self._ports = None if settings.ports is None else PortRange(*settings.ports)
        self._terms = Terms(means, settings, self._reassemblies, self._over, self._look)

    def open(
        self,
        client: Client,
        local: str | None,
        hint: Address,
        engine: Any,
        ended: Callable[[Association], None],
        wrapping: IWrapping | None = None,
    ) -> tuple[Association, Address]:
        """
        Begin an association.

        :param client: whose it is.
        :param local: the literal address that its TCP connection has reached; None: a Unix socket.
        :param hint: the request's DST.ADDR and DST.PORT.
        :param engine: the relay engine, or None.
        :param ended: called once, with the association, when it is over.
        :param wrapping: how the client's datagrams are encapsulated; None: they are not.
        :returns: the association, and where the client is to send to.
        :raises NoFreePort: when there is none.
        :raises OSError: as the system gives it.
        """
        host, ours = _hosts(client, local, hint)
        association = Association(self._terms, client, host, _port_of(hint, host), ended, wrapping)
        bound = self._bind(association, ours, engine)
        self.live.add(association)
        self._want_check()
        return association, bound

    def _bind(self, association: Association, ours: str, engine: Any) -> Address:
        """Give *association* its sockets; returned is what its client is told."""
        kind = self._kind(engine)
        try:
            if self.settings.port is not None:
                port, desk = self._share(kind, ours, self.settings.port)
            else:
                desk = OwnDesk()
                port = opened(self._ports, lambda number: kind.open(ours, number, desk), _random.randrange)
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE:
                raise
            self._complain(ours)
            raise NoFreePort("no free UDP port") from None
        desk.add(association)
        association.outlet = kind.outlet(association, port)
        address = Address.of(*port.address)
        told = self._advertised.address(association.client.host, address.type)
        return address if told is None else address._replace(host=told)

    def _kind(self, engine: Any) -> Kind:
        if engine is None or not batch.available():
            return TransportSockets(self._reactor, self._outgoing)
        from .sockets import EngineSockets

        return EngineSockets(engine, self._outgoing)

    def _share(self, kind: Kind, ours: str, number: int) -> tuple[Port, Desk]:
        shared = self._shared.get((ours, number))
        if shared is None or shared[0].closed:
            desk = SharedDesk()
            shared = self._shared[ours, number] = kind.open(ours, number, desk), desk
        return shared

    def _over(self, association: Association) -> None:
        self.live.discard(association)

    def _complain(self, ours: str) -> None:
        if self._without_port.due():
            _log.warn(
                "no free UDP port on {host} for an association; {live} are open",
                host=ours,
                live=len(self.live),
            )

    def close(self) -> None:
        """End every association at once."""
        for association in list(self.live):
            association.abort()
        self._reassemblies.close()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # Idleness: one timer for all, and no bookkeeping for a datagram.

    def _want_check(self) -> None:
        if not self.live:
            self._shortest = None
        elif self._timer is None:
            every = min(look_every(self.settings.idle), look_every(self._shortest))
            self._timer = self._reactor.callLater(every, self._check)

    def _look(self, idle: float) -> None:
        """An association may be idle for *idle* seconds."""
        if self._shortest is not None and self._shortest <= idle:
            return
        self._shortest = idle
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._want_check()

    def _check(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        renew = now - self._renewed >= LIFETIME
        if renew:
            self._renewed = now
        for association in list(self.live):
            if association.is_idle(now):
                association.abort(End.IDLE)
            elif renew:
                association.renew()
        self._want_check()


def _hosts(client: Client, local: str | None, hint: Address) -> tuple[str, str]:
    """Where the client's datagrams come from, and where our socket is to be."""
    if client.host is None or local is None:
        kind = AddressType.IPV6 if hint.type is AddressType.IPV6 else AddressType.IPV4
        return client.host or _LOOPBACK[kind], _LOOPBACK[kind]
    if (":" in client.host) is not (":" in local):
        # A balancer has changed the family, and is on the way of TCP only.
        return client.host, _ANY[AddressType.IPV6 if ":" in client.host else AddressType.IPV4]
    return client.host, local


def _port_of(hint: Address, host: str) -> int | None:
    """
    The port that the client says its datagrams will come from, if it may know.

    One that names another address than we see is behind NAT, which changes ports, too.
    """
    if hint.host in _ANY.values() or hint.host == host:
        return hint.port or None
    return None
