"""
Token buckets: how many bytes may be moved now, and which sessions have to wait.

Strategy: a bucket fills by the time that has gone by, so a timer that comes late costs nothing. While
there is enough for all sessions, none of them waits. Otherwise the sessions that want more stand in a queue,
one timer waits until there is enough to be worth a turn, and the sessions are served in turn. Turns are
counted in bytes: each session has a place on a line, and moves along it by the bytes that it was given. The
session that would be the last on the line after another turn is next. So all sessions that never stop get the
same, and a session that wants a little does not wait for those that want much.

A session is under several buckets at once, and waits for its turn at one of them at a time. The bytes that
the buckets before that one have given are held for the session, or given back: see :class:`Meter`. A bucket
that is far from empty lends some of its bytes ahead. A loan counts as spent until it comes back, so a bucket
never gives more than its rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple, Protocol as Shape

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..logs.throttle import complain
from ..values.limits import Rate

_log = Logger(namespace="socksproxy")

#: The burst of a rate that says none, in seconds' worth; at least the bytes of a datagram.
_BURST_SECONDS, _LEAST_BURST = 0.25, 1500.0
#: What a timer waits for, in seconds' worth, and at least in bytes.
_QUANTUM_SECONDS, _LEAST_QUANTUM = 0.02, 2048.0
#: Bytes that a turn gives at least, if the timer has waited for as many.
_LEAST_SHARE = 16384.0
#: Bytes for which no session has to wait for a timer.
_LEAST_AT_ONCE = 512.0
#: Bytes of one bucket that are held at most for a session that waits for another bucket.
_HELD = 16384
#: Waiters that have left the queue and are remembered, beside as many as are in it.
_REMEMBERED = 64

#: Bytes that a meter borrows of each budget, and how many at the least are worth a message.
_LOAN, LEAST_CREDIT = 8192, 2048
NO_CREDIT = -1
#: The part of its burst that a bucket lends to all meters together, and how full it then has to be.
_LENT_PART, _LENDING_PART = 1 / 8, 3 / 4

_ENDLESS = 1 << 40


class Waiter(Shape):
    """What waits for a :class:`Budget`."""

    def resume(self) -> None:
        """Go on: the bytes that the budget has during this call are this waiter's."""


class Budget(Shape):
    """
    A limited number of bytes that may be moved.

    :ivar in_turn: whether waiters have turns at it. The bytes of a turn are held for the waiter while it
        waits for another budget.
    :ivar exhausted: whether it is empty for good.
    """

    @property
    def in_turn(self) -> bool: ...

    @property
    def exhausted(self) -> bool: ...

    def available(self) -> int:
        """Bytes that may be moved now; 0: none, wait."""

    def spend(self, amount: int, waiter: Waiter | None = None) -> None:
        """
        Count *amount* bytes that were moved, or are about to be; less than 0: they were not moved after all.

        :param waiter: the waiter that moves them; None: one that never waits.
        """

    def lend(self, amount: int) -> bool:
        """Lend *amount* bytes, which count as spent; whether it does, because it is far from empty."""

    def take_back(self, lent: int, unused: int) -> None:
        """The loan of *lent* bytes is over, and *unused* of them were not spent."""

    def wait(self, waiter: Waiter) -> None:
        """Call *waiter* once when there are bytes again, but never from within this call."""

    def leave(self, waiter: Waiter) -> None:
        """Forget *waiter*, which does not wait any more."""


