"""
One client's session, from the first byte to its end.

Strategy: a :class:`Session` knows the order of things, and owns no socket and no state of its parts.
A channel carries its bytes (a Twisted protocol, or a plain socket of the relay engine), a
:class:`~socksproxy.negotiation.Negotiation` reads them, and one
:class:`~socksproxy.commands.service.Service` serves the request. Three further parts exist only where a
session needs them: :class:`~socksproxy.session.login.Login`,
:class:`~socksproxy.session.permission.Permission` and :class:`~socksproxy.session.allowance.Allowance`.
What all sessions of a server share is in a :class:`~socksproxy.session.shared.ServerContext`. Where a
session stands follows from these parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, TypeVar

from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..auth.authentication import Authentication
from ..auth.checkers.threads import CheckTimedOut, TooManyChecks
from ..commands.associate import Associate
from ..commands.bind import Bind
from ..commands.channel import Channel
from ..commands.connect import Connect
from ..commands.resolve import Resolve
from ..commands.service import Service
from ..errors import (
    CommandNotSupported,
    ConnectTimedOut,
    NoFreePort,
    NotAllowed,
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
from ..limits.buckets import Meters
from ..logs.printable import shown
from ..logs.redaction import redacted
from ..negotiation import MAX_EARLY, Negotiation, NotSOCKS, State
from ..net.dial import Dialed
from ..policy import IDecidingPolicy, IPolicy
from ..policy.asking import DestinationCheck, ask_again
from ..policy.rules import Rule
from ..routes.interfaces import Route
from ..values.outgoing import outgoing_of
from ..wire.words import Address, Command, Reply, Reply4, Request, Version
from .allowance import Allowance
from .login import Login
from .permission import Permission
from .shared import ServerContext

_log = Logger(namespace="socksproxy")

T = TypeVar("T")

#: Stands for a client whose address is not known yet.
UNIDENTIFIED = Client("")

#: Replies whose cause lies here, and not at the destination: an operator wants to see them.
_OURS = frozenset({Reply.GENERAL_FAILURE, Reply.NOT_ALLOWED})


class Phase(Enum):
    """Where a session stands; the value is the word for people."""

    NEGOTIATING = "negotiating"
    AUTHENTICATING = "authenticating"
    SERVING = "serving"
    RELAYING = "relaying"
    FINISHING = "finishing"
    OVER = "over"


class Session:
    """
    One client.

    :param context: what the session shares with others.
    :param channel: carries the client's bytes.
    :param client: who the client is.
    :param allowance: what is limited for the session; None: nothing is yet.
    :ivar heard: whether the client has sent anything; a client that connects and sends nothing is a probe.
    :ivar half_closed: whether the client has closed its direction.
    :ivar ended: how the session ended; None: it goes on.
    :ivar reply: the code that the client was sent, of its version; None: none was sent.
    :ivar began: when the client connected, in the reactor's seconds, as :attr:`requested` (the request was
        whole), :attr:`resolved` (the name was looked up) and :attr:`answered` (the reply was sent).
    """

    __slots__ = (
        "_asked",
        "_discarded",
        "_early",
        "_over",
        "_pending",
        "_policy",
        "_request",
        "allowance",
        "answered",
        "began",
        "channel",
        "client",
        "context",
        "ended",
        "half_closed",
        "heard",
        "login",
        "negotiation",
        "number",
        "permission",
        "reply",
        "requested",
        "resolved",
        "service",
    )

    def __init__(
        self, context: ServerContext, channel: Channel, client: Client, allowance: Allowance | None
    ) -> None:
        self.context = context
        self.channel = channel
        self.client = client
        self.allowance = allowance
        self.permission: Permission | None = None
        self.login = None if context.authentication is None else Login(self, context.authentication)
        self.negotiation = Negotiation(None if self.login is None else self.login.offers)
        self.service: Service | None = None
        self.number = context.ids.next()
        self.began = context.seconds()
        self.requested: float | None = None
        self.resolved: float | None = None
        self.answered: float | None = None
        self.reply: int | None = None
        self.ended: Ended | None = None
        self.heard = self.half_closed = self._over = False
        self._request: Request | None = None
        #: What the session waits for, and what it waits for beside that because the policy has changed.
        self._pending: Deferred[Any] | None = None
        self._asked: Deferred[Any] | None = None
        #: The policy that has permitted the session; None: it is asked again before the session goes on.
        self._policy: IPolicy | None = None
        self._discarded = 0
        #: Bytes of early data that are counted.
        self._early = 0

    # Where the session stands.

    @property
    def id(self) -> str:
        """See :attr:`socksproxy.events.Subject.id`."""
        return self.context.ids.name(self.number)

    @property
    def phase(self) -> Phase:
        """Where the session stands."""
        if self._over:
            return Phase.OVER
        if self.service is not None and self.service.granted:
            return Phase.RELAYING
        if self.ended is not None:
            return Phase.FINISHING
        if self.requested is not None:
            return Phase.SERVING
        return Phase.AUTHENTICATING if self._is_authenticating else Phase.NEGOTIATING

    @property
    def _is_authenticating(self) -> bool:
        return self.requested is None and self.negotiation.state in (State.JUDGING, State.SERVING)

    @property
    def _is_underway(self) -> bool:
        """Whether the session has asked for something, and has it or may yet get it."""
        return self.phase in (Phase.SERVING, Phase.RELAYING)

    @property
    def request(self) -> Request:
        """The client's request, once it is there."""
        assert self._request is not None
        return self._request

    @property
    def asked_for(self) -> Request | None:
        """The client's request; None: there is none yet."""
        return self._request

    # What the channel tells.

    def identify(self, client: Client) -> None:
        """The client has turned out to be *client*."""
        self.client = client
        self._limited().identify(client)
        self._drop_if_too_many()

    def _drop_if_too_many(self) -> None:
        allowance = self.allowance
        if allowance is not None and allowance.dropped:
            self.ended = Ended(End.LIMIT, f"refused: {allowance.refusal}")
            self.channel.abort()

    def received(self, data: bytes) -> None:
        """The client sent *data*."""
        if not self.heard:
            if self.allowance is not None and self.ended is None:
                self.allowance.begin()
                self._drop_if_too_many()
            # A flood that is dropped writes no lines.
            self.heard = self.ended is None
        if self.ended is not None:
            self._discarded += len(data)
            if self._discarded > MAX_EARLY:
                self.channel.abort()
        elif self.requested is None and not self._is_authenticating:
            self._negotiate(data)
        elif self.service is not None and self.service.granted:
            self.service.received(data)
        else:
            self._keep(data)

    def read_closed(self) -> None:
        """The client has closed its direction."""
        self.half_closed = True
        if self.ended is not None:
            self.channel.close()
        elif self.service is None or not self.service.read_closed():
            self._cancel(Cause.CLIENT.value)
            self.channel.close()

    def lost(self, reset: bool) -> None:
        """The client's connection is gone; *reset*: not by an orderly close."""
        # One that has closed its direction has closed the other one then, which shows as a reset.
        ended = (Cause.CLIENT_RESET if reset and not self.half_closed else Cause.CLIENT).value
        if self.service is not None:
            self.service.client_closed(ended)
        else:
            self.over(ended)

    # What the deadlines tell.

    def handshake_expired(self) -> None:
        """The request did not come in time."""
        self.ended = Cause.HANDSHAKE.value
        self._withdraw()
        self.channel.abort()

    def connect_expired(self) -> None:
        """The destination could not be reached in time."""
        if self._give_up():
            self.refuse(ConnectTimedOut("connect timeout"))

    def peer_expired(self) -> None:
        """The peer of a BIND did not come in time."""
        if self._give_up():
            self.refuse(ConnectTimedOut("the peer did not come in time"))

    def linger_expired(self) -> None:
        """The client has had time to read its refusal."""
        self.channel.abort()

    def grace_expired(self) -> None:
        """The client has been gone for as long as its association may outlive it."""
        if self.service is not None:
            self.service.abort(Cause.CLIENT)

    def abort(self, cause: Cause = Cause.ABORTED) -> None:
        """End the session at once."""
        if self.service is not None:
            self.service.abort(cause)
        else:
            self.cut(cause)

    def cut(self, cause: Cause) -> None:
        """End a session at once that relays nothing."""
        self.ended = self.ended or cause.value
        self._withdraw()
        self.channel.abort()

    # The negotiation.

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
        if self.ended is not None:
            return  # the client went away under the write
        if request is not None:
            self._requested(request)
        elif negotiation.move is not None and self.login is not None and negotiation.method is not None:
            self.login.advance(negotiation.method.name, negotiation.take_move())

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
        if self.requested is not None:
            self.channel.pause()
        else:
            self._cancel(_broken("data instead of a request"))
            self.channel.abort()

    def _count_early(self) -> None:
        """All sessions together keep as much more, or less, as this one does."""
        before, self._early = self._early, len(self.negotiation.early)
        self.context.early.changed(self, before, self._early)

    def pause_reading(self) -> None:
        """See :class:`socksproxy.session.early_data.Reader`."""
        self.channel.pause()

    def resume_reading(self) -> None:
        """See :class:`socksproxy.session.early_data.Reader`."""
        reads = self.negotiation is not _DONE or isinstance(self.service, Associate)
        if reads and self.ended is None and not self.negotiation.full:
            self.channel.resume()

    def forget_negotiation(self) -> None:
        """Nothing is left of it: an established session keeps none."""
        self.negotiation = _DONE
        if self._early:
            self._count_early()

    def forget_channel(self) -> None:
        """The relay has the client's socket."""
        del self.channel

    def _break_off(self, problem: ProtocolError) -> None:
        """The client broke the protocol: the answer that there is, one line in the log."""
        self.context.handshakes.stop(self)
        self.reply = self.negotiation.answer
        output = self.negotiation.take_output()
        if output:
            self.channel.write(output)
        self.complain(str(problem))
        is_socks = not isinstance(problem, NotSOCKS)
        self._refused(_broken(problem) if is_socks else Ended(End.PROTOCOL, str(problem)))

    def complain(self, problem: str) -> None:
        """One line in the log, unless there was one of its kind lately."""
        due = self.context.garbage.due(problem)
        if due:
            more = "" if due == 1 else f" ({due} such clients since the last such line)"
            _log.info("{client}: {problem}{more}", client=self.client, problem=problem, more=more)

    # Who the client is.

    def method_moved(self, move: object) -> None:
        """The authentication method has found out what it waited for, and goes on with *move*."""
        self._pending = None
        self.negotiation.go_on(move)
        self._negotiate(b"")

    def logged_in(self) -> None:
        """The client is known."""
        self._pending = None
        if self._request is not None:
            self._serve()
            return
        negotiation = self.negotiation
        try:
            negotiation.judge(True)
        except ProtocolError as problem:
            self._break_off(problem)
            return
        self.channel.write(negotiation.take_output())
        if self.ended is None:
            self._negotiate(b"")

    def login_failed(self, problem: Exception) -> None:
        """The client is not who it says, or says nothing; a line in the log has told it."""
        if self._request is not None:
            self.refuse(problem)
            return
        self.negotiation.judge(False)
        self.context.handshakes.stop(self)
        output = self.negotiation.take_output()
        # A status that is not 0 means "wrong", and programs forget a password for that.
        if output and not isinstance(problem, (TooManyChecks, CheckTimedOut)):
            self.channel.write(output)
        self._refused(Ended(End.AUTH, "refused: not authenticated"))

    # The service of the request.

    def _requested(self, request: Request) -> None:
        self._request = request
        if request.version is not Version.SOCKS4 or self.context.authentication is None:
            self._serve()
            return
        self.login = self.login or Login(self, self.context.authentication)
        try:
            self.login.advance4(request)
        except SOCKSError as problem:
            self.refuse(problem)

    def _serve(self) -> None:
        context = self.context
        self.requested = now = context.seconds()
        context.handshakes.stop(self)
        context.connects.start(self, now)
        self.restart()

    def restart(self) -> None:
        """Begin the service, by the policy and the users that are in force now."""
        context, request = self.context, self.request
        self._pending = None
        if context.authentication is not self._asked_by:  # since the client has been asked, or has not
            self.wait(self._known_again(), lambda _: self.restart(), lambda _: self._refuse_again())
            return
        self._policy = context.policy
        try:
            self._check_limits()
            make = _SERVICES[request.version].get(request.command)
            if make is None:
                raise CommandNotSupported("command not supported")
            if context.deciding is not None:
                self._consider(context.deciding, self._enter_rule)
            self.service = make(self)
            self.service.start()
        except (SOCKSError, OSError) as problem:
            self.refuse(problem)

    def wait(
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
        pending.addCallbacks(then, self._failed, errbackArgs=(otherwise or self.refuse,))
        pending.addErrback(self._broke)

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
        _log.failure("{client}: the session failed", failure, client=self.client)
        self.abort(Cause.FAULT)
        self.over(Cause.FAULT.value)  # a channel that had given up its socket tells nothing

    def resolved_name(self) -> None:
        """The name of the destination has been looked up."""
        self.resolved = self.context.seconds()

    def wait_for_peer(self) -> None:
        """The listener of a BIND is open."""
        self.context.connects.stop(self)
        self.context.peers.start(self, self.context.seconds())

    def peer_came(self) -> None:
        """The peer of a BIND has come."""
        self.context.peers.stop(self)
        self.give(BINDS)

    def wait_for_grace(self) -> bool:
        """Whether an association has some time yet, though its client has gone."""
        if self.context.settings.udp.grace:
            self.context.graces.start(self, self.context.seconds())
            return True
        return False

    def announce(self, bound: Address) -> None:
        """Send the first of BIND's two replies."""
        self._write(self.negotiation.announce(bound))

    def grant(self, bound: Address) -> None:
        """Send the reply that grants the request."""
        self._pending = None
        self.context.connects.stop(self)
        self.answered = self.context.seconds()
        self.reply = Reply4.GRANTED if self.request.version is Version.SOCKS4 else Reply.SUCCEEDED
        self._write(self.negotiation.grant(bound))
        self.context.events.tell("granted", self)

    def refuse(self, problem: Exception) -> None:
        """Send the reply that tells *problem*, and end."""
        context, permission = self.context, self.permission
        context.connects.stop(self)
        context.peers.stop(self)
        context.handshakes.stop(self)
        if type(problem) is NotAllowed and permission is not None and permission.over is not None:
            problem = permission.over
        for kind in (BINDS, ASSOCIATIONS):
            self.give(kind)
        reply, reply4 = reply_for(problem), reply4_for(problem)
        self.answered = context.seconds()
        self.reply = reply4 if self.request.version is Version.SOCKS4 else reply
        if isinstance(problem, (NoFreePort, OverLimit, UnauthorizedLogin)):
            pass  # another line has told it
        elif reply in _OURS:
            _log.info(
                "{client}: {destination} refused: {problem}",
                client=self.client,
                destination=shown(self.request.destination),
                problem=describe(problem),
                reply=reply.value,
            )
        self._write(self.negotiation.refuse(reply, reply4))
        self._refused(Ended(end_for(problem), f"refused: {describe(problem)}"))

    def _write(self, data: bytes) -> None:
        wrapping = self.negotiation.wrapping
        try:
            data = data if wrapping is None else wrapping.wrap(data)
        except ProtocolError as problem:  # nothing can be said any more
            self._cancel(_broken(problem))
            self.channel.abort()
            return
        self.channel.write(data)

    def _refused(self, ended: Ended) -> None:
        self.context.events.tell("refused", self, ended)
        self.finish(ended)

    # What is permitted.

    @property
    def policy(self) -> IPolicy:
        """What decides for this session."""
        return self.permission or self.context.policy

    @property
    def check(self) -> DestinationCheck:
        """What the session's destinations are checked by."""
        check = self.context.check
        return check if self.permission is None else check._replace(policy=self.permission)

    @property
    def stale(self) -> bool:
        """Whether another policy is in force than the one that has permitted the session."""
        return self._policy is not self.context.policy

    def _consider(self, policy: IDecidingPolicy, enter: Callable[[Rule], None] | None) -> None:
        """What a policy that decides wants to know of the client, and where its decisions are kept."""
        client = self.client
        listener, *aliases = self._listener()
        self.client = client._replace(
            groups=frozenset(getattr(client.avatar, "groups", ())),
            listener=listener,
            aliases=tuple(aliases),
            version=self.request.version,
        )
        self.permission = Permission(policy, enter)

    def _listener(self) -> tuple[str, ...]:
        """What rules call the listener by which the client has come."""
        try:
            place = None if self.service is None else self.service.place()
            reached = self.channel.reached() if place is None else place
        except (OSError, AttributeError):  # the client's connection is closed already
            return (self.client.listener or "", *self.client.aliases)
        return self.context.listeners.words_for(reached)

    def rule(self, reached: Address) -> Rule | None:
        """The rule that has allowed *reached*."""
        return None if self.permission is None else self.permission.effect(reached)

    def rule_for_datagram(self, address: Address, name: str | None) -> Rule | None:
        """The rule that allows datagrams to *address*, one of *name*'s, if the client has asked for that."""
        if self.permission is None:
            return None
        return self.permission.rule_for(self.client, Command.UDP_ASSOCIATE, address, name)

    def route(self, rule: Rule | None) -> Route | None:
        """The way out that *rule*, or else the user, has; None: the server's."""
        of_rule = None if rule is None else rule.outgoing
        of_user = getattr(self.client.avatar, "outgoing", None)
        if not (of_rule or of_user):
            return None
        return self.context.route_from(outgoing_of(of_rule or ()).over(outgoing_of(of_user or ())))

    def dial(self, address: Address) -> Deferred[Dialed]:
        """Dial *address* as the rule says that allows it."""
        context, rule = self.context, self.rule(address)
        if rule is not None and rule.timeouts is not None and rule.timeouts.connect is not None:
            context.connects.start_own(self, rule.timeouts.connect or None)
        return (self.route(rule) or context.route).dial(address, self.channel.detachable)

    # What is limited.

    def _limited(self) -> Allowance:
        if self.allowance is None:
            self.allowance = Allowance(self.context.ledger)
        return self.allowance

    def _check_limits(self) -> None:
        if self.allowance is not None:
            self.allowance.check()
        if self.client.user is not None and self.context.ledger.user_limits(
            getattr(self.client.avatar, "limits", None)
        ):
            self._limited().enter_user(self.client)

    def _enter_rule(self, rule: Rule) -> None:
        self._limited().enter_rule(rule)

    def take(self, kind: str, make_room: Callable[[Scope], bool] = lambda _: False) -> None:
        """See :meth:`socksproxy.session.allowance.Allowance.take`."""
        self._limited().take(self.client, kind, make_room)

    def give(self, kind: str) -> None:
        """The session has none of *kind* any more."""
        if self.allowance is not None:
            self.allowance.give(kind)

    def settle(self) -> None:
        """Datagrams go under the rules that hold when they come."""
        if self.allowance is not None:
            self.allowance.settle(None)

    def meters(self, reached: Address | None) -> Meters | None:
        """What measures the bytes to and from *reached*; None: there are many destinations."""
        if self.allowance is None and not self.context.settings.limits.session:
            return None
        rule = None if reached is None else self.rule(reached)
        if reached is not None:
            self._limited().settle(None if rule is None else rule.name)
        return self._limited().meters(() if rule is None else (rule.name,))

    def meters_under(self, rule: str) -> Meters | None:
        """What measures datagrams under *rule*; None: what measures all others."""
        return None if self.allowance is None else self.allowance.meters_under(rule)

    def limits_changed(self) -> None:
        """The limits may have changed: the session goes on under those that hold now."""
        service = self.service
        peers = None if service is None else service.peers
        rules = [rule for rule in map(self.rule, peers) if rule is not None] if peers else None
        self._limited().renew(self.client, self._request is not None, rules)
        if service is not None:
            service.limits_changed()

    # What changes while the session goes on.

    @property
    def _asked_by(self) -> Authentication | None:
        return None if self.login is None else self.login.asked_by

    def hours_changed(self) -> None:
        """
        Hours of rules that end sessions have begun or ended.

        The session is judged again if such a rule has allowed it and its hours are over, or denies it now.
        """
        if self._is_underway and self.permission is not None and self._is_out_of_hours(self.permission):
            self.reconsider(Cause.HOURS)

    def _is_out_of_hours(self, permission: Permission) -> bool:
        service, policy, request = self.service, self.context.deciding, self.request
        reached = None if service is None else service.reached
        if permission.is_out_of_hours(self.context.hours.awake, reached):
            return True
        if isinstance(service, Associate) and service.granted:
            # Its destinations are asked about every few seconds; one without any has no rule yet.
            return not any(permission.effects()) and not service.permitted()
        if service is None or service.peers is None:
            return False  # what comes of it is being asked about
        assert policy is not None
        new = Permission(policy)
        if ask_again(new, self.client, Command(request.command), request.destination, service.peers):
            return False
        rule = None if new.latest is None else new.latest.effect
        return rule is not None and rule.ends_sessions

    def reconsider(self, otherwise: Cause = Cause.FORBIDDEN) -> None:
        """
        The policy or the users have changed: a session that is not permitted any more ends.

        :param otherwise: how it ends then.
        """
        if not self._is_underway:
            return  # it has not asked for anything yet, or is about to end
        self._stop_asking()
        self._asked = asked = self._known_again()
        asked.addCallback(lambda _: self._permitted_again())
        asked.addCallbacks(self._judged_again, self._not_judged_again, (otherwise,), {}, (otherwise,))
        asked.addErrback(self._broke)

    def _stop_asking(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.cancel()

    def _known_again(self) -> Deferred[Any]:
        """
        Find out whether the client is still known, by what asks now.

        :raises UnauthorizedLogin: (by the Deferred) when it is not.
        """
        authentication, login = self.context.authentication, self.login
        if authentication is self._asked_by:
            return succeed(None)
        if authentication is not None:
            self.login = login = login or Login(self)
            return login.renew(authentication)
        if login is not None:
            login.forget()
        return succeed(None)

    def _permitted_again(self) -> bool | Deferred[bool]:
        service = self.service
        if service is None or not (service.granted or service.peers):
            self._policy = None  # what comes of it is judged when it is there
            return True
        self._policy = self.context.policy
        self._consider_again(self._enter_rule if isinstance(service, Associate) else None)
        return service.reconsider()

    def ask_again(self, reached: Sequence[Address]) -> bool | Deferred[bool]:
        """Whether the request, which has led to *reached*, is still permitted."""
        request = self.request
        return ask_again(self.policy, self.client, Command(request.command), request.destination, reached)

    def _consider_again(self, enter: Callable[[Rule], None] | None) -> None:
        policy = self.context.deciding
        if policy is None:
            self.permission = None
        else:
            self._consider(policy, enter)

    def _judged_again(self, permitted: bool, otherwise: Cause) -> None:
        self._asked = None
        if permitted:
            if self.permission is not None:
                self.permission.enter = self._enter_rule  # for who is yet to come to a BIND
            self.limits_changed()
        else:
            self._forbid(otherwise)

    def _not_judged_again(self, failure: Failure, otherwise: Cause) -> None:
        if self._asked is None:
            return  # it was cancelled
        self._asked = None
        if not failure.check(LoginFailed):
            _log.error(
                "{client}: nobody can tell whether it is still permitted, so it is not: {problem}",
                client=self.client,
                problem=redacted(failure),
            )
        self._forbid(otherwise)

    def _forbid(self, cause: Cause) -> None:
        if self.service is not None and self.service.granted:
            self.service.abort(cause)
        elif self._give_up():
            self._refuse_again(cause)

    def _refuse_again(self, cause: Cause = Cause.FORBIDDEN) -> None:
        self.refuse(NotAllowed(cause.value.words))

    def confirm(self, reached: Sequence[Address], result: T, then: Callable[[T], None]) -> None:
        """Go on with *result*, which old rules have led to, if those that hold now permit *reached*."""
        self._policy = self.context.policy
        self._consider_again(self._enter_rule)
        asked: Deferred[Any] = maybeDeferred(self.ask_again, reached)
        asked.addCallback(_required, result).addErrback(self._discard, result)
        self.wait(asked, then)

    def _discard(self, failure: Failure, result: object) -> Failure:
        if isinstance(result, Dialed):
            self.context.discard(result.link)
        return failure

    # The end.

    def finish(self, ended: Ended) -> None:
        """Everything is said: give the client time to read it."""
        if self.ended is not None:
            return
        self.ended = ended
        self._forget_early()
        if self.half_closed:
            self.channel.close()
            return
        self.context.lingers.start(self, self.context.seconds())
        self.channel.finish()

    def _forget_early(self) -> None:
        if self._early:
            self.negotiation.early = b""
            self._count_early()

    def _cancel(self, ended: Ended) -> None:
        self.ended = self.ended or ended
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
        asked_by = self._asked_by
        if pending is not None and asked_by is not None:
            asked_by.gate.give_up(pending)
        elif pending is not None:
            pending.cancel()

    def over(self, ended: Ended) -> None:
        """The client's connection is closed; *ended* counts unless it was known before how."""
        self._cancel(ended)
        if self._over:
            return
        self._over = True
        self._forget_early()
        self._stop_asking()
        if self.login is not None:
            self.login.log_out()
        self.context.sessions.end(self)
        # They know the session, too: nothing but a collection of garbage would free them.
        self.service = self.login = self.permission = None


def _broken(problem: object) -> Ended:
    return Ended(End.PROTOCOL, f"protocol error: {problem}")


def _required(permitted: bool, result: T) -> T:
    if not permitted:
        raise NotAllowed(Cause.FORBIDDEN.value.words)
    return result


def _bind(session: Session) -> Bind:
    return Bind(session, session.context.binds)


#: What makes the service of a request, by the version and the command.
_SERVICES: dict[int, dict[int, Callable[[Session], Service]]] = {
    Version.SOCKS4: {Command.CONNECT: Connect, Command.BIND: _bind, Command.RESOLVE: Resolve},
    Version.SOCKS5: {
        Command.CONNECT: Connect,
        Command.BIND: _bind,
        Command.UDP_ASSOCIATE: Associate,
        Command.RESOLVE: Resolve,
        Command.RESOLVE_PTR: Resolve,
    },
}

#: Stands for every conversation that has been had: an established session keeps none.
_DONE = Negotiation()
_DONE.state = State.GRANTED
