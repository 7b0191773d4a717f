"""
What the sessions of one factory have in common, from the first client to the last record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from socket import SocketType
from typing import Any, Protocol as Shape
from weakref import WeakSet

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..auth.authentication import Authentication
from ..commands.bind import Binds
from ..commands.peer_listener import Take, for_engine, for_transports
from ..events import Ended, SessionIds
from ..identity import Client
from ..limits.admission import Admission
from ..limits.ledger import Ledger
from ..logs.occasional import SeldomByKind, complain
from ..net.dial import Destination, SocketDialer, TransportDialer
from ..net.hosts_file import HostsFile
from ..net.lookups import IAddressLookup
from ..net.own_listeners import OwnListeners
from ..net.resolve import Names
from ..net.reverse import reverse_lookups
from ..net.system_resolver import system_resolver
from ..net.tcp_options import SocketOption, socket_options
from ..policy import DefaultPolicy, IDecidingPolicy
from ..policy.asking import DestinationCheck
from ..policy.compiled import RulePolicy
from ..policy.hours import HoursWatch
from ..relay import engine_for
from ..relay.half_closed import HalfClosed
from ..runtime.deadlines import Deadlines, OwnDeadlines
from ..runtime.pool import Pool
from ..settings import ServerSettings
from ..udp.registry import Associations
from ..values.outgoing import Outgoing
from ..values.timeouts import Timeouts
from ..wire.words import AddressType
from .channel import Channel
from .early_data import EarlyData
from .session import LINGER, Phase, Session

_log = Logger(namespace="socksproxy")

#: Seconds that sessions which have been ended may take for it.
_LAST = 1.0

#: Sessions that follow a change in one turn of the reactor.
_AT_ONCE = 256


def _nothing() -> None:
    """What happens when a session has ended, until somebody wants to know."""


class TakesOptions(Shape):
    """What gives options to the sockets that it accepts."""

    def set_options(self, options: Sequence[SocketOption]) -> None: ...


class Sessions:
    """
    What the sessions of one factory share.

    :param reactor: dials, resolves and keeps time.
    :param authentication: asks clients who they are; None: nobody is asked.
    :param settings: of the server.
    """

    def __init__(self, reactor: Any, authentication: Authentication | None, settings: ServerSettings) -> None:
        self.reactor = reactor
        self.authentication = authentication
        self.listeners = OwnListeners()
        self._settings = settings
        self.live: set[Session] = set()
        #: Names the sessions; the workers of a server have other ones.
        self.ids = SessionIds()
        self.hours = HoursWatch(reactor, self._hours_changed, lambda: bool(self.live))
        self._set_policy()
        self._hosts: HostsFile | None = None
        self._set_resolver()
        self.means = DestinationCheck(self.policy, self.names, reactor)
        outgoing, advertised, bind, udp = settings.outgoing, settings.advertise, settings.bind, settings.udp
        self.binds = Binds(self.means, reactor, bind, advertised, outgoing)
        self.ledger = Ledger(reactor, settings.limits, settings.usage)
        #: When a line on a client that has broken the protocol is due.
        self.garbage = SeldomByKind(reactor)
        self.when_ended: Callable[[], None] = _nothing
        self._after_end = self.when_ended
        self._drained: list[Deferred[None]] | None = None
        self._drain_timer: IDelayedCall | None = None
        self.handshakes = Deadlines(reactor, settings.timeouts.handshake, Session.handshake_expired)
        self.connects = OwnDeadlines(reactor, settings.timeouts.connect, Session.connect_expired)
        self.peers = Deadlines(reactor, bind.timeout, Session.peer_expired)
        self.lingers = Deadlines(reactor, LINGER, Session.linger_expired)
        self.graces = Deadlines(reactor, udp.grace, Session.grace_expired)
        self.half_closed = HalfClosed(reactor)
        self.early = EarlyData()
        self.associations = Associations(reactor, self.means, udp, advertised, outgoing)
        #: Those that have not followed a change yet, and what it was.
        self._changed: list[Session] = []
        self._limited_anew = self._judged_anew = self._timed_anew = False
        self._going_over: IDelayedCall | None = None
        #: What the TCP sockets of both sides are told.
        self.socket_options = socket_options(settings.timeouts)
        #: What gives those to accepted sockets before they are there.
        self.acceptors: WeakSet[TakesOptions] = WeakSet()
        self.transport_dialer = self._transport_dialer(outgoing)
        self._engine: Any = None
        self._socket_dialer: SocketDialer | None = None

    def seconds(self) -> float:
        """The reactor's time: durations are counted by it."""
        seconds: float = self.reactor.seconds()
        return seconds

    @property
    def timeouts(self) -> Timeouts:
        """How long a session may stay in a state."""
        return self._settings.timeouts

    @property
    def resolve_commands(self) -> bool:
        """Whether RESOLVE and RESOLVE_PTR are served."""
        return self._settings.resolve_commands

    def _set_policy(self) -> None:
        policy = self._settings.policy
        self.policy = DefaultPolicy() if policy is None else policy
        if isinstance(self.policy, (DefaultPolicy, RulePolicy)) and self.policy.listeners is None:
            self.policy.listeners = self.listeners
        self.hours.follow(self.policy)
        #: The policy, where it tells more than yes or no; None: sessions have nothing to do for it.
        self.deciding = self.policy if IDecidingPolicy.providedBy(self.policy) else None

    def _set_resolver(self) -> None:
        resolver = self._settings.resolver
        if resolver is None:
            resolver = system_resolver(self.reactor)
        # An embedder's resolver knows all names itself.
        ours = IAddressLookup.providedBy(resolver)
        if ours and self._hosts is None:
            reading = Pool(self.reactor, name="hosts file", threads=1, waiting=1)
            self._hosts = HostsFile(self.reactor, reading.run)
        self.names = Names(
            resolver,
            self.reactor,
            reverse=reverse_lookups(resolver),
            hosts=self._hosts if ours else None,
        )

    def reconfigure(self, authentication: Authentication | None, settings: ServerSettings) -> None:
        """
        Have all be so from now on; see the class for the parameters.

        Sessions that there are go on, but for those that are not permitted any more, where the policy or
        those who ask clients who they are have become others.
        """
        before, self._settings = self._settings, settings
        judged_anew = authentication is not self.authentication or settings.policy is not before.policy
        self.authentication = authentication
        if settings.policy is not before.policy:
            self._set_policy()
        if settings.resolver is not before.resolver:
            self._set_resolver()
        self.means = DestinationCheck(self.policy, self.names, self.reactor)
        outgoing, advertised, bind, udp = settings.outgoing, settings.advertise, settings.bind, settings.udp
        self.handshakes.seconds = settings.timeouts.handshake
        self.connects.seconds = settings.timeouts.connect
        self.peers.seconds = bind.timeout
        self.graces.seconds = udp.grace
        if settings.timeouts != before.timeouts:
            self.socket_options = socket_options(settings.timeouts)
            for acceptor in self.acceptors:
                acceptor.set_options(self.socket_options)
        self.transport_dialer = self._transport_dialer(outgoing)
        if self._engine is not None:
            self._socket_dialer = SocketDialer(self._engine, outgoing, self.socket_options)
        self.binds.reconfigure(self.means, bind, advertised, outgoing)
        self.associations.reconfigure(self.means, udp, advertised, outgoing)
        limited_anew = settings.limits != before.limits or settings.usage is not before.usage
        if limited_anew:
            self.ledger.set(settings.limits, settings.usage)
        self._go_over(limited_anew, judged_anew)

    def _hours_changed(self) -> None:
        self._go_over(False, False, timed_anew=True)

    def _go_over(self, limited_anew: bool, judged_anew: bool, *, timed_anew: bool = False) -> None:
        """The sessions that there are follow what has changed."""
        if self._changed:  # what they have not followed yet
            limited_anew |= self._limited_anew
            judged_anew |= self._judged_anew
            timed_anew |= self._timed_anew
        if not (limited_anew or judged_anew or timed_anew):
            return
        self._limited_anew, self._judged_anew, self._timed_anew = limited_anew, judged_anew, timed_anew
        self._changed = list(self.live)
        if self._going_over is None:
            self._go_over_some()

    def _go_over_some(self) -> None:
        """Not too many of them in one turn of the reactor."""
        self._going_over = None
        for _ in range(min(_AT_ONCE, len(self._changed))):
            session = self._changed.pop()
            try:
                self._follow(session)
            except Exception:
                # A fault of ours: it costs one session, and the others follow.
                complain(_log, "{client}: the session cannot follow a change", client=session.record.client)
                _abort(session)
        if self._changed:
            self._going_over = self.reactor.callLater(0, self._go_over_some)

    def _follow(self, session: Session) -> None:
        if session in self.live and self._limited_anew:
            session.renew_limits()
        if session in self.live and self._judged_anew:
            session.reconsider()
        elif session in self.live and self._timed_anew:
            session.hours_changed()

    @property
    def engine(self) -> Any:
        """The reactor's relay engine, or None where there can be none."""
        if self._engine is None or self._engine.closed:
            self._engine = engine_for(self.reactor) if self._settings.engine else None
            self._socket_dialer = (
                None
                if self._engine is None
                else SocketDialer(self._engine, self._settings.outgoing, self.socket_options)
            )
        return self._engine

    def dialer(self, channel: Channel) -> Any:
        """What dials for a session on *channel*: both ends of a relay must be of one kind."""
        if self.engine is None or not channel.detachable:
            return self.transport_dialer
        return self._socket_dialer

    def dialer_from(self, channel: Channel, outgoing: Outgoing) -> Any:
        """Likewise, but connections leave from *outgoing*, where that has an address of the family."""
        ours = outgoing.over(self._settings.outgoing)
        if self.engine is None or not channel.detachable:
            return self._transport_dialer(ours)
        return SocketDialer(self._engine, ours, self.socket_options)

    def _transport_dialer(self, outgoing: Outgoing) -> TransportDialer:
        return TransportDialer(self.reactor, outgoing, options=self.socket_options)

    def take(self, channel: Channel) -> Take:
        """What makes a relay's end of a connection that comes to a session on *channel*."""
        if self.engine is None or not channel.detachable:
            return for_transports(self.reactor, self.socket_options)
        # Nothing keeps an engine that has closed its last port until the peer comes.
        return for_engine(lambda: self.engine, self.socket_options)

    def spoken(self, client: Client, host: str) -> AddressType | None:
        """The family in which *client* has reached *host*, a name, in a session that goes on."""
        for session in self.live:
            record = session.record
            if record.reached is None or record.request is None or record.client.whose != client.whose:
                continue
            if record.request.destination.host.lower() == host:
                return record.reached.type
        return None

    def begin(self, channel: Channel, client: Client) -> Session | None:
        """
        A client has connected.

        :returns: its session; None: there are too many, and the channel is to be closed unheard.
        """
        claims = self.ledger.arrive(client)
        if claims is not None and claims.admission is Admission.DROP:
            claims.close()
            return None
        try:
            session = Session(self, channel, client, claims)
            self.handshakes.start(session, session.record.began)
        except Exception:
            if claims is not None:
                claims.close()
            raise
        self.live.add(session)
        self.hours.start()
        return session

    def discard(self, link: SocketType | Destination) -> None:
        """Nobody wants the connection *link* any more."""
        if isinstance(link, Destination):
            link.transport.abortConnection()
            return
        if self.engine is not None:
            self.engine.drop(link.fileno())
        link.close()

    def end(self, session: Session, ended: Ended) -> None:
        """*session* is over: nothing of it is left but its record."""
        self.live.discard(session)
        self.handshakes.stop(session)
        self.connects.stop(session)
        self.peers.stop(session)
        self.lingers.stop(session)
        self.graces.stop(session)
        session.release()
        told = session.heard or self._settings.log_probes
        if told and self._settings.observer is not None and session.recorded():
            try:
                self._settings.observer(
                    session.record.event(self.ids.name(session.number), ended, self.seconds(), time.time())
                )
            except Exception:
                # An embedder's observer may raise anything; it costs this event and nothing else.
                complain(_log, "the observer of sessions failed; an event is lost")
        self.when_ended()

    def underway(self) -> int:
        """How many sessions may yet open their second descriptor."""
        return len(self.handshakes) + len(self.connects)

    def needed(self) -> int:
        """How many descriptors the sessions have, once each has its two, and each association its three."""
        return 2 * len(self.live) + len(self.associations.live)

    def drain(self, seconds: float) -> Deferred[None]:
        """Let sessions come to their end. See :meth:`~socksproxy.server.factory.SOCKSFactory.drain`."""
        if self._drained is None:
            self._drained = []
            self._after_end, self.when_ended = self.when_ended, self._ended_while_draining
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        for session in list(self.live):
            if session.phase is Phase.NEGOTIATING:
                session.abort()
        if seconds > 0:
            self._set_drain_timer(seconds, self._end_drain)
        else:
            self._end_drain()
        self._check_drained()
        return drained

    def _ended_while_draining(self) -> None:
        self._after_end()
        self._check_drained()

    def _end_drain(self) -> None:
        self.close()
        # What is left on Twisted's transports ends in a later turn of the reactor.
        self._set_drain_timer(_LAST, self._leave_rest)

    def _leave_rest(self) -> None:
        self.live.clear()
        self._check_drained()

    def _set_drain_timer(self, seconds: float, call: Callable[[], None]) -> None:
        self._stop_drain_timer()
        self._drain_timer = self.reactor.callLater(seconds, call)

    def _stop_drain_timer(self) -> None:
        timer, self._drain_timer = self._drain_timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _check_drained(self) -> None:
        if self.live or not self._drained:
            return
        self._stop_drain_timer()
        drained, self._drained = self._drained, []
        for waiting in drained:
            waiting.callback(None)

    def close(self) -> None:
        """End every session at once."""
        for session in list(self.live):
            _abort(session)
        self._changed.clear()
        self.hours.stop()
        self.associations.close()
        self.half_closed.close()
        for deadlines in (self.handshakes, self.connects, self.peers, self.lingers, self.graces):
            deadlines.close()


def _abort(session: Session) -> None:
    try:
        session.abort()
    except Exception:
        # A fault of ours: it costs one session, and the others end all the same.
        complain(_log, "{client}: the session fails to end", client=session.record.client)