class Bucket:
    """
    A token bucket: bytes that come with time. It is full at first.

    :param clock: the source of time.
    :param rate: how many come; it can be set in place.
    """

    __slots__ = (
        "_burst",
        "_clock",
        "_filled",
        "_front",
        "_least",
        "_left",
        "_lending",
        "_lent",
        "_most_lent",
        "_next",
        "_numbers",
        "_per_second",
        "_quantum",
        "_queue",
        "_rate",
        "_seconds",
        "_served",
        "_serving",
        "_share",
        "_stands",
        "_timer",
        "_tokens",
        "_waiting",
    )

    in_turn = True
    exhausted = False

    def __init__(self, clock: IReactorTime, rate: Rate) -> None:
        self._clock = clock
        self._seconds: Callable[[], float] = clock.seconds
        self._filled = self._seconds()
        self._lent = 0
        self._timer: IDelayedCall | None = None
        # The queue: the place on the line up to which each waiter is due to be served, a number, and the
        # place where it stands. A waiter that leaves leaves its number in the queue.
        self._queue: list[tuple[float, int, float]] = []
        self._numbers: dict[Waiter, int] = {}
        self._waiting: dict[int, Waiter] = {}
        self._next = count()
        # The place up to which the line is served, and the places of waiters that are not in the queue now.
        self._front = 0.0
        self._left: dict[Waiter | None, float] = {}
        self._serving: Waiter | None = None
        self._stands = self._share = self._served = 0.0
        self._set(rate)
        self._tokens = self._burst

    @property
    def rate(self) -> Rate:
        """How many bytes come."""
        return self._rate

    @rate.setter
    def rate(self, rate: Rate) -> None:
        self._fill()
        self._set(rate)
        # A debt at the old rate must not last longer at the new one.
        self._tokens = min(max(self._tokens, -self._burst), self._burst - self._lent)
        self._stop_timer()
        self._want_timer()

    def _set(self, rate: Rate) -> None:
        self._rate = rate
        self._per_second = max(rate.per_second, 0.0)
        burst = rate.burst
        if burst is None:
            burst = max(self._per_second * _BURST_SECONDS, _LEAST_BURST)
        self._burst = max(burst, 1.0)
        # Half a bucket: what comes while a timer is late has room in it.
        self._quantum = min(max(self._per_second * _QUANTUM_SECONDS, _LEAST_QUANTUM), self._burst / 2)
        self._least = min(_LEAST_AT_ONCE, self._quantum)
        self._most_lent, self._lending = self._burst * _LENT_PART, self._burst * _LENDING_PART

    @property
    def waiting(self) -> int:
        """The number of waiters."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether nothing was spent for so long that nothing is lost when the bucket is forgotten."""
        self._fill()
        return not self._waiting and not self._lent and self._tokens >= self._burst

    # Budget.

    def available(self) -> int:
        if self._serving is not None:
            return max(int(self._share - self._served), 0)
        if self._waiting:
            return 0
        self._fill()
        return int(self._tokens) if self._tokens >= self._least else 0

    def spend(self, amount: int, waiter: Waiter | None = None) -> None:
        self._tokens -= amount
        if amount < 0:
            self._tokens = min(self._tokens, self._burst - self._lent)
        if waiter is self._serving:
            self._served += amount
        elif self._left and waiter in self._left:
            self._left[waiter] += amount

    def lend(self, amount: int) -> bool:
        lent = self._lent + amount
        if lent > self._most_lent or self._waiting or self._serving is not None:
            return False
        if self._tokens < self._lending:
            self._fill()
            if self._tokens < self._lending:
                return False
        self._lent = lent
        self._tokens -= amount
        return True

    def take_back(self, lent: int, unused: int) -> None:
        self._lent -= lent
        tokens, most = self._tokens + unused, self._burst - self._lent
        self._tokens = tokens if tokens < most else most

    def wait(self, waiter: Waiter) -> None:
        if waiter in self._numbers:
            return
        goes_on = waiter is self._serving
        stands = self._stands + self._served if goes_on else self._left.pop(waiter, 0.0)
        stands = max(stands, self._front)
        number = self._numbers[waiter] = next(self._next)
        self._waiting[number] = waiter
        # A waiter that has used up a turn will use up another one; a new one may want little.
        heappush(self._queue, (stands + self._share if goes_on else stands, number, stands))
        if self._serving is None:
            self._want_timer()

    def leave(self, waiter: Waiter) -> None:
        self._left.pop(waiter, None)
        if waiter is self._serving:
            self._serving = None
        number = self._numbers.pop(waiter, None)
        if number is None:
            return
        del self._waiting[number]
        if not self._waiting:
            self._queue.clear()
            self._stop_timer()
        elif len(self._queue) > 2 * len(self._waiting) + _REMEMBERED:
            self._queue = [entry for entry in self._queue if entry[1] in self._waiting]
            heapify(self._queue)

    # Time.

    def _fill(self) -> None:
        now = self._seconds()
        self._tokens = min(self._tokens + (now - self._filled) * self._per_second, self._burst - self._lent)
        self._filled = now

    def _want_timer(self) -> None:
        if self._timer is None and self._waiting and self._per_second:
            self._fill()
            wait = max(self._quantum - self._tokens, 0.0) / self._per_second
            self._timer = self._clock.callLater(wait, self._wake)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _wake(self) -> None:
        self._timer = None
        self._fill()
        least = min(self._quantum, _LEAST_SHARE)
        for _ in range(len(self._waiting)):
            # Half a byte: what is due at a time is not quite there at that time, in floating numbers.
            if not self._waiting or self._tokens + 0.5 < least:
                break
            self._serve(max(least, self._tokens / len(self._waiting)))
        if not self._waiting:
            self._left.clear()
            self._front = 0.0
        elif len(self._left) > len(self._waiting) + _REMEMBERED:
            self._left = {who: stands for who, stands in self._left.items() if stands > self._front}
        self._want_timer()

    def _serve(self, share: float) -> None:
        """Give the waiter that is due its turn."""
        waiter = None
        while waiter is None:
            _, number, stands = heappop(self._queue)
            waiter = self._waiting.pop(number, None)
        del self._numbers[waiter]
        self._front = max(self._front, stands)
        self._serving, self._stands, self._share, self._served = waiter, stands, share + 0.5, 0.0
        try:
            waiter.resume()
        except Exception:
            complain(_log, "a session that waited for its turn failed")
        if self._serving is not None and waiter not in self._numbers:
            self._left[waiter] = stands + self._served
        self._serving = None


