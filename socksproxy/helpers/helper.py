"""
A helper: its processes, and the questions that wait for one of them.

Strategy: a process starts when a question finds none with room, up to the greatest number. A process that
ends gives its questions back, and each is asked once more. Processes that end without any answer are started
again later and later. A process that was not asked for a while ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..errors import describe
from ..logs.throttle import LogThrottle
from ..values.helpers import HelperSettings
from .lines import HelperAnswer, HelperVerdict
from .process import ENDS_WITHIN, HelperProcess, HelperQuestion

_log = Logger(namespace="socksproxy")

#: Questions that may wait for a process.
MOST_WAITING = 4096
#: Seconds after which a process that was not asked ends.
IDLE = 300.0
#: Seconds before a process starts after one that has not answered; each further one waits twice as long.
FIRST_DELAY = 0.25
LONGEST_DELAY = 30.0
#: Where the reactor stops: seconds that take the place of :data:`.ENDS_WITHIN`, and those for which the
#: reactor waits. A worker must have ended within a second.
ENDS_SOON_WITHIN, HOLDS_FOR = 0.2, 0.5
#: Processes in a row without an answer, after which questions do not wait for the next one.
_GIVES_UP = 3


class Helper:
    """
    Asks an external program.

    :param reactor: starts processes and keeps time.
    :param settings: of the helper.
    """

    def __init__(self, reactor: Any, settings: HelperSettings) -> None:
        self.settings = settings
        self._reactor = reactor
        #: The processes that may be asked, and those that are to end.
        self._processes: list[HelperProcess] = []
        self._ending: set[HelperProcess] = set()
        #: Whether processes end as soon as nothing waits for their answers.
        self._closed = self._stopping = False
        self._all_ended: Deferred[None] | None = None
        self._waiting: deque[_Waits] = deque()
        self._failures = 0
        self._not_before = 0.0
        self._later: IDelayedCall | None = None
        self._sweep: IDelayedCall | None = None
        self._triggers: list[Any] = []
        self._throttle = LogThrottle(reactor)

    def ask(self, words: Sequence[bytes | None]) -> Deferred[HelperAnswer]:
        """
        Ask a question.

        :param words: its fields; None: there is no such value.
        :returns: fires with the answer, which is :attr:`HelperVerdict.BROKEN` where none comes in time. It
            can be cancelled.
        """
        self._closed = self._stopping
        asked = _Waits(self, tuple(words))
        if len(self._waiting) >= MOST_WAITING:
            asked.fail("too many questions wait")
        else:
            asked.start(self.settings.timeout)
            self._waiting.append(asked)
            self._serve()
        return asked.result

    def close(self) -> None:
        """End all processes, as soon as they have answered. A further question starts a process again."""
        self._closed = True
        for process in list(self._processes):
            self._end_if_done(process)

    def kill(self) -> None:
        """End all processes at once; questions have no answer."""
        asked = (asked for process in self._processes for asked in process.waited_for)
        for each in [*self._waiting, *asked]:
            assert isinstance(each, _Waits)
            self.give_up(each)
            each.fail("the helper is closed")
        for process in [*self._processes, *self._ending]:
            process.kill()

    def give_up(self, asked: _Waits) -> None:
        """Nothing waits for *asked* any more."""
        if asked in self._waiting:
            self._waiting.remove(asked)
        process, asked.process = asked.process, None
        if process is not None:
            if process.give_up(asked):
                self._end_if_done(process)
            else:
                process.kill()

    def _serve(self) -> None:
        """Give questions that wait to processes with room."""
        while self._waiting:
            process = self._with_room()
            if process is None:
                return
            asked = self._waiting.popleft()
            asked.process = process
            process.ask(asked)

    def _with_room(self) -> HelperProcess | None:
        free = [process for process in self._processes if process.room > 0]
        idle = [process for process in free if not process.busy]
        if idle:
            return idle[0]
        if len(self._processes) < self.settings.children and self._may_start():
            try:
                return self._started()
            except OSError as problem:
                self._failed(f"cannot be started: {describe(problem)}")
                self._may_start()  # later
        return max(free, key=lambda process: process.room, default=None)

    def _may_start(self) -> bool:
        """Whether a process may start now; if not, one does later where questions wait."""
        wait: float = self._not_before - self._reactor.seconds()
        if wait <= 0:
            return True
        if self._failures >= _GIVES_UP and not self._processes:
            for asked in [self._waiting.popleft() for _ in range(len(self._waiting))]:
                asked.fail("no process of the helper answers")
        elif self._later is None:
            self._later = self._reactor.callLater(wait, self._serve_later)
        return False

    def _serve_later(self) -> None:
        self._later = None
        self._serve()

    def _started(self) -> HelperProcess:
        process = HelperProcess(self.settings, self._reactor, self)
        process.start()
        self._processes.append(process)
        if not self._triggers:
            add = self._reactor.addSystemEventTrigger
            self._triggers = [
                add("before", "shutdown", self._shut_down),
                add("during", "shutdown", self._shut_down_now),
            ]
        if self._sweep is None:
            self._sweep = self._reactor.callLater(IDLE, self._end_idle)
        return process

    def _shut_down(self) -> Deferred[None]:
        """The reactor is to stop: it waits a moment for the processes. Those that are asked answer still."""
        del self._triggers[:1]
        self._stopping = True
        self.close()
        for process in self._ending:
            process.close(ENDS_SOON_WITHIN)
        ended = self._all_ended = Deferred()
        ended.addTimeout(HOLDS_FOR, self._reactor, lambda *_: None)
        return ended

    def _shut_down_now(self) -> None:
        """The sessions are over, and the reactor stops."""
        self._triggers.clear()
        self.kill()

    def _end_if_done(self, process: HelperProcess) -> None:
        if self._closed and not process.waited_for:
            process.close(ENDS_SOON_WITHIN if self._stopping else ENDS_WITHIN)

    def _end_idle(self) -> None:
        self._sweep = None
        now = self._reactor.seconds()
        for process in list(self._processes):
            if not process.busy and now - process.idle_since >= IDLE:
                process.close()
        if self._processes:
            self._sweep = self._reactor.callLater(IDLE, self._end_idle)

    # What processes tell.

    def free(self, process: HelperProcess) -> None:
        """See :meth:`.ProcessOwner.free`."""
        self._failures = 0
        self._serve()
        self._end_if_done(process)

    def gone(self, process: HelperProcess, left: list[HelperQuestion]) -> None:
        """See :meth:`.ProcessOwner.gone`."""
        self._processes.remove(process)
        self._ending.add(process)
        if left and not process.useful:
            self._failed("has ended without an answer")
        for asked in left:
            assert isinstance(asked, _Waits)
            asked.process = None
            if asked.again:
                asked.fail("the process of the helper has ended")
            else:
                asked.again = True
                self._waiting.appendleft(asked)
        self._serve()

    def ended(self, process: HelperProcess) -> None:
        """See :meth:`.ProcessOwner.ended`."""
        self._ending.discard(process)
        if self._ending or self._processes:
            return
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        triggers, self._triggers = self._triggers, []
        for trigger in triggers:
            self._reactor.removeSystemEventTrigger(trigger)
        waiting, self._all_ended = self._all_ended, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def complain(self, what: str) -> None:
        """See :meth:`.ProcessOwner.complain`."""
        if self._throttle.due():
            _log.warn("helper {program} {what}", program=self.settings.command[0], what=what)

    def _failed(self, what: str) -> None:
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0**self._failures)
        self._failures += 1
        self._not_before = self._reactor.seconds() + delay
        self.complain(what)


class _Waits:
    """
    A question to *helper*, and the Deferred that waits for the answer.

    :ivar process: the process that has the question; None: it waits for one.
    :ivar again: whether a process has ended without an answer to it.
    """

    __slots__ = ("_helper", "_late", "again", "process", "result", "words")

    def __init__(self, helper: Helper, words: tuple[bytes | None, ...]) -> None:
        self._helper = helper
        self._late: IDelayedCall | None = None
        self.words = words
        self.process: HelperProcess | None = None
        self.again = False
        self.result: Deferred[HelperAnswer] = Deferred(self._cancelled)

    def start(self, seconds: float) -> None:
        """Wait so many *seconds*."""
        self._late = self._helper._reactor.callLater(seconds, self._expired)

    def answered(self, answer: HelperAnswer) -> None:
        """Fire with *answer*."""
        self.process = None
        self._stop()
        self.result.callback(answer)

    def fail(self, why: str) -> None:
        """Fire without an answer of the helper's."""
        self.answered(HelperAnswer(HelperVerdict.BROKEN, {"message": why}))

    def _expired(self) -> None:
        self._late = None
        self._helper.give_up(self)
        self.fail(f"no answer within {self._helper.settings.timeout:g} seconds")

    def _cancelled(self, _: object) -> None:
        self._stop()
        self._helper.give_up(self)

    def _stop(self) -> None:
        late, self._late = self._late, None
        if late is not None:
            late.cancel()
