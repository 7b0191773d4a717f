"""
What is asked of the store, and how it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol as Shape, TypeAlias

from .scripts import Script

#: The answers to an :class:`Ask`, beside the number of the need that was not met, from 1 on.
ADMITTED, DOWN = 0, -1

#: Between the key of a row of different things and one of these things.
OF = "\0"


class StoreProblem(Exception):
    """The store cannot be used; the words are for the operator, and hold no password."""


class Need(NamedTuple):
    """
    What a session needs: a place in a row of counts, or a beginning within a rate.

    :ivar key: the row or the rate, behind the prefix of all keys. In a row of different things,
        :data:`OF` and the thing follow: it has room if it is there already.
    :ivar most: the most that there may be in the row; of a rate: microseconds for one.
    :ivar burst: the most that may begin at once; None: the need is a place in a row.
    """

    key: str
    most: float
    burst: float | None = None


class Want(NamedTuple):
    """
    What this process wants to have in hand ahead of need: see :mod:`socksproxy.shared.spares`.

    :ivar need: the row or the rate.
    :ivar have: how many it has in hand; negative: so many beginnings within a rate are given back.
    """

    need: Need
    have: int


class Loan(NamedTuple):
    """
    What the store says to a :class:`Want`.

    :ivar want: the want.
    :ivar most: how many this process may have in hand for now.
    :ivar added: how many it has got for that.
    """

    want: Want
    most: int
    added: int


class Ask:
    """
    The needs of a session, of which it gets all or none.

    :param needs: the needs.
    :param answered: called once with the answer: :data:`ADMITTED`, the number of the need that is not met,
        or :data:`DOWN`: the store does not answer, and nothing is counted.
    :ivar lacking: which of the needs the store is asked about; the others are met by what is in hand.
    :ivar wants: what this process wants to have in hand besides.
    :ivar over: whether the answer was given.
    """

    __slots__ = ("answered", "lacking", "needs", "over", "wants")

    def __init__(self, needs: Sequence[Need], answered: Callable[[int], None]) -> None:
        self.needs = needs
        self.lacking: Sequence[int] = range(len(needs))
        self.wants: Sequence[Want] = ()
        self.answered = answered
        self.over = False

    @property
    def rows(self) -> list[str]:
        """The rows in which the session has a place, once the store has admitted it."""
        needs = self.needs
        return [needs[at].key for at in self.lacking if needs[at].burst is None]


class Job(NamedTuple):
    """
    Another script that the store is to run.

    :ivar script: the script.
    :ivar keys: its keys, behind the prefix of all keys.
    :ivar arguments: its arguments.
    :ivar done: called with the answer; None: the store does not answer, and may have run the script or not.
    """

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Any]
    done: Callable[[Any], None]


#: What the thread is given, several at a time.
Item: TypeAlias = Ask | Want | Job
#: Has the thread look at what has changed; ends the thread.
WAKE: Sequence[Item] = ()
END = None


class Timing(NamedTuple):
    """
    How long things take, in seconds.

    :ivar patience: the time in which the store has to answer.
    :ivar lease: the time after which a process that is gone counts no more.
    :ivar beat: from one renewal of the lease to the next.
    :ivar resync: from one writing of all counts to the next.
    :ivar probe: from one attempt to reach a store that is down to the next.
    :ivar pause: how long a count may wait to be written.
    :ivar renewal: how long the store's word holds that a process may have places in hand.
    """

    patience: float = 0.05
    lease: float = 10.0
    beat: float = 3.0
    resync: float = 5.0
    probe: float = 1.0
    pause: float = 0.025
    renewal: float = 1.0


class Reports(Shape):
    """What the thread reports; each method runs in the reactor's thread."""

    def went_up(self, nodes: int) -> None:
        """The store answers."""

    def went_down(self, problem: StoreProblem) -> None:
        """The store does not answer any more, or still does not."""

    def told(self, nodes: int, processes: int, sent: int) -> None:
        """So many nodes and processes have a lease, and so many bytes have been sent."""

    def answered(self, answers: Sequence[tuple[Ask, int]], loans: Sequence[Loan]) -> None:
        """These asks and wants have an answer."""

    def done(self, jobs: Sequence[tuple[Job, Any]]) -> None:
        """These jobs have an answer; None: the store does not answer."""

    def broke(self, problem: Exception) -> None:
        """The thread has a fault."""

    def ended(self) -> None:
        """The thread is about to end."""
