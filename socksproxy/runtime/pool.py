"""
Threads for work that blocks: password hashes, PAM, look-ups, files, databases.

Strategy: a thread that hangs cannot be ended. So a :class:`Pool` has a fixed number of threads, and its
threads are daemon threads, which do not hold up the end of the process. Jobs beyond that number wait in a
:class:`~socksproxy.runtime.fair_queue.FairQueue`, where clients take turns. A client occupies a part of the
threads only, so that jobs which hang cost the client who began them, and not the others. Each kind of work
has a pool of its own, so that no kind waits for another. A pool can have spare threads: a job that runs and
has no caller any more leaves its place to another client's job, and counts as its own client's until it ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar
from weakref import WeakMethod, finalize

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from .fair_queue import FairQueue
from .reactor import global_reactor

T = TypeVar("T")


class NotRun(Exception):
    """The pool has not run a job to its end, and knows nothing of its result."""


class QueueFull(NotRun):
    """As many jobs wait as may."""


class NoThread(NotRun):
    """The system gives the pool no thread."""


class DeadlinePassed(NotRun):
    """The job did not end by its deadline."""


class PoolStopped(NotRun):
    """The pool takes no more jobs."""


#: What a thread is told: to run a job, to end (an empty tuple), or to end and to have all others end (None).
_Wanted = tuple[Callable[["_Job", Any], None], "_Job"] | tuple[()] | None


class _Job:
    __slots__ = ("answer", "running", "share", "timer", "work")

    def __init__(self, share: Hashable, work: Callable[[], Any], answer: Deferred[Any]) -> None:
        self.share = share
        self.work: Callable[[], Any] | None = work
        self.answer = answer
        self.timer: IDelayedCall | None = None
        self.running = False

    def close(self) -> None:
        """The job has its answer, or no caller waits for one."""
        self.work = None  # its arguments can hold a password
        if self.timer is not None and self.timer.active():
            self.timer.cancel()


class Pool:
    """
    Runs functions that block in a bounded number of daemon threads.

    The threads start with the first jobs. They end with :meth:`stop`, with the reactor, or when no reference
    to the pool is left.

    :param reactor: for time, threads and shutdown; None: the running reactor, when the first job comes.
    :param name: what the threads do, as a part of their names.
    :param threads: how many jobs run at once.
    :param waiting: how many more jobs wait.
    :param threads_per_share: how many threads the jobs of one share may occupy; None: all of them.
    :param spare: how many more threads there may be, in place of threads whose job has no caller any more.
    :param deadline: seconds in which a job must have ended, its time in the queue included; None: any time.
    """

    def __init__(
        self,
        reactor: Any = None,
        *,
        name: str,
        threads: int,
        waiting: int,
        threads_per_share: int | None = None,
        spare: int = 0,
        deadline: float | None = None,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._most_threads = threads
        self._per_share = threads if threads_per_share is None else threads_per_share
        self._spare = spare
        self._deadline = deadline
        self._waiting: FairQueue[_Job] = FairQueue()
        self._most_waiting = waiting
        self._running: Counter[Hashable] = (
            Counter()
        )  # jobs that have no caller any more still hold their thread
        self._busy = 0
        self._abandoned = 0
        self._threads = 0
        self._queue: SimpleQueue[_Wanted] = SimpleQueue()
        self._open: set[_Job] = set()
        self._stopped = False
        self._trigger: Any = None
        self._forgetting: finalize[Any, Any] | None = None
        finalize(self, self._queue.put, None).atexit = False

    @property
    def reactor(self) -> Any:
        """The reactor. The pool imports the global one when it first needs it, and not before."""
        if self._reactor is None:
            self._reactor = global_reactor()
        return self._reactor

    def run(self, function: Callable[..., T], *arguments: Any, share: Hashable = None) -> Deferred[T]:
        """
        Call *function* with *arguments* in a thread.

        :param share: the client for whom the job is; its jobs take turns with those of other shares.
        :returns: fires in the reactor's thread with what *function* returns. Cancelling it takes a job that
            waits out of the queue; a job that runs goes on to its end, and its result is dropped.
        :raises QueueFull: (by the Deferred) when too many jobs wait.
        :raises NoThread: (by the Deferred) when the system has no thread left.
        :raises DeadlinePassed: (by the Deferred) when the job takes too long.
        :raises PoolStopped: (by the Deferred) after :meth:`stop`.
        :raises Exception: (by the Deferred) what *function* raises.
        """
        if self._stopped:
            return fail(PoolStopped("the threads have ended"))
        if not self._ready():
            return fail(NoThread("the system has no thread left"))
        answer: Deferred[T] = Deferred(lambda _: self._forget(job))
        job = _Job(share, lambda: function(*arguments), answer)
        self._open.add(job)
        if self._deadline is not None:
            job.timer = self.reactor.callLater(self._deadline, self._expired, job)
        self._waiting.put(share, job)
        self._next()
        if len(self._waiting) > self._most_waiting:
            self._fail(self._waiting.shed(share), QueueFull("as many jobs wait as may"))
        return answer

    def stop(self) -> None:
        """Take no more jobs. Callers are told at once; each thread ends with the job that it is at."""
        if self._stopped:
            return
        self._stopped = True
        if self._trigger is not None:
            self.reactor.removeSystemEventTrigger(self._trigger)
        if self._forgetting is not None:
            self._forgetting.detach()
        for job in list(self._open):
            self._fail(job, PoolStopped("the threads have ended"))
        self._queue.put(None)

    def _ready(self) -> bool:
        if self._trigger is None:
            reactor, shutdown = self.reactor, WeakMethod(self._shutdown)
            self._trigger = reactor.addSystemEventTrigger("during", "shutdown", _call, shutdown)
            self._forgetting = finalize(
                self, reactor.callFromThread, reactor.removeSystemEventTrigger, self._trigger
            )
            self._forgetting.atexit = False
        if self._threads < min(self._places(), self._busy + 1):
            thread = Thread(
                target=_serve, args=(self._queue, self.reactor), name=f"socksproxy {self._name}", daemon=True
            )
            try:
                thread.start()
                self._threads += 1
            except RuntimeError:
                pass  # the system has no more; the threads that run already will do
        return self._threads > 0

    def _shutdown(self) -> None:
        self._trigger = None
        self.stop()

    def _places(self) -> int:
        """How many jobs may run now, those without a caller included."""
        return self._most_threads + min(self._abandoned, self._spare)

    def _next(self) -> None:
        places = min(self._threads, self._places())
        while self._busy < places and (taken := self._waiting.take(self._has_turn)) is not None:
            share, job = taken
            self._busy += 1
            self._running[share] += 1
            job.running = True
            self._queue.put((self._ended, job))

    def _has_turn(self, share: Hashable) -> bool:
        return self._running[share] < self._per_share

    def _ended(self, job: _Job, outcome: Any) -> None:
        self._busy -= 1
        self._running[job.share] -= 1
        if not self._running[job.share]:
            del self._running[job.share]
        job.running = False
        if job not in self._open:
            self._abandoned -= 1
        if self._threads > self._places():
            self._threads -= 1
            self._queue.put(())
        self._next()
        if job in self._open:  # otherwise the deadline has passed, or the caller has cancelled it
            self._close(job)
            job.answer.callback(outcome)

    def _expired(self, job: _Job) -> None:
        self._fail(job, DeadlinePassed(f"not ended after {self._deadline:g} seconds"))

    def _fail(self, job: _Job, problem: NotRun) -> None:
        """End a job that has not run to its end."""
        self._forget(job)
        job.answer.errback(problem)

    def _forget(self, job: _Job) -> None:
        self._waiting.discard(job.share, job)
        self._close(job)

    def _close(self, job: _Job) -> None:
        self._open.discard(job)
        job.close()
        if job.running:
            self._abandoned += 1
            if self._waiting and not self._stopped and self._ready():
                self._next()


def _serve(
    queue: SimpleQueue[_Wanted],
    reactor: Any,
) -> None:
    """What a thread does; between two jobs it holds no reference to the pool, which can so be forgotten."""
    while wanted := queue.get():
        ended, job = wanted
        reactor.callFromThread(ended, job, _outcome(job))
        del wanted, ended, job
    if wanted is None:
        queue.put(None)  # for the next thread


def _outcome(job: _Job) -> Any:
    work = job.work
    if work is None:
        return None
    try:
        return work()
    except BaseException:
        # The thread has to go on, whatever a job raises.
        return Failure()


def _call(method: WeakMethod[Any]) -> Any:
    there = method()
    return None if there is None else there()
