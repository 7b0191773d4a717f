"""
What users have moved by which rules, for usage records.

Strategy: the sessions that go on are looked at every :data:`EVERY` seconds, and each once more at its end.
What they have moved since the last look is added up, and a thread writes it to the file, one job at a time.
So a process that is killed loses no more than what has passed since the last write.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..commands.service import NO_COUNTS
from ..limits.quota.database import UsageFileError
from ..limits.quota.records import SETTLES, Moved, Part, RecordFile, span_at
from ..logs.throttle import LogThrottle, complain
from ..runtime.pool import NotRun, Pool
from ..values.records import RecordSettings
from ..wire.words import Reply, Reply4
from .record import rule_of
from .session import Session

_log = Logger(namespace="socksproxy")

#: Seconds from a look at all sessions, and a write, to the next one.
EVERY = 2.0
#: Sessions that are looked at in one turn of the reactor.
_AT_ONCE = 256
#: Users and rules whose bytes are kept while the file cannot be written; those of others have no name.
MOST_KEPT = 65536
#: Seconds that the last write may take.
_STOP_WITHIN = 0.7

_GRANTED = frozenset({int(Reply.SUCCEEDED), int(Reply4.GRANTED)})


class SessionsOfServer(Protocol):
    """What is used of what sessions share."""

    @property
    def live(self) -> dict[Any, None]: ...


class Billing:
    """
    Counts what the sessions of one server have moved in this process, and writes it down.

    :param reactor: keeps time, and takes calls of the thread.
    :param settings: where it is written.
    :param context: has the sessions.
    :param wall: tells the seconds since the epoch.
    """

    def __init__(
        self,
        reactor: Any,
        settings: RecordSettings,
        context: SessionsOfServer,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._reactor = reactor
        self._context = context
        self._wall = wall
        self._file = RecordFile(settings.file, settings.days)
        self._pool = Pool(reactor, name="usage records", threads=1, waiting=1)
        self._waiting: dict[Part, list[int]] = {}
        #: What sessions had moved when they were looked at, for those that go on.
        self._seen: dict[Session, tuple[int, int]] = {}
        self._left: list[Session] = []
        self._timer: IDelayedCall | None = None
        self._busy = False
        self._settled = 0
        self._failures = LogThrottle(reactor)
        self._stopped: Deferred[None] | None = None
        self._last: IDelayedCall | None = None

    def start(self) -> Deferred[None]:
        """
        Open the file, and look at the sessions from now on.

        :returns: fires when the file is open.
        :raises UsageFileError: (by the Deferred) when it cannot be opened.
        """
        self._wait()
        opened: Deferred[None] = self._pool.run(self._file.open, self._wall())
        return opened.addErrback(self._not_opened)

    def _not_opened(self, failure: Failure) -> Any:
        failure.trap(UsageFileError, NotRun)
        self._cancel()
        self._pool.stop()
        raise UsageFileError(str(failure.value))

    def stop(self) -> Deferred[None]:
        """
        Write what is left. What moves from now on is not written.

        :returns: fires when it is written; or when it cannot be, and the log tells so.
        """
        if self._stopped is not None:
            return succeed(None)
        self._stopped = Deferred()
        self._cancel()
        for session in list(self._context.live):
            self._look_at(session)
        self._last = self._reactor.callLater(_STOP_WITHIN, self._end)
        if not self._busy:
            self._write()
        return self._stopped

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # Looking at sessions.

    def over(self, session: Session) -> None:
        """*session* is over."""
        service = session.service
        if service is not None and (session in self._seen or session.reply in _GRANTED):
            self._count(session)
            self._seen.pop(session, None)

    def _wait(self) -> None:
        self._timer = self._reactor.callLater(EVERY, self._look)

    def _look(self) -> None:
        """Begin to look at all sessions."""
        self._left = list(self._context.live)
        self._look_at_some()

    def _look_at_some(self) -> None:
        for session in self._left[-_AT_ONCE:]:
            if session in self._context.live:
                self._look_at(session)
        del self._left[-_AT_ONCE:]
        if self._left:
            self._timer = self._reactor.callLater(0, self._look_at_some)
            return
        self._wait()
        if not self._busy:
            self._write()

    def _look_at(self, session: Session) -> None:
        service = session.service
        if service is None or not service.granted:
            return
        try:
            self._count(session)
        except Exception:
            # A fault of ours: it costs some bytes, and the others are counted.
            complain(_log, "{client}: the use of the session cannot be counted", client=session.client)

    def _count(self, session: Session) -> None:
        """Count what *session* has moved since the last look."""
        service = session.service
        assert service is not None
        now = service.counts()
        if now is NO_COUNTS:
            return
        before = self._seen.get(session)
        sent, received = (0, 0) if before is None else before
        if before is not None and (now.sent, now.received) == before:
            return
        self._seen[session] = now.sent, now.received
        rule, _ = rule_of(session, service.reached, now.datagrams_sent is not None)
        part = Part(span_at(self._wall()), session.client.user or "", rule or "")
        self._add(part, now.sent - sent, now.received - received, before is None)

    def _add(self, part: Part, sent: int, received: int, sessions: int) -> None:
        amount = self._waiting.get(part)
        if amount is None:
            if len(self._waiting) >= MOST_KEPT:
                part = Part(part.began, "", "")
            amount = self._waiting.setdefault(part, [0, 0, 0])
        amount[0] += sent
        amount[1] += received
        amount[2] += sessions

    # Writing.

    def _write(self) -> None:
        """Have the thread write what waits."""
        given, self._waiting = self._waiting, {}
        now = self._wall()
        settled = span_at(now - SETTLES)

        def work() -> None:
            if given:
                amounts = {
                    Part(part.began, _storable(part.user), _storable(part.rule)): Moved(*moved)
                    for part, moved in given.items()
                }
                self._file.add(amounts, now)
            if settled != self._settled:
                self._file.settle(now)
                self._settled = settled

        if not given and settled == self._settled:
            self._wrote(None, {})
            return
        self._busy = True
        self._pool.run(work).addBoth(self._wrote, given).addErrback(
            lambda failure: _log.failure("usage records cannot be kept", failure)
        )

    def _wrote(self, result: Any, given: dict[Part, list[int]]) -> None:
        self._busy = False
        if isinstance(result, Failure):
            if not result.check(UsageFileError, NotRun):
                _log.failure("usage records cannot be written", result)
            self._keep(given)
            times = self._failures.due()
            if times:
                _log.warn(
                    "usage records cannot be written; they are kept and written later: "
                    "{problem} ({times} times since the last such line)",
                    problem=str(result.value),
                    times=times,
                )
        if self._stopped is None:
            return
        if isinstance(result, Failure) or not self._waiting:
            self._end()
        else:
            self._write()

    def _keep(self, given: dict[Part, list[int]]) -> None:
        """What could not be written waits again."""
        for part, (sent, received, sessions) in given.items():
            self._add(part, sent, received, sessions)

    def _end(self) -> None:
        if self._last is None:
            return
        if self._last.active():
            self._last.cancel()
        self._last = None
        if self._waiting:
            lost = sum(sent + received for sent, received, _ in self._waiting.values())
            _log.error("{file}: {lost} bytes are in no usage record", file=self.settings.file, lost=lost)
        self._pool.stop()
        assert self._stopped is not None
        self._stopped.callback(None)


def _storable(text: str) -> str:
    """*text* as SQLite can store it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
