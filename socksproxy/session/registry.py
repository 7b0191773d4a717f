"""
The live sessions of one server: how they begin and end, and how they follow changes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import nsmallest
from itertools import islice
from operator import attrgetter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..auth.authentication import Authentication
from ..commands.channel import Channel
from ..errors import NameNotFound
from ..events import Cause
from ..identity import Client
from ..logs.debug import SESSIONS as DEBUG
from ..logs.throttle import complain
from ..net.names import canonical
from ..runtime.slices import in_slices
from ..settings import ServerSettings
from ..values.limits import Limits
from ..wire.words import AddressType, Command
from .allowance import Allowance
from .connected_ways import Whose
from .parts import Phase
from .record import Recorder, line_of, record_of
from .session import Session
from .shared import ServerContext

_log = Logger(namespace="socksproxy")

#: Seconds that sessions which have been ended may take for it.
_LAST = 1.0

#: Lines of live sessions in the log, and how many are written in one turn of the reactor.
MOST_DUMPED = 1000
_DUMPED_AT_ONCE = 50

#: Sessions that follow a change in one turn of the reactor.
_AT_ONCE = 256

#: Sessions that are ended in one turn of the reactor, where the server continues to run.
_ENDED_AT_ONCE = 64

#: Seconds after which a session without a granted request may end where descriptors are short.
WAITED = 2.0


def _nothing() -> None:
    """The function that is called when a session has ended, until a caller sets another one."""


class Registry:
    """
    The sessions of one server.

    Strategy: sessions that exist follow a change (other rules, users, limits or hours) one after the other,
    :data:`_AT_ONCE` of them in a turn of the reactor. A change that comes meanwhile starts the round anew,
    and what has not been followed yet is followed together with it.

    :param reactor: dials, resolves and keeps time.
    :param authentication: asks clients who they are; None: clients are not asked.
    :param settings: of the server.
    :ivar context: what the sessions share.
    :ivar live: the sessions that there are.
    """

    def __init__(self, reactor: Any, authentication: Authentication | None, settings: ServerSettings) -> None:
        #: A dictionary takes half the memory of a set.
        self.live: dict[Session, None] = {}
        self.context = ServerContext(reactor, authentication, settings, self)
        self._recorder: Recorder | None = None
        self._set_recorder()
        self.when_ended: Callable[[], None] = _nothing
        self._after_end = self.when_ended
        self._drained: list[Deferred[None]] | None = None
        self._drain_timer: IDelayedCall | None = None
        #: The sessions that have not followed a change yet, and what has changed.
        self._changed: list[Session] = []
        self._limited_anew = self._judged_anew = self._timed_anew = False
        self._going_over: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self.live)

    # How sessions begin and end.

    def begin(self, channel: Channel, client: Client) -> Session | None:
        """
        A client has connected.

        :returns: its session; None: there are too many, and the channel is to be closed unheard.
        """
        context = self.context
        allowance = None
        if context.ledger.concerns_all:
            allowance = Allowance(context.ledger)
            allowance.identify(client)
            if allowance.dropped:
                if DEBUG.on:
                    DEBUG("{client}: closed unheard: {problem}", client=client, problem=allowance.refusal)
                allowance.close()
                context.events.tell("dropped")
                return None
        try:
            session = Session(context, channel, client, allowance)
            session.may_stay(context.handshakes, session.began)
        except Exception:
            if allowance is not None:
                allowance.close()
            raise
        self.live[session] = None
        context.hours.start()
        context.events.tell("began", session)
        return session

    def end(self, session: Session) -> None:
        """*session* is over: nothing of it is left but its record."""
        if session.allowance is not None:
            session.allowance.close()
            session.allowance = None
        for counting in (self.context.counters, self.context.billing):
            if counting is not None:
                try:
                    counting.over(session)
                except Exception:
                    # A fault of ours: it costs some numbers, and the session ends all the same.
                    complain(_log, "{client}: the session cannot be counted", client=session.client)
        if self.context.events.wants("ended"):
            self.context.events.tell("ended", session, record_of(session))
        self.when_ended()

    def spoken(self, client: Client, host: str) -> AddressType | None:
        """The family in which *client* has reached *host*, a name, in a session that goes on."""
        for session in self.live:
            reached = None if session.service is None else session.service.reached
            if reached is None or session.client.whose != client.whose:
                continue
            if _name_of(session) == host and reached.type is not AddressType.DOMAIN_NAME:
                return reached.type
        return None

    def way_of(self, whose: Whose, host: str | None) -> str | None:
        """
        The proxies by which *whose* has last connected to *host* in a session that goes on.

        :param host: a name or a literal address; None: any host.
        """
        for session in reversed(self.live):
            service = session.service
            if service is None or service.trail is None or not service.granted:
                continue
            if session.request.command != Command.CONNECT or session.whose != whose:
                continue
            if host is None or _name_of(session) == host:
                return service.trail.via
        return None

    def end_waiting(self, most: int) -> int:
        """
        End the oldest sessions of the client that has most sessions without a granted request.

        So one client cannot take all descriptors with silence, names that hang, or BINDs without a peer.

        :param most: how many at the most; the client keeps half of its sessions.
        :returns: how many.
        """
        before = self.context.seconds() - WAITED
        of_client: dict[str | None, list[Session]] = {}
        for session in self.live:
            waits = session.service is None or not session.service.granted
            if waits and session.ended is None and session.began <= before:
                of_client.setdefault(session.client.share, []).append(session)
        biggest = max(of_client.values(), key=len, default=[])
        chosen = nsmallest(min(most, len(biggest) // 2), biggest, key=attrgetter("began"))
        for session in chosen:
            self.abort(session, Cause.SHORTAGE)
        return len(chosen)

    def underway(self) -> int:
        """How many sessions may yet open their second descriptor."""
        return len(self.context.handshakes) + len(self.context.connects)

    def needed(self) -> int:
        """How many descriptors the sessions have, once each has its two, and each association its three."""
        return self.context.needed()

    # What changes while sessions go on.

    def reconfigure(self, authentication: Authentication | None, settings: ServerSettings) -> None:
        """
        Use these settings from now on; see the class for the parameters.

        Existing sessions go on. Where the policy or the authentication is another one, a session ends that
        is not permitted any more.
        """
        limited_anew, judged_anew = self.context.reconfigure(authentication, settings)
        self._set_recorder()
        if self.context.counters is not None:
            self.context.counters.reconfigure()
        self._go_over(limited_anew, judged_anew)

    def _set_recorder(self) -> None:
        events, settings = self.context.events, self.context.settings
        if self._recorder is not None:
            events.unsubscribe(self._recorder)
        self._recorder = None
        if settings.observer is not None:
            self._recorder = Recorder(settings.observer, settings.log_probes)
            events.subscribe(self._recorder)

    def limit_user(self, user: str, limits: Limits) -> None:
        """Have *limits* hold for *user* until the next reload, over those of the configuration."""
        if limits:
            self.context.ledger.until_reload[user] = limits
        else:
            self.context.ledger.until_reload.pop(user, None)
        self._go_over(True, False)

    def hours_changed(self) -> None:
        """Hours of rules have begun or ended."""
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
        for _ in range(_AT_ONCE):
            if not self._changed:  # what a session's end leads to may close the factory
                return
            session = self._changed.pop()
            try:
                self._follow(session)
            except Exception:
                # A fault of ours: it costs one session, and the others follow.
                complain(_log, "{client}: the session cannot follow a change", client=session.client)
                self.abort(session, Cause.FAULT)
        if self._changed:
            self._going_over = self.context.reactor.callLater(0, self._go_over_some)

    def _follow(self, session: Session) -> None:
        if session in self.live and self._limited_anew:
            session.limits_changed()
        if session in self.live and self._judged_anew:
            session.reconsider()
        elif session in self.live and self._timed_anew:
            session.hours_changed()

    # What an operator sees.

    def dump(self) -> None:
        """Write the live sessions to the log, the oldest first, at most :data:`MOST_DUMPED` of them."""
        oldest = list(islice(self.live, MOST_DUMPED))
        _log.info("{live} live sessions, {lines} of them follow", live=len(self.live), lines=len(oldest))
        self._dump_some(oldest)

    def _dump_some(self, left: list[Session]) -> None:
        """Not too many of them in one turn of the reactor."""
        for session in left[:_DUMPED_AT_ONCE]:
            if session in self.live:
                _log.info("session {fields}", fields=line_of(session))
        if len(left) > _DUMPED_AT_ONCE:
            self.context.reactor.callLater(0, self._dump_some, left[_DUMPED_AT_ONCE:])

    # The end of all.

    def abort(self, session: Session, cause: Cause) -> None:
        """End *session* at once."""
        try:
            session.abort(cause)
        except Exception:
            # A fault of ours: it costs one session, and the others end all the same.
            complain(_log, "{client}: the session fails to end", client=session.client)

    def end_all(self, cause: Cause, user: str | None = None) -> None:
        """
        End the sessions that there are, not too many in one turn of the reactor; others may follow.

        :param user: end this user's alone.
        """
        chosen = [session for session in self.live if user is None or session.client.user == user]

        def work() -> Generator[None, None, None]:
            for number, session in enumerate(chosen, 1):
                if session in self.live:
                    self.abort(session, cause)
                if number % _ENDED_AT_ONCE == 0:
                    yield

        in_slices(self.context.reactor, work())

    def drain(self, seconds: float) -> Deferred[None]:
        """Let sessions come to their end. See :meth:`~socksproxy.server.factory.SOCKSFactory.drain`."""
        if self._drained is None:
            self._drained = []
            self._after_end, self.when_ended = self.when_ended, self._ended_while_draining
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        for session in list(self.live):
            if session.phase is Phase.NEGOTIATING:
                session.abort(Cause.DRAINED)
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
        self.close(Cause.DRAINED)
        # What is left on Twisted's transports ends in a later turn of the reactor.
        self._set_drain_timer(_LAST, self._leave_rest)

    def _leave_rest(self) -> None:
        self._tell_drained()

    def _set_drain_timer(self, seconds: float, call: Callable[[], None]) -> None:
        self._stop_drain_timer()
        self._drain_timer = self.context.reactor.callLater(seconds, call)

    def _stop_drain_timer(self) -> None:
        timer, self._drain_timer = self._drain_timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _check_drained(self) -> None:
        if not self.live:
            self._tell_drained()

    def _tell_drained(self) -> None:
        self._stop_drain_timer()
        drained, self._drained = self._drained, []
        for waiting in drained or ():
            waiting.callback(None)

    def close(self, cause: Cause = Cause.ABORTED) -> None:
        """End every session at once."""
        for session in list(self.live):
            self.abort(session, cause)
        self._changed.clear()
        if self._going_over is not None:
            self._going_over.cancel()
            self._going_over = None
        context = self.context
        context.hours.stop()
        context.associations.close()
        context.half_closed.close()
        for deadlines in context.deadlines:
            deadlines.close()


def _name_of(session: Session) -> str:
    """The destination of *session*, as commands know it."""
    asked = session.request.destination
    try:
        return canonical(asked).host
    except NameNotFound:  # a name that the hosts file defines
        return asked.host.lower()