class Meter:
    """
    One direction of a session, and all budgets that it is under.

    Strategy: a meter waits for one budget at a time. What the budgets before that one have given is held
    meanwhile, at most one turn's worth of each, and what the budgets behind it have given goes back to them:
    so a session that waits for its own bytes keeps the server's from no other session. Where all budgets are
    far from empty, a meter borrows from them ahead, and small messages cost one subtraction each.

    :param budgets: the narrowest first: of the session, of the user, of the whole server.
    :ivar credit: bytes that are borrowed from every budget; the relay takes what it moves from here.
        :data:`NO_CREDIT`: none are borrowed.
    :ivar owed: bytes that wait to be sent and that it has not been asked about; the owner counts them.
    :ivar owner: what is called when there is something again.
    :ivar waiting: whether it waits.
    """

    __slots__ = ("_at", "_held", "budgets", "credit", "owed", "owner", "waiting")

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self.budgets = tuple(budgets)
        #: Bytes of each budget that are held; empty where nothing is.
        self._held: list[int] = []
        #: Which of the budgets it waits for, or has waited for last; less than 0: it never has.
        self._at = -1
        self.credit = NO_CREDIT
        self.owed = 0
        self.owner: Waiter | None = None
        self.waiting = False

    @property
    def exhausted(self) -> bool:
        """Whether a budget is empty for good."""
        return any(budget.exhausted for budget in self.budgets)

    def take(self) -> int:
        """Bytes that may be moved now; 0: none, and :attr:`owner` is called when there are."""
        if self.waiting:
            return 0
        if self.credit != NO_CREDIT:
            self.repay()
        held, most = self._held, _ENDLESS
        for number, budget in enumerate(self.budgets):
            some = (held and held[number]) or budget.available()
            if some <= 0:
                self._wait_at(number, most)
                return 0
            if some < most:
                most = some
        return most

    def spend(self, amount: int) -> None:
        """Count *amount* bytes that were moved, even if they are more than :meth:`take` has said."""
        held = self._held
        if not held:
            for budget in self.budgets:
                budget.spend(amount, self)
            return
        for number, budget in enumerate(self.budgets):
            of_held = min(held[number], amount)
            if of_held:
                held[number] -= of_held
            if amount > of_held:
                budget.spend(amount - of_held, self)

    def borrow(self) -> None:
        """Borrow for small messages that may come, where all budgets are far from empty."""
        for number, budget in enumerate(self.budgets):
            if not budget.lend(_LOAN):
                for lender in self.budgets[:number]:
                    lender.take_back(_LOAN, _LOAN)
                return
        self.credit = _LOAN

    def owe(self, amount: int) -> None:
        """*amount* bytes wait to be sent, and the meter is to be asked about them."""
        self.owed = amount
        self.repay()

    def repay(self) -> None:
        """Give back what is borrowed and not used."""
        unused, self.credit = self.credit, NO_CREDIT
        if unused != NO_CREDIT:
            for budget in self.budgets:
                budget.take_back(_LOAN, unused)

    def _wait_at(self, number: int, most: int) -> None:
        budgets = self.budgets
        held = self._held = self._held or [0] * len(budgets)
        for behind in range(number):
            if budgets[behind].in_turn and not held[behind]:
                self._hold(behind, min(most, _HELD))
        for ahead in range(number, len(budgets)):
            self._give_back(ahead)
        if not budgets[number].exhausted:
            self.waiting, self._at = True, number
            budgets[number].wait(self)

    def resume(self) -> None:
        """See :meth:`Waiter.resume`."""
        self._hold(self._at, self.budgets[self._at].available())
        self.waiting = False
        if self.owner is not None:
            self.owner.resume()

    def _hold(self, number: int, amount: int) -> None:
        if amount > 0:
            self.budgets[number].spend(amount, self)
            self._held[number] += amount

    def _give_back(self, number: int) -> None:
        held, self._held[number] = self._held[number], 0
        if held:
            self.budgets[number].spend(-held, self)

    def let(self, sizes: Sequence[int]) -> int:
        """
        How many of the datagrams that are *sizes* long, the first of them, may pass; their bytes are spent.

        A datagram passes as a whole where there is anything to be had. Those that do not pass do not wait,
        but the meter does, so that others have their turn in time.
        """
        passed = 0
        while passed < len(sizes) and (most := self.take()):
            octets = 0
            while passed < len(sizes) and octets < most:
                octets += sizes[passed]
                passed += 1
            self.spend(octets)
        return passed

    def rest(self) -> None:
        """Give back what is held: there is nothing to be moved just now."""
        if self._held:
            for number in range(len(self._held)):
                self._give_back(number)
            if not self.waiting:
                self._held = []

    def leave(self) -> None:
        """End: no more bytes will be moved."""
        self.repay()
        self.waiting = False
        if self._held:
            self.rest()
        self.owner = None
        if self._at >= 0:
            for budget in self.budgets:
                budget.leave(self)


class Meters(NamedTuple):
    """
    The meters of one session; None: nothing limits that direction.

    :ivar up: from the client to its destination.
    :ivar down: from the destination to the client.
    """

    up: Meter | None = None
    down: Meter | None = None

    def leave(self) -> None:
        for meter in self:
            if meter is not None:
                meter.leave()
