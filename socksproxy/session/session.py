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

from collections.abc import Callable

from twisted.cred.error import UnauthorizedLogin
from twisted.logger import Logger

from ..auth.authentication import Authentication
from ..auth.checkers.threads import CheckTimedOut, TooManyChecks
from ..commands.associate import Associate
from ..commands.bind import Bind
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
    UpstreamFailed,
    describe,
    reply4_for,
    reply_for,
)
from ..events import Cause, End, Ended, end_for
from ..identity import Client
from ..limits.account import ASSOCIATIONS, BINDS
from ..logs.debug import SESSIONS as DEBUG
from ..logs.printable import shown
from ..negotiation import DONE, NotSOCKS, State
from ..wire.words import Address, Command, Reply, Reply4, Request, Version
from .login import Login
from .parts import WAITS
from .sharing import SharingSession

_log = Logger(namespace="socksproxy")

#: Stands for a client whose address is not known yet.
UNIDENTIFIED = Client("")

#: Stands for a session that is over.
_GONE = object()

#: Replies whose cause lies here, and not at the destination: an operator wants to see them.
_OURS = frozenset({Reply.GENERAL_FAILURE, Reply.NOT_ALLOWED})


class Session(SharingSession):
    """One client."""

    __slots__ = ()

    def identify(self, client: Client) -> None:
        """The client has turned out to be *client*."""
        self.client = client
        self._limited().identify(client)
        self._drop_if_too_many()

    def received(self, data: bytes) -> None:
        """The client sent *data*."""
        first = self.negotiation.state is State.START
        if first and self.allowance is not None and self.ended is None and not self.client.check:
            self._begin()
        if self.ended is not None:
            if not self.negotiation.discard(data):
                self.channel.abort()
        elif self.requested is None and self.negotiation.state not in WAITS:
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
        elif not self._goes_on_half_closed():
            self._leave()

    def _goes_on_half_closed(self) -> bool:
        """Whether a client that has closed its direction may yet be served with what it has sent."""
        if self.service is not None:
            return self.service.read_closed()
        return self._pending is not None and bool(self.negotiation.early)

    def _leave(self) -> None:
        """The client has closed its direction, and has not sent what is missing."""
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

    def handshake_expired(self) -> None:
        """The request did not come in time."""
        self.cut(Cause.HANDSHAKE)

    def connect_expired(self) -> None:
        """The destination could not be reached in time."""
        trail = None if self.service is None else self.service.trail
        if not self._give_up():
            return
        if trail is not None and not trail.asked:
            self.refuse(UpstreamFailed(f"{trail.via}: connect timeout before the request"))
        else:
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

    def _negotiate(self, data: bytes) -> None:
        negotiation = self.negotiation
        try:
            request = negotiation.receive(data)
        except ProtocolError as problem:
            self._break_off(problem)
            return
        if negotiation.early or self.context.early.kept:
            self._count_early()
        if negotiation.output:
            self.channel.write(negotiation.take_output())
        if self.ended is not None:
            return  # the client went away under the write
        if request is not None:
            self._requested(request)
        elif negotiation.move is not None and self.login is not None and negotiation.method is not None:
            self.login.advance(negotiation.method.name, negotiation.take_move())
        elif self.half_closed:
            self._leave()

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
        self.context.early.keeps(self, len(self.negotiation.early))

    def pause_reading(self) -> None:
        """See :class:`socksproxy.session.early_data.Reader`."""
        self.channel.pause()

    def resume_reading(self) -> None:
        """See :class:`socksproxy.session.early_data.Reader`."""
        reads = self.negotiation is not DONE or isinstance(self.service, Associate)
        if reads and self.ended is None and not self.negotiation.full:
            self.channel.resume()

    def forget_negotiation(self, channel: bool = False) -> None:
        """
        Drop the negotiation: an established session keeps none, nor waits because of its early data.

        :param channel: drop the channel, too: the relay has the client's socket.
        """
        full = self.negotiation.full
        self.negotiation = DONE
        if full:
            self.resume_reading()
        if self.context.early.kept:
            self._count_early()
        if channel:
            del self.channel

    def _break_off(self, problem: ProtocolError) -> None:
        """The client broke the protocol: the answer that there is, one line in the log."""
        self.may_stay(None)
        self.reply = self.negotiation.answer
        output = self.negotiation.take_output()
        if output:
            self.channel.write(output)
        self.complain(str(problem))
        is_socks = not isinstance(problem, NotSOCKS)
        self._refused(_broken(problem) if is_socks else Ended(End.PROTOCOL, str(problem)))

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
        if self.ended is None and (negotiation.early or self.half_closed):
            self._negotiate(b"")

    def login_failed(self, problem: Exception) -> None:
        """The client is not who it says, or says nothing; a line in the log has told it."""
        if self.login is not None:
            self.login.judged(False)
        if self._request is not None:
            self.refuse(problem)
            return
        self.negotiation.judge(False)
        self.may_stay(None)
        output = self.negotiation.take_output()
        # A status that is not 0 means "wrong", and programs forget a password for that.
        if output and not isinstance(problem, (TooManyChecks, CheckTimedOut)):
            self.channel.write(output)
        self._refused(Ended(End.AUTH, "refused: not authenticated"))

    def _requested(self, request: Request) -> None:
        self._request = request
        if self.client.check:
            self._begin()  # it is no check of a balancer
            if self.ended is not None:
                return
        if request.version is not Version.SOCKS4 or self.context.authentication is None:
            self._serve()
            return
        self.login = self.login or self.login_by(self.context.authentication)
        try:
            self.login.advance4(request)
        except SOCKSError as problem:
            self.refuse(problem)

    def _serve(self) -> None:
        self.requested = now = self.context.reactor.seconds()
        self.may_stay(self.context.connects, now)
        self.restart()

    def login_by(self, authentication: Authentication | None) -> Login:
        """A login of the client, which *authentication* asks."""
        return Login(self, authentication)

    def restart(self) -> None:
        """Begin the service, by the policy and the users that are in force now."""
        context, request = self.context, self.request
        self._pending = None
        if context.authentication is not self._authentication:  # since the client has been asked, or has not
            renewal = self._renewal()
            if renewal is not None:
                self.wait(renewal, lambda _: self.restart(), self._not_renewed)
                return
        self._policy = context.policy
        try:
            self._check_limits()
            make = _SERVICES[request.version].get(request.command)
            if make is None:
                raise CommandNotSupported("command not supported")
            self.permission = self._new_permission(self._enter_rule)
            self.service = make(self)
            self._begin_service()
        except (SOCKSError, OSError) as problem:
            self.refuse(problem)

    def announce(self, bound: Address) -> None:
        """Send the first of BIND's two replies."""
        self._write(self.negotiation.announce(bound))

    def grant(self, bound: Address) -> None:
        """Send the reply that grants the request."""
        self._pending = None
        self.may_stay(None)
        self.answered = self.context.reactor.seconds()
        negotiation = self.negotiation
        self.reply = Reply4.GRANTED if negotiation.version is Version.SOCKS4 else Reply.SUCCEEDED
        self._write(negotiation.grant(bound))
        self.context.events.tell("granted", self)

    def refuse(self, problem: Exception) -> None:
        """Send the reply that tells *problem*, and end."""
        context, permission = self.context, self.permission
        self.may_stay(None)
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
        if DEBUG.on:
            DEBUG("session {id} of {client}: {ended}", id=self.id, client=self.client, ended=ended.words)
        self.context.events.tell("refused", self, ended)
        self.finish(ended)

    def finish(self, ended: Ended) -> None:
        """Everything is said: give the client time to read it."""
        if self.ended is not None:
            return
        self.ended = ended
        self._forget_early()
        if self.half_closed:
            self.channel.close()
            return
        self.may_stay(self.context.lingers)
        self.channel.finish()

    def _forget_early(self) -> None:
        if self.negotiation.early:
            self.negotiation.early = b""
        if self.context.early.kept:
            self._count_early()

    def over(self, ended: Ended) -> None:
        """The client's connection is closed; *ended* counts unless it was known before how."""
        # Most sessions have nothing left that would have to be stopped.
        self.ended = self.ended or ended
        if self._pending is not None:
            self._give_up()
        if self.context.sessions.live.pop(self, _GONE) is _GONE:
            return
        if self._deadline is not None:
            self.may_stay(None)
        self._forget_early()
        if self._judging is not None:
            self._stop_judging()
        if self.login is not None:
            self.login.log_out()
        if self.service is not None and self.service.trail is not None:
            self.service.trail.leave()
        self.context.sessions.end(self)
        # They know the session, too: nothing but a collection of garbage would free them.
        self.service = self.login = self.permission = None


def _broken(problem: object) -> Ended:
    return Ended(End.PROTOCOL, f"protocol error: {problem}")


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
