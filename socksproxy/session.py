"""
One client's session, from the first byte to the access record.

A :class:`Session` knows the order of things and owns no socket: what carries
its bytes is a channel (a Twisted protocol, or a plain socket of the relay
engine), and what all sessions of a factory have in common is in :class:`Sessions`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum, auto
from socket import SocketType
from typing import Any, NamedTuple, Protocol as Shape

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHostnameResolver
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure

from .commands.associate import associate
from .commands.bind import Binds, BindSettings, Bound, Wanted
from .commands.connect import connect
from .commands.means import Means
from .commands.resolve import resolve, resolve_pointer
from .deadlines import Deadlines
from .dial import Destination, Dialed, Outgoing, SocketDialer, TransportDialer, adopted
from .errors import (
    CommandNotSupported,
    ConnectTimedOut,
    NoFreePort,
    ProtocolError,
    SOCKSError,
    TooManySessions,
    describe,
    reply_for,
)
from .listen import Take, for_engine, for_transports
from .names import printable
from .negotiation import MAX_EARLY, Negotiation, NotSOCKS
from .policy import Admission, Client, DefaultPolicy, IPolicy, OwnListeners, SessionCount, SessionLimits
from .ports import Advertised
from .record import AccessRecord, shown
from .relay import engine_for
from .relay.outcome import End, IRelay
from .relay.transports import TransportsRelay
from .resolve import Names
from .reverse import reverse_lookups
from .udp.association import Association
from .udp.associations import Associations
from .udp.settings import UDPSettings
from .wire.words import Address, AddressType, Command, Reply, Request, Version

_log = Logger(namespace="socksproxy")

#: Seconds that a client has to read its refusal and close.
LINGER = 2.0

#: Bytes that a client may send on the connection of an association, where nothing is due.
MAX_IDLE_TALK = 1 << 20
#: Seconds that sessions which have been ended may take for it.
_LAST = 1.0

#: Seconds between two lines on sessions over the limit.
_COMPLAIN_EVERY = 60.0

#: Stands for a client whose address is not known yet.
UNIDENTIFIED = Client("")

#: Replies whose cause lies here, and not at the destination: an operator wants to see them.
_OURS = frozenset({Reply.GENERAL_FAILURE, Reply.NOT_ALLOWED})


class Timeouts(NamedTuple):
    """
    How long a session may stay in a state, in seconds; None: for ever.

    :ivar handshake: from the connection to the whole request.
    :ivar connect: from the request to the reply: looking up and connecting.
    :ivar idle: without a byte in either direction of a relay.
    """

    handshake: float | None = 10.0
    connect: float | None = 30.0
    idle: float | None = None


class Channel(Shape):
    """What carries a session's bytes to and from its client."""

    #: Whether :meth:`detach` can be expected to give a socket.
    detachable: bool

    def write(self, data: bytes) -> None:
        """Send *data*, as one segment where that can be had."""

    def finish(self) -> None:
        """Close our direction when all is sent, and go on reading; or both, where it cannot be done apart."""

    def close(self) -> None:
        """Close both directions when all is sent."""

    def abort(self) -> None:
        """Close at once, with a reset."""

    def pause(self) -> None:
        """Read no more for now."""

    def local(self) -> str | None:
        """The literal address of ours that the client has reached; None: a Unix socket."""

    def detach(self) -> SocketType | None:
        """Give up the socket, non-blocking and with nothing left to send; None: it cannot be had."""

    def join(
        self, destination: Destination, ended: Callable[[IRelay], None], idle: float | None
    ) -> TransportsRelay:
        """A relay, not started yet, between this channel's transport and *destination*'s."""


class Phase(Enum):
    """What a session is at."""

    NEGOTIATING = auto()
    SERVING = auto()
    RELAYING = auto()
    ASSOCIATED = auto()
    FINISHING = auto()
    OVER = auto()


