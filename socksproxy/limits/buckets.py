"""
Token buckets: how many bytes may be moved now, and who has to wait.

Strategy: a bucket fills by the time that has gone by, so that a timer that comes
late costs nothing. Nobody is asked while there is enough for all. Where there is
not, those who want more stand in a queue, one timer is set for when there is
enough to be worth the while, and they are served in turn. Whose turn it is, is
reckoned in bytes: each has a place on a line that everybody moves along by what
he was given, and who would be the hindmost after another turn is next. So all
who never stop get the same, and one who comes with a little does not wait for
those who want much.

A session is under several buckets at once, and has its turn at one of them at a
time. What it was given by those behind it is held for it until the others agree,
or is given back: see :class:`Meter`. A bucket that is far from empty lends some of its bytes ahead; what
is lent counts as spent until it comes back, so a bucket never gives more than its rate.
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

#: Seconds' worth of a bucket that holds what it holds by default; and no less than a datagram.
_BURST_SECONDS, _LEAST_BURST = 0.25, 1500.0
#: Seconds' worth, and bytes, that a timer waits for.
_QUANTUM_SECONDS, _LEAST_QUANTUM = 0.02, 2048.0
#: Bytes that a turn gives at the least, if the timer has waited for as many.
_LEAST_SHARE = 16384.0
#: Bytes for which nobody has to wait for a timer.
_LEAST_AT_ONCE = 512.0
#: Bytes that are held of one bucket, at the most, for a session that goes to wait for another one.
_HELD = 16384
#: Those who have left the queue and are remembered, beside as many as are in it.
_REMEMBERED = 64

#: Bytes that a meter borrows of each budget, and how many at the least are worth a message.
_LOAN, LEAST_CREDIT = 8192, 2048
NO_CREDIT = -1
#: The part of its burst that a bucket lends to all meters together, and how full it then has to be.
_LENT_PART, _LENDING_PART = 1 / 8, 3 / 4

_ENDLESS = 1 << 40


class Waiter(Shape):
    """Who waits for an :class:`Budget`."""

    def resume(self) -> None:
        """There is something again: what the budget says during this call is this waiter's."""


class Budget(Shape):
    """
    Bytes that may be moved, of which there are only so many.

    :ivar in_turn: whether it makes those who want more wait for their turn; what it gave them is
        held for them, then, while they wait for others.
    :ivar exhausted: there will be none any more.
    """

    @property
    def in_turn(self) -> bool: ...

    @property
    def exhausted(self) -> bool: ...

    def available(self) -> int:
        """Bytes that may be moved now; 0: none, wait."""

    def spend(self, amount: int, waiter: Waiter | None = None) -> None:
        """
        *amount* bytes were moved, or are about to be; less than 0: they were not after all.

        :param waiter: on whose behalf; None: nobody's who ever waits.
        """

    def lend(self, amount: int) -> bool:
        """Lend *amount* bytes, which count as spent; whether it does, because it is far from empty."""

    def take_back(self, lent: int, unused: int) -> None:
        """The loan of *lent* bytes is over, and *unused* of them were not spent."""

    def wait(self, waiter: Waiter) -> None:
        """Call *waiter*, once, when there is something; never from within this call."""

    def leave(self, waiter: Waiter) -> None:
        """Do not, and forget it."""


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
        # The queue: up to where each is due to be served, a number, and where on the line it stands.
        # Who leaves, leaves the number in it.
        self._queue: list[tuple[float, int, float]] = []
        self._numbers: dict[Waiter, int] = {}
        self._waiting: dict[int, Waiter] = {}
        self._next = count()
        # Up to where the line is served, and where those stand who are not in the queue just now.
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
        # A debt was made by the measure of before, and is not to last by that of now.
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
        """How many wait."""
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
        self._tokens = min(self._tokens + unused, self._burst - self._lent)

    def wait(self, waiter: Waiter) -> None:
        if waiter in self._numbers:
            return
        goes_on = waiter is self._serving
        stands = self._stands + self._served if goes_on else self._left.pop(waiter, 0.0)
        stands = max(stands, self._front)
        number = self._numbers[waiter] = next(self._next)
        self._waiting[number] = waiter
        # Who has used up a turn will use up another one; who comes may want little.
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
        """Give the hindmost its turn."""
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
    :ivar credit: bytes that are borrowed from every budget; whoever moves bytes takes them from here.
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
        """Whether there will be nothing any more."""
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
        """*amount* bytes were moved, be it more than might be."""
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
        """What is borrowed goes back."""
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
        """What it waited for is there."""
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
        """There is nothing to be moved just now: what is held goes back."""
        if self._held:
            for number in range(len(self._held)):
                self._give_back(number)
            if not self.waiting:
                self._held = []

    def leave(self) -> None:
        """There will be nothing to be moved any more."""
        self.repay()
        self.waiting = False
        self.rest()
        self.owner = None
        if self._at >= 0:
            for budget in self.budgets:
                budget.leave(self)


class Meters(NamedTuple):
    """
    What one session is under; None: a direction is under nothing.

    :ivar up: from the client to its destination.
    :ivar down: from the destination to the client.
    """

    up: Meter | None = None
    down: Meter | None = None

    def leave(self) -> None:
        for meter in self:
            if meter is not None:
                meter.leave()
