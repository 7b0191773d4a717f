"""
Active checks: whether the members of a pool work while no session tells.

Strategy: a round takes the time in which each member is checked once, and the members have moments by chance
in it, so that there is no burst. A check that fails blames its member only when something else has worked
since the round began: another member, or another pool. Where nothing has, the fault may be this machine's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import UpstreamRefused, describe, reply_for
from ..values.upstreams import UpstreamType
from ..wire.words import Address, Reply
from .members import Member, Members, is_its_own

_log = Logger(namespace="socksproxy")

#: Seconds without a session after which a pool is not checked.
IDLE = 1800.0
#: Seconds that one check may take.
CHECKED_WITHIN = 15.0


class PoolChecks:
    """
    Checks the members of one pool.

    :param clock: tells the time.
    :param members: of the pool; its settings say how often they are checked.
    :param connect: connects through a member to a destination, and closes the connection.
    :param elsewhere: tells whether anything outside of this pool has worked since a moment.
    :param chance: draws.
    :ivar open: the number of checks that run.
    """

    def __init__(
        self,
        clock: IReactorTime,
        members: Members,
        connect: Callable[[Members, Member, Address], Deferred[None]],
        elsewhere: Callable[[float], bool],
        chance: Random = SystemRandom(),
    ) -> None:
        self._clock = clock
        self._members = members
        self._connect = connect
        self._elsewhere = elsewhere
        self._chance = chance
        self._timer: IDelayedCall | None = None
        self._running: set[Deferred[Any]] = set()
        self._to_come: deque[tuple[float, Member]] = deque()
        self._suspects: dict[Member, str] = {}
        self._began = 0.0
        self._stopped = True

    @property
    def open(self) -> int:
        """The number of checks that run."""
        return len(self._running)

    def start_when_used(self) -> None:
        """Check from the next session on."""
        if self._stopped:
            self._members.wake = self.start

    def start(self) -> None:
        """Check from now on."""
        if self._stopped:
            self._stopped = False
            self._round()

    def stop(self) -> None:
        """Check no more."""
        self._stopped = True
        self._members.wake = None
        self._to_come.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for check in list(self._running):
            check.cancel()

    def _round(self) -> None:
        """A round begins."""
        self._members.refresh()
        check, now = self._members.settings.check, self._clock.seconds()
        if check is None:
            return
        if now - self._members.used >= IDLE:
            self._stopped = True
            self.start_when_used()
            return
        self._began = now
        self._suspects.clear()
        found = list(self._members)
        self._chance.shuffle(found)
        moments = sorted(now + check.every * self._chance.random() for _ in found)
        self._to_come = deque(zip(moments, found, strict=True))
        self._wait()

    def _wait(self) -> None:
        check = self._members.settings.check
        if self._stopped or check is None:
            return
        moment = self._to_come[0][0] if self._to_come else self._began + check.every
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(max(moment - self._clock.seconds(), 0.0), self._due)

    def _due(self) -> None:
        self._timer = None
        check, now = self._members.settings.check, self._clock.seconds()
        if check is None or self._stopped:
            return
        while self._to_come and self._to_come[0][0] <= now:
            if self.open >= check.at_once:
                return  # one that ends goes on
            _, member = self._to_come.popleft()
            if member.told <= now - check.every and not member.full:
                self._check(member, check.connect)
        if self._to_come or now < self._began + check.every:
            self._wait()
        elif not self._running:
            self._judge()
            self._round()

    def _check(self, member: Member, address: Address) -> None:
        checking = self._connect(self._members, member, address)
        self._running.add(checking)
        checking.addTimeout(CHECKED_WITHIN, self._clock)
        checking.addBoth(self._checked, member, checking)

    def _checked(self, result: Any, member: Member, checking: Deferred[Any]) -> None:
        self._running.discard(checking)
        if self._stopped:
            return
        problem = result.value if isinstance(result, Failure) else None
        if problem is None or _is_answer(problem, member):
            member.counters.checked(alive=True)
            self._members.answered(member, check=True)
            self._judge()
        elif is_its_own(problem, member) or isinstance(problem, TimeoutError):
            member.counters.checked(alive=False)
            self._suspects[member] = f"check: {describe(problem)}"
            if self._has_worked():
                self._blame()
        if self._timer is None or not self._timer.active():
            self._wait()

    def _has_worked(self) -> bool:
        return self._members.worked >= self._began or self._elsewhere(self._began)

    def _judge(self) -> None:
        """Blame the members whose checks have failed, unless nothing at all has worked."""
        if not self._suspects:
            return
        if self._has_worked():
            self._blame()
        else:
            self._suspects.clear()
            _log.warn(
                "pool {pool}: all checks fail, and nothing else works: no member is blamed",
                pool=self._members.name,
            )

    def _blame(self) -> None:
        for member, reason in self._suspects.items():
            self._members.failed(member, reason, check=True)
        self._suspects.clear()


def _is_answer(problem: BaseException, member: Member) -> bool:
    """Whether a check that ends with *problem* tells that *member* works."""
    if member.upstream.type is UpstreamType.DIRECT:
        return reply_for(problem) is Reply.CONNECTION_REFUSED
    # A proxy that is silent when it has the request may wait for the destination.
    return isinstance(problem, (UpstreamRefused, TimeoutError))
