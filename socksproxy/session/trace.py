"""
Traces: what happens in one session, or in all sessions of a user or a client, as events with their times.

Strategy: a session that is traced has another class, :class:`TracedSession`, for as long as the trace lasts.
Its methods tell what happens, and do what those of :class:`~socksproxy.session.session.Session` do. So a
session that is not traced has nothing to ask. What no method is told of (first bytes, stalls, closed
directions) shows when a relay is looked at, every :data:`LOOK_EVERY` seconds.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import ProtocolError, describe, reply_for
from ..events import AccessRecord, ServerEvents
from ..identity import Client
from ..logs.printable import line_of_record, shown
from ..logs.throttle import complain
from ..negotiation import State, command_name
from ..net.dial import Pending, as_deferred
from ..policy.compiled import RulePolicy
from ..policy.explain import explain
from ..policy.rules import Rule
from ..relay.interfaces import Direction
from ..wire import socks5
from ..wire.words import Address, Command, Request
from .permission import Permission
from .registry import Registry
from .session import Session

_log = Logger(namespace="socksproxy")

#: Traces at once, the seconds of each, and the bytes of events that wait for its reader.
MOST_TRACES, MOST_SECONDS, MOST_BYTES = 8, 60.0, 1 << 20
#: Sessions that are traced at once, all traces together.
MOST_SESSIONS = 1024
#: Seconds between two looks at a relay, and those without a byte after which a relay stalls.
LOOK_EVERY, STALL = 0.05, 1.0
#: Events that are kept of a session that may turn out to be one that is wanted.
_MOST_EARLY = 64
#: Rules whose verdicts an event tells, and the most rules for which that is found out.
_MOST_STEPS, _MOST_RULES = 64, 1000

#: What is full where a direction stalls, and who closes it: from the client, and to the client.
_TAKERS, _GIVERS, _DIRECTIONS = ("destination", "client"), ("client", "destination"), ("sent", "received")


class CannotTrace(Exception):
    """There are as many traces as there may be, or there is no such session."""


class Trace:
    """
    One trace, which a reader reads.

    :param wants: whether the session of a client is wanted; None: that is not known yet.
    :ivar over: whether no events come any more.
    :ivar changed: called when there is something to take, and at the end.
    """

    def __init__(self, wants: Callable[[Client], bool | None]) -> None:
        self.wants = wants
        self.over = False
        self.changed: Callable[[], object] = lambda: None
        self.timer: IDelayedCall | None = None
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._lost = 0

    def put(self, line: bytes) -> None:
        """Keep a *line* for the reader; the oldest lines are lost where there is no room."""
        if self.over:
            return
        self._lines.append(line)
        self._size += len(line)
        while self._size > MOST_BYTES:
            self._size -= len(self._lines.popleft())
            self._lost += 1
        self.changed()

    def miss(self) -> None:
        """An event is lost."""
        self._lost += 1

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._lines or self._lost)

    def take(self, most: int = MOST_BYTES) -> list[bytes]:
        """
        The lines of JSON so far, in their order. A line tells how many before them are lost.

        :param most: of all lines together, in bytes.
        """
        lines, lost, self._lost = [], self._lost, 0
        while self._lines and most >= len(self._lines[0]):
            line = self._lines.popleft()
            self._size -= len(line)
            most -= len(line)
            lines.append(line)
        return [_line({"time": time.time(), "event": "lost", "events": lost}), *lines] if lost else lines


class _Journey:
    """What is known of a session that is traced."""

    __slots__ = ("closed", "early", "first", "moved", "resolved", "since", "told", "traces", "undecided")

    def __init__(self, undecided: list[Trace]) -> None:
        self.traces: list[Trace] = []
        self.undecided = undecided
        self.early: list[bytes] = []
        self.resolved = False
        # For each direction: whether a byte has come, whether it is closed, how much has moved, since when it
        # stalls, and whether that has been told.
        self.first = [False, False]
        self.closed = [False, False]
        self.moved = [0, 0]
        self.since: list[float | None] = [None, None]
        self.told = [False, False]


class Tracing(ServerEvents):
    """
    The traces of one server.

    :param sessions: the sessions of the server.
    """

    def __init__(self, sessions: Registry) -> None:
        self._sessions = sessions
        self._context = sessions.context
        self._traces: list[Trace] = []
        self._journeys: dict[Session, _Journey] = {}
        self._timer: IDelayedCall | None = None

    def begin(
        self,
        *,
        session: str | None = None,
        user: str | None = None,
        client: str | None = None,
        seconds: float = MOST_SECONDS,
    ) -> Trace:
        """
        Trace sessions from now on. Give one of the first three parameters.

        :param session: the id of a session that there is.
        :param user: the name of a user.
        :param client: an address, or a network such as ``192.0.2.0/24``.
        :param seconds: how long, :data:`MOST_SECONDS` at the most.
        :raises CannotTrace: when there are :data:`MOST_TRACES`, or no such session.
        :raises ValueError: when *client* is no address and no network.
        """
        if len(self._traces) >= MOST_TRACES:
            raise CannotTrace(f"there are {MOST_TRACES} traces already")
        trace = Trace(_of_user(user) if user is not None else _of_client(client))
        if session is not None:
            chosen = [each for each in self._sessions.live if each.id == session]
            if not chosen:
                raise CannotTrace(f"there is no session {session}")
            trace.wants = lambda _: True
        else:
            chosen = list(self._sessions.live)
        if not self._traces:
            self._context.tracing = self
            self._context.events.subscribe(self)
            self._look()
        self._traces.append(trace)
        for each in chosen:
            self._join(each, trace)
        if session is not None:
            trace.wants = lambda _: False
        trace.timer = self._context.reactor.callLater(min(seconds, MOST_SECONDS), self.end, trace)
        return trace

    def end(self, trace: Trace) -> None:
        """*trace* is over, because of its time or because its reader is gone."""
        if trace.over:
            return
        trace.over = True
        if trace.timer is not None and trace.timer.active():
            trace.timer.cancel()
        self._traces.remove(trace)
        for session, journey in list(self._journeys.items()):
            for among in (journey.traces, journey.undecided):
                if trace in among:
                    among.remove(trace)
            self._leave_if_unwanted(session, journey)
        if not self._traces:
            self._context.events.unsubscribe(self)
            self._context.tracing = None
            timer, self._timer = self._timer, None
            if timer is not None and timer.active():
                timer.cancel()
        trace.changed()

    # What sessions tell.

    def began(self, session: Any) -> None:
        """See :meth:`socksproxy.events.IServerEvents.began`."""
        wanted = [trace for trace in self._traces if trace.wants(session.client) is not False]
        if wanted and self._enter(session, wanted):
            self.tell(session, "accepted", client=str(session.client) if session.client.host else None)

    def ended(self, session: Any, record: AccessRecord | None) -> None:
        """See :meth:`socksproxy.events.IServerEvents.ended`."""
        if session not in self._journeys:
            return
        counts, ended = None if session.service is None else session.service.counts(), session.ended
        self.tell(
            session,
            "ended",
            end=ended.end.value,
            ended=ended.words,
            sent=0 if counts is None else counts.sent,
            received=0 if counts is None else counts.received,
            seconds=self._context.seconds() - session.began,
        )
        self._leave(session)

    def tell(self, session: Session, event: str, **fields: Any) -> None:
        """*event* happens in *session*."""
        journey = self._journeys.get(session)
        if journey is None:
            return
        line = _line({"time": time.time(), "session": session.id, "event": event, **fields})
        for trace in list(journey.undecided):
            wanted = trace.wants(session.client)
            if wanted is None:
                continue
            journey.undecided.remove(trace)
            if wanted:
                journey.traces.append(trace)
                for each in journey.early:
                    trace.put(each)
        for trace in journey.traces:
            trace.put(line)
        if journey.undecided and len(journey.early) < _MOST_EARLY:
            journey.early.append(line)
        self._leave_if_unwanted(session, journey)

    def resolved(self, session: Session) -> None:
        """The name has been looked up by now, if there was one."""
        journey, service = self._journeys.get(session), session.service
        if journey is None or journey.resolved or service is None or service.resolved is None:
            return
        journey.resolved = True
        self.tell(session, "resolved", seconds=service.resolved - (session.requested or session.began))

    # Sessions come and go.

    def _join(self, session: Session, trace: Trace) -> None:
        """*trace* begins while *session* goes on."""
        if trace.wants(session.client) is False:
            return
        journey = self._journeys.get(session)
        if journey is not None:
            journey.undecided.append(trace)
        elif not self._enter(session, [trace]):
            return
        request = session.request_if_any
        self.tell(
            session,
            "joined",
            client=str(session.client),
            user=_user(session.client),
            phase=session.phase.value,
            command=None if request is None else command_name(request.command),
            destination=None if request is None else shown(request.destination),
        )

    def _enter(self, session: Session, wanted: list[Trace]) -> bool:
        """*session* is traced; False: there are too many."""
        if len(self._journeys) >= MOST_SESSIONS:
            for trace in wanted:
                trace.miss()
            return False
        self._journeys[session] = _Journey(wanted)
        object.__setattr__(session, "__class__", TracedSession)
        return True

    def _leave_if_unwanted(self, session: Session, journey: _Journey) -> None:
        if not (journey.traces or journey.undecided):
            self._leave(session)

    def _leave(self, session: Session) -> None:
        if self._journeys.pop(session, None) is not None:
            object.__setattr__(session, "__class__", Session)

    # What relays are at.

    def _look(self) -> None:
        self._timer = self._context.reactor.callLater(LOOK_EVERY, self._look)
        now = self._context.seconds()
        for session, journey in list(self._journeys.items()):
            directions = None if session.service is None else session.service.directions
            for number, direction in enumerate(directions or ()):
                self._look_at(session, journey, number, direction, now)

    def _look_at(
        self, session: Session, journey: _Journey, number: int, direction: Direction, now: float
    ) -> None:
        name = _DIRECTIONS[number]
        if direction.moved and not journey.first[number]:
            journey.first[number] = True
            self.tell(session, "first byte", direction=name)
        if direction.closed and not journey.closed[number]:
            journey.closed[number] = True
            self.tell(session, "half-closed", by=_GIVERS[number])
        moves = direction.moved != journey.moved[number] or not (direction.full or direction.limited)
        journey.moved[number] = direction.moved
        since = journey.since[number]
        if moves:
            if since is not None and journey.told[number]:
                self.tell(session, "moves again", direction=name, seconds=now - since)
            journey.since[number], journey.told[number] = None, False
        elif since is None:
            journey.since[number] = now
        elif now - since >= STALL and not journey.told[number]:
            journey.told[number] = True
            because = "limit" if direction.limited else f"{_TAKERS[number]} full"
            self.tell(session, "stalled", direction=name, because=because)


class TracedSession(Session):
    """
    A session whose events are told.

    The trace may end, and the session be of its own class again, while one of these methods runs: so none of
    them uses ``super()``.
    """

    __slots__ = ()

    def identify(self, client: Client) -> None:
        """See :meth:`Session.identify`: the PROXY header has told who the client is."""
        told = client.told
        Session.identify(self, client)
        _tell(
            self,
            "identified",
            client=str(client),
            unique_id=None if told is None or told.unique_id is None else line_of_record(told.unique_id),
            tls_name=None if told is None or told.tls_name is None else line_of_record(told.tls_name),
        )

    def received(self, data: bytes) -> None:
        """See :meth:`Session.received`."""
        if self.negotiation.state is State.START:
            _tell(self, "greeting", **_greeting(data))
        Session.received(self, data)

    def read_closed(self) -> None:
        """See :meth:`Session.read_closed`."""
        _tell(self, "half-closed", by="client")
        Session.read_closed(self)

    def method_moved(self, move: object) -> None:
        """See :meth:`Session.method_moved`."""
        _tell(self, "authentication step", method=_method_name(self))
        Session.method_moved(self, move)

    def logged_in(self) -> None:
        """See :meth:`Session.logged_in`."""
        _tell(self, "authenticated", method=_method_name(self), user=_user(self.client))
        Session.logged_in(self)

    def login_failed(self, problem: Exception) -> None:
        """See :meth:`Session.login_failed`; the name that the client has given is not told."""
        _tell(self, "not authenticated", method=_method_name(self), why=type(problem).__name__)
        Session.login_failed(self, problem)

    def dial(self, address: Address) -> Pending:
        """See :meth:`Session.dial`."""
        tracing = self.context.tracing
        if tracing is not None:
            tracing.resolved(self)
        began = self.context.seconds()
        _tell(self, "attempt", address=str(address), via=self.way(self.rule(address)).via)
        return as_deferred(Session.dial(self, address)).addBoth(_dialed, self, address, began)

    def grant(self, bound: Address) -> None:
        """See :meth:`Session.grant`."""
        Session.grant(self, bound)
        _tell(self, "reply", reply=self.reply, bound=str(bound))

    def announce(self, bound: Address) -> None:
        """See :meth:`Session.announce`."""
        Session.announce(self, bound)
        _tell(self, "announced", bound=str(bound))

    def refuse(self, problem: Exception) -> None:
        """See :meth:`Session.refuse`."""
        if self.context.tracing is not None:
            self.context.tracing.resolved(self)
        _tell(self, "refused", reply=reply_for(problem).value, why=describe(problem))
        Session.refuse(self, problem)

    def _break_off(self, problem: ProtocolError) -> None:
        _tell(self, "protocol error", why=str(problem))
        Session._break_off(self, problem)

    def _requested(self, request: Request) -> None:
        _tell(
            self,
            "request",
            version=request.version,
            command=command_name(request.command),
            destination=shown(request.destination),
            method=_method_name(self),
        )
        Session._requested(self, request)

    def _new_permission(self, enter: Callable[[Rule], None] | None) -> Permission | None:
        permission = Session._new_permission(self, enter)
        return None if permission is None else TracedPermission(permission, partial(_tell, self))


class TracedPermission(Permission):
    """
    A permission that tells which rules it looks at, and what they decide.

    :param permission: the permission that it takes the place of, which has decided nothing yet.
    :param tell: is told.
    """

    __slots__ = ("_tell",)

    def __init__(self, permission: Permission, tell: Callable[..., None]) -> None:
        # All of it, whatever it has: the session must be judged as any other.
        for name in Permission.__slots__:
            setattr(self, name, getattr(permission, name))
        self._tell = tell

    def permits(self, client: Client, command: Command, destination: Address) -> bool | Deferred[bool]:
        """See :meth:`Permission.permits`."""
        answer = super().permits(client, command, destination)
        self._told(answer, client, command, destination, None)
        return answer

    def permits_address(
        self, client: Client, command: Command, destination: Address, name: str | None
    ) -> bool | Deferred[bool]:
        """See :meth:`Permission.permits_address`."""
        answer = super().permits_address(client, command, destination, name)
        self._told(answer, client, command, destination, name)
        return answer

    def _told(
        self,
        answer: bool | Deferred[bool],
        client: Client,
        command: Command,
        destination: Address,
        name: str | None,
    ) -> None:
        decision, policy = self._by_host[destination.host], self._policy
        steps: list[str] | None = None
        if isinstance(policy, RulePolicy) and len(policy.rules) <= _MOST_RULES:
            asked = destination if name is None else Address.of(name, destination.port)
            addresses = [] if name is None else [destination.host]
            found = explain(policy, client, command, asked, addresses)[-1]
            steps = [line_of_record(str(step)) for step in found.steps[:_MOST_STEPS]]
        over = None if self.over is None else describe(self.over)
        self._tell(
            "rules",
            destination=shown(destination),
            # A helper that the rule asks may yet refuse.
            allowed=decision.allowed if isinstance(answer, Deferred) else answer,
            rule=decision.rule,
            steps=steps,
            limit=None if answer else over,
        )


def _tell(session: Session, event: str, **fields: Any) -> None:
    """*event* happens in *session*; nothing, if it is not traced any more."""
    if session.context.tracing is None:
        return
    try:
        session.context.tracing.tell(session, event, **fields)
    except Exception:
        complain(_log, "a trace failed; an event is lost")


def _dialed(result: Any, session: Session, address: Address, began: float) -> Any:
    """An attempt to connect has ended."""
    service = session.service
    trail = None if service is None else service.trail
    fields = {
        "address": str(address),
        "seconds": session.context.seconds() - began,
        "via": None if trail is None else trail.via,
        "tries": None if trail is None else trail.tries,
        "upstream_reply": None if trail is None else trail.reply,
    }
    if isinstance(result, Failure):
        problem: Any = result.value
        number = getattr(problem, "errno", None) or getattr(problem, "osError", None)
        _tell(session, "attempt failed", **fields, errno=number, why=describe(problem))
    else:
        _tell(session, "connected", **fields, outgoing=str(result.outgoing))
    return result


def _method_name(session: Session) -> str | None:
    if session.login is not None and session.login.method is not None:
        return session.login.method
    method = session.negotiation.method
    return None if method is None else method.name


def _of_user(user: str) -> Callable[[Client], bool | None]:
    return lambda client: None if client.user is None else client.user == user


def _of_client(client: str | None) -> Callable[[Client], bool | None]:
    network: IPv4Network | IPv6Network | None = None if client is None else ip_network(client, strict=False)

    def wants(found: Client) -> bool | None:
        if network is None or found.host is None:
            return False
        # A balancer has yet to tell the client.
        return None if not found.host else ip_address(found.host.partition("%")[0]) in network

    return wants


def _user(client: Client) -> str | None:
    return None if client.user is None else line_of_record(client.user)


def _greeting(data: bytes) -> dict[str, Any]:
    """What the first bytes of a client say; a password is never among them."""
    version = data[0] if data else None
    methods = None
    if version == 5:
        parsed = socks5.parse_greeting(data)
        methods = None if parsed is None else list(parsed[0])
    return {"version": version, "methods": methods}


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"
