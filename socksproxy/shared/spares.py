"""
What this process has in hand of the rows and rates of the store, so that few sessions have to ask.

Strategy: where there is plenty of room, the store lends a process some places of a row ahead of need. They
count in the process's column as if they were sessions. It lends beginnings within a rate, too. A session that
finds in hand all that it needs is admitted at once. The place that a session has left is in hand as well,
until the next writing of counts, or for longer where there is plenty of room.

No limit is exceeded by that, because what is in hand counts in the store. A beginning within a rate counts
when it is lent, so a burst that comes later can be larger by what is in hand.

A session could be refused because of what other processes have in hand. The store lends 2 % of what is free,
at most 256, and only while more than half of the limit is free; and what it says holds for a second. So the
row has to go from half full to full in that second. After the second, the process asks again for all that it
has, with one question; what no session has needed for three seconds goes back. Of a limit below 50 nothing is
lent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from .asking import OF, Loan, Need, Timing, Want

#: The least limit of which the store lends anything.
LEAST = 50
#: Renewals after which it goes back if no session needs it.
_IDLE = 3
#: Rows and rates of which anything is in hand.
_MOST = 4096


class _Spare:
    """
    What is in hand of one row or rate.

    :ivar need: the row or the rate, with its limit.
    :ivar left: how many are in hand.
    :ivar most: how many may be, for longer than a moment.
    :ivar idle: seconds in which no session has needed one.
    :ivar asked: whether an answer of the store is missing.
    """

    __slots__ = ("asked", "idle", "left", "most", "need")

    def __init__(self, need: Need) -> None:
        self.need = need
        self.left = self.most = self.idle = 0
        self.asked = False


class Spares:
    """
    All that is in hand.

    :param reactor: keeps time.
    :param timing: how long things take.
    :param uncount: counts less in a row of this process's column.
    :param flush: has what was counted written.
    :param send: asks the store for wants.
    """

    def __init__(
        self,
        reactor: Any,
        timing: Timing,
        uncount: Callable[[str, int], None],
        flush: Callable[[], None],
        send: Callable[[Sequence[Want]], object],
    ) -> None:
        self._reactor = reactor
        self._timing = timing
        self._uncount = uncount
        self._flush = flush
        self._send = send
        self._spares: dict[str, _Spare] = {}
        self._too_many: dict[_Spare, None] = {}
        self._flushes: IDelayedCall | None = None
        self._renews: IDelayedCall | None = None

    def take(self, needs: Sequence[Need]) -> list[int]:
        """Take what is in hand of *needs*, and return which of them are not."""
        lacking = []
        for at, need in enumerate(needs):
            spare = self._spares.get(need.key)
            if spare is not None and spare.left and spare.need == need:
                self._use(spare)
            else:
                lacking.append(at)
        return lacking

    def take_all(self, needs: Sequence[Need]) -> bool:
        """Take *needs*, each of another row or rate, if all of them are in hand."""
        found = []
        for need in needs:
            spare = self._spares.get(need.key)
            if spare is None or not spare.left or (spare.need is not need and spare.need != need):
                return False
            found.append(spare)
        for spare in found:
            self._use(spare)
        return True

    def _use(self, spare: _Spare) -> None:
        spare.left -= 1
        spare.idle = 0
        if spare.left * 2 < spare.most > 1 and not spare.asked:
            spare.asked = True
            self._send([Want(spare.need, spare.left)])

    def put_back(self, need: Need) -> None:
        """The beginning that was taken for *need* is not needed."""
        spare = self._spares.get(need.key)
        if spare is not None:
            spare.left += 1

    def leave(self, row: str) -> None:
        """A session has left its place in *row*."""
        spare = self._spares.get(row)
        if spare is None:
            self._uncount(row, 1)
        else:
            spare.left += 1
            # Sessions come and go in turn; twice as many are bearable until the next renewal.
            if spare.left <= 2 * spare.most:
                return
            self._too_many[spare] = None
        self._flush_soon()

    def wants(self, needs: Sequence[Need]) -> list[Want]:
        """What to want of the store besides, if these *needs* are not in hand."""
        found: list[Want] = []
        for need in needs:
            if OF in need.key:
                continue  # there are as many such rows as clients
            spare = self._spares.get(need.key)
            if spare is not None and spare.need != need:
                self._drop(need.key, found)
                spare = None
            if spare is None:
                if len(self._spares) >= _MOST:
                    continue
                spare = self._spares[need.key] = _Spare(need)
            spare.idle = 0
            enough = (need.most if need.burst is None else need.burst) >= LEAST
            if not spare.asked and enough:
                spare.asked = True
                found.append(Want(need, spare.left))
        self._renew_later()
        return found

    def lent(self, loans: Sequence[Loan]) -> None:
        """The store has answered."""
        back: list[Want] = []
        for (need, have), most, added in loans:
            spare = self._spares.get(need.key)
            if spare is None or spare.need != need:
                self._return(need, added, back)
                self._flush_soon()
                continue
            if have < 0:
                continue
            spare.asked = False
            spare.most = most
            spare.left += added
            if spare.left > most:
                self._too_many[spare] = None
                self._flush_soon()
        if back:
            self._send(back)

    def forget(self) -> None:
        """The store is down, or not in use any more: nothing is in hand."""
        for spare in self._spares.values():
            if spare.need.burst is None and spare.left:
                self._uncount(spare.need.key, spare.left)
        self._spares.clear()
        self._too_many.clear()
        for timer in (self._flushes, self._renews):
            if timer is not None:
                timer.cancel()
        self._flushes = self._renews = None
        self._flush()

    def _flush_soon(self) -> None:
        if self._flushes is None:
            self._flushes = self._reactor.callLater(self._timing.pause, self._give_back)

    def _give_back(self) -> None:
        """What is too much goes back."""
        self._flushes = None
        too_many, self._too_many = self._too_many, {}
        back: list[Want] = []
        for spare in too_many:
            if spare.left > spare.most:
                self._return(spare.need, spare.left - spare.most, back)
                spare.left = spare.most
        if back:
            self._send(back)
        self._flush()

    def _return(self, need: Need, number: int, back: list[Want]) -> None:
        if not number:
            return
        if need.burst is None:
            self._uncount(need.key, number)
        else:
            back.append(Want(need, -number))

    def _renew(self) -> None:
        """Ask again for all that is in hand, and give back what is not needed."""
        self._renews = None
        wants: list[Want] = []
        for key, spare in list(self._spares.items()):
            if spare.asked:
                continue
            spare.idle += 1
            if spare.left > spare.most:
                self._return(spare.need, spare.left - spare.most, wants)
                spare.left = spare.most
            if spare.idle > (_IDLE if spare.left and spare.most else 1):
                self._drop(key, wants)
            elif spare.most:
                spare.asked = True
                wants.append(Want(spare.need, spare.left))
        if wants:
            self._send(wants)
        self._flush()
        self._renew_later()

    def _renew_later(self) -> None:
        if self._renews is None and self._spares:
            self._renews = self._reactor.callLater(self._timing.renewal, self._renew)

    def _drop(self, key: str, back: list[Want]) -> None:
        spare = self._spares.pop(key)
        self._too_many.pop(spare, None)
        self._return(spare.need, spare.left, back)
