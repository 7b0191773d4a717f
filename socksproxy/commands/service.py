"""
The service of one request: what every command has in common.

A session creates one :class:`Service` for its request. A service knows its session as an :class:`Owner`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from socket import SocketType
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred

from ..events import Cause, Ended
from ..identity import Client
from ..limits.account import Scope
from ..limits.buckets import Meters
from ..negotiation import Negotiation
from ..net.dial import Destination, Dialed, Pending, adopted, resume
from ..net.own_listeners import Place
from ..policy import IPolicy
from ..policy.asking import DestinationCheck, still_permitted
from ..policy.rules import Rule
from ..relay.engine import RelayEngine
from ..relay.idle import IdleRelays
from ..relay.interfaces import Direction, IRelay
from ..routes.interfaces import ListenHere, ProxyRoute, Route, Trail, UpstreamAssociation, UpstreamBound
from ..runtime.deadlines import Deadlines
from ..udp.registry import Associations
from ..udp.targets import DatagramRoute
from ..values.timeouts import Timeouts
from ..wire.words import Address, AddressType, Command, Request
from .channel import Channel
from .peer_listener import Take

T = TypeVar("T")


class Counts(NamedTuple):
    """
    What a service has moved.

    :ivar sent: bytes from the client to destinations.
    :ivar received: bytes from destinations to the client.
    :ivar datagrams_sent: datagrams from the client to destinations; None: the service moves none.
    :ivar datagrams_received: datagrams from destinations to the client; None: the service moves none.
    :ivar dropped: datagrams of an association that were not passed on, by reason.
    """

    sent: int = 0
    received: int = 0
    datagrams_sent: int | None = None
    datagrams_received: int | None = None
    dropped: dict[str, int] | None = None


NO_COUNTS = Counts()


class Context(Protocol):
    """What services use of what all sessions of a server share."""

    half_closed: IdleRelays
    associations: Associations
    peers: Deadlines[Any]
    graces: Deadlines[Any]

    @property
    def reactor(self) -> Any: ...

    @property
    def engine(self) -> RelayEngine | None: ...

    @property
    def route(self) -> Route: ...

    @property
    def timeouts(self) -> Timeouts: ...

    @property
    def resolve_commands(self) -> bool: ...

    def discard(self, link: SocketType | Destination) -> None: ...

    def take(self, channel: Channel) -> Take: ...

    def spoken(self, client: Client, host: str) -> AddressType | None: ...

    def seconds(self) -> float: ...

    def complain(self, client: Client, problem: str) -> None: ...


class Owner(Protocol):
    """What a service uses of its session."""

    client: Client
    channel: Channel
    negotiation: Negotiation
    half_closed: bool
    ended: Ended | None

    @property
    def context(self) -> Context: ...

    @property
    def request(self) -> Request: ...

    @property
    def policy(self) -> IPolicy: ...

    @property
    def check(self) -> DestinationCheck: ...

    @property
    def stale(self) -> bool: ...

    @property
    def unadmitted(self) -> bool: ...

    def admit(self, result: T, then: Callable[[T], None]) -> None: ...

    def wait(self, pending: Pending, then: Callable[[Any], None]) -> None: ...

    def may_stay(self, deadlines: Deadlines[Any] | None) -> None: ...

    def confirm(self, reached: Sequence[Address], result: T, then: Callable[[T], None]) -> None: ...

    def restart(self) -> None: ...

    def reconsider(self) -> None: ...

    def rule(self, reached: Address) -> Rule | None: ...

    def way(self, rule: Rule | None) -> Route: ...

    def need_way(self, command: Command) -> ProxyRoute | None: ...

    def way_to(self, command: Command, destination: Address) -> Route: ...

    def associate(self, route: ProxyRoute) -> Deferred[UpstreamAssociation]: ...

    def associate_in_time(self, route: ProxyRoute) -> Deferred[UpstreamAssociation]: ...

    def bind(self, peer: Address, listen: ListenHere) -> Deferred[UpstreamBound] | None: ...

    def look_up(self, command: Command, destination: Address) -> Deferred[Address] | None: ...

    def note_way(self) -> None: ...

    def datagram_route(self, address: Address, name: str | None) -> DatagramRoute: ...

    def dial(self, address: Address) -> Pending: ...

    def take(self, kind: str, make_room: Callable[[Scope], bool] = ...) -> None: ...

    def give(self, kind: str) -> None: ...

    def meters(self, reached: Address | None) -> Meters | None: ...

    def announce(self, bound: Address) -> None: ...

    def grant(self, bound: Address) -> None: ...

    def refuse(self, problem: Exception) -> None: ...

    def forget_negotiation(self, channel: bool = ...) -> None: ...

    def finish(self, ended: Ended) -> None: ...

    def cut(self, cause: Cause) -> None: ...

    def over(self, ended: Ended) -> None: ...


class Service:
    """
    The service of one request.

    :param session: whose request it is.
    :ivar resolved: when the destination's name was looked up, in the reactor's seconds; None: it was not.
    :ivar reached: the address at the other end of the connection.
    :ivar trail: what is known of the proxies that the connection leaves through; None: it leaves directly.
    :ivar announced: where the peer of a BIND is to connect; the answer of RESOLVE and RESOLVE_PTR.
    :ivar strangers: how many have come to a BIND's listener who were not the peer; None: there is none.
    """

    __slots__ = ("resolved", "session", "trail")

    reached: Address | None = None
    announced: str | None = None
    strangers: int | None = None

    def __init__(self, session: Owner) -> None:
        self.session = session
        self.resolved: float | None = None
        self.trail: Trail | None = None

    def name_resolved(self) -> None:
        """The name of the destination has been looked up."""
        self.resolved = self.session.context.seconds()

    @property
    def outgoing(self) -> Address | None:
        """The address at our end of the connection."""
        return None

    @property
    def granted(self) -> bool:
        """Whether bytes or datagrams flow."""
        return False

    @property
    def directions(self) -> tuple[Direction, Direction] | None:
        """The directions of the relay; None: there is none."""
        return None

    @property
    def peers(self) -> Sequence[Address] | None:
        """The addresses that the service leads to, or may lead to; None: they are not known yet."""
        return None if self.reached is None else [self.reached]

    def start(self) -> None:
        """
        Begin.

        :raises SOCKSError: when the request is refused at once.
        :raises OSError: when the system says so.
        """
        raise NotImplementedError

    def received(self, data: bytes) -> None:
        """The client has sent *data* where the service expects none; for a service that is granted."""

    def read_closed(self) -> bool:
        """
        The client has closed its direction.

        A client that has gone looks like one that has sent everything and waits for the answer; early data
        tells the two apart.

        :returns: whether the session goes on.
        """
        return bool(self.session.negotiation.early)

    def client_closed(self, ended: Ended) -> None:
        """The client's connection is gone; *ended* says how."""
        self.session.over(ended)

    def abort(self, cause: Cause) -> None:
        """End at once."""
        self.session.cut(cause)

    def reconsider(self, policy: IPolicy) -> bool | Deferred[bool]:
        """
        The policy or the client has changed.

        :param policy: decides from now on.
        :returns: whether the service is still permitted.
        """
        request, client = self.session.request, self.session.client
        return still_permitted(
            policy, client, Command(request.command), request.destination, self.peers or ()
        )

    def limits_changed(self) -> None:
        """Other limits hold from now on."""

    def place(self) -> Place | None:
        """The listener that the client has reached; None: the session's channel knows it."""
        return None

    def counts(self) -> Counts:
        """What has been moved."""
        return NO_COUNTS


