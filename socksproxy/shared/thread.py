"""
The thread that talks to the store.

Strategy: the thread takes what has come since its last turn, and sends all of it at once. It knows the answer
to everything it has sent before it sends more. So its own counts are always those that the store should
have, and it can write them again at any time: every few seconds, after a new connection, and when the store
has forgotten them.

Each connection has a column of its own in the store, and a new connection ends the old one's lease. So what
an old connection still has on its way counts for nothing.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, TypeVar

from ..values.shared import SharedSettings
from .asking import DOWN, END, OF, Ask, Item, Job, Loan, Reports, StoreProblem, Timing, Want
from .link import ScriptCall, StoreLink
from .scripts import ABOUT, ADMIT, COUNT, LEASE, LEAVE, LEND, TOLD, prefix

#: Sessions that one script judges, and rows that one script writes or lends of.
_ASKS, _ROWS = 64, 200
#: Seconds from the end of one attempt to connect to the next one at the least.
_BREATH = 0.02
#: Wants of one exchange, so that no session waits for the renewal of many others.
_WANTS = 400
#: How many times its lease a row stays that no process writes any more.
_STAYS = 3
#: Columns that were begun in vain and may have a lease: one a second, and a lease is over then.
_BEGUN = 16

_T = TypeVar("_T")


class _Work:
    """What has come since the last turn."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []
        self.wants: list[Want] = []
        self.jobs: list[Job] = []

    def add(self, item: Item) -> None:
        if isinstance(item, Ask):
            if not item.over:
                self.asks.append(item)
                self.wants += item.wants
        elif isinstance(item, Want):
            self.wants.append(item)
        else:
            self.jobs.append(item)


