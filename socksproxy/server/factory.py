"""
The SOCKS server as Twisted sees it: a factory, and a protocol on any stream transport.
"""

from __future__ import annotations

from socket import AF_INET6, AF_UNIX, SocketType
from typing import TYPE_CHECKING, Any, cast, overload

import attrs
from twisted.cred.credentials import ICredentials
from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from ..auth.authentication import Authentication
from ..auth.checkers.peercred import credentials_of, user_of
from ..auth.credentials import Certificate
from ..identity import Client
from ..limits.buckets import Meters
from ..metrics.columns import Columns, OwnColumn, new_columns
from ..metrics.snapshot import Metrics
from ..negotiation import IWrapping
from ..net.descriptors import DescriptorGate
from ..net.dial import Destination, RelaySide
from ..net.liveness import ask, has_ended
from ..net.names import literal, plain
from ..net.own_listeners import Place
from ..net.ports import host_of
from ..net.tcp_options import set_options
from ..relay.interfaces import RelayOwner
from ..relay.transports import TransportsRelay, reached_by
from ..routes.interfaces import ProxyRoute
from ..session.billing import Billing
from ..session.early_data import READ
from ..session.registry import Registry
from ..session.session import Session
from ..session.shared import ServerContext
from ..settings import ServerSettings, with_changes, with_fields
from ..twisted_internals import (
    can_half_close,
    detach_socket,
    innermost,
    is_detachable,
    is_tls,
    read_at_most,
    reads_header,
    socket_of,
    without_header,
)
from ..values.outgoing import Outgoing
from ..values.records import RecordSettings
from ..values.upstreams import DIRECT
from ..wire.proxy import ProxyHeader
from .balanced import NO_HEADER, Arrival, arrive, reached, shown
from .sockets import pace, take_over

if TYPE_CHECKING:
    from ..relay.engine import RelayEngine


#: Seconds between two looks at whether a client is still there that has closed its direction.
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 15.0