class Sessions:
    """
    What the sessions of one factory share. See :class:`~socksproxy.server.SOCKSFactory` for the parameters.
    """

    def __init__(
        self,
        reactor: Any,
        policy: IPolicy | None,
        resolver: IHostnameResolver | None,
        outgoing: Outgoing,
        timeouts: Timeouts,
        limits: SessionLimits,
        observer: ILogObserver | None,
        use_engine: bool,
        bind: BindSettings,
        bind_addresses: Outgoing,
        udp: UDPSettings,
        advertised: Advertised,
        resolve_commands: bool,
    ) -> None:
        self.reactor = reactor
        self.seconds = reactor.seconds
        self.listeners = OwnListeners()
        self.policy = DefaultPolicy() if policy is None else policy
        if isinstance(self.policy, DefaultPolicy) and self.policy.listeners is None:
            self.policy.listeners = self.listeners
        self.names = Names(
            reactor.nameResolver if resolver is None else resolver,
            reactor,
            reverse=reverse_lookups(resolver, reactor),
        )
        self.means = Means(self.policy, self.names, reactor)
        self.binds = Binds(self.means, reactor, bind, bind_addresses, advertised, outgoing)
        self.resolve_commands = resolve_commands
        self.timeouts = timeouts
        self.count = SessionCount(limits)
        self.observer = observer
        self.live: set[Session] = set()
        self.when_ended: Callable[[], None] = _nothing
        self._after_end = self.when_ended
        self._drained: list[Deferred[None]] | None = None
        self._drain_timer: IDelayedCall | None = None
        self._complained: float | None = None
        self._over_limit = 0
        self.handshakes = Deadlines(reactor, timeouts.handshake, Session.handshake_expired)
        self.connects = Deadlines(reactor, timeouts.connect, Session.connect_expired)
        self.peers = Deadlines(reactor, bind.timeout, Session.peer_expired)
        self.lingers = Deadlines(reactor, LINGER, Session.linger_expired)
        self.graces = Deadlines(reactor, udp.grace, Session.grace_expired)
        self._outgoing = outgoing
        self.associations = Associations(reactor, self.means, udp, advertised, outgoing)
        self.transport_dialer = TransportDialer(reactor, outgoing)
        self._use_engine = use_engine
        self._engine: Any = None
        self._socket_dialer: SocketDialer | None = None

    @property
    def engine(self) -> Any:
        """The reactor's relay engine, or None where there can be none."""
        if self._engine is None or self._engine.closed:
            self._engine = engine_for(self.reactor) if self._use_engine else None
            self._socket_dialer = None if self._engine is None else SocketDialer(self._engine, self._outgoing)
        return self._engine

    def dialer(self, channel: Channel) -> Any:
        """What dials for a session on *channel*: both ends of a relay must be of one kind."""
        if self.engine is None or not channel.detachable:
            return self.transport_dialer
        return self._socket_dialer

    def take(self, channel: Channel) -> Take:
        """What makes a relay's end of a connection that comes to a session on *channel*."""
        if self.engine is None or not channel.detachable:
            return for_transports(self.reactor)
        # Nothing keeps an engine that has closed its last port until the peer comes.
        return for_engine(lambda: self.engine)

    def spoken(self, client: Client, host: str) -> AddressType | None:
        """The family in which *client* has reached *host*, a name, in a session that goes on."""
        for session in self.live:
            record = session.record
            if record.reached is None or record.request is None or record.client.host != client.host:
                continue
            if record.request.destination.host.lower() == host:
                return record.reached.type
        return None

    def begin(self, channel: Channel, client: Client) -> Session | None:
        """
        A client has connected.

        :returns: its session; None: there are too many, and the channel is to be closed unheard.
        """
        admission = self.count.admit(client.host)
        if admission is Admission.DROP:
            self.count.release(client.host)
            self.complain()
            return None
        session = Session(self, channel, client, admission)
        self.live.add(session)
        self.handshakes.start(session, session.record.began)
        return session

    def discard(self, link: SocketType | Destination) -> None:
        """Nobody wants the connection *link* any more."""
        if isinstance(link, Destination):
            link.transport.abortConnection()
            return
        if self.engine is not None:
            self.engine.drop(link.fileno())
        link.close()

    def end(self, session: Session, how: str) -> None:
        """*session* is over: nothing of it is left but its record."""
        self.live.discard(session)
        self.handshakes.stop(session)
        self.connects.stop(session)
        self.peers.stop(session)
        self.lingers.stop(session)
        self.graces.stop(session)
        self.count.release(session.record.client.host)
        if self.observer is not None:
            try:
                self.observer(session.record.event(how, self.seconds(), time.time()))
            except Exception:
                # An embedder's observer may raise anything; it costs this event and nothing else.
                _log.failure("the observer of sessions failed; an event is lost")
        self.when_ended()

    def underway(self) -> int:
        """How many sessions may yet open their second descriptor."""
        return len(self.handshakes) + len(self.connects)

    def needed(self) -> int:
        """How many descriptors the sessions have, once each has its two."""
        return 2 * len(self.live)

    def complain(self) -> None:
        """Sessions are over the limit: one line a while, however many they are."""
        self._over_limit += 1
        now = self.seconds()
        if self._complained is None or now - self._complained >= _COMPLAIN_EVERY:
            _log.warn(
                "too many sessions: {live} are open; {refused} refused since the last such line",
                live=len(self.live),
                refused=self._over_limit,
            )
            self._complained, self._over_limit = now, 0

    def drain(self, seconds: float) -> Deferred[None]:
        """Let sessions come to their end. See :meth:`~socksproxy.server.SOCKSFactory.drain`."""
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
            session.abort()
        self.associations.close()
        for deadlines in (self.handshakes, self.connects, self.peers, self.lingers, self.graces):
            deadlines.close()