class Relaying(Service):
    """A service that ends in a relay: CONNECT and BIND."""

    __slots__ = ("_own_host", "_own_port", "_relay", "reached")

    def __init__(self, session: Owner) -> None:
        super().__init__(session)
        self._relay: IRelay | None = None
        self.reached = None
        #: Sessions share the text of the address at our end, and so a whole :class:`Address` is not kept.
        self._own_host: str | None = None
        self._own_port = 0

    @property
    def outgoing(self) -> Address | None:
        """See :attr:`Service.outgoing`."""
        host = self._own_host
        if host is None:
            return None
        return Address(host, self._own_port, AddressType.IPV6 if ":" in host else AddressType.IPV4)

    @property
    def granted(self) -> bool:
        """See :attr:`Service.granted`."""
        return self._relay is not None

    @property
    def directions(self) -> tuple[Direction, Direction] | None:
        """See :attr:`Service.directions`."""
        return None if self._relay is None else self._relay.directions()

    def relay(self, dialed: Dialed, bound: Address) -> None:
        """There is a connection: the client is told *bound*, and bytes are relayed from now on."""
        session = self.session
        self.reached = dialed.reached
        self._own_host, self._own_port, _ = dialed.outgoing
        session.grant(bound)
        if session.ended is not None:  # the client went away under the write
            session.context.discard(dialed.link)
            return
        try:
            self._relay = self._start(dialed)
        except Exception:
            session.context.discard(dialed.link)
            raise

    def _start(self, dialed: Dialed) -> IRelay:
        session, context, link = self.session, self.session.context, dialed.link
        early, wrapping = session.negotiation.early, session.negotiation.wrapping
        answer = dialed.early
        idle, meters = self._timeout("idle"), session.meters(dialed.reached)
        if not isinstance(link, Destination):
            engine = context.engine
            assert engine is not None
            # The engine moves bytes as they are.
            socket = session.channel.detach() if wrapping is None else None
            if socket is not None:
                session.forget_negotiation(channel=True)
                return engine.relay(socket, link, self, early, idle, meters, answer)
            engine.forget(link.fileno())
            link = adopted(context.reactor, link)
        session.forget_negotiation()
        joined = session.channel.join(link, self, idle, wrapping, meters)
        joined.start(early, session.half_closed)
        answer += link.early
        if answer and link.end is not None:
            link.early = b""
            link.end.dataReceived(answer)
            resume(link)
        return joined

    def _timeout(self, name: str) -> float:
        """The timeout *name* in seconds, of the rule or else of the server."""
        rule = None if self.reached is None else self.session.rule(self.reached)
        of_rule = None if rule is None or rule.timeouts is None else getattr(rule.timeouts, name)
        seconds: float = getattr(self.session.context.timeouts, name) if of_rule is None else of_rule
        return seconds

    def relay_half_closed(self, relay: IRelay) -> None:
        """See :meth:`socksproxy.relay.interfaces.RelayOwner.relay_half_closed`."""
        self.session.context.half_closed.add_in_a_moment(relay, self._half_closed_timeout)

    def _half_closed_timeout(self) -> float:
        return self._timeout("half_closed")

    def relay_ended(self, relay: IRelay) -> None:
        """See :meth:`socksproxy.relay.interfaces.RelayOwner.relay_ended`."""
        self._relay = relay
        self.session.context.half_closed.discard(relay)
        if relay.problem is not None:
            self.session.context.complain(self.session.client, relay.problem)
        how = relay.how or Cause.ABORTED
        # Its value, without the two calls that the property of an enumeration makes.
        self.session.over(how._value_)

    def place(self) -> Place | None:
        """See :meth:`Service.place`."""
        return None if self._relay is None else self._relay.reached()

    def abort(self, cause: Cause) -> None:
        """See :meth:`Service.abort`."""
        if self._relay is None:
            super().abort(cause)
        else:
            self._relay.abort(cause)

    def limits_changed(self) -> None:
        """See :meth:`Service.limits_changed`."""
        if self._relay is not None:
            self._relay.meter(self.session.meters(self.reached))

    def counts(self) -> Counts:
        """See :meth:`Service.counts`."""
        return NO_COUNTS if self._relay is None else Counts(self._relay.sent, self._relay.received)
