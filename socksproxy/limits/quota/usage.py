"""
The use of quotas, kept in a file: the bytes that each holder of a quota has moved.

Strategy: the reactor's thread only counts, and one thread of a pool writes and reads. That thread never has
more than one job: the bytes that are spent meanwhile are added up for the next job. Amounts are written as
increments, and the totals that are read back then are the truth. So several processes can share the file, and
each one knows of the others' bytes after its next write. When the file is deleted, replaced or overwritten,
what this process knows is written to a new file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import tzinfo
from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...logs.throttle import LogThrottle
from ...runtime.pool import NotRun, Pool, PoolStopped
from ...shared.store import SharedStore
from .database import SET_ASIDE, Amount, Database, FileLost, Known, Totals, UsageFileError
from .days import Day, day_at
from .shared_usage import SharedUsage

_log = Logger(namespace="socksproxy")

#: Seconds from when bytes are spent to when they are written.
WRITE_AFTER = 1.0
#: Seconds from a failed write to the next attempt.
RETRY_AFTER = 2.0
#: Seconds that the last write may take: the process should end within one second.
STOP_WITHIN = 0.7
#: Holders whose use stays in memory, with or without sessions.
MOST_KNOWN = 16384
#: Holders whose bytes are kept while the file cannot be written.
MOST_KEPT = 65536
#: Holders whose bytes are written in one transaction.
MOST_AT_ONCE = 1000


class Used:
    """
    The bytes that one holder has used in one day, and in the month of that day.

    :ivar begins: the beginning of the day, in seconds since the epoch.
    :ivar ends: the end of the day, in seconds since the epoch.
    :ivar of_day: the bytes of the day, with the bytes of other processes that the last read has shown, and
        those of other nodes that share a store.
    :ivar of_month: the bytes of the month, counted in the same way.
    :ivar unsaid: the part of these bytes that the thread has not received yet.
    """

    __slots__ = (
        "_day_elsewhere",
        "_month_elsewhere",
        "begins",
        "day",
        "ends",
        "name",
        "of_day",
        "of_month",
        "unsaid",
    )

    def __init__(self, name: str, day: Day, before: Used | None = None) -> None:
        self.name = name
        self.day = day
        self.begins = day.begins
        self.ends = day.ends
        self.of_day = 0
        self.of_month = 0
        self.unsaid = 0
        self._day_elsewhere = self._month_elsewhere = 0
        if before is not None and before.day.month == day.month:
            self.of_month, self._month_elsewhere = before.of_month, before._month_elsewhere

    @property
    def own_of_day(self) -> int:
        """The bytes of the day that the file of this node has."""
        return self.of_day - self.unsaid - self._day_elsewhere

    @property
    def own_of_month(self) -> int:
        """The bytes of the month that the file of this node has."""
        return self.of_month - self.unsaid - self._month_elsewhere

    def know(self, totals: Totals) -> None:
        """Take over *totals*, which the file has, and add the bytes that the file does not have yet."""
        self.of_day = totals.of_day + self.unsaid + self._day_elsewhere
        self.of_month = totals.of_month + self.unsaid + self._month_elsewhere

    def learn(self, of_day: int, of_month: int) -> None:
        """Other nodes have moved so many bytes *of_day* and *of_month*."""
        self.of_day += of_day - self._day_elsewhere
        self.of_month += of_month - self._month_elsewhere
        self._day_elsewhere, self._month_elsewhere = of_day, of_month


class UsageFile:
    """
    Keeps the use of quotas in a file. Only the reactor's thread calls its methods.

    :param reactor: gives time and threads.
    :param path: the path of the file. A missing file is made; a missing directory is an error.
    :param wall: tells the seconds since the epoch.
    :param zone: the time zone whose midnights count; None: the machine's own.
    """

    def __init__(
        self,
        reactor: Any,
        path: str,
        *,
        wall: Callable[[], float] = time.time,
        zone: tzinfo | None = None,
    ) -> None:
        self.path = path
        self.wall = wall
        self._reactor = reactor
        self.zone = zone
        self._today = Day("", 0.0, 0.0)
        self._known: dict[str, Used] = {}
        self._waiting: dict[Used, None] = {}
        self._timer: IDelayedCall | None = None
        self._pool = Pool(reactor, name="quotas", threads=1, waiting=1)
        self._database = Database(path)
        self._running = False
        self._busy = True
        self._urgent = False
        self._writing = 0
        self._stopped: Deferred[None] | None = None
        self._shared: SharedUsage | None = None
        self._failing = False
        self._looked = False
        self._failures = LogThrottle(reactor)
        self._losses = LogThrottle(reactor)
        self._replacements = LogThrottle(reactor)

    def start(self) -> Deferred[None]:
        """
        Open the file and read the use so far.

        The process that serves clients calls this, after it has changed to its user.

        :returns: fires when the use is known. It fails with
            :class:`~socksproxy.limits.quota.database.UsageFileError`, which names the file, when the file
            cannot be opened or read.
        """
        day = self.today()
        started: Deferred[None] = Deferred()

        def opened(largest: list[tuple[str, Totals]]) -> None:
            self._learn(day, largest)
            self._tell_all()
            self._ended()
            started.callback(None)

        def failed(problem: Exception) -> None:
            self._end()
            started.errback(problem)

        self._running = True
        self._do(lambda: self._database.largest(day, MOST_KNOWN), opened, failed)
        return started

    def stop(self) -> Deferred[None]:
        """
        Write the remaining bytes and close the file. Bytes that are spent from now on are not written.

        :returns: fires when the file is closed. It also fires when the last write has failed; the log tells.
        """
        if self._stopped is not None or not self._running:
            return succeed(None)
        self._stopped = Deferred()
        self._cancel()
        self._timer = self._reactor.callLater(STOP_WITHIN, self._end)
        if not self._busy:
            self._finish()
        return self._stopped

    @property
    def unwritten(self) -> int:
        """The bytes that were used, and are not in the file yet."""
        return self._writing + sum(used.unsaid for used in self._waiting)

    def today(self) -> Day:
        """The present day."""
        now = self.wall()
        if not self._today.begins <= now < self._today.ends:
            self._today = day_at(now, self.zone)
        return self._today

    def of(self, name: str) -> Used:
        """
        The use of the holder *name*, today and this month.

        The use that this process has written or read last is known at once, and the thread reads it again
        soon. A holder that this process does not know has used nothing until the thread has read the file.
        That takes milliseconds unless the disk is slow.
        """
        name = name.encode("utf-8", "backslashreplace").decode("utf-8")
        day = self.today()
        used = self._known.pop(name, None)  # to the end
        if used is None or used.day != day:
            used = Used(name, day, used)
            self._urgent = True
        self._remember(used)
        self.attend(used)
        return used

    def attend(self, used: Used) -> None:
        """Have the thread write and read *used* soon, together with all other uses that wait by then."""
        if self._stopped is not None:
            return
        self._waiting[used] = None
        if len(self._waiting) > MOST_KEPT:
            self._lose(next(iter(self._waiting)))
        if not self._busy and not self._failing:
            self._schedule()

    def hurry(self) -> None:
        """Have the thread write what waits at once: a quota is used up, which other nodes have to know."""
        self._urgent = True
        if self._waiting and self._stopped is None and not self._busy and not self._failing:
            self._schedule()

    def share(self, store: SharedStore | None) -> None:
        """Count what other nodes move, too. *store* is what the nodes share; None: this node is alone."""
        before = self._shared
        if store is (None if before is None else before.store):
            return
        if before is not None:
            before.store.when_up.remove(self._tell_all)
            for used in self._known.values():
                used.learn(0, 0)
        self._shared = None if store is None else SharedUsage(store)
        if store is not None:
            store.when_up.append(self._tell_all)
            self._tell_all()

    def _tell_all(self) -> None:
        """The store may have forgotten what this node has told it."""
        if self._shared is not None:
            for used in self._known.values():
                self._shared.tell(used)
            self._shared.go_on()

    def _remember(self, used: Used) -> None:
        self._known[used.name] = used
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _learn(self, day: Day, largest: list[tuple[str, Totals]]) -> None:
        for name, totals in reversed(largest):
            used = self._known.get(name)
            if used is None:
                used = Used(name, day)
                self._remember(used)
            if used.day == day:
                used.know(totals)

    def _lose(self, used: Used) -> None:
        del self._waiting[used]
        if not used.unsaid:
            return
        used.unsaid = 0
        lost = self._losses.due()
        if lost:
            _log.error(
                "{path}: the use of {lost} holders of quotas is lost: no more holders can be kept",
                path=self.path,
                lost=lost,
            )

    def _schedule(self) -> None:
        at_once = self._urgent or len(self._waiting) >= MOST_AT_ONCE
        if self._timer is None:
            self._timer = self._reactor.callLater(0.0 if at_once else WRITE_AFTER, self._write)
        elif at_once:
            self._timer.reset(0.0)

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _write(self) -> None:
        if self._stopped is None:
            self._timer = None
        self._urgent = False
        given = list(islice(self._waiting, MOST_AT_ONCE))
        amounts = [Amount(used.name, used.day.name, used.unsaid) for used in given]
        for used in given:
            del self._waiting[used]
            self._writing += used.unsaid
            used.unsaid = 0
        day = self.today()

        def work() -> list[Totals]:
            totals = self._database.add(amounts)
            self._database.prune(day)
            return totals

        def written(totals: list[Totals]) -> None:
            self._written(given, totals)

        def failed(problem: Exception) -> None:
            self._failed(given, amounts, problem)

        self._do(work, written, failed)

    def _written(self, given: Sequence[Used], totals: Sequence[Totals]) -> None:
        self._writing = 0
        for used, known in zip(given, totals, strict=True):
            used.know(known)
            if self._shared is not None:
                self._shared.tell(used)
        if self._shared is not None:
            self._shared.go_on()
        if self._failing:
            self._failing = False
            _log.info("{path}: the use of quotas is written again", path=self.path)
        self._ended()

    def _failed(self, given: Sequence[Used], amounts: Sequence[Amount], problem: Exception) -> None:
        self._writing = 0
        for used, amount in zip(given, amounts, strict=True):
            used.unsaid += amount.bytes
            self._waiting[used] = None
        for used in list(islice(self._waiting, max(0, len(self._waiting) - MOST_KEPT))):
            self._lose(used)
        if isinstance(problem, FileLost):
            self._restore(problem)
            return
        self._not_written(problem)

    def _not_written(self, problem: Exception) -> None:
        self._failing = True
        times = self._failures.due()
        if times:
            _log.warn(
                "the use of quotas cannot be written; it is kept and written later: "
                "{problem} ({times} times since the last such line)",
                problem=str(problem),
                times=times,
            )
        self._busy = False
        if self._stopped is not None:
            self._close()
        else:
            self._timer = self._reactor.callLater(RETRY_AFTER, self._write)

    def _restore(self, problem: FileLost) -> None:
        """Write the known use to the file that is there now, or to a new file."""
        times = self._replacements.due()
        if times:
            _log.error(
                "{problem}: the known use of quotas is written again, and a damaged file is kept as "
                "{aside} ({times} times since the last such line)",
                problem=str(problem),
                aside=self._database.path + SET_ASIDE,
                times=times,
            )
        day = self.today()
        known = [
            Known(used.name, used.day.name, used.own_of_day, used.own_of_month)
            for used in {*self._known.values(), *self._waiting}
            if used.day.month == day.month
        ]
        self._failing = True
        self._do(lambda: self._database.restore(known), lambda _: self._ended(), self._not_written)

    def _ended(self) -> None:
        """Go on after a job of the thread: the thread is free."""
        self._busy = False
        if self._stopped is not None:
            self._finish()
        elif self._failing:
            self._write()
        elif self._waiting:
            self._schedule()

    def _finish(self) -> None:
        if self._waiting:
            self._write()
        elif self._looked:
            self._close()
        else:
            # The last look at the file: it may have been lost since the last write.
            self._looked = True
            self._do(self._database.open, lambda _: self._ended(), self._lost_at_last)

    def _lost_at_last(self, problem: Exception) -> None:
        if isinstance(problem, FileLost):
            self._restore(problem)
        else:
            self._not_written(problem)

    def _close(self) -> None:
        self._do(self._database.close, lambda _: self._end(), lambda _: self._end())

    def _end(self) -> None:
        if not self._running:
            return
        self._running = False
        self._cancel()
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.flush()
            shared.store.when_up.remove(self._tell_all)
        self._pool.stop()
        lost = self._writing + sum(used.unsaid for used in self._waiting)
        if lost:
            _log.error("{path}: {lost} used bytes are not written", path=self.path, lost=lost)
        if self._stopped is not None:
            self._stopped.callback(None)

    def _do(
        self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[Exception], None]
    ) -> None:
        """Have the thread do *work*, and then call *done* with the result or *failed* with the problem."""
        self._busy = True

        def broke(failure: Failure) -> None:
            problem: Any = failure.value
            if isinstance(problem, NotRun):
                problem = UsageFileError(f"{self.path}: {problem}")
            if not failure.check(PoolStopped):  # a stopped pool reports to no one
                failed(problem)

        job = self._pool.run(self._work, work)
        job.addCallbacks(done, broke).addErrback(
            lambda failure: _log.failure("the use of quotas cannot be kept", failure)
        )

    def _work(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        finally:
            if not self._running:
                self._database.close()  # the disk was too slow for the end of the server
