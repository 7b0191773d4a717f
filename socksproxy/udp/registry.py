"""
The associations of one factory: their ports, how many there may be, and their idle timer.

Strategy: an association has a port of its own, which the system chooses or which comes from a range, or all
associations share one port (:mod:`~socksproxy.udp.demux`). When ports or descriptors run out, a client's own
association that has been idle for longest makes room for the client's next one. One timer looks for idle
associations, so that a datagram costs no bookkeeping.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..errors import SHORTAGES, NameNotFound, NoFreePort
from ..events import Cause
from ..identity import Client
from ..logs.throttle import LogThrottle, complain
from ..negotiation import IWrapping
from ..net.descriptors import current_limit, reserve
from ..net.names import canonical
from ..net.ports import Advertised, opened
from ..net.special_addresses import WILDCARD, WILDCARDS, Special, special
from ..policy.asking import DestinationCheck
from ..runtime.deadlines import Deadlines, look_every
from ..values.outgoing import Outgoing
from ..values.ports import PortRange
from ..values.timeouts import NEVER
from ..values.udp import UDPSettings
from ..wire.words import UNSPECIFIED, Address, AddressType
from . import batch
from .association import Association, AssociationContext
from .demux import PrivateDemux, SharedDemux
from .reassembly import TIME, Reassembly
from .routing import RoutedDemux, Routing
from .targets import LIFETIME
from .transports import ClientTransport

# There are systems without what these sockets need.
if TYPE_CHECKING or batch.available():
    from .sockets import ClientPort

if TYPE_CHECKING:
    from ..relay.engine import RelayEngine

    Port = ClientPort | ClientTransport
    #: Opens a port that clients send to, at an address and a port (0: any), or raises an OSError.
    #: Then whether other processes may be on the port, and the client to which the socket is connected.
    OpenPort = Callable[..., Port]

_log = Logger(namespace="socksproxy")

_LOOPBACK = {AddressType.IPV4: "127.0.0.1", AddressType.IPV6: "::1"}

_random = SystemRandom()

#: The descriptors of an association: the client's connection, the port that the client sends to, and one port
#: of each family for destinations.
_DESCRIPTORS = 4


def most_of_one_client(ports: PortRange | None) -> int:
    """
    How many associations one client may have: three quarters of what ports and descriptors allow.

    :param ports: the range of which each association has one port; None: ports are no limit.
    """
    limit = current_limit()
    most = (limit - reserve(limit)) // _DESCRIPTORS
    if ports is not None:
        most = min(most, ports.last - ports.first + 1)
    return most - most // 4


class Associations:
    """
    The associations of one factory.

    :param reactor: keeps time, and opens UDP ports where there is no engine.
    :param check: the policy and the names.
    :param settings: the settings of UDP ASSOCIATE.
    :param advertised: the addresses that clients are told in place of our own.
    :param outgoing: the addresses from which datagrams to destinations leave.
    :ivar live: the associations that have not ended.
    :ivar routing: where several processes have one port for all associations, it finds those; None: this
        process has the port alone.
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
        self.routing: Routing | None = None
        self._of_client: dict[str, dict[Association, None]] = {}
        # The addresses that clients send to, of associations that have a port of a range.
        self._places: dict[Association, tuple[str, int]] = {}
        self._taken: set[tuple[str, int]] = set()
        self._reactor = reactor
        self._reassemblies = Deadlines(reactor, TIME, Reassembly.clear)
        self._shared: dict[tuple[str, int], Port] = {}
        self._timer: IDelayedCall | None = None
        self._shortest = NEVER
        self._renewed = 0.0
        self._without_port = LogThrottle(reactor)
        self._without_upstream = LogThrottle(reactor)
        self.reconfigure(check, settings, advertised, outgoing)

    def reconfigure(
        self, check: DestinationCheck, settings: UDPSettings, advertised: Advertised, outgoing: Outgoing
    ) -> None:
        """
        Change the settings of associations that begin from now on.

        See the class for the parameters.
        """
        self.settings = settings
        self._advertised = advertised
        self._outgoing = outgoing
        self._context = AssociationContext(
            check, settings, self._reassemblies, self._closed, self._watch_idle, self._complain
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

        When descriptors or ports run out, the client's association that has been idle for longest makes room.

        :param client: the client.
        :param local: the literal address that the client's TCP connection has reached; None: a Unix socket.
        :param hint: the request's DST.ADDR and DST.PORT: where the client's datagrams will come from, if it
            knows. Nothing is ever sent there because of it.
        :param engine: the relay engine, or None.
        :param ended: called once, with the association, when it has ended.
        :param wrapping: encapsulates the client's datagrams; None: they are not encapsulated.
        :returns: the association, and the address that the client sends its datagrams to.
        :raises NoFreePort: when no port is free.
        :raises OSError: as the system gives it.
        """
        try:
            hint = canonical(hint)
        except NameNotFound:
            hint = UNSPECIFIED  # many clients fill the fields with anything
        host, ours = _hosts(client, local, hint)
        if len(self._of_client.get(_share_of(client), ())) >= most_of_one_client(self.settings.ports):
            self.make_room(client)
        association = Association(self._context, client, host, _port_of(hint, host), ended, wrapping)
        port = self._open(client, ours, self._opener(engine))
        port.demux.add(association)
        association.outlet = port.outlet(association, self._outgoing)
        self.live.add(association)
        self._of_client.setdefault(_share_of(client), {})[association] = None
        if self.settings.ports is not None:
            place = self._places[association] = ours, port.address[1]
            self._taken.add(place)
        self._want_check()
        address = Address.of(*port.address)
        told = self._advertised.address(client.host, address.type)
        return association, address if told is None else address._replace(host=told)

    def make_room(self, client: Client, which: Callable[[Association], bool] = lambda _: True) -> bool:
        """
        End the association of *client* that has been idle for longest.

        :param which: whether an association may end for that.
        :returns: whether an association has ended.
        """
        own = list(filter(which, self._of_client.get(_share_of(client), ())))
        if own:
            min(own, key=lambda association: association.active).abort(Cause.ROOM)
        return bool(own)

    def _open(self, client: Client, ours: str, open_port: OpenPort) -> Port:
        """
        Open the port that an association of *client* has its datagrams sent to.

        :raises NoFreePort: when no port is free.
        :raises OSError: as the system gives it.
        """
        made_room = False
        while True:
            try:
                return self._try_port(ours, open_port)
            except OSError as problem:
                if not made_room and self._make_room_for(problem, client, ours):
                    made_room = True
                    continue
                if problem.errno != errno.EADDRINUSE:
                    raise
            if self._without_port.due():
                _log.warn(
                    "no free UDP port on {host} for an association; {live} are open",
                    host=ours,
                    live=len(self.live),
                )
            raise NoFreePort("no free UDP port")

    def _make_room_for(self, problem: OSError, client: Client, ours: str) -> bool:
        if problem.errno == errno.EADDRINUSE:
            return self.make_room(client, lambda other: self._has_port(other, ours))
        return problem.errno in SHORTAGES and self.make_room(client)

    def _has_port(self, association: Association, ours: str) -> bool:
        """Whether *association* has a port of the present range at *ours*."""
        host, port = self._places.get(association, ("", 0))
        ports = self.settings.ports
        return host == ours and ports is not None and ports.first <= port <= ports.last

    def _try_port(self, ours: str, open_port: OpenPort) -> Port:
        number = self.settings.port
        if number is not None:
            place = ours, number
            shared = self._shared.get(place)
            if shared is None or shared.closed:
                shared = self._shared[place] = self._open_shared(place, open_port)
            return shared

        def try_number(number: int) -> Port:
            # A wide range may be all ours, and the system need not say so for every port.
            if (ours, number) in self._taken:
                raise OSError(errno.EADDRINUSE, "another association has the port")
            return open_port(ours, number, PrivateDemux())

        return opened(self.settings.ports, try_number, _random.randrange)

    def _open_shared(self, place: tuple[str, int], open_port: OpenPort) -> Port:
        if self.routing is None:
            return open_port(*place, SharedDemux())
        open_shared = partial(open_port, shared=True)
        return open_shared(*place, RoutedDemux(self.routing, place, open_shared))

    def _opener(self, engine: RelayEngine | None) -> OpenPort:
        if engine is None or not batch.available():
            return partial(ClientTransport, self._reactor)
        return partial(ClientPort, engine)

    def _closed(self, association: Association) -> None:
        self.live.discard(association)
        place = self._places.pop(association, None)
        if place is not None:
            self._taken.discard(place)
        share = _share_of(association.client)
        own = self._of_client[share]
        del own[association]
        if not own:
            del self._of_client[share]

    def _complain(self, client: Client, what: str) -> None:
        count = self._without_upstream.due()
        if count:
            more = "" if count == 1 else f" ({count} such events since the last such line)"
            _log.warn("{client}: {what}{more}", client=client, what=what, more=more)

    def close(self) -> None:
        """End every association at once."""
        for association in list(self.live):
            association.abort()
        self._reassemblies.close()
        self._stop_timer()

    # Idleness.

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _want_check(self) -> None:
        if not self.live:
            self._shortest = NEVER
        elif self._timer is None:
            every = look_every(min(self.settings.idle, self._shortest))
            self._timer = self._reactor.callLater(every, self._check)

    def _watch_idle(self, idle: float) -> None:
        """Look often enough for an association that may be idle for *idle* seconds."""
        if self._shortest <= idle:
            return
        self._shortest = idle
        self._stop_timer()
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
                    association.replies.forget()
            except Exception:
                # A fault of ours costs this association only; the others end in their time.
                complain(_log, "{client}: the association fails to end", client=association.client)
        self._want_check()


def _share_of(client: Client) -> str:
    """The key of clients whose associations make room for each other."""
    if client.host is not None and special(client.host) is Special.LINK_LOCAL:
        return client.host  # all hosts of a link are in one /64, and belong to different people
    return client.share or ""


def _hosts(client: Client, local: str | None, hint: Address) -> tuple[str, str]:
    """The address that the client's datagrams come from, and the address of our socket."""
    if client.host is None or local is None:
        kind = AddressType.IPV6 if hint.type is AddressType.IPV6 else AddressType.IPV4
        return client.host or _LOOPBACK[kind], _LOOPBACK[kind]
    # A socket that is bound in a zone gets datagrams from that zone only.
    host = client.host.partition("%")[0]
    if (":" in host) is not (":" in local):
        # A balancer has changed the family of the TCP connection. Datagrams do not pass through it.
        return host, WILDCARD[AddressType.IPV6 if ":" in host else AddressType.IPV4]
    return host, local


def _port_of(hint: Address, host: str) -> int | None:
    """
    The port that the client says its datagrams will come from, if it may know.

    A client that names another address than we see is behind NAT, which changes ports, too.
    """
    if hint.host in WILDCARDS or hint.host == host:
        return hint.port or None
    return None
