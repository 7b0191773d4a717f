"""
Buckets of bytes that nodes share: the store lends each process some bytes ahead of need.

Strategy: a rate of all nodes is a bucket in the store. Each process has a bucket of its own, which fills by
loans of a quarter of a second's worth, and asks for the next loan while half of one is left. So no byte waits
for the store as long as there are enough bytes. Where there are not, the store gives each node that asks an
equal part. While the store is down, the process's bucket fills by time, at this process's part of the rate.
"""

from __future__ import annotations

from typing import Any

from ..shared.asking import Job
from ..shared.scripts import LOAN
from ..shared.store import SharedStore
from ..values.limits import Rate
from .buckets import Bucket

#: Seconds' worth of a loan, and the least bytes of one.
_SECONDS, _LEAST = 0.25, 4096.0
#: Seconds from one request to the next where the store has not given all that was wanted.
_PAUSE = 0.05


class LentBucket(Bucket):
    """
    A :class:`~socksproxy.limits.buckets.Bucket` that the store fills.

    :param clock: the source of time.
    :param rate: how many bytes come, for all nodes.
    :param store: the store.
    :param name: the name of the bucket there.
    """

    __slots__ = ("_asked", "_name", "_next_ask", "local", "store")

    def __init__(self, clock: Any, rate: Rate, store: SharedStore, name: str) -> None:
        super().__init__(clock, rate)
        self.store = store
        self._name = name
        self._asked = False
        self._next_ask = 0.0
        #: Whether this node has the whole rate while the store is down.
        self.local = False
        self._tokens = 0.0
        self._fill()

    @property
    def full(self) -> bool:
        """Whether the bucket can be forgotten: what was spent is known to the store."""
        return not self._waiting

    def _fill(self) -> None:
        now = self._seconds()
        if self.store.up:
            self._filled = now
            self._borrow(now)
            return
        part = self._per_second if self.local else self._per_second / self.store.processes
        self._tokens = min(self._tokens + (now - self._filled) * part, self._burst - self._lent)
        self._filled = now

    def _borrow(self, now: float) -> None:
        loan = min(max(self._per_second * _SECONDS, _LEAST), self._burst)
        if self._asked or now < self._next_ask or self._tokens + self._lent > loan / 2:
            return
        self._asked = True
        want = loan - self._tokens - self._lent
        arguments = [self._per_second, self._burst, want, self.store.settings.node]
        self.store.run(Job(LOAN, [f"b:{self._name}"], arguments, lambda answer: self._receive(answer, want)))

    def _receive(self, answer: bytes | None, want: float) -> None:
        self._asked = False
        if answer is None:
            return
        given = float(answer)
        if given < want:
            self._next_ask = self._seconds() + _PAUSE
        self._tokens = min(self._tokens + given, self._burst - self._lent)
        if self._waiting and self._serving is None:
            self._stop_timer()
            self._wake()
