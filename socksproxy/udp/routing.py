"""
One UDP port in several processes: what a worker does with the datagrams that come to the port.

Strategy: each worker has a socket on the port (SO_REUSEPORT). The kernel gives a new client's datagrams to
any of them. Such a datagram goes to a :class:`Router`, which knows the associations of all workers. The
router decides as the demultiplexer of one process would, and sends the datagram to the worker that has the
association. This worker opens a socket on the same port for the association, connected to the client. The
kernel prefers that socket: all further datagrams of the client come to the right worker at once. Replies
leave from there, too.

The two ends speak in messages: a list for JSON whose first value is a :class:`Kind`, and a datagram.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from itertools import count
from typing import Any, NamedTuple, Protocol

from twisted.internet.interfaces import IReactorTime

from ..net.ports import bindable
from ..wire.datagram import header_size
from .association import Association
from .demux import Peers, PrivateDemux

#: The address and the number of a port that clients send to.
Place = tuple[str, int]
#: Sends a message, or drops it where it has a datagram and there is no room.
Send = Callable[[list[Any], bytes], None]

#: Seconds for which a datagram waits for its association, and how many wait.
_HOLD, _MOST_HELD = 1.0, 256

#: What an encapsulated datagram begins with (RFC 1961, section 4.2); RSV of another one is 0.
_ENCAPSULATED = b"\x01"


class Kind(str, Enum):
    """What a message is about; the values after the first one."""

    #: To the router: an association begins. Number, place, host, port or None, encapsulated, may move.
    BEGUN = "begun"
    #: To the router: the association of this number has ended.
    ENDED = "ended"
    #: To the router: the client of this number has this port, as its encapsulated datagram proves.
    LATCHED = "latched"
    #: To the router: a datagram that came to a place, from a host and a port.
    CAME = "came"
    #: To a worker: a datagram for the association of this number, from the port of its client.
    FOR = "for"


class Routing:
    """
    The associations of one worker on ports that all workers share.

    :param send: sends a message to the router.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._demuxes: dict[int, RoutedDemux] = {}
        self._number = count(1).__next__

    def begin(self, demux: RoutedDemux, association: Association) -> int:
        """*association* begins at *demux*; returned is its number."""
        number = self._number()
        self._demuxes[number] = demux
        has_wrapping = association.wrapping is not None
        place, moves = list(demux.place), association.may_move
        self._send([Kind.BEGUN, number, place, association.host, association.port, has_wrapping, moves], b"")
        return number

    def end(self, number: int) -> None:
        """The association of this *number* has ended."""
        del self._demuxes[number]
        self._send([Kind.ENDED, number], b"")

    def latched(self, number: int, port: int) -> None:
        """An encapsulated datagram has told the *port* of the client."""
        self._send([Kind.LATCHED, number, port], b"")

    def pass_on(self, place: Place, host: str, port: int, data: bytes) -> None:
        """*data* has come to *place* and is not for an association that has a socket of its own."""
        self._send([Kind.CAME, list(place), host, port], data)

    def received(self, message: list[Any], data: bytes) -> None:
        """The router has sent *message*, with the datagram *data*."""
        _, number, port = message
        demux = self._demuxes.get(number)
        if demux is not None:
            demux.take(number, port, data)


class RoutedDemux:
    """
    The demultiplexer of a worker's socket on a port that all workers share.

    :param routing: the worker's associations on such ports.
    :param place: the address and the number of the port.
    :param open_port: opens a further socket on the port, connected to a client.
    :ivar changed: as of :class:`.PrivateDemux`; never called, because no association is found here.
    """

    def __init__(self, routing: Routing, place: Place, open_port: Callable[..., Any]) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.place = place
        self._routing = routing
        self._open_port = open_port
        self._associations: dict[int, Association] = {}
        self._numbers: dict[Association, int] = {}

    def add(self, association: Association) -> None:
        """Serve *association*."""
        number = self._routing.begin(self, association)
        self._associations[number] = association
        self._numbers[association] = number

    def remove(self, association: Association) -> bool:
        """Serve *association* no more; returned is whether there is another one."""
        number = self._numbers.pop(association)
        del self._associations[number]
        self._routing.end(number)
        return bool(self._numbers)

    def find(self, host: str, port: int, data: bytes) -> None:
        """The router finds the association, see :meth:`.PrivateDemux.find`."""
        self._routing.pass_on(self.place, host, port, data)

    def take(self, number: int, port: int, data: bytes) -> None:
        """*data* has come from *port* of the client whose association has this *number*."""
        association = self._associations[number]
        if not (association.latched and association.port == port):
            if not association.latch(association.host, port, data):
                return
            if association.wrapping is not None:
                self._routing.latched(number, port)
            self._connect(association, port)
        association.from_client(data)

    def _connect(self, association: Association, port: int) -> None:
        """Open a socket of its own for *association*, whose client has *port*."""
        outlet = association.outlet
        assert outlet is not None
        zone = self.place[0].partition("%")[2]
        host = association.host
        outlet.client = peer = bindable(f"{host}%{zone}" if zone else host, port)
        before = outlet.port
        shared = before.demux.shared if isinstance(before.demux, ConnectedDemux) else before
        try:
            outlet.port = self._open_port(*self.place, ConnectedDemux(association, self, shared), peer=peer)
        except OSError:
            outlet.port = shared  # descriptors are short: the router goes on to pass the datagrams on
        if before is not shared:
            before.close()

    def abort(self) -> None:
        """End all associations."""
        for association in list(self._numbers):
            association.abort()


