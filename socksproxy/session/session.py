"""
One client's session, from the first byte to the access record.

A :class:`Session` knows the order of things and owns no socket: what carries
its bytes is a channel (a Twisted protocol, or a plain socket of the relay
engine), and what all sessions of a factory have in common is in
:class:`~socksproxy.session.registry.Sessions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.cred.credentials import ICredentials
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..auth.checkers.threads import CheckTimedOut, TooManyChecks
from ..auth.gate import Granted
from ..commands.associate import associate
from ..commands.bind import Bound, Wanted
from ..commands.connect import connect
from ..commands.resolve import resolve, resolve_pointer
from ..errors import (
    CommandNotSupported,
    ConnectTimedOut,
    NoFreePort,
    NotAllowed,
    NotAuthenticated,
    OverLimit,
    ProtocolError,
    SOCKSError,
    describe,
    reply4_for,
    reply_for,
)
from ..events import Cause, End, Ended, end_for
from ..identity import Client
from ..limits.account import ASSOCIATIONS, BINDS, Scope
from ..limits.admission import Admission
from ..limits.buckets import Meters
from ..limits.claims import Claims
from ..logs.printable import line_of_record
from ..logs.redaction import told
from ..negotiation import MAX_EARLY, IMethod, LogIn, Negotiation, NotSOCKS, Say
from ..net.dial import Destination, Dialed, adopted
from ..policy import IDecidingPolicy, IPolicy
from ..policy.asking import DestinationCheck, ask_again, ask_command
from ..policy.judge import Judge
from ..policy.rules import Rule
from ..relay.interfaces import IRelay
from ..udp.association import Association
from ..udp.targets import DatagramRoute
from ..values.limits import Limits
from ..values.outgoing import Outgoing, outgoing_of
from ..wire.words import Address, AddressType, Command, Reply, Request, Version
from .channel import Channel
from .record import AccessRecord, shown

if TYPE_CHECKING:
    from ..auth.authentication import Authentication
    from .registry import Sessions

_log = Logger(namespace="socksproxy")

T = TypeVar("T")

#: Seconds that a client has to read its refusal and close.
LINGER = 2.0

#: Bytes that a client may send on the connection of an association, where nothing is due.
MAX_IDLE_TALK = 1 << 20

#: Stands for a client whose address is not known yet.
UNIDENTIFIED = Client("")

#: Replies whose cause lies here, and not at the destination: an operator wants to see them.
_OURS = frozenset({Reply.GENERAL_FAILURE, Reply.NOT_ALLOWED})


class Phase(Enum):
    """What a session is at."""

    NEGOTIATING = auto()
    AUTHENTICATING = auto()
    SERVING = auto()
    RELAYING = auto()
    ASSOCIATED = auto()
    FINISHING = auto()
    OVER = auto()


class Session:
    """
    One client.

    :param sessions: what it shares with others.
    :param channel: what carries its bytes.
    :param client: who it is.
    :param claims: what it has of who is limited; None: nobody is.
    :ivar heard: whether the client has said anything; one that connects and says nothing is a probe.
    """

    __slots__ = (
        "_asked",
        "_asked_by",
        "_association",
        "_claims",
        "_discarded",
        "_early",
        "_ended",
        "_forbidden",
        "_half_closed",
        "_judge",
        "_logout",
        "_peers",
        "_pending",
        "_policy",
        "_relay",
        "_sessions",
        "_shown",
        "channel",
        "heard",
        "negotiation",
        "number",
        "phase",
        "record",
    )

    def __init__(self, sessions: Sessions, channel: Channel, client: Client, claims: Claims | None) -> None:
        self._sessions = sessions
        self._claims = claims
        self._ended: Ended | None = None
        self._forbidden = Cause.FORBIDDEN
        self._pending: Deferred[Any] | None = None
        self._relay: IRelay | None = None
        self._association: Association | None = None
        self._logout: Callable[[], None] | None = None
        self._judge: Judge | None = None
        #: By which the session has been judged; None: it is to be judged again.
        self._policy: IPolicy | None = None
        #: What has asked who the client is, and what kind of credentials it has shown then.
        self._asked_by = sessions.authentication
        self._shown: type[Any] | None = None
        #: Who may come to a BIND's listener that is open.
        self._peers: Sequence[Address] | None = None
        self._asked: Deferred[Any] | None = None
        self._half_closed = False
        self._discarded = 0
        #: Bytes of early data that are counted.
        self._early = 0
        self.heard = False
        self.number = sessions.ids.next()
        self.channel = channel
        self.negotiation = Negotiation(None if sessions.authentication is None else self._offers)
        self.phase = Phase.NEGOTIATING
        self.record = AccessRecord(client, sessions.seconds())

    # What the channel tells.

    def identify(self, client: Client) -> None:
        """The client has turned out to be *client*."""
        self.record.client = client
        self._claims = self._sessions.ledger.arrive(client, self._claims)
        self._drop_if_too_many()

    def _drop_if_too_many(self) -> None:
        claims = self._claims
        if claims is not None and claims.admission is Admission.DROP:
            self._ended = Ended(End.LIMIT, f"refused: {claims.refusal}")
            self.phase = Phase.FINISHING
            self.channel.abort()

    def received(self, data: bytes) -> None:
        """The client sent *data*."""
        if not self.heard:
            self._hear()
        if self.phase is Phase.NEGOTIATING:
            self._negotiate(data)
        elif self.phase is Phase.SERVING or self.phase is Phase.AUTHENTICATING:
            self._keep(data)
        elif self.phase is Phase.FINISHING:
            self._discarded += len(data)
            if self._discarded > MAX_EARLY:
                self.channel.abort()
        elif self.phase is Phase.ASSOCIATED:
            # Nothing is due here, but a byte now and then is no harm.
            self._discarded += len(data)
            if self._discarded > MAX_IDLE_TALK and self._association is not None:
                self._association.abort(Cause.TALK)

    def _hear(self) -> None:
        """The client says something, for the first time."""
        if self._claims is not None and self.phase is Phase.NEGOTIATING:
            self._claims.begin()
            self._drop_if_too_many()
        # A flood that is dropped writes no lines.
        self.heard = self.phase is Phase.NEGOTIATING

    def read_closed(self) -> None:
        """The client has closed its direction."""
        self._half_closed = True
        if self.phase is Phase.NEGOTIATING or self.phase is Phase.AUTHENTICATING:
            self._cancel(Cause.CLIENT.value)
            self.channel.close()
        elif self.phase is Phase.SERVING and not self._waits_for_answer():
            # Nothing tells a client that has gone from one that will send no more;
            # one that has already sent all it had to say may well wait for the answer.
            self._cancel(Cause.CLIENT.value)
            self.channel.close()
        elif self.phase is Phase.FINISHING:
            self.channel.close()
        elif self.phase is Phase.ASSOCIATED:
            # Its datagrams go on, unless it has gone.
            self.channel.find_out()

    def lost(self, reset: bool) -> None:
        """The client's connection is gone; *reset*: not by an orderly close."""
        # One that has closed its direction has closed the other one then, which shows as a reset.
        ended = (Cause.CLIENT_RESET if reset and not self._half_closed else Cause.CLIENT).value
        if self._association is not None:
            self._leave(ended)
            return
        self._cancel(ended)
        self._over()

    # What the deadlines tell.

    def handshake_expired(self) -> None:
        """The request did not come in time."""
        self._ended = Cause.HANDSHAKE.value
        self._withdraw()
        self.channel.abort()

    def connect_expired(self) -> None:
        """The destination could not be reached in time."""
        if self._give_up():
            self._refuse(ConnectTimedOut("connect timeout"))

    def peer_expired(self) -> None:
        """The peer of a BIND did not come in time."""
        if self._give_up():
            self._refuse(ConnectTimedOut("the peer did not come in time"))

    def linger_expired(self) -> None:
        """The client has had time to read its refusal."""
        self.channel.abort()

    def grace_expired(self) -> None:
        """The client has been gone for as long as its association may outlive it."""
        if self._association is not None:
            self._association.abort(Cause.CLIENT)

    def abort(self) -> None:
        """Cause the session at once."""
        if self._relay is not None:
            self._relay.abort()
            return
        if self._association is not None:
            self._association.abort()
            return
        self._ended = self._ended or Cause.ABORTED.value
        self._withdraw()
        self.channel.abort()

    # The way of a session.

    def _negotiate(self, data: bytes) -> None:
        negotiation = self.negotiation
        try:
            request = negotiation.receive(data)
        except ProtocolError as problem:
            self._break_off(problem)
            return
        if negotiation.early or self._early:
            self._count_early()
        if negotiation.output:
            self.channel.write(negotiation.take_output())
        if self.phase is not Phase.NEGOTIATING:
            return  # the client went away under the write
        if request is not None:
            self._requested(request)
        elif negotiation.move is not None:
            self._authenticate(negotiation.take_move())

    def _keep(self, data: bytes) -> None:
        """The client goes on speaking while something is waited for."""
        negotiation = self.negotiation
        try:
            negotiation.receive(data)
        except ProtocolError as problem:  # what it encapsulates cannot be read
            self._cancel(_broken(problem))
            self.channel.abort()
            return
        self._count_early()
        if not negotiation.full:
            return
        if self.phase is Phase.SERVING:
            self.channel.pause()
        else:
            self._cancel(_broken("data instead of a request"))
            self.channel.abort()

    def _count_early(self) -> None:
        """All sessions together keep as much more, or less, as this one does."""
        before, self._early = self._early, len(self.negotiation.early)
        self._sessions.early.changed(self, before, self._early)

    def pause_reading(self) -> None:
        """See :class:`socksproxy.session.early_data.Reader`."""
        self.channel.pause()

    def resume_reading(self) -> None:
        """See :class:`socksproxy.session.early_data.Reader`."""
        if self.phase in _LISTENING and not self.negotiation.full:
            self.channel.resume()

    def _say(self, data: bytes) -> None:
        wrapping = self.negotiation.wrapping
        try:
            data = data if wrapping is None else wrapping.wrap(data)
        except ProtocolError as problem:  # nothing can be said any more
            self._cancel(_broken(problem))
            self.phase = Phase.FINISHING
            self.channel.abort()
            return
        self.channel.write(data)

    # Who the client is.

    @property
    def _authentication(self) -> Authentication:
        """What asks clients who they are; nothing here happens where nobody is asked."""
        authentication = self._asked_by
        assert authentication is not None
        return authentication

    def _offers(self) -> tuple[Client, Sequence[IMethod]]:
        self._asked_by = self._sessions.authentication or self._asked_by
        return self.record.client, self._authentication.methods_for(self.channel.shows)

    def _authenticate(self, move: Any) -> None:
        self.phase = Phase.AUTHENTICATING
        method = self.negotiation.method
        assert method is not None
        self.record.method = method.name
        if isinstance(move, LogIn):
            self._log_in(method.name, move.credentials)
        elif move is not None:
            self._await(move, self._method_goes_on, self._method_failed)

    def _method_goes_on(self, move: Say | LogIn) -> None:
        self._pending = None
        self.phase = Phase.NEGOTIATING
        self.negotiation.go_on(move)
        self._negotiate(b"")

    def _method_failed(self, problem: Exception) -> None:
        method = self.negotiation.method
        assert method is not None
        self._authentication.gate.failed(self.record.client, method.name, problem)
        self._denied(problem)

    def _log_in(self, method: str, credentials: ICredentials) -> None:
        self._asked_by = self._sessions.authentication or self._asked_by
        self._shown = type(credentials)
        try:
            granted = self._authentication.gate.log_in(self.record.client, method, credentials)
        except UnauthorizedLogin as problem:
            self._denied(problem)
            return
        if isinstance(granted, Deferred):
            self._await(granted, self._known, self._denied)
        else:
            self._known(granted)

    def _known(self, granted: Granted) -> None:
        """The portal knows the client."""
        user, self._logout = granted
        self._pending = None
        self.record.client = self.record.client._replace(user=user.name, avatar=user)
        request = self.negotiation.request
        if request is not None:
            self._serve(request)
            return
        negotiation = self.negotiation
        try:
            negotiation.judge(True)
        except ProtocolError as problem:
            self._break_off(problem)
            return
        self.channel.write(negotiation.take_output())
        if self.phase is Phase.AUTHENTICATING:
            self.phase = Phase.NEGOTIATING
            self._negotiate(b"")

    def _denied(self, problem: Exception) -> None:
        """The client is not who it says, or says nothing; a line in the log has told it."""
        if self.negotiation.request is not None:
            self._refuse(problem)
            return
        self.negotiation.judge(False)
        self.record.version = self.negotiation.version
        self._sessions.handshakes.stop(self)
        output = self.negotiation.take_output()
        # A status that is not 0 means "wrong", and programs forget a password for that.
        if output and not isinstance(problem, (TooManyChecks, CheckTimedOut)):
            self.channel.write(output)
        self._finish(Ended(End.AUTH, "refused: not authenticated"))

    def _requested(self, request: Request) -> None:
        if request.version is Version.SOCKS4 and self._sessions.authentication is not None:
            self._identify4(request)
        else:
            self._serve(request)

    def _identify4(self, request: Request) -> None:
        """SOCKS4 has its userid in the request, and no password."""
        self.phase = Phase.AUTHENTICATING
        self.record.version, self.record.request = request.version, request
        self._asked_by = self._sessions.authentication
        channel = self.channel
        found = self._authentication.for_socks4(
            request.userid, self.record.client, channel.local_address, channel.shows
        )
        if found is None:
            self._refuse(NotAuthenticated("SOCKS4 has no password"))
            return
        self.record.method, credentials = found
        self._log_in(self.record.method, credentials)

    # The service of a request.

    def _break_off(self, problem: ProtocolError) -> None:
        """The client broke the protocol: the answer that there is, one line in the log."""
        self.record.version = self.negotiation.version
        self.record.reply = self.negotiation.answer
        if self.negotiation.method is not None:
            self.record.method = self.negotiation.method.name
        self._sessions.handshakes.stop(self)
        output = self.negotiation.take_output()
        if output:
            self.channel.write(output)
        self._complain(str(problem))
        not_socks = isinstance(problem, NotSOCKS)
        self._finish(Ended(End.PROTOCOL, str(problem)) if not_socks else _broken(problem))

    def _complain(self, problem: str) -> None:
        """One line in the log, unless there was one of its kind lately."""
        due = self._sessions.garbage.due(problem)
        if due:
            more = "" if due == 1 else f" ({due} such clients since the last such line)"
            _log.info("{client}: {problem}{more}", client=self.record.client, problem=problem, more=more)

    def _serve(self, request: Request) -> None:
        sessions, record = self._sessions, self.record
        self.phase = Phase.SERVING
        record.version, record.request = request.version, request
        record.requested = now = sessions.seconds()
        sessions.handshakes.stop(self)
        sessions.connects.start(self, now)
        self._start(request)

    def _start(self, request: Request) -> None:
        sessions = self._sessions
        self._pending = None
        if self._asked_by is not sessions.authentication:  # since the client has been asked, or has not
            self._await(self._known_again(), lambda _: self._start(request), self._refuse_again)
            return
        self._policy = sessions.policy
        try:
            self._check_limits()
            start = _COMMANDS[request.version].get(request.command)
            if start is None:
                raise CommandNotSupported("command not supported")
            if sessions.deciding is not None:
                self._consider(sessions.deciding, self._enter_rule)
            start(self, request)
        except (SOCKSError, OSError) as problem:
            self._refuse(problem)

    def _consider(self, policy: IDecidingPolicy, enter: Callable[[Rule], None] | None) -> None:
        """What a policy that decides wants to know of the client, and where its words are kept."""
        client = self.record.client
        listener, *aliases = self._listener()
        self.record.client = client._replace(
            groups=frozenset(getattr(client.avatar, "groups", ())),
            listener=listener,
            aliases=tuple(aliases),
            version=self.record.version,
        )
        self._judge = Judge(policy, enter)

    def _listener(self) -> tuple[str, ...]:
        """What rules call the listener by which the client has come."""
        relay, client = self._relay, self.record.client
        try:
            reached = self.channel.reached() if relay is None else relay.reached()
        except (OSError, AttributeError):  # the client's connection is closed already
            return (client.listener or "", *client.aliases)
        return self._sessions.listeners.words_for(reached)

    # What is limited.

    def _check_limits(self) -> None:
        """
        Whether there may be the session, by who its client is.

        :raises OverLimit: when there may not.
        """
        if self._claims is not None:
            self._claims.check()
        user = self.record.client.user
        limits = None if user is None else self._user_limits()
        if user is not None and limits:
            self._claims = self._sessions.ledger.entered(self._claims, Scope.USER, user, limits)

    def _user_limits(self) -> Limits:
        return self._sessions.ledger.user_limits(getattr(self.record.client.avatar, "limits", None))

    def _enter_rule(self, rule: Rule) -> None:
        if rule.limits:
            self._claims = self._sessions.ledger.entered(self._claims, Scope.RULE, rule.name, rule.limits)

    def _take(self, kind: str, make_room: Callable[[Scope], bool] = lambda _: False) -> None:
        """
        The session is about to have one of *kind*.

        :param make_room: see :meth:`socksproxy.limits.claims.Claims.take`.
        :raises OverLimit: when there are too many.
        """
        self._claims = self._sessions.ledger.joined(self._claims, self.record.client, kind)
        if self._claims is not None:
            self._claims.take(kind, make_room)

    def _give(self, kind: str) -> None:
        if self._claims is not None:
            self._claims.give(kind)

    def _meters(self, reached: Address | None) -> Meters | None:
        """
        What measures the bytes.

        :param reached: where they go; None: to many places.
        """
        ledger = self._sessions.ledger
        if self._claims is None:
            if not ledger.limits.session:
                return None
            self._claims = Claims(ledger)
        if reached is None:
            return self._claims.meters()
        effect = self._effect(reached)
        rule = None if effect is None else effect.name
        self._claims.settle(rule)
        return self._claims.meters(() if rule is None else (rule,))

    def _meters_under(self, rule: str) -> Meters | None:
        """What measures datagrams under *rule*; None: what measures all others."""
        return None if self._claims is None else self._claims.meters((rule,))

    def renew_limits(self) -> None:
        """The limits may have changed: the session goes on under those that hold now."""
        record, client = self.record, self.record.client
        others = self._rules()
        if record.request is not None and client.user is not None:
            others.append((Scope.USER, client.user, self._user_limits()))
        self._claims = self._sessions.ledger.renewed(self._claims, client, others)
        if self._relay is not None:
            self._relay.meter(self._meters(record.reached))
        elif self._association is not None:
            self._association.meter(self._meters(None))

    def _rules(self) -> list[tuple[Scope, str, Limits]]:
        """The rules under which it goes on, or may yet."""
        reached = self._peers if self.record.reached is None else [self.record.reached]
        if not reached:
            return [] if self._claims is None else self._claims.of(Scope.RULE)
        effects = map(self._effect, reached)
        return [(Scope.RULE, rule.name, rule.limits) for rule in effects if rule and rule.limits]

    def release(self) -> None:
        """The session is counted no more."""
        claims, self._claims = self._claims, None
        if claims is not None:
            claims.close()

    def _means(self) -> DestinationCheck:
        means = self._sessions.means
        return means if self._judge is None else DestinationCheck(self._judge, means.names, means.clock)

    def _judged(self) -> tuple[Client, IPolicy]:
        """The client as it is known now, and what decides for it."""
        return self.record.client, self._judge or self._sessions.policy

    def recorded(self) -> bool:
        """Whether there is to be an access record, in which the rule is noted."""
        judge, record = self._judge, self.record
        if judge is None:
            return True
        if record.datagrams_sent is None:
            record.rule, recorded = judge.told(record.reached)
        else:
            record.rule, recorded = judge.told_of_all()
        return recorded

    def _await(
        self,
        pending: Deferred[Any],
        then: Callable[[Any], None],
        otherwise: Callable[[Exception], None] | None = None,
    ) -> None:
        """
        Go on with *then* when *pending* fires; it is cancelled when the session ends before.

        :param otherwise: what a failure leads to; None: the request is refused.
        """
        self._pending = pending
        pending.addCallbacks(then, self._failed, errbackArgs=(otherwise or self._refuse,))
        pending.addErrback(self._broke)

    def _connect(self, request: Request) -> None:
        sessions, client = self._sessions, self.record.client
        as_all = self._judge is None and client.avatar is None
        dialer = sessions.dialer(self.channel) if as_all else self._dial
        pending = connect(self._means(), client, request.destination, dialer, self._resolved)
        self._await(pending, self._connected)

    def _dial(self, address: Address) -> Deferred[Dialed]:
        """Dial *address* as the rule says that allows it."""
        sessions, effect = self._sessions, self._effect(address)
        if effect is not None and effect.timeouts is not None and effect.timeouts.connect is not None:
            sessions.connects.start_own(self, effect.timeouts.connect or None)
        outgoing = self._outgoing(effect)
        if outgoing is None:
            dialer = sessions.dialer(self.channel)
        else:
            dialer = sessions.dialer_from(self.channel, outgoing)
        attempt: Deferred[Dialed] = dialer(address)
        return attempt

    def _outgoing(self, rule: Rule | None) -> Outgoing | None:
        """From where *rule*, or else the user, says that connections leave; None: neither says anything."""
        of_rule = None if rule is None else rule.outgoing
        of_user = getattr(self.record.client.avatar, "outgoing", None)
        if not (of_rule or of_user):
            return None
        return outgoing_of(of_rule or ()).over(outgoing_of(of_user or ()))

    def _way(self, address: Address, name: str | None) -> DatagramRoute:
        """How datagrams go to *address*, one of *name*'s, if that was asked for."""
        judge, client = self._judge, self.record.client
        rule = None if judge is None else judge.rule_for(client, Command.UDP_ASSOCIATE, address, name)
        outgoing = self._outgoing(rule)
        source = None if outgoing is None else outgoing.source(address)
        timeouts = None if rule is None else rule.timeouts
        return DatagramRoute(
            None if source is None else source[0],
            None if timeouts is None else timeouts.idle,
            rule.name if rule is not None and rule.limits else None,
            self._meters_under,
        )

    def _effect(self, reached: Address) -> Rule | None:
        return None if self._judge is None else self._judge.effect(reached)

    def _bind(self, request: Request) -> None:
        sessions, client = self._sessions, self.record.client
        self._take(BINDS)
        wanted = Wanted(
            client,
            request.destination,
            request.version is Version.SOCKS4,
            lambda host: sessions.spoken(client, host),
            self._judged,
            lambda address: self._outgoing(self._effect(address)),
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
        pending = start(self._means(), self.record.client, request, self._resolved)
        self._await(pending, self._answered)

    def _resolved(self) -> None:
        self.record.resolved = self._sessions.seconds()

    def _bound(self, bound: Bound) -> None:
        sessions = self._sessions
        sessions.connects.stop(self)
        sessions.peers.start(self, sessions.seconds())
        self.record.announced = str(bound.address)
        self._peers = bound.peers
        # Before the write, under which the client may turn out to be gone.
        self._await(bound.accepted, self._accepted)
        if self._policy is not sessions.policy:
            self.reconsider()
        if self.phase is Phase.SERVING:
            self._say(self.negotiation.announce(bound.address))

    def _answered(self, answer: Address) -> None:
        """RESOLVE has an answer, and the conversation is over with it."""
        if self._policy is not self._sessions.policy:
            known = [answer] if answer.type is not AddressType.DOMAIN_NAME else []
            self._confirm(known, answer, self._answered)
            return
        self._pending = None
        self.record.announced = line_of_record(answer.host)
        self._grant(answer)
        self._finish(Cause.ANSWERED.value)

    def _connected(self, dialed: Dialed) -> None:
        if self._policy is self._sessions.policy:
            self._go_on(dialed, dialed.outgoing)
        else:
            self._confirm([dialed.reached], dialed, self._connected)

    def _accepted(self, dialed: Dialed) -> None:
        self._sessions.peers.stop(self)
        self._give(BINDS)
        self._go_on(dialed, dialed.reached)

    def _grant(self, told: Address) -> None:
        sessions, record = self._sessions, self.record
        sessions.connects.stop(self)
        record.answered = sessions.seconds()
        reply = self.negotiation.grant(told)
        record.reply = reply[1]
        self._say(reply)

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
        early, idle, link = self.negotiation.early, self._idle(dialed.reached), dialed.link
        wrapping, meters = self.negotiation.wrapping, self._meters(dialed.reached)
        self._end_negotiation()
        if not isinstance(link, Destination):
            # The engine moves bytes as they are.
            socket = self.channel.detach() if wrapping is None else None
            if socket is not None:
                relay: IRelay = self._sessions.engine.relay(
                    socket, link, self._relayed, early, idle, meters, self._relay_half_closed
                )
                del self.channel
                return relay
            self._sessions.engine.forget(link.fileno())
            link = adopted(self._sessions.reactor, link)
        joined = self.channel.join(link, self._relayed, idle, wrapping, meters, self._relay_half_closed)
        joined.start(early, self._half_closed)
        return joined

    def _idle(self, reached: Address) -> float | None:
        effect = self._effect(reached)
        said = None if effect is None or effect.timeouts is None else effect.timeouts.idle
        return self._sessions.timeouts.idle if said is None else said or None

    def _relay_half_closed(self, relay: IRelay) -> None:
        """One direction of *relay* has closed, and the other goes on."""
        sessions, reached = self._sessions, self.record.reached
        effect = None if reached is None else self._effect(reached)
        said = None if effect is None or effect.timeouts is None else effect.timeouts.half_closed
        sessions.half_closed.add(relay, sessions.timeouts.half_closed if said is None else said or None)

    def _relayed(self, relay: IRelay) -> None:
        self._sessions.half_closed.discard(relay)
        self.record.sent, self.record.received = relay.sent, relay.received
        self._ended = (relay.how or Cause.ABORTED).value
        if relay.problem is not None:
            self._complain(relay.problem)
        self._over()

    def _associate(self, request: Request) -> None:
        permitted = self._permits_associations()
        if isinstance(permitted, Deferred):
            self._await(permitted.addCallback(self._associate_if, request), self._nothing_is_awaited)
        else:
            self._associate_if(permitted, request)

    def _permits_associations(self) -> bool | Deferred[bool]:
        """Whether there may be a destination for the client's datagrams."""
        return ask_command(self._means().policy, self.record.client, Command.UDP_ASSOCIATE)

    def _nothing_is_awaited(self, _: object) -> None:
        self._pending = None

    def _associate_if(self, permitted: bool, request: Request) -> None:
        """
        Begin an association, if the client is *permitted* to have any destination.

        :raises NotAllowed: when it is not.
        """
        sessions = self._sessions
        if self._policy is not sessions.policy:
            self._start(request)  # the policy has changed while the one before took its time
            return
        if not permitted:
            raise NotAllowed("the policy denies every destination")
        self._take(ASSOCIATIONS, self._make_room)
        self._association, bound = associate(
            sessions.associations,
            self.record.client,
            self.channel.local(),
            request.destination,
            sessions.engine,
            self._dissociated,
            self.negotiation.wrapping,
        )
        self._association.check = self._means()
        self._association.meter(self._meters(None))
        self._association.route = self._way
        self.phase = Phase.ASSOCIATED
        self._grant(bound)
        self._end_negotiation()

    def _end_negotiation(self) -> None:
        """Nothing is left of it: an established session keeps none."""
        self.negotiation = _DONE
        if self._early:
            self._count_early()
        if self._half_closed and self.phase is Phase.ASSOCIATED:
            self.channel.find_out()

    def _make_room(self, scope: Scope) -> bool:
        """One of the client's or the user's own associations may end for another; others' do not."""
        client, make_room = self.record.client, self._sessions.associations.make_room
        if scope is Scope.CLIENT:
            return make_room(client, lambda other: other.client.whose == client.whose)
        if scope is Scope.USER:
            return make_room(client, lambda other: other.client.user == client.user)
        return False

    def _leave(self, ended: Ended) -> None:
        """The client's connection is closing: its association ends, or has some time yet."""
        association, sessions = self._association, self._sessions
        if association is None or self._ended is not None:
            return
        self._ended = ended
        if sessions.associations.settings.grace:
            sessions.graces.start(self, sessions.seconds())
        else:
            association.abort(Cause.CLIENT)

    def _dissociated(self, association: Association) -> None:
        self._association = None
        self._give(ASSOCIATIONS)
        record = self.record
        record.sent, record.received = association.sent, association.received
        record.datagrams_sent, record.datagrams_received = (
            association.datagrams_sent,
            association.datagrams_received,
        )
        record.dropped = {reason.value: count for reason, count in association.dropped.items()}
        if self._ended is None and association.how is not None:
            self._ended = association.how.value
        if association.how in _AT_ONCE:
            self.channel.abort()
        else:
            self.channel.close()
        self._over()

    def _failed(self, failure: Failure, otherwise: Callable[[Exception], None]) -> None:
        if self._pending is None:
            return  # it was cancelled, and the session has gone on without it
        self._pending = None
        problem = failure.value
        if not isinstance(problem, Exception):
            failure.raiseException()
        otherwise(problem)

    def _broke(self, failure: Failure) -> None:
        """A fault of ours: it is logged in full, once, and costs this session alone."""
        _log.failure("{client}: the session failed", failure, client=self.record.client)
        self._ended = Cause.FAULT.value
        self.channel.abort()
        self._over()  # a channel that had given up its socket tells nothing

    def _refuse(self, problem: Exception) -> None:
        sessions, record, judge = self._sessions, self.record, self._judge
        sessions.connects.stop(self)
        sessions.peers.stop(self)
        sessions.handshakes.stop(self)
        if type(problem) is NotAllowed and judge is not None and judge.over is not None:
            problem = judge.over
        for kind in (BINDS, ASSOCIATIONS):
            self._give(kind)
        reply = reply_for(problem)
        record.answered = sessions.seconds()
        output = self.negotiation.refuse(reply, reply4_for(problem))
        record.reply = output[1]
        if isinstance(problem, (NoFreePort, OverLimit, UnauthorizedLogin)):
            pass  # another line has told it
        elif reply in _OURS and record.request is not None:
            _log.info(
                "{client}: {destination} refused: {problem}",
                client=record.client,
                destination=shown(record.request.destination),
                problem=describe(problem),
                reply=reply.value,
            )
        self._say(output)
        self._finish(Ended(end_for(problem), f"refused: {describe(problem)}"))

    def _waits_for_answer(self) -> bool:
        """
        Whether a client that has closed its direction may still be there.

        It has gone after BIND, and after CONNECT without early data; an association needs no more of it.
        """
        request = self.record.request
        command = None if request is None else request.command
        return command == Command.UDP_ASSOCIATE or (bool(self.negotiation.early) and command != Command.BIND)

    def _finish(self, ended: Ended) -> None:
        """Everything is said: give the client time to read it."""
        if self.phase is Phase.OVER or self.phase is Phase.FINISHING:
            return
        self._ended = ended
        self.phase = Phase.FINISHING
        self._forget_early()
        if self._half_closed:
            self.channel.close()
            return
        self._sessions.lingers.start(self, self._sessions.seconds())
        self.channel.finish()

    def _forget_early(self) -> None:
        if self._early:
            self.negotiation.early = b""
            self._count_early()

    def _cancel(self, ended: Ended) -> None:
        if self._ended is None:
            self._ended = ended
        self._give_up()

    def _give_up(self) -> bool:
        """Cancel what is waited for; whether there was anything."""
        pending, self._pending = self._pending, None
        if pending is None:
            return False
        pending.cancel()
        return True

    def _withdraw(self) -> None:
        """Cancel what is waited for; it is not the client who goes."""
        pending, self._pending = self._pending, None
        if pending is not None and self._asked_by is not None:
            self._asked_by.gate.give_up(pending)
        elif pending is not None:
            pending.cancel()

    def _over(self) -> None:
        if self.phase is not Phase.OVER:
            self.phase = Phase.OVER
            self._relay = None
            self._forget_early()
            self._stop_asking()
            self._log_out()
            self._sessions.end(self, self._ended or Cause.CLIENT.value)
            # It knows the session, too: nothing but a collection of garbage would free the two.
            self._judge = None

    # What changes while it goes on.

    def hours_changed(self) -> None:
        """
        Hours of rules that end sessions have begun or ended.

        The session is judged again if such a rule has allowed it and its hours are over, or denies it now.
        """
        if self.phase in _UNDERWAY and self._judge is not None and self._is_out_of_hours(self._judge):
            self.reconsider(Cause.HOURS)

    def _is_out_of_hours(self, judge: Judge) -> bool:
        awake, reached = self._sessions.hours.awake, self.record.reached
        effects = list(judge.effects()) if reached is None else [judge.effect(reached)]
        if any(rule and rule.timed and rule.ends_sessions and rule.name not in awake for rule in effects):
            return True
        if self._association is not None:
            # Its destinations are asked about every few seconds; one without any has no rule yet.
            return not effects and not self._permits_associations()
        if self.phase is Phase.SERVING and self._peers is None:
            return False  # what comes of it is being asked about
        policy, request = self._sessions.deciding, self.record.request
        assert policy is not None
        assert request is not None
        new, known = Judge(policy), self._peers if reached is None else [reached]
        if ask_again(new, self.record.client, Command(request.command), request.destination, known or ()):
            return False
        rule = None if new.latest is None else new.latest.effect
        return rule is not None and rule.ends_sessions

    def reconsider(self, otherwise: Cause = Cause.FORBIDDEN) -> None:
        """
        The policy or the users have changed: a session that is not permitted any more ends.

        :param otherwise: how it ends then.
        """
        if self.phase not in _UNDERWAY:
            return  # it has not asked for anything yet, or is about to end
        self._forbidden = otherwise
        self._stop_asking()
        self._asked = asked = self._known_again()
        asked.addCallback(lambda _: self._permitted_again())
        asked.addCallbacks(self._judged_again, self._not_judged_again)
        asked.addErrback(self._broke)

    def _stop_asking(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.cancel()

    def _known_again(self) -> Deferred[Any]:
        """
        Find out whether the client is still known, by those who are asked now.

        :raises UnauthorizedLogin: (by the Deferred) when it is not.
        """
        authentication = self._sessions.authentication
        if authentication is self._asked_by:
            return succeed(None)
        if authentication is None:
            self._nobody()
            return succeed(None)
        again: Deferred[Any] = authentication.still_known(self.record.client, self._shown)
        return again.addCallback(self._renew, authentication)

    def _nobody(self) -> None:
        """Nobody is asked any more, so nobody is a user: as if the client had come now."""
        self._asked_by = None
        self._log_out()
        self.record.client = self.record.client._replace(user=None, avatar=None)

    def _renew(self, granted: Granted | None, authentication: Authentication) -> None:
        self._asked_by = authentication
        if granted is None:
            return
        self._log_out()
        user, self._logout = granted
        self.record.client = self.record.client._replace(user=user.name, avatar=user)

    def _permitted_again(self) -> bool | Deferred[bool]:
        record = self.record
        if self.phase is Phase.SERVING and self._peers is None:
            self._policy = None  # what comes of it is judged when it is there
            return True
        self._policy = self._sessions.policy
        self._consider_again(None if self._association is None else self._enter_rule)
        if self._association is not None:
            if self._claims is not None:
                self._claims.settle(None)  # the next datagrams are under the rules that hold now
            self._association.reconsider(record.client, self._means())
            return self._permits_associations()
        return self._ask_again(self._peers if record.reached is None else [record.reached])

    def _ask_again(self, reached: Sequence[Address] | None) -> bool | Deferred[bool]:
        client, policy = self._judged()
        request = self.record.request
        assert request is not None
        return ask_again(policy, client, Command(request.command), request.destination, reached or ())

    def _consider_again(self, enter: Callable[[Rule], None] | None) -> None:
        policy = self._sessions.deciding
        if policy is None:
            self._judge = None
        else:
            self._consider(policy, enter)

    def _judged_again(self, permitted: bool) -> None:
        self._asked = None
        if permitted:
            if self._judge is not None:
                self._judge.enter = self._enter_rule  # for who is yet to come to a BIND
            self.renew_limits()
        else:
            self._forbid()

    def _not_judged_again(self, failure: Failure) -> None:
        if self._asked is None:
            return  # it was cancelled
        self._asked = None
        if not failure.check(LoginFailed):
            _log.error(
                "{client}: nobody can tell whether it is still permitted, so it is not: {problem}",
                client=self.record.client,
                problem=told(failure),
            )
        self._forbid()

    def _forbid(self) -> None:
        if self._relay is not None:
            self._relay.abort(self._forbidden)
        elif self._association is not None:
            self._association.abort(self._forbidden)
        elif self._give_up():
            self._refuse_again()

    def _refuse_again(self, problem: object = None) -> None:
        self._refuse(NotAllowed(self._forbidden.value.words))

    def _confirm(self, reached: Sequence[Address], result: T, then: Callable[[T], None]) -> None:
        """Go on with *result*, which old rules have led to, if those that hold now permit *reached*."""
        self._policy = self._sessions.policy
        self._consider_again(self._enter_rule)
        asked: Deferred[Any] = maybeDeferred(self._ask_again, reached)
        asked.addCallback(_required, result).addErrback(self._discard, result)
        self._await(asked, then)

    def _discard(self, failure: Failure, result: object) -> Failure:
        if isinstance(result, Dialed):
            self._sessions.discard(result.link)
        return failure

    # Its end.

    def _log_out(self) -> None:
        logout, self._logout = self._logout, None
        if logout is None:
            return
        try:
            logout()
        except Exception:
            # An embedder's realm may raise anything; it costs a line in the log and nothing else.
            _log.failure("{client}: the logout failed", client=self.record.client)


#: Where a session hears what its client says.
_LISTENING = frozenset({Phase.NEGOTIATING, Phase.AUTHENTICATING, Phase.SERVING, Phase.ASSOCIATED})

#: Where a session has asked for something, and has it or may yet get it.
_UNDERWAY = frozenset({Phase.SERVING, Phase.RELAYING, Phase.ASSOCIATED})

#: Ends of an association that its client learns of by a reset.
_AT_ONCE = frozenset({Cause.ABORTED, Cause.FORBIDDEN, Cause.HOURS})


def _broken(problem: object) -> Ended:
    return Ended(End.PROTOCOL, f"protocol error: {problem}")


def _required(permitted: bool, result: T) -> T:
    if not permitted:
        raise NotAllowed(Cause.FORBIDDEN.value.words)
    return result


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
