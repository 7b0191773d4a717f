"""
The store that nodes share, as the reactor's thread sees it.

Strategy: a session asks, and goes on to look up its name and to connect. The answer is usually there before
the connection. When the store does not answer in time, everything that waits is told so at once, and nothing
waits again until the store answers a probe. What to do without the store is for the one who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..extras import missing
from ..logs.throttle import complain
from ..values.shared import SharedSettings
from .asking import ADMITTED, DOWN, END, WAKE, Ask, Item, Job, Loan, Need, StoreProblem, Timing
from .commands import Commands
from .spares import Spares

_log = Logger(namespace="socksproxy")

#: Seconds that the end may take.
_STOPS_WITHIN = 0.5
#: Different reasons for one failure that are logged.
_MOST_WORDS = 4


def check_store(settings: SharedSettings) -> None:
    """
    See whether the store can be used, if the server does not start without it. This blocks.

    :raises StoreProblem: when it cannot, in one line that names the store.
    """
    if not settings.required:
        return
    try:
        from .link import StoreLink
    except ImportError as problem:
        raise StoreProblem(missing("shared", problem)) from None
    try:
        StoreLink(settings).close()
    except StoreProblem as problem:
        raise StoreProblem(f"the shared store {settings.store}: {problem}") from None


class StoreStats:
    """
    What the store has been used for.

    :ivar asks: the sessions that it was asked about.
    :ivar refused: those that it has refused.
    :ivar alone: those that were judged without it, because it was down.
    :ivar answers: how many times answers have come.
    :ivar sent: the bytes that were sent to it.
    :ivar failures: how many times it has gone down.
    """

    __slots__ = ("alone", "answers", "asks", "failures", "refused", "sent")

    def __init__(self) -> None:
        self.asks = self.refused = self.alone = self.answers = self.sent = self.failures = 0


class SharedStore:
    """
    The store. Only the reactor's thread calls its methods.

    :param reactor: takes calls from the thread.
    :param settings: the store, and this node's name.
    :param timing: how long things take.
    :ivar up: whether the store answers.
    :ivar nodes: how many nodes there are, or were when it last answered; at least those of the settings.
    :ivar processes: how many processes these nodes have, workers included.
    :ivar stats: what it has been used for.
    :ivar commands: for all nodes.
    :ivar when_up: called each time when the store answers again, which may have forgotten everything.
    :raises StoreProblem: when the extra is not installed.
    """

    def __init__(self, reactor: Any, settings: SharedSettings, timing: Timing = Timing()) -> None:
        try:
            from .thread import StoreThread
        except ImportError as problem:
            raise StoreProblem(missing("shared", problem)) from None
        self.settings = settings
        self.up = False
        self._least = settings.nodes or 1
        self.nodes = self.processes = self._least
        self.stats = StoreStats()
        self.commands = Commands(reactor, self)
        self.when_up: list[Callable[[], None]] = [self.commands.look]
        self._reactor = reactor
        self._thread = StoreThread(settings, timing, self, self._in_reactor)
        self._spares = Spares(reactor, timing, self._uncount, self._flush, self._send)
        #: What the thread is to get at the end of the reactor's turn: one wake for many questions.
        self._outbox: list[Item] = []
        self._pending: dict[Ask, None] = {}
        self._started: Deferred[None] | None = None
        self._stopped: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._running = False
        #: What has been told of its failure.
        self._words: list[str] = []

    def _in_reactor(self, call: Callable[..., object], *arguments: Any) -> None:
        self._reactor.callFromThread(call, *arguments)

    def start(self) -> Deferred[None]:
        """
        Connect. Sessions that ask before the first answer wait for it.

        :returns: fires when the store has answered, or has not: see :attr:`up`.
        """
        started: Deferred[None] = Deferred()
        self._started = started
        self._running = True
        self._thread.start()
        self.commands.start()
        return started

    def stop(self, withdraws: bool = False) -> Deferred[None]:
        """
        Count no more in the store, and close the connection.

        :param withdraws: whether the node is to be forgotten, if this was its last process.
        :returns: fires when that is done.
        """
        if not self._running:
            return succeed(None)
        self._running = False
        self._thread.withdraws = withdraws
        self.commands.stop()
        self.up = False
        self._spares.forget()
        self._drop_pending()
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        self._post()
        self._timer = self._reactor.callLater(_STOPS_WITHIN, self.ended)
        self._thread.inbox.put(END)
        return stopped

    # What sessions do.

    @property
    def asks(self) -> bool:
        """Whether the store is asked: it answers, or the first answer is not there yet."""
        return self.up or self._started is not None

    def ask(self, ask: Ask) -> None:
        """Ask; if all is in hand, or the store is down, the answer is there before this returns."""
        if self.up:
            ask.lacking = self._spares.take(ask.needs)
            if not ask.lacking:
                self._tell(ask, ADMITTED)
                return
        self.stats.asks += 1
        if not self.asks:
            self._tell(ask, DOWN)
            return
        if self.up:
            ask.wants = self._spares.wants([ask.needs[at] for at in ask.lacking])
        self._pending[ask] = None
        self._send([ask])

    def take(self, needs: Sequence[Need]) -> bool:
        """Take *needs*, each of another row or rate, if all of them are in hand; nothing is asked."""
        return self.up and self._spares.take_all(needs)

    def leave(self, rows: Iterable[str]) -> None:
        """A session has left its places in *rows*."""
        for row in rows:
            self.count(row, -1)

    def count(self, row: str, by: int) -> None:
        """Change the count of this process in *row*, by 1 or -1, without asking."""
        if by < 0 and self.up:
            self._spares.leave(row)
            return
        self._thread.changes.append((row, by))
        self._thread.inbox.put(WAKE)

    def _send(self, items: Sequence[Item]) -> None:
        if not self._outbox:
            self._reactor.callLater(0, self._post)
        self._outbox += items

    def _post(self) -> None:
        items, self._outbox = self._outbox, []
        if items:
            self._thread.inbox.put(items)

    def _uncount(self, row: str, by: int) -> None:
        self._thread.changes.append((row, -by))

    def _flush(self) -> None:
        if self._thread.changes:
            self._thread.inbox.put(WAKE)

    def _put_back(self, needs: Iterable[Need]) -> None:
        """What was in hand for *needs* is not needed."""
        for need in needs:
            if need.burst is None:
                self.count(need.key, -1)
            else:
                self._spares.put_back(need)

    def run(self, job: Job) -> None:
        """Run a script; if the store is down, the answer is None."""
        if self.up:
            self._send([job])
        else:
            self.done([(job, None)])

    # What the thread reports: see socksproxy.shared.asking.Reports.

    def went_up(self, nodes: int) -> None:
        """See :class:`~socksproxy.shared.asking.Reports`."""
        if not self._running:
            return
        self.nodes, self.up = max(nodes, self._least), True
        if self._words:
            self._words.clear()
            _log.info("the shared store {store} answers again", store=self.settings.store)
        self._have_started()
        for call in self.when_up:
            call()

    def went_down(self, problem: StoreProblem) -> None:
        """See :class:`~socksproxy.shared.asking.Reports`."""
        if not self._running:
            return
        self.stats.failures += self.up
        self.up = False
        words = str(problem)
        if words not in self._words and len(self._words) < _MOST_WORDS:
            self._words.append(words)
            _log.error(
                "the shared store {store}: {problem}: until it answers, each limit does what its key "
                '"shared" says',
                store=self.settings.store,
                problem=words,
            )
        self._have_started()
        self._spares.forget()
        self._drop_pending()

    def told(self, nodes: int, processes: int, sent: int) -> None:
        """See :class:`~socksproxy.shared.asking.Reports`."""
        self.nodes, self.processes = max(nodes, self._least), max(processes, self._least)
        self.stats.sent = sent

    def answered(self, answers: Sequence[tuple[Ask, int]], loans: Sequence[Loan]) -> None:
        """See :class:`~socksproxy.shared.asking.Reports`."""
        self.stats.answers += 1
        if self._running:
            self._spares.lent(loans)
        for ask, answer in answers:
            if not ask.over:
                del self._pending[ask]
                self._tell(ask, answer)
            elif answer == ADMITTED:
                # It was judged without the store meanwhile, and counts already if it goes on.
                for row in ask.rows:
                    self.count(row, -1)

    def done(self, jobs: Sequence[tuple[Job, Any]]) -> None:
        """See :class:`~socksproxy.shared.asking.Reports`."""
        for job, answer in jobs:
            try:
                job.done(answer)
            except Exception:
                complain(_log, "an answer of the shared store cannot be used")

    def broke(self, problem: Exception) -> None:
        """See :class:`~socksproxy.shared.asking.Reports`."""
        try:
            raise problem
        except Exception:
            complain(_log, "the thread of the shared store has a fault")

    def ended(self) -> None:
        """See :class:`~socksproxy.shared.asking.Reports`."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.callback(None)

    def _have_started(self) -> None:
        started, self._started = self._started, None
        if started is not None:
            started.callback(None)

    def _drop_pending(self) -> None:
        pending, self._pending = self._pending, {}
        for ask in pending:
            self._tell(ask, DOWN)

    def _tell(self, ask: Ask, answer: int) -> None:
        ask.over = True
        if answer != ADMITTED:
            self._put_back(need for at, need in enumerate(ask.needs) if at not in ask.lacking)
        if answer > 0:
            self.stats.refused += 1
            answer = ask.lacking[answer - 1] + 1
        elif answer == DOWN:
            self.stats.alone += 1
        try:
            ask.answered(answer)
        except Exception:
            complain(_log, "a session cannot go on after an answer of the shared store")