def _nothing() -> None:
    """What happens when a session has ended, until somebody wants to know."""


class Session:
    """
    One client.

    :param sessions: what it shares with others.
    :param channel: what carries its bytes.
    :param client: who it is.
    :param admission: whether it is within the limits.
    """

    __slots__ = (
        "_admission",
        "_association",
        "_discarded",
        "_half_closed",
        "_how",
        "_pending",
        "_relay",
        "_sessions",
        "channel",
        "negotiation",
        "phase",
        "record",
    )

    def __init__(self, sessions: Sessions, channel: Channel, client: Client, admission: Admission) -> None:
        self._sessions = sessions
        self._admission = admission
        self._how: str | None = None
        self._pending: Deferred[Any] | None = None
        self._relay: IRelay | None = None
        self._association: Association | None = None
        self._half_closed = False
        self._discarded = 0
        self.channel = channel
        self.negotiation = Negotiation()
        self.phase = Phase.NEGOTIATING
        self.record = AccessRecord(client, sessions.seconds())

    # What the channel tells.

    def identify(self, client: Client) -> None:
        """The client has turned out to be *client*."""
        count = self._sessions.count
        count.release(self.record.client.host)
        self.record.client = client
        self._admission = count.admit(client.host)
        if self._admission is Admission.DROP:
            self._sessions.complain()
            self._how = "refused: too many sessions"
            self.phase = Phase.FINISHING
            self.channel.abort()

    def received(self, data: bytes) -> None:
        """The client sent *data*."""
        if self.phase is Phase.NEGOTIATING:
            self._negotiate(data)
        elif self.phase is Phase.SERVING:
            self.negotiation.receive(data)
            if self.negotiation.full:
                self.channel.pause()
        elif self.phase is Phase.FINISHING:
            self._discarded += len(data)
            if self._discarded > MAX_EARLY:
                self.channel.abort()
        elif self.phase is Phase.ASSOCIATED:
            # Nothing is due here, but a byte now and then is no harm.
            self._discarded += len(data)
            if self._discarded > MAX_IDLE_TALK and self._association is not None:
                self._how = "protocol error: data on the connection of an association"
                self._association.abort()

    def read_closed(self) -> None:
        """The client has closed its direction."""
        self._half_closed = True
        if self.phase is Phase.NEGOTIATING:
            self._how = "client"
            self.channel.close()
        elif self.phase is Phase.SERVING and not (self.negotiation.early and self._waits_for_answer()):
            # Nothing tells a client that has gone from one that will send no more;
            # one that has already sent all it had to say may well wait for the answer.
            self._cancel("client")
            self.channel.close()
        elif self.phase is Phase.FINISHING:
            self.channel.close()
        elif self.phase is Phase.ASSOCIATED:
            self._leave("client")
            self.channel.close()

    def lost(self, reset: bool) -> None:
        """The client's connection is gone; *reset*: not by an orderly close."""
        how = "client reset" if reset else "client"
        if self._association is not None:
            self._leave(how)
            return
        self._cancel(how)
        self._over()

    # What the deadlines tell.

    def handshake_expired(self) -> None:
        """The request did not come in time."""
        self._how = "handshake timeout"
        self.channel.abort()

    def connect_expired(self) -> None:
        """The destination could not be reached in time."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
            self._refuse(ConnectTimedOut("connect timeout"))

    def peer_expired(self) -> None:
        """The peer of a BIND did not come in time."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
            self._refuse(ConnectTimedOut("the peer did not come in time"))

    def linger_expired(self) -> None:
        """The client has had time to read its refusal."""
        self.channel.abort()

    def grace_expired(self) -> None:
        """The client has been gone for as long as its association may outlive it."""
        if self._association is not None:
            self._association.abort(End.CLIENT)

    def abort(self) -> None:
        """End the session at once."""
        if self._relay is not None:
            self._relay.abort()
            return
        if self._association is not None:
            self._association.abort()
            return
        self._cancel("aborted")
        self.channel.abort()

    # The way of a session.

    def _negotiate(self, data: bytes) -> None:
        negotiation = self.negotiation
        try:
            request = negotiation.receive(data)
        except ProtocolError as problem:
            self._break_off(problem)
            return
        if negotiation.output:
            self.channel.write(negotiation.take_output())
        if request is not None and self.phase is Phase.NEGOTIATING:
            self._serve(request)

    def _break_off(self, problem: ProtocolError) -> None:
        """The client broke the protocol: the answer that there is, one line in the log."""
        self.record.version = self.negotiation.version
        self.record.reply = self.negotiation.answer
        self._sessions.handshakes.stop(self)
        output = self.negotiation.take_output()
        if output:
            self.channel.write(output)
        _log.info(
            "{client}: {problem}", client=self.record.client, problem=problem, reply=problem.reply.value
        )
        self._finish(f"protocol error: {problem}" if not isinstance(problem, NotSOCKS) else str(problem))

    def _serve(self, request: Request) -> None:
        sessions, record = self._sessions, self.record
        self.phase = Phase.SERVING
        record.version, record.request = request.version, request
        record.requested = now = sessions.seconds()
        sessions.handshakes.stop(self)
        sessions.connects.start(self, now)
        try:
            if self._admission is not Admission.SERVE:
                raise TooManySessions("too many sessions")
            start = _COMMANDS[request.version].get(request.command)
            if start is None:
                raise CommandNotSupported("command not supported")
            start(self, request)
        except (SOCKSError, OSError) as problem:
            self._refuse(problem)

    def _await(self, pending: Deferred[Any], then: Callable[[Any], None]) -> None:
        """Go on with *then* when *pending* fires; it is cancelled when the session ends before."""
        self._pending = pending
        pending.addCallbacks(then, self._failed)
        pending.addErrback(self._broke)

    def _connect(self, request: Request) -> None:
        sessions = self._sessions
        dialer = sessions.dialer(self.channel)
        pending = connect(sessions.means, self.record.client, request.destination, dialer, self._resolved)
        self._await(pending, self._connected)

    def _bind(self, request: Request) -> None:
        sessions, client = self._sessions, self.record.client
        wanted = Wanted(
            client,
            request.destination,
            request.version is Version.SOCKS4,
            lambda host: sessions.spoken(client, host),
        )
        self.record.strangers = 0
        take = sessions.take(self.channel)
        self._await(sessions.binds.bind(wanted, take, self._resolved, self._stranger), self._bound)

    def _stranger(self) -> None:
        self.record.strangers = (self.record.strangers or 0) + 1

    def _resolve(self, request: Request) -> None:
        sessions = self._sessions
        if not sessions.resolve_commands:
            raise CommandNotSupported("command not supported")
        start = resolve if request.command == Command.RESOLVE else resolve_pointer
        pending = start(sessions.means, self.record.client, request, self._resolved)
        self._await(pending, self._answered)

    def _resolved(self) -> None:
        self.record.resolved = self._sessions.seconds()

    def _bound(self, bound: Bound) -> None:
        sessions = self._sessions
        sessions.connects.stop(self)
        sessions.peers.start(self, sessions.seconds())
        self.record.announced = str(bound.address)
        announcement = self.negotiation.announce(bound.address)
        # Before the write, under which the client may turn out to be gone.
        self._await(bound.accepted, self._accepted)
        self.channel.write(announcement)

    def _answered(self, answer: Address) -> None:
        """RESOLVE has an answer, and the conversation is over with it."""
        self._pending = None
        self.record.announced = printable(answer.host)
        self._grant(answer)
        self._finish("answered")

    def _connected(self, dialed: Dialed) -> None:
        self._go_on(dialed, dialed.outgoing)

    def _accepted(self, dialed: Dialed) -> None:
        self._sessions.peers.stop(self)
        self._go_on(dialed, dialed.reached)

    def _grant(self, told: Address) -> None:
        sessions, record = self._sessions, self.record
        sessions.connects.stop(self)
        record.answered = sessions.seconds()
        reply = self.negotiation.grant(told)
        record.reply = reply[1]
        self.channel.write(reply)

    def _go_on(self, dialed: Dialed, told: Address) -> None:
        """There is a connection: the client is told, and bytes are relayed from now on."""
        self._pending = None
        self.record.reached, self.record.outgoing = dialed.reached, dialed.outgoing
        self._grant(told)
        if self.phase is not Phase.SERVING:
            self._sessions.discard(dialed.link)  # the client went away under the write
            return
        self.phase = Phase.RELAYING
        try:
            self._relay = self._start_relay(dialed)
        except Exception:
            self._sessions.discard(dialed.link)
            raise

    def _start_relay(self, dialed: Dialed) -> IRelay:
        early, idle, link = self.negotiation.early, self._sessions.timeouts.idle, dialed.link
        self.negotiation = _DONE
        if not isinstance(link, Destination):
            socket = self.channel.detach()
            if socket is not None:
                relay: IRelay = self._sessions.engine.relay(socket, link, self._relayed, early, idle)
                del self.channel
                return relay
            self._sessions.engine.forget(link.fileno())
            link = adopted(self._sessions.reactor, link)
        joined = self.channel.join(link, self._relayed, idle)
        joined.start(early, self._half_closed)
        return joined

    def _relayed(self, relay: IRelay) -> None:
        self.record.sent, self.record.received = relay.sent, relay.received
        self._how = relay.how.value if relay.how is not None else "aborted"
        self._over()

    def _associate(self, request: Request) -> None:
        sessions, record = self._sessions, self.record
        self._association, bound = associate(
            sessions.associations,
            record.client,
            self.channel.local(),
            request.destination,
            sessions.engine,
            self._dissociated,
        )
        self.phase = Phase.ASSOCIATED
        sessions.connects.stop(self)
        record.answered = sessions.seconds()
        reply = self.negotiation.grant(bound)
        record.reply = reply[1]
        self.negotiation = _DONE
        self.channel.write(reply)

    def _leave(self, how: str) -> None:
        """The client's connection is closing: its association ends, or has some time yet."""
        association, sessions = self._association, self._sessions
        if association is None or self._how is not None:
            return
        self._how = how
        if sessions.associations.settings.grace:
            sessions.graces.start(self, sessions.seconds())
        else:
            association.abort(End.CLIENT)

    def _dissociated(self, association: Association) -> None:
        self._association = None
        record = self.record
        record.sent, record.received = association.sent, association.received
        record.datagrams_sent, record.datagrams_received = (
            association.datagrams_sent,
            association.datagrams_received,
        )
        record.dropped = {reason.value: count for reason, count in association.dropped.items()}
        if self._how is None and association.how is not None:
            self._how = association.how.value
        if association.how is End.ABORTED:
            self.channel.abort()
        else:
            self.channel.close()
        self._over()

    def _failed(self, failure: Failure) -> None:
        if self._pending is None:
            return  # it was cancelled, and the session has gone on without it
        self._pending = None
        problem = failure.value
        if not isinstance(problem, Exception):
            failure.raiseException()
        self._refuse(problem)

    def _broke(self, failure: Failure) -> None:
        """A fault of ours: it is logged in full, once, and costs this session alone."""
        _log.failure("{client}: the session failed", failure, client=self.record.client)
        self._how = "internal error"
        self.channel.abort()
        self._over()  # a channel that had given up its socket tells nothing

    def _refuse(self, problem: Exception) -> None:
        sessions, record = self._sessions, self.record
        sessions.connects.stop(self)
        sessions.peers.stop(self)
        reply = reply_for(problem)
        record.answered = sessions.seconds()
        output = self.negotiation.refuse(reply)
        record.reply = output[1]
        if isinstance(problem, TooManySessions):
            sessions.complain()
        elif isinstance(problem, NoFreePort):
            pass  # there is one line for many of these
        elif reply in _OURS and record.request is not None:
            _log.info(
                "{client}: {destination} refused: {problem}",
                client=record.client,
                destination=shown(record.request.destination),
                problem=describe(problem),
                reply=reply.value,
            )
        self.channel.write(output)
        self._finish(f"refused: {describe(problem)}")

    def _waits_for_answer(self) -> bool:
        """Whether a client that has closed its direction may still be there; after BIND it has gone."""
        request = self.record.request
        return request is None or request.command != Command.BIND

    def _finish(self, how: str) -> None:
        """Everything is said: give the client time to read it."""
        if self.phase is Phase.OVER:
            return
        self._how = how
        self.phase = Phase.FINISHING
        if self._half_closed:
            self.channel.close()
            return
        self._sessions.lingers.start(self, self._sessions.seconds())
        self.channel.finish()

    def _cancel(self, how: str) -> None:
        if self._how is None:
            self._how = how
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()

    def _over(self) -> None:
        if self.phase is not Phase.OVER:
            self.phase = Phase.OVER
            self._relay = None
            self._sessions.end(self, self._how or "client")


#: What begins the service of a request, by the version and the command.
_COMMANDS: dict[int, dict[int, Callable[[Session, Request], None]]] = {
    Version.SOCKS4: {
        Command.CONNECT: Session._connect,
        Command.BIND: Session._bind,
        Command.RESOLVE: Session._resolve,
    },
    Version.SOCKS5: {
        Command.CONNECT: Session._connect,
        Command.BIND: Session._bind,
        Command.UDP_ASSOCIATE: Session._associate,
        Command.RESOLVE: Session._resolve,
        Command.RESOLVE_PTR: Session._resolve,
    },
}

#: Stands for every conversation that has been had: an established session keeps none.
_DONE = Negotiation()
