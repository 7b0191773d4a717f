"""
What the sessions of one server share: the settings, the policy and the users in force, and what serves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller
from socket import SocketType
from typing import Any, Protocol
from weakref import WeakSet

from twisted.logger import Logger

from ..auth.authentication import Authentication
from ..commands.bind import Binds
from ..commands.channel import Channel
from ..commands.peer_listener import Take, for_engine, for_transports
from ..errors import NameNotFound
from ..events import Cause, IServerEvents, ServerEvents, SessionIds
from ..identity import Client
from ..limits.ledger import Ledger
from ..logs.access_log import AccessLog
from ..logs.printable import line_of_record
from ..logs.throttle import LogThrottleByKind, complain
from ..metrics.columns import OwnColumn
from ..net.dial import Destination
from ..net.hosts_file import HostsFile
from ..net.lookups import IAddressLookup
from ..net.names import canonical
from ..net.own_listeners import OwnListeners
from ..net.resolve import NameLookups
from ..net.reverse import reverse_lookups
from ..net.system_resolver import system_resolver
from ..net.tcp_options import SocketOption, socket_options
from ..policy import DefaultPolicy, IDecidingPolicy, IPolicy
from ..policy.asking import DestinationCheck
from ..policy.compiled import RulePolicy
from ..policy.helpers import RequestHelpers
from ..policy.hours import HoursWatch
from ..policy.sets import HostWatch
from ..relay import engine_for
from ..relay.engine import RelayEngine
from ..relay.idle import IdleRelays
from ..routes.counters import UpstreamCounters
from ..routes.interfaces import Route
from ..routes.sticky import Pins
from ..routes.ways import WaysOut
from ..runtime.deadlines import Deadlines, OwnDeadlines
from ..runtime.pool import Pool
from ..settings import ServerSettings
from ..shared.commands import Deed, NodeCommand
from ..udp.registry import Associations
from ..values.outgoing import Outgoing
from ..values.timeouts import Timeouts
from ..values.upstreams import CLIENTS_OWN
from ..wire.words import Address, AddressType
from .connected_ways import ConnectedWays, Whose
from .counters import SessionCounters
from .early_data import EarlyData

_log = Logger(namespace="socksproxy")

#: Users whose last logins are remembered.
_LOGINS = 16384
#: Seconds that a client has to read its refusal and close.
LINGER = 2.0


class TakesOptions(Protocol):
    """What gives options to the sockets that it accepts."""

    def set_options(self, options: Sequence[SocketOption]) -> None: ...


class Biller(Protocol):
    """What counts for usage records."""

    def over(self, session: Any) -> None: ...


class Sessions(Protocol):
    """
    What keeps the sessions.

    :ivar live: the sessions that there are, the oldest first.
    """

    @property
    def live(self) -> dict[Any, None]: ...

    def end(self, session: Any) -> None: ...

    def end_all(self, cause: Cause, user: str | None = None) -> None: ...

    def spoken(self, client: Client, host: str) -> AddressType | None: ...

    def way_of(self, whose: Whose, host: str | None) -> str | None: ...

    def hours_changed(self) -> None: ...

    def __len__(self) -> int: ...


class Events:
    """
    Passes events on to subscribers.

    Strategy: a subscriber is called for the events that its class defines, and an event without subscribers
    costs one look into a dictionary.
    """

    def __init__(self) -> None:
        self._subscribers: list[IServerEvents] = []
        self._called: dict[str, tuple[Callable[..., None], ...]] = {}

    def subscribe(self, subscriber: IServerEvents) -> None:
        """Call *subscriber* from now on."""
        self._subscribers.append(subscriber)
        self._find()

    def unsubscribe(self, subscriber: IServerEvents) -> None:
        """Call *subscriber* no more."""
        self._subscribers.remove(subscriber)
        self._find()

    def _find(self) -> None:
        self._called = {
            name: tuple(
                getattr(subscriber, name)
                for subscriber in self._subscribers
                if getattr(type(subscriber), name) is not getattr(ServerEvents, name)
            )
            for name in IServerEvents.names()
        }

    def wants(self, event: str) -> bool:
        """Whether any subscriber is called for *event*."""
        return bool(self._called.get(event))

    def tell(self, event: str, *values: Any) -> None:
        """*event* happens."""
        for call in self._called.get(event, ()):
            try:
                call(*values)
            except Exception:
                # An embedder's subscriber may raise anything; it costs this event and nothing else.
                complain(_log, "the observer of sessions failed; an event is lost")


class ServerContext:
    """
    What the sessions of one server share.

    :param reactor: dials, resolves and keeps time.
    :param authentication: asks clients who they are; None: clients are not asked.
    :param settings: of the server.
    :param sessions: keeps the sessions.
    """

    def __init__(
        self,
        reactor: Any,
        authentication: Authentication | None,
        settings: ServerSettings,
        sessions: Sessions,
    ) -> None:
        self.reactor = reactor
        self.authentication = authentication
        self.settings = settings
        self.sessions = sessions
        self.events = Events()
        #: The traces (:class:`~socksproxy.session.trace.Tracing`); None: nothing is traced.
        self.tracing: Any = None
        #: When users have logged in last, for the admin API; None: it has not asked.
        self.last_logins: dict[str, float] | None = None
        #: Counts for the metrics; None: nothing is counted.
        self.counters: SessionCounters | None = None
        #: Counts for usage records; None: there are none.
        self.billing: Biller | None = None
        #: Names the sessions; the workers of a server have other ones.
        self.ids = SessionIds()
        self.listeners = OwnListeners()
        self.hours = HoursWatch(reactor, sessions.hours_changed, lambda: bool(len(sessions)))
        self._watches_hosts = False
        self._host_watch: HostWatch | None = None
        self.set_policy(DefaultPolicy() if settings.policy is None else settings.policy)
        #: What rules ask beside themselves.
        self.helpers = RequestHelpers(reactor)
        self.helpers.follow(settings.helpers)
        self._hosts: HostsFile | None = None
        self._set_resolver()
        self.check = DestinationCheck(self.policy, self.names, reactor)
        outgoing, advertised, bind, udp = _fixed(settings), settings.advertise, settings.bind, settings.udp
        self.binds = Binds(self.check, reactor, bind, advertised, outgoing)
        self.associations = Associations(reactor, self.check, udp, advertised, outgoing)
        self.ledger = Ledger(reactor, settings.limits, settings.usage, store=settings.shared)
        self._share()
        self.limits_each_session = bool(settings.limits.session)
        #: The sticky sessions; None: every name is the name of a user.
        self.pins = None if settings.sticky is None else Pins(settings.sticky, reactor)
        #: When a line on a client that has broken the protocol is due.
        self.garbage = LogThrottleByKind(reactor)
        self._set_deadlines()
        self.half_closed = IdleRelays(reactor, Cause.HALF_CLOSED)
        self.early = EarlyData()
        self._connected_ways = ConnectedWays(reactor)
        #: What the TCP sockets of both sides are told.
        self.socket_options = socket_options(settings.timeouts)
        #: What gives these options to sockets when they are accepted.
        self.acceptors: WeakSet[TakesOptions] = WeakSet()
        self._engine: RelayEngine | None = None
        self.ways = WaysOut(
            reactor,
            lambda: self.engine,
            lambda: self.names,
            self.events.tell,
            lambda name: self.ledger.counting.counter(name),
        )
        self._set_routes()

    def _set_deadlines(self) -> None:
        """Have a deadline for each state that a session waits in."""
        reactor, settings, timeouts = self.reactor, self.settings, self.settings.timeouts
        self.handshakes: Deadlines[Any] = Deadlines(
            reactor, timeouts.handshake, methodcaller("handshake_expired")
        )
        self.connects: OwnDeadlines[Any] = OwnDeadlines(
            reactor, timeouts.connect, methodcaller("connect_expired")
        )
        self.peers: Deadlines[Any] = Deadlines(reactor, settings.bind.timeout, methodcaller("peer_expired"))
        self.lingers: Deadlines[Any] = Deadlines(reactor, LINGER, methodcaller("linger_expired"))
        self.graces: Deadlines[Any] = Deadlines(reactor, settings.udp.grace, methodcaller("grace_expired"))

    @property
    def deadlines(self) -> tuple[Deadlines[Any], ...]:
        """How long sessions may stay in their states."""
        return self.handshakes, self.connects, self.peers, self.lingers, self.graces

    def count(self, own: OwnColumn, users: int = 0) -> SessionCounters:
        """
        Count for the metrics from now on, until :meth:`stop_counting`.

        :param own: where it is counted.
        :param users: see :class:`~socksproxy.session.counters.SessionCounters`.
        """
        self.stop_counting()
        self.counters = counters = SessionCounters(own, self, users)
        self.events.subscribe(counters)
        counters.start()
        return counters

    def stop_counting(self) -> None:
        """Count no more."""
        counters, self.counters = self.counters, None
        if counters is not None:
            self.events.unsubscribe(counters)
            self.ledger.on_refusal = None
            counters.stop()

    @property
    def live(self) -> dict[Any, None]:
        """The sessions that there are, the oldest first."""
        return self.sessions.live

    @property
    def lost_lines(self) -> int:
        """Lines of the access log that could not be written, since it was opened."""
        observer = self.settings.observer
        return observer.lost if isinstance(observer, AccessLog) else 0

    @property
    def upstreams(self) -> Mapping[str, UpstreamCounters]:
        """What is counted of upstreams, by their names."""
        return self.ways.counters

    def needed(self) -> int:
        """How many descriptors the sessions have, once each has its two, and each association its three."""
        return 2 * len(self.sessions) + len(self.associations.live)

    def seconds(self) -> float:
        """The reactor's time: durations are counted by it."""
        seconds: float = self.reactor.seconds()
        return seconds

    @property
    def timeouts(self) -> Timeouts:
        """How long a session may stay in a state."""
        return self.settings.timeouts

    @property
    def resolve_commands(self) -> bool:
        """Whether RESOLVE and RESOLVE_PTR are served."""
        return self.settings.resolve_commands

    def reconfigure(
        self, authentication: Authentication | None, settings: ServerSettings
    ) -> tuple[bool, bool]:
        """
        Sessions that begin from now on are served as these say; see the class for the parameters.

        :returns: whether the sessions that there are have to follow other limits, and other rules or users.
        """
        before, self.settings = self.settings, settings
        judged_anew = authentication is not self.authentication or settings.policy is not before.policy
        self.authentication = authentication
        self._share()
        if settings.policy is not before.policy:
            self.set_policy(DefaultPolicy() if settings.policy is None else settings.policy)
        if settings.helpers != before.helpers:
            self.helpers.follow(settings.helpers)
        if settings.resolver is not before.resolver or settings.prefer != before.prefer:
            self._set_resolver()
        if settings.policy is not before.policy:
            self.watch_hosts(self._watches_hosts)
        self.check = DestinationCheck(self.policy, self.names, self.reactor)
        outgoing, advertised, bind, udp = _fixed(settings), settings.advertise, settings.bind, settings.udp
        self.handshakes.seconds = settings.timeouts.handshake
        self.connects.seconds = settings.timeouts.connect
        self.peers.seconds = bind.timeout
        self.graces.seconds = udp.grace
        if settings.timeouts != before.timeouts:
            self.socket_options = socket_options(settings.timeouts)
            for acceptor in self.acceptors:
                acceptor.set_options(self.socket_options)
        if settings.busy_poll != before.busy_poll:
            self._poll_busily()
        self._set_routes()
        self._set_pins()
        self.binds.reconfigure(self.check, bind, advertised, outgoing)
        self.associations.reconfigure(self.check, udp, advertised, outgoing)
        overridden = bool(self.ledger.until_reload)
        self.ledger.until_reload.clear()
        limited_anew = overridden or (
            settings.limits != before.limits
            or settings.usage is not before.usage
            or settings.shared is not before.shared
        )
        if limited_anew:
            self.ledger.set(settings.limits, settings.usage, settings.shared)
            self.limits_each_session = bool(settings.limits.session)
        return limited_anew, judged_anew

    def _share(self) -> None:
        """Have the other nodes' penalties hold here, and their commands obeyed."""
        store = self.settings.shared
        if self.authentication is not None:
            self.authentication.penalties.share_with(store)
        if store is not None:
            store.commands.obey[Deed.KICK] = self._kick
            store.commands.obey[Deed.UNLOCK] = self._unlock

    def _kick(self, command: NodeCommand) -> None:
        self.sessions.end_all(Cause.ABORTED, command.about)

    def _unlock(self, command: NodeCommand) -> None:
        if self.authentication is not None:
            self.authentication.penalties.forgive(command.about, told=True)

    def set_policy(self, policy: IPolicy) -> None:
        """*policy* decides from now on."""
        if isinstance(policy, (DefaultPolicy, RulePolicy)):
            policy = policy.with_listeners(self.listeners)
        self.policy: IPolicy = policy
        self.hours.follow(policy)
        #: The policy, where it tells more than yes or no; None: sessions have nothing to do for it.
        self.deciding = policy if IDecidingPolicy.providedBy(policy) else None
        #: Whether bytes under some rules do not count for quotas.
        self.exempts = isinstance(policy, RulePolicy) and not all(rule.quota for rule in policy.rules)
        #: Whether sessions find out which listener their client has reached, which takes a system call.
        self.asks_listener = not isinstance(policy, RulePolicy) or any(
            rule.listeners for rule in policy.rules
        )

    def watch_hosts(self, watches: bool) -> None:
        """Look the hosts of sets up from now on, or no more."""
        if self._host_watch is not None:
            self._host_watch.stop()
            self._host_watch = None
        hosts = self.policy.sets.hosts if isinstance(self.policy, RulePolicy) else []
        if watches and hosts:
            self._host_watch = HostWatch(self.reactor, lambda: self.names, hosts)
            self._host_watch.start()
        self._watches_hosts = watches

    def _set_resolver(self) -> None:
        resolver = self.settings.resolver
        if resolver is None:
            resolver = system_resolver(self.reactor)
        # An embedder's resolver knows all names itself.
        ours = IAddressLookup.providedBy(resolver)
        if ours and self._hosts is None:
            reading = Pool(self.reactor, name="hosts file", threads=1, waiting=1)
            self._hosts = HostsFile(self.reactor, reading.run)
        self.names = NameLookups(
            resolver,
            self.reactor,
            reverse=reverse_lookups(resolver),
            hosts=self._hosts if ours else None,
            prefer=None if self.settings.prefer is None else AddressType[self.settings.prefer.upper()],
        )

    def note_login(self, user: str) -> None:
        """*user* has logged in now."""
        logins = self.last_logins
        if logins is not None:
            user = line_of_record(user)  # as questions about users have it
            logins.pop(user, None)
            logins[user] = time.time()
            if len(logins) > _LOGINS:
                del logins[next(iter(logins))]

    def complain(self, client: Client, problem: str) -> None:
        """One line in the log on what *client* does, unless there was one of its kind lately."""
        due = self.garbage.due(problem)
        if due:
            more = "" if due == 1 else f" ({due} such clients since the last such line)"
            _log.info("{client}: {problem}{more}", client=client, problem=problem, more=more)

    # The engine and the ways out.

    @property
    def engine(self) -> RelayEngine | None:
        """The reactor's relay engine, or None where there can be none."""
        if self._engine is None or self._engine.closed:
            self._engine = engine_for(self.reactor) if self.settings.engine else None
            self._poll_busily()
        return self._engine

    def _poll_busily(self) -> None:
        if self._engine is not None and not self._engine.closed:
            self._engine.poll_busily(self.settings.busy_poll * 1e-6)

    def _set_routes(self) -> None:
        upstreams = self.settings.upstreams
        in_files = any(pool.members_file is not None for pool in self.settings.pools.values())
        #: Whether an upstream may serve BIND, so that the ways of connections count.
        self.remembers_ways = in_files or any(each.bind for each in upstreams.values())
        #: Whether an upstream gets the names and passwords that clients show.
        self.passes_logins = any(each.login == CLIENTS_OWN for each in upstreams.values())
        self.ways.configure(upstreams, _fixed(self.settings), self.socket_options)
        self.ways.configure_pools(self.settings.pools, self.settings.timeouts.connect)
        self.ways.own = self.settings.routes
        #: The way out by its name, for rules and users with addresses of their own to leave from.
        self.route_by: Callable[[str | None, Outgoing], Route] = self.ways.by
        #: Whether the server's outgoing address is chosen for each session.
        self.chooses_outgoing = self.settings.outgoing.fixed is None
        # A session that should have chosen an address does not leave from any other.
        self.route: Route = self.route_by(self.settings.via, Outgoing(strict=self.chooses_outgoing))

    def _set_pins(self) -> None:
        settings, before = self.settings.sticky, self.pins
        if before is None or settings is not before.settings:
            self.pins = None if settings is None else Pins(settings, self.reactor, before=before)
            if before is not None:
                before.close()

    def take(self, channel: Channel) -> Take:
        """What makes a relay's end of a connection that comes to a session on *channel*."""
        if self.engine is None or not channel.detachable:
            return for_transports(self.reactor, self.socket_options)
        # Nothing keeps an engine that has closed its last port until the peer comes.
        return for_engine(lambda: self.engine, self.socket_options)

    def discard(self, link: SocketType | Destination) -> None:
        """Close the connection *link*, which is of no use any more."""
        if isinstance(link, Destination):
            link.transport.abortConnection()
            return
        if self.engine is not None:
            self.engine.drop(link.fileno())
        link.close()

    def spoken(self, client: Client, host: str) -> AddressType | None:
        """The family in which *client* has reached *host*, a name, in a session that goes on."""
        return self.sessions.spoken(client, host)

    def note_way(self, whose: Whose, destination: Address, via: str) -> None:
        """A connection of *whose* has reached *destination* by *via*."""
        try:
            host = canonical(destination).host
        except NameNotFound:  # a name that the hosts file defines
            host = destination.host.lower()
        self._connected_ways.note(whose, host, via)

    def way_of(self, whose: Whose, host: str | None) -> str | None:
        """The last upstream of the way by which *whose* reaches *host*, or has lately; None: any host."""
        via = self.sessions.way_of(whose, host) or self._connected_ways.find(whose, host)
        return None if via is None else via.rpartition(">")[2]


def _fixed(settings: ServerSettings) -> Outgoing:
    """The addresses that all connections leave from where no address is chosen."""
    return settings.outgoing.fixed or Outgoing()