class ConnectedDemux(PrivateDemux):
    """
    The demultiplexer of a socket that is connected to the client of one association.

    :param association: the association.
    :param routed: the demultiplexer of the shared port.
    :param shared: the worker's shared socket on the port.
    """

    __slots__ = ("_routed", "shared")

    def __init__(self, association: Association, routed: RoutedDemux, shared: Any) -> None:
        super().__init__()
        self.add(association)
        self._routed = routed
        self.shared = shared

    def remove(self, association: Association) -> bool:
        """See :meth:`.PrivateDemux.remove`; the shared socket closes with the last association."""
        if not self._routed.remove(association):
            self.shared.close()
        return super().remove(association)

    def find(self, host: str, port: int, data: bytes) -> Association | None:
        """See :meth:`.PrivateDemux.find`. Until it is connected, a socket gets any client's datagrams."""
        association = self._association
        if association is not None and (host, port) == (association.host, association.port):
            return association
        self._routed.find(host, port, data)
        return None


class WorkerEnd(Protocol):
    """What a router knows of a worker."""

    def send(self, message: list[Any], data: bytes) -> None: ...


class Remote:
    """
    An association of a worker, as :class:`.Peers` knows associations.

    :param worker: has the association.
    :param number: its number there.
    :param host: the address of the client.
    :param port: the port that the client has named, or None.
    :param is_wrapped: whether its datagrams are encapsulated.
    :param moves: whether the client may change its port.
    """

    __slots__ = ("_moves", "_number", "_worker", "host", "is_wrapped", "latched", "port")

    def __init__(
        self, worker: WorkerEnd, number: int, host: str, port: int | None, is_wrapped: bool, moves: bool
    ) -> None:
        self._worker = worker
        self._number = number
        self._moves = moves
        self.host = host
        self.port = port
        self.is_wrapped = is_wrapped
        self.latched = False

    @property
    def may_latch(self) -> bool:
        """See :attr:`.Association.may_latch`."""
        return not self.latched or self._moves

    def take(self, port: int, data: bytes) -> None:
        """*data* has come from *port* of the client."""
        self._worker.send([Kind.FOR, self._number, port], data)


class Held(NamedTuple):
    """A datagram that may have come before the word that its association has begun."""

    until: float
    place: Place
    host: str
    port: int
    data: bytes


class Router:
    """
    Knows the associations of all workers on shared ports, and which of them a datagram is for.

    A client sends as soon as its own worker has answered. Its datagram may come from another worker, and
    before its own worker has told of the association. So datagrams for which there is no association wait for
    a moment.

    :param clock: tells the time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._held: deque[Held] = deque(maxlen=_MOST_HELD)
        self._peers: dict[Place, Peers[Remote]] = {}
        self._remotes: dict[WorkerEnd, dict[int, tuple[Place, Remote]]] = {}

    def received(self, worker: WorkerEnd, message: list[Any], data: bytes) -> None:
        """*worker* has sent *message*, with the datagram *data*."""
        kind, *values = message
        if kind == Kind.BEGUN:
            self._begun(worker, *values)
        elif kind == Kind.ENDED:
            self._ended(worker, *values)
        elif kind == Kind.LATCHED:
            self._latched(worker, *values)
        else:
            where, host, port = values
            self._came((where[0], where[1]), host, port, data)

    def gone(self, worker: WorkerEnd) -> None:
        """*worker* has ended, with all its associations."""
        for number in list(self._remotes.get(worker, ())):
            self._ended(worker, number)
        self._remotes.pop(worker, None)

    def _begun(self, worker: WorkerEnd, number: int, where: list[Any], *about: Any) -> None:
        place, remote = (where[0], where[1]), Remote(worker, number, *about)
        self._remotes.setdefault(worker, {})[number] = place, remote
        self._peers.setdefault(place, Peers()).add(remote)
        now, held = self._clock.seconds(), self._held
        for each in list(held):
            # A datagram from another port than the named one may be another client's.
            fits = (each.place, each.host) == (place, remote.host) and remote.port in (None, each.port)
            if fits or each.until <= now:
                held.remove(each)
                if each.until > now:
                    self._came(place, *each[2:])

    def _ended(self, worker: WorkerEnd, number: int) -> None:
        place, remote = self._remotes[worker].pop(number)
        if not self._peers[place].remove(remote):
            del self._peers[place]

    def _latched(self, worker: WorkerEnd, number: int, port: int) -> None:
        known = self._remotes[worker].get(number)
        if known is not None:
            self._latch(*known, port)

    def _latch(self, place: Place, remote: Remote, port: int) -> None:
        remote.port, remote.latched = port, True
        self._peers[place].assign(remote, port)

    def _came(self, place: Place, host: str, port: int, data: bytes) -> None:
        peers = self._peers.get(place)
        candidates = [] if peers is None else list(peers.candidates(host, port))
        if not candidates:
            self._held.append(Held(self._clock.seconds() + _HOLD, place, host, port, data))
            return
        wrapped = [each for each in candidates if each.is_wrapped]
        if wrapped and data[:1] == _ENCAPSULATED:
            # Only the worker that can unwrap the datagram takes it.
            for each in wrapped:
                each.take(port, data)
            return
        remote = next((each for each in candidates if not each.is_wrapped), None)
        if remote is None:
            return
        # The worker counts a datagram that is malformed, and waits for a better one.
        if not (remote.latched and remote.port == port) and header_size(data):
            self._latch(place, remote, port)
        remote.take(port, data)