@implementer(IHalfCloseableProtocol)
class SOCKSProtocol(Protocol):
    """
    Carries one client's session on a Twisted transport.

    :param factory: the factory that all sessions share.
    """

    transport: Any
    factory: SOCKSFactory

    def __init__(self, factory: SOCKSFactory) -> None:
        self.factory = factory
        self.detachable = False
        self._session: Session | Arrival | None = None
        #: What the balancer tells of the client; None: clients connect directly.
        self._header: ProxyHeader | None = None
        self._end: RelaySide | None = None
        self._look: IDelayedCall | None = None

    # What Twisted tells.

    def connectionMade(self) -> None:
        """See :meth:`twisted.internet.interfaces.IProtocol.connectionMade`."""
        try:
            self._begin()
        except Exception:
            # The port that has accepted the client logs the failure, and leaves the connection open.
            self.transport.abortConnection()
            raise

    def _begin(self) -> None:
        transport = self.transport
        self.factory.accepted(transport)
        if reads_header(transport):
            transport = self.transport = without_header(transport, self)
            self._header = NO_HEADER
        self.detachable = is_detachable(transport)
        read_at_most(transport, READ)
        link = socket_of(transport)
        if link is not None and link.family != AF_UNIX:
            set_options(link, self.factory.context.socket_options)
        sessions = self.factory.sessions
        if self._header is None:
            self._session = sessions.begin(self, _client_on(transport))
        else:
            self._session = arrive(sessions, self, client_of(transport.getPeer()))
        if self._session is None:
            transport.abortConnection()

    def identified(self, header: ProxyHeader, session: Session) -> None:
        """See :meth:`socksproxy.server.balanced.BalancedChannel.identified`."""
        self._header, self._session = header, session

    def dataReceived(self, data: bytes) -> None:
        """See :meth:`twisted.internet.interfaces.IProtocol.dataReceived`."""
        if self._end is not None:
            self._end.dataReceived(data)
        elif self._session is not None:
            self._session.received(data)

    def readConnectionLost(self) -> None:
        """See :meth:`twisted.internet.interfaces.IHalfCloseableProtocol.readConnectionLost`."""
        if self._end is not None:
            self._end.readConnectionLost()
        elif self._session is not None:
            self._session.read_closed()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """See :meth:`twisted.internet.interfaces.IHalfCloseableProtocol.writeConnectionLost`."""
        if self._end is not None:
            self._end.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See :meth:`twisted.internet.interfaces.IProtocol.connectionLost`."""
        if self._look is not None and self._look.active():
            self._look.cancel()
        if self._end is not None:
            self._end.connectionLost(reason)
        elif self._session is not None:
            self._session.lost(reason.check(ConnectionDone) is None)
        self._session = None

    # What the session asks of its channel.

    def write(self, data: bytes) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.write`."""
        self.transport.write(data)

    def finish(self) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.finish`."""
        self.transport.resumeProducing()
        # TLS cannot close one direction, though its wrapper would pass the call on to TCP.
        if can_half_close(self.transport):
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def close(self) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.close`."""
        self.transport.loseConnection()

    def abort(self) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.abort`."""
        # An association outlives its connection, and a TLS transport that is gone takes no abort.
        if self._session is not None:
            self.transport.abortConnection()

    def find_out(self) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.find_out`."""
        link = socket_of(self.transport)
        if link is not None:
            ask(link)
            self._look_again(link, _FIRST_LOOK)

    def _look_again(self, link: SocketType, seconds: float) -> None:
        """Twisted watches a transport no more that can read no more, so that nothing else tells its end."""
        if has_ended(link):
            self.transport.abortConnection()
        else:
            later = min(2 * seconds, _LONGEST_LOOK)
            self._look = self.factory.reactor.callLater(seconds, self._look_again, link, later)

    def pause(self) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.pause`."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.resume`."""
        self.transport.resumeProducing()

    def local(self) -> str | None:
        """See :meth:`socksproxy.commands.channel.Channel.local`."""
        transport = innermost(self.transport)
        link = socket_of(transport)
        if link is not None and link.family == AF_INET6:
            return host_of(link.getsockname())  # Twisted's address has no zone
        host = getattr(transport.getHost(), "host", None)
        return plain(host) if isinstance(host, str) else None

    def local_address(self) -> tuple[str, int] | None:
        """See :meth:`socksproxy.commands.channel.Channel.local_address`."""
        told = None if self._header is None else reached(self._header)
        if told is not None:
            return told
        address = self.transport.getHost()
        host = getattr(address, "host", None)
        return (plain(host), address.port) if isinstance(host, str) else None

    def reached(self) -> Place:
        """See :meth:`socksproxy.commands.channel.Channel.reached`."""
        return reached_by(self.transport)

    def shows(self) -> ICredentials | None:
        """See :meth:`socksproxy.commands.channel.Channel.shows`."""
        transport = self.transport
        if self._header is not None:
            return shown(self._header)
        if is_tls(transport):
            certificate = transport.getPeerCertificate()
            return None if certificate is None else Certificate(certificate)
        # Through a wrapper it would be the socket of what is wrapped.
        if isinstance(transport, ProtocolWrapper) or not hasattr(transport, "socket"):
            return None
        return credentials_of(transport.socket)

    def detach(self) -> SocketType | None:
        """See :meth:`socksproxy.commands.channel.Channel.detach`."""
        socket = detach_socket(self.transport) if self.detachable else None
        if socket is not None:
            self._session = None
        return socket

    def join(
        self,
        destination: Destination,
        owner: RelayOwner,
        idle: float,
        wrapping: IWrapping | None,
        meters: Meters | None = None,
    ) -> TransportsRelay:
        """See :meth:`socksproxy.commands.channel.Channel.join`."""
        relay = TransportsRelay(
            self.transport,
            destination.transport,
            self.factory.reactor,
            owner,
            idle,
            wrapping,
            meters,
        )
        self._end, destination.end = relay.client, relay.destination
        return relay


