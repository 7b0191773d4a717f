"""
UDP through proxies: an association with each proxy of a way out (RFC 1928, section 7).

Each association has a connection of its own, which leads through the proxies before its own one. The
associations end together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..client.connecting import relay_host
from ..net.dial import Destination, Dialed
from ..net.sockets import NewSocket
from ..values.upstreams import REPORTED, SERVER
from ..wire.words import UNSPECIFIED, Address
from .hops import Hop
from .interfaces import Trail, UpstreamAssociation


class ProxyAssociations:
    """
    An :class:`~socksproxy.routes.interfaces.UpstreamAssociation`; see there for the other parameters.

    :param controls: the connections on which the associations were asked for.
    :param trails: the records of these connections.
    """

    __slots__ = ("_controls", "_ended", "_trails", "new_socket", "own", "relays")

    def __init__(
        self,
        own: Address,
        relays: Sequence[Address],
        new_socket: NewSocket | None,
        controls: Sequence[ControlLink],
        trails: Sequence[Trail],
    ) -> None:
        self.new_socket = new_socket
        self.own = own
        self.relays = tuple(relays)
        self._controls = controls
        self._trails = trails
        self._ended: Callable[[], None] | None = None

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.UpstreamAssociation.source`: there are proxies."""
        return None

    def watch(self, ended: Callable[[], None]) -> None:
        """See :meth:`socksproxy.routes.interfaces.UpstreamAssociation.watch`."""
        self._ended = ended
        for control in self._controls:
            control.lost = self._lost
            if control.over:
                self._lost()
                return

    def _lost(self) -> None:
        ended = self._ended
        self.close()
        if ended is not None:
            ended()

    def close(self) -> None:
        """See :meth:`socksproxy.routes.interfaces.UpstreamAssociation.close`."""
        self._ended = None
        for control in self._controls:
            control.close()
        for trail in self._trails:
            trail.leave()


class ControlLink:
    """
    A connection on which an association was asked for. What the proxy sends there says nothing.

    :param link: the connection.
    :ivar over: whether it is closed.
    :ivar lost: called when the proxy closes it.
    """

    def __init__(self, link: Destination) -> None:
        self._link = link
        self.over = False
        self.lost: Callable[[], None] = _nothing
        link.end = self

    def dataReceived(self, data: bytes) -> None:
        """See :class:`socksproxy.net.dial.RelaySide`."""

    def readConnectionLost(self) -> None:
        """See :class:`socksproxy.net.dial.RelaySide`."""
        self._end()

    def writeConnectionLost(self) -> None:
        """See :class:`socksproxy.net.dial.RelaySide`."""

    def connectionLost(self, reason: Failure) -> None:
        """See :class:`socksproxy.net.dial.RelaySide`."""
        self._end()

    def _end(self) -> None:
        if not self.over:
            self.close()
            self.lost()

    def close(self) -> None:
        """Close the connection."""
        self.over = True
        self._link.end = None
        transport: Any = self._link.transport
        transport.abortConnection()


class Associating:
    """
    Asks each proxy for an association, all at once.

    :param hops: the proxies, the first one from here first.
    :param ask: asks the last of so many proxies, and fires with the connection: its
        :attr:`~socksproxy.net.dial.Dialed.reached` is the address of the first proxy, and its
        :attr:`~socksproxy.net.dial.Dialed.bound` what the last proxy tells.
    :param trail: records the attempts.
    :param new_socket: makes sockets that leave as those to the first proxy do; None: as all others.
    """

    def __init__(
        self,
        hops: Sequence[Hop],
        ask: Callable[[int, Trail], Deferred[Dialed]],
        trail: Trail,
        new_socket: NewSocket | None,
    ) -> None:
        self._hops = hops
        self._new_socket = new_socket
        self._ask = ask
        self._trail = trail
        self._trails: list[Trail] = []
        self._asking: list[Deferred[Any]] = []
        self._dialed: dict[int, Dialed] = {}
        self._controls: list[ControlLink] = []
        self._over = False
        self.result: Deferred[UpstreamAssociation] = Deferred(lambda _: self._give_up())

    def start(self) -> Deferred[UpstreamAssociation]:
        """
        Begin.

        :returns: :attr:`result`, which can be cancelled.
        """
        for number in range(len(self._hops)):
            if self._over:
                break
            # One proxy alone is the usual case: who waits for it looks at the trail.
            trail = self._trail if len(self._hops) == 1 else self._trail.branch()
            self._trails.append(trail)
            asking = self._ask(number + 1, trail)
            self._asking.append(asking)
            asking.addCallbacks(self._associated, self._failed, callbackArgs=(number,))
        return self.result

    def _associated(self, dialed: Dialed, number: int) -> None:
        link: Any = dialed.link
        self._controls.append(ControlLink(link))
        self._dialed[number] = dialed
        if len(self._dialed) < len(self._hops):
            return
        self._over = True
        self._note()
        first = self._dialed[0]
        before = [first.reached, *(hop.address or UNSPECIFIED for hop in self._hops[1:])]
        relays = [
            _relay(hop, self._dialed[at], server.host)
            for at, (hop, server) in enumerate(zip(self._hops, before, strict=True))
        ]
        self.result.callback(
            ProxyAssociations(first.outgoing, relays, self._new_socket, self._controls, self._trails)
        )

    def _failed(self, failure: Failure) -> None:
        if not self._over:
            self._give_up()
            self._note()
            self.result.errback(failure)

    def _note(self) -> None:
        if self._trail not in self._trails:
            self._trail.tries += sum(trail.tries for trail in self._trails)
            self._trail.reply = next((trail.reply for trail in self._trails if trail.reply), None)

    def _give_up(self) -> None:
        self._over = True
        for asking in self._asking:
            asking.addErrback(lambda _: None)
            asking.cancel()
        for control in self._controls:
            control.close()
        for trail in self._trails:
            trail.leave()


def _relay(hop: Hop, dialed: Dialed, server: str) -> Address:
    """Where *hop*, a proxy with the address *server*, takes datagrams, after what it has told."""
    told, wanted = dialed.bound, hop.settings.udp_address
    assert told is not None
    if wanted == REPORTED:
        wanted = relay_host(told, server)
    return Address.of(server if wanted == SERVER else wanted, told.port)


def _nothing() -> None:
    """What is called where nothing listens."""
