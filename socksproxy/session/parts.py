"""
The parts of a session, and what follows from them: where the session stands, what it may do, what limits it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..auth.authentication import Authentication
from ..auth.directory import RecordedUser
from ..auth.users import User
from ..commands.channel import Channel
from ..commands.service import Service
from ..events import Cause, End, Ended
from ..identity import Client
from ..limits.account import Scope
from ..limits.buckets import Meters
from ..limits.claims import Admission
from ..negotiation import Negotiation, State
from ..net.dial import Pending
from ..policy import IPolicy
from ..policy.rules import Rule
from ..runtime.deadlines import Deadlines
from ..values.outgoing import Outgoing, Sources
from ..wire.words import Address, Request
from .allowance import Allowance
from .login import Login
from .permission import Permission
from .shared import ServerContext

_log = Logger(namespace="socksproxy")

#: The states in which the client's next bytes have to wait for an answer.
WAITS = (State.JUDGING, State.SERVING)

_NO_GROUPS: frozenset[str] = frozenset()

#: The kinds of avatars that do not look at the client's listener.
_ASK_NOT = frozenset((type(None), User, RecordedUser))


class Phase(Enum):
    """Where a session stands; the value is the word for people."""

    NEGOTIATING = "negotiating"
    AUTHENTICATING = "authenticating"
    SERVING = "serving"
    RELAYING = "relaying"
    FINISHING = "finishing"
    OVER = "over"


class SessionParts:
    """
    One client.

    :param context: what the session shares with others.
    :param channel: carries the client's bytes.
    :param client: who the client is.
    :param allowance: what is limited for the session; None: nothing is yet.
    :ivar half_closed: whether the client has closed its direction.
    :ivar ended: how the session ended; None: it goes on.
    :ivar reply: the code that the client was sent, of its version; None: none was sent.
    :ivar began: when the client connected, in the reactor's seconds, as :attr:`requested` (the request was
        whole) and :attr:`answered` (the reply was sent).
    """

    __slots__ = (
        "_admission",
        "_deadline",
        "_judging",
        "_leaves",
        "_number",
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
        "login",
        "negotiation",
        "permission",
        "reply",
        "requested",
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
        self.login = None if context.authentication is None else self.login_by(context.authentication)
        self.negotiation = Negotiation(None if self.login is None else self.login.offers)
        self.service: Service | None = None
        #: Given out when something asks for it, which nothing does where nothing is recorded.
        self._number: int | None = None
        self.began: float = context.reactor.seconds()
        self.requested: float | None = None
        self.answered: float | None = None
        self.reply: int | None = None
        self.ended: Ended | None = None
        self.half_closed = False
        #: What the session leaves from, by what is said of it, where an address has been chosen.
        self._leaves: tuple[tuple[Sources, ...], Outgoing] | None = None
        self._request: Request | None = None
        #: What the session waits for.
        self._pending: Pending | None = None
        #: Fires when the store that nodes share has judged the session; None: nothing waits for that.
        self._admission: Deferred[None] | None = None
        #: Whether the session is still permitted after a change, while that is being found out.
        self._judging: Deferred[Any] | None = None
        #: The policy that has permitted the session; None: it is asked again before the session goes on.
        self._policy: IPolicy | None = None
        #: How long the session may stay in its state; None: as long as it likes.
        self._deadline: Deadlines[Any] | None = None

    @property
    def id(self) -> str:
        """See :attr:`socksproxy.events.Subject.id`."""
        ids = self.context.ids
        if self._number is None:
            self._number = ids.next()
        return ids.name(self._number)

    @property
    def number(self) -> tuple[int, int, int]:
        """The generation, the worker and the number of the session: its id."""
        ids = self.context.ids
        if self._number is None:
            self._number = ids.next()
        return ids.generation, ids.worker, self._number

    @property
    def heard(self) -> bool:
        """
        See :attr:`socksproxy.events.Subject.heard`: a client that sends nothing is a probe, and so is a
        balancer's check, which may greet.
        """
        if self._request is None and self.client.check:
            return False
        return self.negotiation.state is not State.START

    @property
    def phase(self) -> Phase:
        """Where the session stands."""
        if self not in self.context.sessions.live:
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
        return self.requested is None and self.negotiation.state in WAITS

    @property
    def _is_underway(self) -> bool:
        """Whether the session has made its request, and is served or may yet be served."""
        return self.phase in (Phase.SERVING, Phase.RELAYING)

    @property
    def request(self) -> Request:
        """The client's request, once it is there."""
        assert self._request is not None
        return self._request

    @property
    def request_if_any(self) -> Request | None:
        """The client's request; None: there is none yet."""
        return self._request

    def wait(
        self,
        pending: Pending,
        then: Callable[[Any], None],
        otherwise: Callable[[Exception], None] | None = None,
    ) -> None:
        """
        Go on with *then* when *pending* fires; it is cancelled when the session ends before.

        :param otherwise: what a failure leads to; None: the request is refused.
        """
        self._pending = pending
        # One callback for all: each takes time and memory.
        pending.addBoth(self._go_on, then, otherwise)

    def _go_on(
        self,
        result: Any,
        then: Callable[[Any], None],
        otherwise: Callable[[Exception], None] | None,
    ) -> None:
        try:
            if not isinstance(result, Failure):
                then(result)
            elif self._pending is not None:  # else it was cancelled, and the session has gone on without it
                self._pending = None
                if not isinstance(result.value, Exception):
                    result.raiseException()
                (otherwise or self.refuse)(result.value)
        except BaseException:
            self._broke(Failure())

    def _broke(self, failure: Failure) -> None:
        """A fault of ours: it is logged in full, once, and costs this session alone."""
        _log.failure("{client}: the session failed", failure, client=self.client)
        self.abort(Cause.FAULT)
        self.over(Cause.FAULT.value)  # a channel that had given up its socket tells nothing

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
        """Cancel what the session waits for, because the server ends the session."""
        pending, self._pending = self._pending, None
        authentication = self._authentication
        if pending is not None and authentication is not None:
            authentication.gate.give_up(pending)
        elif pending is not None:
            pending.cancel()

    @property
    def _authentication(self) -> Authentication | None:
        """What has asked the client who it is; None: nothing has."""
        return None if self.login is None else self.login.authentication

    @property
    def policy(self) -> IPolicy:
        """What decides for this session."""
        return self.permission or self.context.policy

    @property
    def stale(self) -> bool:
        """Whether another policy is in force than the one that has permitted the session."""
        return self._policy is not self.context.policy

    def _new_permission(self, enter: Callable[[Rule], None] | None) -> Permission | None:
        """
        What asks the policy in force from now on; None: that tells yes or no only.

        The client tells what such a policy wants to know.
        """
        policy = self.context.deciding
        if policy is None:
            return None
        client = self.client
        listener: str | None = None
        aliases: Sequence[str] = ()
        # An embedder's user may want to know. Ours does not, and a system call finds it out.
        if self.context.asks_listener or type(client.avatar) not in _ASK_NOT:
            listener, *aliases = self._listener()
        host, port, user, avatar, _, _, _, uid, _, told = client
        groups = _NO_GROUPS if avatar is None else frozenset(getattr(avatar, "groups", ()))
        # Written out: _replace() takes twice the time.
        self.client = Client(
            host, port, user, avatar, groups, listener, self.request.version, uid, tuple(aliases), told
        )
        permission = Permission(policy, enter, self.context.helpers or None)
        permission.enters_all = self.context.exempts
        return permission

    @property
    def listener_words(self) -> tuple[str, ...]:
        """What rules call the listener by which the client has come; empty: its connection is closed."""
        return tuple(word for word in self._listener() if word)

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

    def _limited(self) -> Allowance:
        if self.allowance is None:
            self.allowance = Allowance(self.context.ledger)
        return self.allowance

    def _begin(self) -> None:
        """Count the session in the rates at which sessions begin."""
        if self.allowance is not None:
            self.allowance.begin()
            # A flood that is dropped is not heard, and writes no lines.
            self._drop_if_too_many()

    def _drop_if_too_many(self) -> None:
        """End a session that a rate has dropped."""
        allowance = self.allowance
        if allowance is not None and allowance.admission is Admission.DROP:
            self.ended = Ended(End.LIMIT, f"refused: {allowance.refusal}")
            self.channel.abort()

    def _check_limits(self) -> None:
        # A rule may let a session go on whose quotas are used up.
        quotas = not self.context.exempts
        if self.allowance is not None:
            self.allowance.check(quotas)
        if self.client.avatar is None:
            return
        limits = self.context.ledger.limits_of(self.client)
        if limits is not None:
            self._limited().enter_user(self.client, limits, quotas)

    def _enter_rule(self, rule: Rule) -> None:
        if self.context.exempts and rule.quota and self.allowance is not None:
            self.allowance.check_quotas()
        if rule.limits or rule.user_limits:
            self._limited().enter_rule(rule, self.client)

    def may_stay(self, deadlines: Deadlines[Any] | None, now: float | None = None) -> None:
        """
        From *now* on the session may stay in its state as long as *deadlines* say.

        :param deadlines: None: as long as it likes.
        """
        before, self._deadline = self._deadline, deadlines
        if before is not None:
            before.stop(self)
        if deadlines is not None:
            deadlines.start(self, self.context.seconds() if now is None else now)

    def take(self, kind: str, make_room: Callable[[Scope], bool] = lambda _: False) -> None:
        """See :meth:`socksproxy.session.allowance.Allowance.take_for`."""
        self._limited().take_for(self.client, kind, make_room)

    def give(self, kind: str) -> None:
        """The session has none of *kind* any more."""
        if self.allowance is not None:
            self.allowance.give(kind)

    def meters(self, reached: Address | None) -> Meters | None:
        """What measures the bytes to and from *reached*; None: there are many destinations."""
        allowance = self.allowance
        if allowance is None:
            if not self.context.limits_each_session:
                return None
            allowance = self._limited()
        rule = None if reached is None else self.rule(reached)
        if reached is not None:
            allowance.settle(None if rule is None else rule.name)
        return allowance.meters(() if rule is None else (rule.name,), rule is None or rule.quota)

    def _meters_under(self, quota: bool, rule: str) -> Meters | None:
        """
        What measures datagrams under *rule*; None: what measures all others.

        :param quota: whether they count for quotas.
        """
        found = None if self.allowance is None else self.allowance.meters((rule,), quota)
        return found if quota or found is not None else Meters(None, None)

    def complain(self, problem: str) -> None:
        """See :meth:`socksproxy.session.shared.ServerContext.complain`."""
        self.context.complain(self.client, problem)

    # What a session does with its parts.

    def login_by(self, authentication: Authentication | None) -> Login:
        """A login of the client, which *authentication* asks."""
        raise NotImplementedError

    def refuse(self, problem: Exception) -> None:
        """Send the reply that tells *problem*, and end."""
        raise NotImplementedError

    def abort(self, cause: Cause = Cause.ABORTED) -> None:
        """End the session at once."""
        raise NotImplementedError

    def over(self, ended: Ended) -> None:
        """The client's connection is closed; *ended* counts unless it was known before how."""
        raise NotImplementedError