class SOCKSFactory(Factory):
    """
    Serves SOCKS4, SOCKS4a and SOCKS5 on any endpoint.

    ::

        endpoint = serverFromString(reactor, "tcp:1080:interface=127.0.0.1")
        endpoint.listen(SOCKSFactory(reactor))

    :param reactor: dials, resolves and keeps time.
    :param settings: everything else; None: as if none were given.
    :param fields: in place of *settings*, fields of :class:`~socksproxy.settings.ServerSettings`, as in
        ``SOCKSFactory(reactor, portal=portal)``.
    :raises ValueError: for settings that make no sense.
    """

    noisy = False

    @overload
    @with_fields
    def __init__(self, reactor: Any, **fields: Any) -> None: ...

    @overload
    def __init__(self, reactor: Any, settings: ServerSettings) -> None: ...

    def __init__(self, reactor: Any, settings: ServerSettings | None = None, **fields: Any) -> None:
        self.reactor = reactor
        self.settings = settings = attrs.evolve(settings or ServerSettings(), **fields)
        self.sessions = Registry(reactor, self._authentication(settings, None), settings)
        #: The proxy's own listeners, as its clients show them; a policy may want to know.
        self.listeners = self.context.listeners
        self._engine: RelayEngine | None = None
        self._gate = DescriptorGate(reactor, self.sessions.underway, self.sessions.needed, self._make_room)
        self.sessions.when_ended = self._gate.freed

    @property
    def context(self) -> ServerContext:
        """What the sessions share."""
        return self.sessions.context

    def _make_room(self, most: int) -> int:
        """Descriptors are short."""
        self.context.events.tell("paused")
        return self.context.half_closed.end_longest(most) or self.sessions.end_waiting(most)

    @overload
    @with_changes
    def reconfigure(self, **changes: Any) -> None: ...

    @overload
    def reconfigure(self, settings: ServerSettings) -> None: ...

    def reconfigure(self, settings: ServerSettings | None = None, **changes: Any) -> None:
        """
        Change settings while sessions go on.

        New sessions are served by the new settings. Those that exist go on, except
        those that another *policy* or *portal* does not permit any more: they end at once, or when a
        policy's Deferred has fired, and their records say ``no longer permitted``. A user who has logged
        in is asked for no password again: a checker's ``knows(avatar_id)``, if it has that, tells whether
        the user still exists, and the realm gives the avatar anew, of the name in bytes.

        :param settings: takes the place of the present settings.
        :param changes: in place of *settings*, the fields that change; see
            :class:`~socksproxy.settings.ServerSettings`.
        :raises ValueError: as the class does, and for another *engine*; then nothing has changed.
        """
        before = self.settings
        settings = attrs.evolve(settings or before, **changes)
        if settings.engine is not before.engine:
            raise ValueError("whether the engine is used cannot change while the server runs")
        asked = self.context.authentication
        self.sessions.reconfigure(self._authentication(settings, before), settings)
        if asked is not None and settings.portal is not before.portal:
            asked.retire()
        self.settings = settings

    def _authentication(
        self, settings: ServerSettings, before: ServerSettings | None
    ) -> Authentication | None:
        """What asks clients who they are: the present one, where nothing about it changes."""
        present = None if before is None else self.context.authentication
        if before is not None and all(
            getattr(settings, name) is getattr(before, name) for name in ("portal", "methods", "auth")
        ):
            return present
        if settings.portal is None:
            return None
        penalties = None if present is None else present.penalties
        return Authentication(settings.portal, settings.methods, settings.auth, self.reactor, penalties)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See :meth:`twisted.internet.interfaces.IProtocolFactory.buildProtocol`."""
        return SOCKSProtocol(self)

    def accepted(self, transport: Any) -> None:
        """A listening port has accepted *transport*."""
        host = transport.getHost()
        if hasattr(host, "port"):
            self.listeners.add(host.host, host.port)
        port = getattr(transport, "server", None)
        if port is not None:
            if self.context.counters is not None:
                self.context.counters.connected(port)
            self._gate.accepted(port, transport.fileno())
            self.opened(port)

    def opened(self, port: Any) -> None:
        """
        Accept *port*'s clients as the engine and the descriptors allow.

        A port's first client brings this about by itself; called before, it is ready for a crowd of them.
        """
        if not isinstance(port, tcp.Port) or "doRead" in vars(port):
            return
        factory: Any = port.factory
        balanced = reads_header(factory)
        if balanced:
            factory = factory.wrappedFactory
        # Behind TLS the port is the wrapper's, and its bytes are not SOCKS yet.
        if factory is not self or not take_over(port, self.sessions, self._gate, balanced):
            pace(port, self._gate)

    def rest(self, port: Any, rests: bool) -> None:
        """Whether *port*, which has been :meth:`opened`, *rests*: then its clients wait in its queue."""
        if rests:
            self._gate.rest(port)
        else:
            self._gate.wake(port)

    def closed(self, port: Any) -> None:
        """*port* is about to close, while others go on."""
        self._gate.forget(port)

    def count(self, users: int = 0) -> Metrics:
        """
        Count sessions from now on, until :meth:`stop_counting`.

        :param users: so many users have metrics of their own, the first ones that log in.
        :returns: gives the numbers.
        """
        metrics = Metrics(Columns(new_columns(2), 2))
        self.context.count(OwnColumn(metrics.columns, 0), users)
        return metrics

    def stop_counting(self) -> None:
        """Count sessions no more; the numbers stay."""
        self.context.stop_counting()

    def keep_records(self, settings: RecordSettings) -> Billing:
        """
        Keep usage records from now on, until :meth:`~socksproxy.session.billing.Billing.stop`.

        :returns: what keeps them; it is to be started.
        """
        self.context.billing = billing = Billing(self.reactor, settings, self.context)
        return billing

    def stop_sessions(self) -> None:
        """End every session at once."""
        self.sessions.close()

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Let sessions come to their end.

        Clients that have not asked for anything yet are closed at once. Stop
        listening first: clients that come later are served as before.

        :param seconds: after which the sessions that are left are ended; the last call counts.
        :returns: fires when no session is left.
        """
        return self.sessions.drain(seconds)

    def way(self, name: str) -> ProxyRoute:
        """
        The way out *name*, an :class:`~socksproxy.routes.ICommandsRoute`, by which a route of your own leads
        on.

        :param name: ``direct``, or the name of an upstream, a pool or a route of your own. Connections by a
            way that there is not fail.
        """
        if name == DIRECT:
            return self.context.ways.direct(Outgoing())
        return cast("ProxyRoute", self.context.route_by(name, Outgoing()))

    def startFactory(self) -> None:
        """The first port is open."""
        self._engine = self.context.engine
        if self._engine is not None:
            self._engine.use()
        self.context.watch_hosts(True)

    def stopFactory(self) -> None:
        """The last port is closed: nothing is accepted any more."""
        self._gate.close()
        self.context.ways.pools.stop()
        self.context.watch_hosts(False)
        if self.context.pins is not None:
            self.context.pins.close()
        self.context.helpers.close()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.leave()


def client_of(peer: Any) -> Client:
    """Who is at *peer*, an address of Twisted's; an IPv4-mapped address counts as the IPv4 address."""
    host = getattr(peer, "host", None)
    if not isinstance(host, str):
        return Client(None)
    # A balancer may write it in any form, and what counts clients takes it literally.
    return Client(plain(literal(host) or host), peer.port)


def _client_on(transport: Any) -> Client:
    """Who is at the other end of *transport*."""
    client = client_of(transport.getPeer())
    sock = getattr(transport, "socket", None)
    # Through a wrapper it would be the socket of what is wrapped.
    if client.host is not None or sock is None or isinstance(transport, ProtocolWrapper):
        return client
    return client._replace(uid=user_of(sock))
