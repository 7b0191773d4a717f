"""
What one process counts of its sessions, for the metrics.

Strategy: every number has a place in a list, which is found when the configuration is read. A session adds
to places, and looks up no labels. Once a second, what live sessions have moved is added, a slice of them in
each turn of the reactor, and the list is written to the process's column
(:class:`~socksproxy.metrics.columns.OwnColumn`). Where nothing is counted there are no
:class:`SessionCounters`, and a session costs a look at a None.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..auth.authentication import Authentication
from ..commands.service import NO_COUNTS, Counts, Service
from ..errors import OverLimit, QuotaUsedUp, TooManyAssociations, TooManyBinds
from ..events import End, Ended, ServerEvents
from ..identity import Client
from ..limits.account import Account, Scope
from ..limits.ledger import Ledger
from ..logs.throttle import complain
from ..metrics import table
from ..metrics.columns import NOWHERE, OwnColumn
from ..metrics.process import ProcessGauges
from ..policy import IPolicy
from ..policy.compiled import RulePolicy
from ..policy.rules import RESERVED
from ..routes.counters import UpstreamCounters
from ..shared.store import SharedStore
from ..udp.drops import Drop
from ..wire.words import Address, AddressType, Command, Method, Reply, Reply4, Request
from .permission import Permission

_log = Logger(namespace="socksproxy")

#: Rules that have series of their own, at the most; others count together.
MOST_RULES = 200
OTHER_RULE = "other"
#: Seconds between two looks at the live sessions.
EVERY = 1.0
#: Sessions that are looked at in one turn of the reactor.
_AT_ONCE = 256

PHASES = ("negotiating", "resolving", "connecting", "waiting", "relaying", "finishing")
#: What a session is called whose request is not there, or unknown.
_NO_COMMAND, _OTHER_COMMAND = "", "other"
_LIMITS = {TooManyBinds: "binds", TooManyAssociations: "associations", QuotaUsedUp: "quota"}
_SESSIONS = "sessions"

# The bounds of histograms, and how far behind its first cell a histogram has its sum.
_HANDSHAKE = table.HANDSHAKE_SECONDS.buckets
_RESOLUTION = table.RESOLUTION_SECONDS.buckets
_CONNECT = table.CONNECT_SECONDS.buckets
_LIFE = table.SESSION_SECONDS.buckets
_LOGIN = table.AUTHENTICATION_SECONDS.buckets
_FAST_SUM, _CONNECT_SUM, _LIFE_SUM = (len(each) + 1 for each in (_HANDSHAKE, _CONNECT, _LIFE))


class CountedSession(Protocol):
    """What is counted of a session."""

    client: Client
    service: Service | None
    permission: Permission | None
    ended: Ended | None
    reply: int | None
    began: float
    requested: float | None
    answered: float | None

    @property
    def request_if_any(self) -> Request | None: ...

    @property
    def phase(self) -> Any: ...


class CountedContext(Protocol):
    """What the counters use of what sessions share."""

    reactor: Any
    authentication: Authentication | None
    ledger: Ledger
    policy: IPolicy

    @property
    def live(self) -> Mapping[Any, None]: ...

    @property
    def lost_lines(self) -> int: ...

    @property
    def upstreams(self) -> Mapping[str, UpstreamCounters]: ...

    def needed(self) -> int: ...


class _OfCommand:
    """The places of one command."""

    __slots__ = ("connect", "ended", "life", "phases", "received", "sent")

    def __init__(self, own: OwnColumn, command: str) -> None:
        self.ended = {end: own.place(table.ENDED, command, end.value) for end in End}
        self.sent = own.place(table.BYTES, command, "sent")
        self.received = own.place(table.BYTES, command, "received")
        self.connect = own.place(table.CONNECT_SECONDS, command)
        self.life = own.place(table.SESSION_SECONDS, command)
        self.phases = {phase: own.place(table.SESSIONS, command, phase) for phase in PHASES}


class _OfUser:
    """The places of one user."""

    __slots__ = ("received", "sent", "sessions")

    def __init__(self, own: OwnColumn, name: str, most: int | None) -> None:
        self.sessions = own.place(table.USER_SESSIONS, name, most=most)
        self.sent = self.received = NOWHERE
        if self.sessions != NOWHERE:
            self.sent = own.place(table.USER_BYTES, name, "sent")
            self.received = own.place(table.USER_BYTES, name, "received")


class _OfUpstream:
    """The places of one upstream, and its numbers when they were last looked at."""

    __slots__ = ("_before", "_places", "sessions")

    def __init__(self, own: OwnColumn, name: str) -> None:
        self.sessions = own.place(table.UPSTREAM_SESSIONS, name)
        self._places = (
            own.place(table.UPSTREAM_TRIES, name),
            own.place(table.UPSTREAM_FAILURES, name, "own"),
            own.place(table.UPSTREAM_FAILURES, name, "destination"),
            own.place(table.UPSTREAM_CHECKS, name),
        )
        self._before = (0, 0, 0, 0)

    def update(self, counts: list[int], now: UpstreamCounters) -> None:
        """Count what is new."""
        counts[self.sessions] = max(0, now.sessions)
        numbers = now.total, now.own_failures, now.destination_failures, now.checks
        for place, number, before in zip(self._places, numbers, self._before, strict=True):
            # One that a reload has taken away and another has brought back begins at 0.
            counts[place] += number - before if number >= before else number
        self._before = numbers


class _OfStore:
    """
    The cells of the store that nodes share, and what was counted in them.

    :param own: where they are counted.
    """

    def __init__(self, own: OwnColumn) -> None:
        self._up = own.place(table.SHARED_UP)
        metrics = table.SHARED_ASKS, table.SHARED_FALLBACKS, table.SHARED_FAILURES, table.SHARED_SENT
        self._places = [own.place(metric) for metric in metrics]
        self._before: tuple[SharedStore | None, list[int]] = None, [0] * len(metrics)

    def update(self, counts: Any, store: SharedStore | None) -> None:
        """Count what *store* has done since the last time; None: there is none."""
        counts[self._up] = store is not None and store.up
        if store is None:
            return
        stats = store.stats
        now = [stats.asks, stats.alone, stats.failures, stats.sent]
        known, before = self._before
        if known is not store:
            before = [0] * len(now)
        for place, count, earlier in zip(self._places, now, before, strict=True):
            counts[place] += max(0, count - earlier)
        self._before = store, now


class SessionCounters(ServerEvents):
    """
    Counts the sessions of one server in one process.

    :param own: where they are counted.
    :param context: what the sessions share.
    :param users: how many users have series of their own, the first ones; 0: users are not counted.
    :ivar counts: the numbers, by their places; see :class:`~socksproxy.metrics.columns.OwnColumn`.
    :ivar listeners: for each open port, the place that counts its clients.
    """

    def __init__(self, own: OwnColumn, context: CountedContext, users: int = 0) -> None:
        self.counts = own.counts
        self.listeners: dict[Any, int] = {}
        self._own = own
        self._context = context
        self._reactor = context.reactor
        self._process = ProcessGauges(own, context.needed)
        commands = {int(command): command.name for command in Command}
        self._commands = {number: _OfCommand(own, name) for number, name in commands.items()}
        self._connect = self._commands[Command.CONNECT]
        self._without = _OfCommand(own, _NO_COMMAND)
        self._other = _OfCommand(own, _OTHER_COMMAND)
        # No number is a reply of both versions.
        replies = [("5", int(code)) for code in (*Reply, Method.NO_ACCEPTABLE)]
        replies += [("4", int(code)) for code in Reply4]
        self._replies = {code: own.place(table.REPLIES, version, str(code)) for version, code in replies}
        self._other_reply = own.place(table.REPLIES, "5", "other")
        self._datagrams_sent = own.place(table.DATAGRAMS, "sent")
        self._datagrams_received = own.place(table.DATAGRAMS, "received")
        self._dropped = {drop.value: own.place(table.DROPPED_DATAGRAMS, drop.value) for drop in Drop}
        self._handshake = own.place(table.HANDSHAKE_SECONDS)
        self._resolution = own.place(table.RESOLUTION_SECONDS)
        self._pauses = own.place(table.ACCEPT_PAUSES)
        self._lost_lines = own.place(table.ACCESS_LOG_LOST)
        self._locked = own.place(table.LOCKED_ADDRESSES)
        self._store = _OfStore(own)
        self._unwritten = own.place(table.QUOTA_UNWRITTEN)
        self._limited: dict[tuple[Scope, str], int] = {
            (scope, limit): own.place(table.LIMITED, scope.value, limit)
            for scope in Scope
            if scope is not Scope.SESSION
            for limit in (_SESSIONS, *_LIMITS.values())
        }
        self._most_users = users
        self._users: dict[str, _OfUser] = {}
        self._others = _OfUser(own, "", None) if users else None
        #: What sessions had moved when they were looked at, for those that go on.
        self._moved: dict[Any, Counts] = {}
        self._methods: dict[str, tuple[int, int, int]] = {}
        self._rules: dict[str, tuple[int, int]] = {}
        self._upstreams: dict[str, _OfUpstream] = {}
        self._timer: IDelayedCall | None = None
        self._due = self._late = 0.0
        self._left: list[Any] = []
        self._gauges: dict[int, int] = {}
        self._lines_before = 0
        self.reconfigure()

    def reconfigure(self) -> None:
        """Rules, users or methods have changed: new ones have their places before a session needs them."""
        own, policy = self._own, self._context.policy
        names = [*sorted(RESERVED)]
        if isinstance(policy, RulePolicy):
            names += [rule.name for rule in policy.rules]
        for name in names:
            if name not in self._rules:
                allowed = own.place(table.RULE_DECISIONS, name, "allow", most=2 * MOST_RULES)
                denied = own.place(table.RULE_DECISIONS, name, "deny", most=2 * MOST_RULES + 1)
                if NOWHERE in (allowed, denied):
                    break
                self._rules[name] = allowed, denied
        self._other_rule = (
            own.place(table.RULE_DECISIONS, OTHER_RULE, "allow"),
            own.place(table.RULE_DECISIONS, OTHER_RULE, "deny"),
        )
        authentication = self._context.authentication
        for method in () if authentication is None else authentication.method_names:
            self._methods[method] = (
                own.place(table.AUTHENTICATIONS, method, "granted"),
                own.place(table.AUTHENTICATIONS, method, "refused"),
                own.place(table.AUTHENTICATION_SECONDS, method),
            )
        self._context.ledger.on_refusal = self.limited
        for name in self._context.upstreams:
            if name not in self._upstreams:
                self._upstreams[name] = _OfUpstream(own, name)

    def listen(self, port: Any, label: str) -> None:
        """
        Count the clients of *port*.

        :param label: what the listener is called.
        """
        self.listeners[port] = self._own.place(table.CONNECTIONS, label)

    def connected(self, port: Any) -> None:
        """A client has connected to *port*."""
        self.counts[self.listeners.get(port, NOWHERE)] += 1

    def over(self, session: CountedSession) -> None:
        """*session* is over."""
        counts = self.counts
        request, service, ended = session.request_if_any, session.service, session.ended
        of = self._without if request is None else self._commands.get(request.command, self._other)
        if ended is not None:
            counts[of.ended[ended.end]] += 1
        reply = session.reply
        if reply is not None:
            counts[self._replies.get(reply, self._other_reply)] += 1
        began, requested = session.began, session.requested
        seconds = self._reactor.seconds() - began
        counts[of.life + bisect_left(_LIFE, seconds)] += 1
        counts[of.life + _LIFE_SUM] += seconds
        if requested is None:
            return
        seconds = requested - began
        counts[self._handshake + bisect_left(_HANDSHAKE, seconds)] += 1
        counts[self._handshake + _FAST_SUM] += seconds
        if service is not None:
            resolved, answered = service.resolved, session.answered
            if resolved is not None:
                seconds, requested = resolved - requested, resolved
                counts[self._resolution + bisect_left(_RESOLUTION, seconds)] += 1
                counts[self._resolution + _FAST_SUM] += seconds
            if answered is not None:
                seconds = answered - requested
                counts[of.connect + bisect_left(_CONNECT, seconds)] += 1
                counts[of.connect + _CONNECT_SUM] += seconds
                if self._moved or self._others is not None or of is not self._connect:
                    self._count_moved(session, service, of)
                else:  # as there, in half the time
                    sent, received, *_ = service.counts()
                    counts[of.sent] += sent
                    counts[of.received] += received
        if self._moved:
            self._moved.pop(session, None)
        if session.permission is not None:
            many = request is not None and request.command == Command.UDP_ASSOCIATE
            self._count_rules(session.permission, None if service is None else service.reached, many)

    def _count_moved(self, session: CountedSession, service: Service, of: _OfCommand) -> Counts:
        """Count what *session* has moved since it was looked at."""
        counts, now = self.counts, service.counts()
        before = self._moved.get(session, NO_COUNTS)
        if now is NO_COUNTS:
            return before
        sent, received = now.sent - before.sent, now.received - before.received
        counts[of.sent] += sent
        counts[of.received] += received
        if self._others is not None:
            user = self._user(session.client.user)
            counts[user.sent] += sent
            counts[user.received] += received
        if now.datagrams_sent is not None:
            counts[self._datagrams_sent] += now.datagrams_sent - (before.datagrams_sent or 0)
            counts[self._datagrams_received] += (now.datagrams_received or 0) - (
                before.datagrams_received or 0
            )
            for reason, dropped in (now.dropped or {}).items():
                counts[self._dropped[reason]] += dropped - (before.dropped or {}).get(reason, 0)
        return now

    def _count_rules(self, permission: Permission, reached: Address | None, many: bool) -> None:
        for decision in permission.decisive(reached, many):
            places = self._rules.get(decision.rule, self._other_rule)
            self.counts[places[not decision.allowed]] += 1

    def _user(self, name: str | None) -> _OfUser:
        """The places of the user *name*, if there is one, and room for another."""
        assert self._others is not None
        if not name:
            return self._others
        found = self._users.get(name)
        if found is None:
            if len(self._users) >= self._most_users:
                return self._others
            found = _OfUser(self._own, name, self._most_users + 1)
            if found.sessions == NOWHERE:
                return self._others
            self._users[name] = found
        return found

    def logged_in(self, method: str, granted: bool, seconds: float | None) -> None:
        """
        A client has logged in, or has tried to.

        :param method: how.
        :param seconds: how long the check took; None: there was none.
        """
        places = self._methods.get(method)
        if places is None:
            return
        self.counts[places[not granted]] += 1
        if seconds is not None:
            self.counts[places[2] + bisect_left(_LOGIN, seconds)] += 1
            self.counts[places[2] + len(_LOGIN) + 1] += seconds

    def limited(self, account: Account, problem: OverLimit) -> None:
        """A limit of *account* has refused something."""
        limit = _LIMITS.get(type(problem), _SESSIONS)
        self.counts[self._limited.get((account.place[0], limit), NOWHERE)] += 1

    def paused(self) -> None:
        """See :meth:`socksproxy.events.IServerEvents.paused`."""
        self.counts[self._pauses] += 1

    # Once a second.

    def start(self) -> None:
        """Look at the sessions from now on."""
        if self._timer is None:
            self.update(0.0)
            self._wait()

    def stop(self) -> None:
        """Look at them no more, but for what is written now."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        self._left.clear()
        self._own.write()

    def _wait(self) -> None:
        self._due = self._reactor.seconds() + EVERY
        self._timer = self._reactor.callLater(EVERY, self._look)

    def _look(self) -> None:
        """Begin to look at all sessions."""
        self._late = self._reactor.seconds() - self._due
        self._left = list(self._context.live)
        self._gauges = dict.fromkeys(self._gauges, 0)
        self._look_at_some()

    def _look_at_some(self) -> None:
        for session in self._left[-_AT_ONCE:]:
            if session in self._context.live:
                try:
                    self._look_at(session)
                except Exception:
                    # A fault of ours: it costs some numbers, and the others are looked at.
                    complain(_log, "{client}: the session cannot be looked at", client=session.client)
        del self._left[-_AT_ONCE:]
        if self._left:
            self._timer = self._reactor.callLater(0, self._look_at_some)
            return
        for place, number in self._gauges.items():
            self.counts[place] = number
        self.update(self._late)
        self._wait()

    def _look_at(self, session: CountedSession) -> None:
        request, service = session.request_if_any, session.service
        of = self._without if request is None else self._commands.get(request.command, self._other)
        if service is not None and service.granted:
            phase = "relaying"
            now = self._count_moved(session, service, of)
            if now is not NO_COUNTS:
                self._moved[session] = now
        else:
            phase = _phase(session.phase.value, request, service)
        place = of.phases[phase]
        self._gauges[place] = self._gauges.get(place, 0) + 1
        if self._others is not None:
            place = self._user(session.client.user).sessions
            self._gauges[place] = self._gauges.get(place, 0) + 1

    def update(self, late: float) -> None:
        """
        See what the process itself is, and let other processes see all numbers.

        :param late: seconds by which the reactor has called too late.
        """
        counts, context = self.counts, self._context
        authentication, usage = context.authentication, context.ledger.usage
        counts[self._locked] = 0 if authentication is None else authentication.penalties.locked
        counts[self._unwritten] = 0 if usage is None else usage.unwritten
        self._store.update(counts, context.ledger.store)
        lines = context.lost_lines
        counts[self._lost_lines] += max(0, lines - self._lines_before)
        self._lines_before = lines
        upstreams = context.upstreams
        for name, of in self._upstreams.items():
            if name in upstreams:
                of.update(counts, upstreams[name])
            else:
                counts[of.sessions] = 0
        self._process.update(late)
        self._own.write()


def _phase(phase: str, request: Request | None, service: Service | None) -> str:
    """Where a session stands that relays nothing."""
    if phase != "serving" or request is None:
        return "finishing" if phase in ("finishing", "over") else "negotiating"
    if service is None:
        return "connecting"
    if request.command == Command.BIND and service.announced is not None:
        return "waiting"
    named = request.destination.type is AddressType.DOMAIN_NAME
    return "resolving" if named and service.resolved is None and service.trail is None else "connecting"
