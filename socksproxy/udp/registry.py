"""
What the associations of one factory have in common: ports, caps, timers.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Protocol as Shape

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..errors import SHORTAGES, NoFreePort
from ..events import Cause
from ..identity import Client
from ..logs.throttle import LogThrottle, complain
from ..negotiation import IWrapping
from ..net.descriptors import current_limit, reserve
from ..net.ports import Advertised, opened
from ..net.special_addresses import WILDCARD, WILDCARDS, Special, special
from ..policy.asking import DestinationCheck
from ..runtime.deadlines import Deadlines, look_every
from ..values.outgoing import Outgoing
from ..values.ports import PortRange
from ..values.timeouts import NEVER
from ..values.udp import UDPSettings
from ..wire.words import Address, AddressType
from . import batch
from .association import Association, AssociationContext, Outlet
from .demux import Demux, PrivateDemux, SharedDemux
from .reassembly import TIME, Reassembly
from .targets import LIFETIME
from .transports import TransportSockets

if TYPE_CHECKING:
    from ..relay.engine import RelayEngine

_log = Logger(namespace="socksproxy")

_LOOPBACK = {AddressType.IPV4: "127.0.0.1", AddressType.IPV6: "::1"}

_random = SystemRandom()

#: The descriptors of an association: the client's connection, the port that it sends to, and one of each
#: family for destinations.
_DESCRIPTORS = 4


def most_of_one_client(ports: PortRange | None) -> int:
    """
    How many associations one client may have: they leave a quarter of what there is to others.

    :param ports: which each has one of; None: the system has as many as there are descriptors.
    """
    limit = current_limit()
    most = (limit - reserve(limit)) // _DESCRIPTORS
    if ports is not None:
        most = min(most, ports.last - ports.first + 1)
    return most - most // 4


class ReceivingPort(Shape):
    """
    A port that clients send to.

    :ivar address: the host and the port that it is bound to.
    :ivar closed: whether its last association has left it, and it is closed.
    """

    @property
    def address(self) -> tuple[str, int]: ...

    @property
    def closed(self) -> bool: ...


class SocketMaker(Shape):
    """Makes the sockets of associations: in the engine, or with Twisted's transports."""

    def open(self, host: str, port: int, demux: Demux) -> ReceivingPort:
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
    :param check: the policy and the names.
    :param settings: what the operator said.
    :param advertised: what clients are told in place of our addresses.
    :param outgoing: where datagrams to destinations leave from.
    """

    def __init__(
        self,
        reactor: Any,
        check: DestinationCheck,
        settings: UDPSettings,
        advertised: Advertised,
        outgoing: Outgoing,
    ) -> None:
        self.live: set[Association] = set()
        self._of_client: dict[str, dict[Association, None]] = {}
        #: Where the clients of associations send to that have a port of a range.
        self._places: dict[Association, tuple[str, int]] = {}
        self._taken: set[tuple[str, int]] = set()
        self._reactor = reactor
        self._reassemblies = Deadlines(reactor, TIME, Reassembly.clear)
        self._shared: dict[tuple[str, int], tuple[ReceivingPort, SharedDemux]] = {}
        self._timer: IDelayedCall | None = None
        self._shortest = NEVER
        self._renewed = 0.0
        self._without_port = LogThrottle(reactor)
        self.reconfigure(check, settings, advertised, outgoing)

    def reconfigure(
        self, check: DestinationCheck, settings: UDPSettings, advertised: Advertised, outgoing: Outgoing
    ) -> None:
        """
        Have associations that begin from now on be so; the others go on as they are.

        See the class for the parameters.
        """
        self.settings = settings
        self._advertised = advertised
        self._outgoing = outgoing
        self._ports = settings.ports
        self._context = AssociationContext(
            check, settings, self._reassemblies, self._closed, self._watch_idle
        )

    def open(
        self,
        client: Client,
        local: str | None,
        hint: Address,
        engine: RelayEngine | None,
        ended: Callable[[Association], None],
        wrapping: IWrapping | None = None,
    ) -> tuple[Association, Address]:
        """
        Begin an association.

        When descriptors or ports are short, the one of the same client that has been idle for longest
        makes room for it.

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
        if len(self._of_client.get(_share_of(client), ())) >= most_of_one_client(self._ports):
            self.make_room(client)
        association = Association(self._context, client, host, _port_of(hint, host), ended, wrapping)
        maker = self._maker(engine)
        port, demux = self._open_port(client, ours, maker)
        demux.add(association)
        association.outlet = maker.outlet(association, port)
        self.live.add(association)
        self._of_client.setdefault(_share_of(client), {})[association] = None
        if self._ports is not None:
            place = self._places[association] = ours, port.address[1]
            self._taken.add(place)
        self._want_check()
        address = Address.of(*port.address)
        told = self._advertised.address(client.host, address.type)
        return association, address if told is None else address._replace(host=told)

    def make_room(self, client: Client, which: Callable[[Association], bool] = lambda _: True) -> bool:
        """
        End the association of *client* that has been idle for longest.

        :param which: tells of an association whether it would make room.
        :returns: whether there was any.
        """
        own = list(filter(which, self._of_client.get(_share_of(client), ())))
        if own:
            min(own, key=lambda association: association.active).abort(Cause.ROOM)
        return bool(own)

    def _open_port(self, client: Client, ours: str, maker: SocketMaker) -> tuple[ReceivingPort, Demux]:
        """
        What an association of *client* has its datagrams sent to.

        :raises NoFreePort: when there is none.
        :raises OSError: as the system gives it.
        """
        made_room = False
        while True:
            try:
                return self._try_port(ours, maker)
            except OSError as problem:
                if not made_room and self._make_room_for(problem, client, ours):
                    made_room = True
                    continue
                if problem.errno != errno.EADDRINUSE:
                    raise
                self._complain(ours)
                raise NoFreePort("no free UDP port") from None

    def _make_room_for(self, problem: OSError, client: Client, ours: str) -> bool:
        if problem.errno == errno.EADDRINUSE:
            return self.make_room(client, lambda other: self._has_port(other, ours))
        return problem.errno in SHORTAGES and self.make_room(client)

    def _has_port(self, association: Association, ours: str) -> bool:
        """Whether *association* has one of the ports on *ours* that others could have."""
        host, port = self._places.get(association, ("", 0))
        ports = self._ports
        return host == ours and ports is not None and ports.first <= port <= ports.last

    def _try_port(self, ours: str, maker: SocketMaker) -> tuple[ReceivingPort, Demux]:
        if self.settings.port is not None:
            return self._share(maker, ours, self.settings.port)
        demux = PrivateDemux()

        def open_port(number: int) -> ReceivingPort:
            # Not to be tried one by one when all of a wide range are ours.
            if (ours, number) in self._taken:
                raise OSError(errno.EADDRINUSE, "an association of ours has it")
            return maker.open(ours, number, demux)

        return opened(self._ports, open_port, _random.randrange), demux

    def _maker(self, engine: RelayEngine | None) -> SocketMaker:
        if engine is None or not batch.available():
            return TransportSockets(self._reactor, self._outgoing)
        from .sockets import EngineSockets

        return EngineSockets(engine, self._outgoing)

    def _share(self, maker: SocketMaker, ours: str, number: int) -> tuple[ReceivingPort, Demux]:
        shared = self._shared.get((ours, number))
        if shared is None or shared[0].closed:
            demux = SharedDemux()
            shared = self._shared[ours, number] = maker.open(ours, number, demux), demux
        return shared

    def _closed(self, association: Association) -> None:
        self.live.discard(association)
        place = self._places.pop(association, None)
        if place is not None:
            self._taken.discard(place)
        share = _share_of(association.client)
        own = self._of_client.get(share)
        if own is not None:
            own.pop(association, None)
            if not own:
                del self._of_client[share]

    def _complain(self, ours: str) -> None:
        if self._without_port.due():
            _log.warn(
                "no free UDP port on {host} for an association; {live} are open",
                host=ours,
                live=len(self.live),
            )

    def close(self) -> None:
        """Cause every association at once."""
        for association in list(self.live):
            association.abort()
        self._reassemblies.close()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # Idleness: one timer for all, and no bookkeeping for a datagram.

    def _want_check(self) -> None:
        if not self.live:
            self._shortest = NEVER
        elif self._timer is None:
            every = look_every(min(self.settings.idle, self._shortest))
            self._timer = self._reactor.callLater(every, self._check)

    def _watch_idle(self, idle: float) -> None:
        """An association may be idle for *idle* seconds."""
        if self._shortest <= idle:
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
            try:
                if association.is_idle(now):
                    association.abort(Cause.IDLE)
                elif renew:
                    association.forget_sources()
            except Exception:
                # A fault of ours: it costs one association, and the others end in their time.
                complain(_log, "{client}: the association fails to end", client=association.client)
        self._want_check()


def _share_of(client: Client) -> str:
    """What clients have in common whose associations make room for each other's."""
    if client.host is not None and special(client.host) is Special.LINK_LOCAL:
        return client.host  # the hosts of a link are no one network
    return client.share or ""


def _hosts(client: Client, local: str | None, hint: Address) -> tuple[str, str]:
    """Where the client's datagrams come from, and where our socket is to be."""
    if client.host is None or local is None:
        kind = AddressType.IPV6 if hint.type is AddressType.IPV6 else AddressType.IPV4
        return client.host or _LOOPBACK[kind], _LOOPBACK[kind]
    # A socket that is bound in a zone has datagrams from there only.
    host = client.host.partition("%")[0]
    if (":" in host) is not (":" in local):
        # A balancer has changed the family, and is on the way of TCP only.
        return host, WILDCARD[AddressType.IPV6 if ":" in host else AddressType.IPV4]
    return host, local


def _port_of(hint: Address, host: str) -> int | None:
    """
    The port that the client says its datagrams will come from, if it may know.

    One that names another address than we see is behind NAT, which changes ports, too.
    """
    if hint.host in WILDCARDS or hint.host == host:
        return hint.port or None
    return None