class StoreThread:
    """
    Keeps the connection and the counts of one process.

    :param settings: the store.
    :param timing: how long things take.
    :param reports: is told what happens.
    :param in_reactor: calls a function in the reactor's thread.
    :ivar inbox: what is to be done; END: the thread ends.
    :ivar changes: rows, and by how much their counts have changed. They wait for the next turn.
    :ivar withdraws: whether what the node has told of itself goes at the end, if no other process of it is
        left.
    """

    def __init__(
        self,
        settings: SharedSettings,
        timing: Timing,
        reports: Reports,
        in_reactor: Callable[..., object],
    ) -> None:
        self.inbox: SimpleQueue[Sequence[Item] | None] = SimpleQueue()
        self.changes: deque[tuple[str, int]] = deque()
        self.withdraws = False
        self._settings = settings
        self._timing = timing
        self._reports = reports
        self._in_reactor = in_reactor
        self._prefix = prefix(settings.site)
        self._nodes = f"{self._prefix}nodes"
        self._stay = int(timing.lease * _STAYS * 1000)
        self._counts: dict[str, int] = {}
        self._changed: dict[str, None] = {}
        #: Wants for which there was no room in the last exchange.
        self._wants: deque[Want] = deque()
        self._link: StoreLink | None = None
        self._column = ""
        self._begun: deque[str] = deque(maxlen=_BEGUN)
        self._seen = 1
        #: Bytes that connections before this one have sent.
        self._sent_before = 0
        self._beats = self._resyncs = 0.0
        self._ending = False

    def start(self) -> None:
        """
        Start the thread.

        :raises RuntimeError: when the system has none left.
        """
        Thread(target=self._run, name="socksproxy shared store", daemon=True).start()

    def _run(self) -> None:
        while not self._ending:
            began = monotonic()
            try:
                if self._link is not None or self._open():
                    self._turn()
                else:
                    # An attempt that takes long is not followed by a long pause.
                    self._do_without(max(self._timing.probe - (monotonic() - began), _BREATH))
            except Exception as problem:
                self._in_reactor(self._reports.broke, problem)
                self._lose(StoreProblem("internal error"))
                self._do_without(self._timing.probe)
        self._leave()
        self._in_reactor(self._reports.ended)

    # The connection.

    def _open(self) -> bool:
        link = None
        try:
            link = StoreLink(self._settings)
            self._join(link)
        except StoreProblem as problem:
            if link is not None:
                link.close()
            self._in_reactor(self._reports.went_down, problem)
            return False
        self._link = link
        self._in_reactor(self._reports.went_up, self._seen)
        return True

    def _join(self, link: StoreLink) -> None:
        """Begin a column, and write all counts into it."""
        self._lease(link, f"{self._settings.node}/{secrets.token_hex(6)}")
        self._follow_changes()
        self._write(link, list(self._counts))
        self._resyncs = monotonic() + self._timing.resync

    def _rejoin(self, link: StoreLink) -> None:
        """The store has forgotten this process, and perhaps everything."""
        self._join(link)
        self._in_reactor(self._reports.went_up, self._seen)

    def _lease(self, link: StoreLink, begins: str = "") -> None:
        """
        Renew the lease of the column.

        :param begins: another column, which begins; those before end. Empty: the present one goes on.
        """
        column, lease, before = self._column, int(self._timing.lease * 1000), ""
        if begins:
            # Until there is an answer, it is not known whether those before have ended.
            before = " ".join([column, *self._begun])
            column = begins
            self._begun.append(column)
        command = ScriptCall(LEASE, [self._nodes], [column, lease, before, int(bool(begins))])
        (columns,) = link.run([command], self._timing.patience)
        if not columns:
            self._rejoin(link)
            return
        self._column = column
        self._begun.clear()
        self._seen = len({column.rpartition(b"/")[0] for column in columns})
        self._beats = monotonic() + self._timing.beat
        self._in_reactor(self._reports.told, self._seen, len(columns), self._sent_before + link.sent)

    def _lose(self, problem: StoreProblem) -> None:
        link, self._link = self._link, None
        self._wants.clear()
        if link is not None:
            self._sent_before += link.sent
            link.close()
        self._in_reactor(self._reports.went_down, problem)

    def _leave(self) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        with suppress(StoreProblem):  # the lease ends by itself
            keys = [self._nodes, self._prefix + TOLD, self._prefix + ABOUT]
            node = self._settings.node if self.withdraws else ""
            link.run([ScriptCall(LEAVE, keys, [self._column, node])], self._timing.patience)
        link.close()

    # What a turn does.

    def _turn(self) -> None:
        left = 0.0 if self._wants else min(self._beats, self._resyncs) - monotonic()
        work = self._take(max(left, 0.001))
        self._wants += work.wants
        work.wants = [self._wants.popleft() for _ in range(min(_WANTS, len(self._wants)))]
        self._follow_changes()
        link, now = self._link, monotonic()
        assert link is not None
        try:
            if now >= self._beats:
                self._lease(link)
            if now >= self._resyncs:
                self._write(link, list(self._counts))
                self._resyncs = now + self._timing.resync
            elif len(self._changed) > _ROWS:
                self._write(link, list(self._changed))
            self._do(link, work)
        except StoreProblem as problem:
            self._lose(problem)
        finally:
            self._refuse(work)  # nothing, where all have their answers

    def _take(self, seconds: float) -> _Work:
        """What has come; if nothing has, wait so many seconds for it."""
        work = _Work()
        with suppress(Empty):
            items = self.inbox.get(timeout=seconds)
            while True:
                if items is END:
                    self._ending = True
                else:
                    for item in items:
                        work.add(item)
                items = self.inbox.get_nowait()
        return work

    def _follow_changes(self) -> None:
        changes, counts = self.changes, self._counts
        while changes:
            row, by = changes.popleft()
            counts[row] = counts.get(row, 0) + by
            self._changed[row] = None

    def _do(self, link: StoreLink, work: _Work) -> None:
        """Write what has changed, which makes room for those that ask; all in one exchange."""
        changed = list(self._changed)
        writing = list(self._counting(changed))
        admitting = list(self._admitting(work.asks))
        lending = list(self._lending(work.wants))
        running = [
            ScriptCall(job.script, [self._prefix + key for key in job.keys], job.arguments)
            for job in work.jobs
        ]
        commands = writing + admitting + lending + running
        if not commands:
            return
        answers = link.run(commands, self._timing.patience)
        self._have_written(changed)
        if link.out_of_turn:
            # Counts from before the answers may be written over those from after them.
            self._resyncs = 0.0
        at = len(writing)
        verdicts = answers[at : at + len(admitting)]
        at += len(admitting)
        loans = self._loans(work.wants, answers[at : at + len(lending)])
        if work.jobs:
            self._in_reactor(
                self._reports.done, list(zip(work.jobs, answers[at + len(lending) :], strict=True))
            )
            work.jobs.clear()
        if b"lost" in verdicts:
            verdicts = self._ask_again(link, work.asks, verdicts)
        if work.asks or loans:
            self._in_reactor(self._reports.answered, self._judged(work.asks, verdicts), loans)
        work.asks.clear()

    def _ask_again(self, link: StoreLink, asks: list[Ask], answers: list[Any]) -> list[Any]:
        """The store has forgotten this process, and has done nothing; so it can be asked again."""
        if all(answer == b"lost" for answer in answers):
            self._rejoin(link)
            answers = link.run(list(self._admitting(asks)), self._timing.patience)
        if b"lost" in answers:
            raise StoreProblem("forgets this node")
        return answers

    def _judged(self, asks: list[Ask], answers: list[Any]) -> list[tuple[Ask, int]]:
        """The asks with their answers; those that are admitted count from now on."""
        verdicts = [int(word) for answer in answers for word in answer.split()]
        judged = list(zip(asks, verdicts, strict=True))
        for ask, verdict in judged:
            if not verdict:
                for row in ask.rows:
                    self._counts[row] = self._counts.get(row, 0) + 1
        return judged

    def _loans(self, wants: list[Want], answers: list[Any]) -> list[Loan]:
        """What the wants have got; it counts from now on."""
        if b"lost" in answers:
            # This process joins again with the next beat or session; until then nothing is in hand.
            return [Loan(want, 0, 0) for want in wants]
        numbers = [int(word) for answer in answers for word in answer.split()]
        loans = [
            Loan(want, most, added)
            for want, most, added in zip(wants, numbers[::2], numbers[1::2], strict=True)
        ]
        for (need, _), _, added in loans:
            if added and need.burst is None:
                self._counts[need.key] = self._counts.get(need.key, 0) + added
        return loans

    def _admitting(self, asks: list[Ask]) -> Iterator[ScriptCall]:
        for some in _parts(asks, _ASKS):
            places = {self._nodes: 1}
            sessions = []
            for ask in some:
                needs = []
                for at in ask.lacking:
                    key, most, burst = ask.needs[at]
                    key, _, thing = key.partition(OF)
                    place = places.setdefault(self._prefix + key, len(places) + 1)
                    more = thing or burst
                    needs.append([place, most] if more is None else [place, most, more])
                sessions.append(needs)
            yield ScriptCall(ADMIT, list(places), [self._column, self._stay, json.dumps(sessions)])

    def _lending(self, wants: list[Want]) -> Iterator[ScriptCall]:
        for some in _parts(wants, _ROWS):
            keys = [self._prefix + need.key for need, _ in some]
            told = [[most, have] if burst is None else [most, have, burst] for (_, most, burst), have in some]
            yield ScriptCall(LEND, [self._nodes, *keys], [self._column, self._stay, json.dumps(told)])

    # The counts.

    def _counting(self, rows: list[str]) -> Iterator[ScriptCall]:
        for some in _parts(rows, _ROWS):
            parts = [row.partition(OF) for row in some]
            counts = [
                f"{self._counts[row]} {thing}" if thing else self._counts[row]
                for row, (_, _, thing) in zip(some, parts, strict=True)
            ]
            keys = [self._prefix + key for key, _, _ in parts]
            yield ScriptCall(COUNT, keys, [self._column, self._stay, *counts])

    def _write(self, link: StoreLink, rows: list[str]) -> None:
        for command, some in zip(self._counting(rows), _parts(rows, _ROWS), strict=True):
            link.run([command], self._timing.patience)
            self._have_written(some)

    def _have_written(self, rows: list[str]) -> None:
        for row in rows:
            self._changed.pop(row, None)
            if not self._counts[row]:
                del self._counts[row]

    # Without the store.

    def _do_without(self, seconds: float) -> None:
        """For so many seconds, answer that the store is down."""
        until = monotonic() + seconds
        while not self._ending and (left := until - monotonic()) > 0:
            self._refuse(self._take(left))
            self._follow_changes()
            self._forget_ended()

    def _forget_ended(self) -> None:
        """Keep no row of which nothing is left: the next column begins with what there is."""
        for row in self._changed:
            if not self._counts[row]:
                del self._counts[row]
        self._changed.clear()

    def _refuse(self, work: _Work) -> None:
        if work.asks:
            self._in_reactor(self._reports.answered, [(ask, DOWN) for ask in work.asks], [])
        if work.jobs:
            self._in_reactor(self._reports.done, [(job, None) for job in work.jobs])


def _parts(things: Sequence[_T], most: int) -> Iterator[list[_T]]:
    """*things*, so many at a time."""
    for begin in range(0, len(things), most):
        yield list(things[begin : begin + most])
