"""
The watch over rules that end sessions: it notices when the hours of such a rule begin or end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from .compiled import RulePolicy

_MINUTE = 60.0


class HoursWatch:
    """
    Looks at the hours of rules with *ends_sessions* when a minute of the wall clock begins.

    Strategy: there is one timer, and only while there are sessions. The begin or the end of the hours is not
    computed in advance: a minute of the wall clock may come twice or never, where summer time ends or begins,
    or where the clock is set.

    :param reactor: keeps time.
    :param changed: called when the hours of such a rule have begun or ended.
    :param needed: tells whether there are sessions.
    :ivar awake: the names of the rules whose hours include the present minute.
    """

    def __init__(self, reactor: Any, changed: Callable[[], None], needed: Callable[[], bool]) -> None:
        self.awake: frozenset[str] = frozenset()
        self._reactor = reactor
        self._changed = changed
        self._needed = needed
        self._policy: RulePolicy | None = None
        self._timer: IDelayedCall | None = None

    def follow(self, policy: object) -> None:
        """Watch the hours of *policy* from now on. The caller has the present sessions follow *policy*."""
        self._policy = policy if isinstance(policy, RulePolicy) and policy.ends_sessions else None
        self.stop()
        if self._needed():
            self.start()

    def start(self) -> None:
        """Start the timer, unless it runs: there is a session."""
        if self._policy is not None and self._timer is None:
            self.awake = self._policy.awake()
            self._wait(self._policy)

    def stop(self) -> None:
        """Stop the timer: there are no sessions any more."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _wait(self, policy: RulePolicy) -> None:
        self._timer = self._reactor.callLater(_MINUTE - policy.clock() % _MINUTE, self._look)

    def _look(self) -> None:
        self._timer = None
        policy = self._policy
        if policy is None or not self._needed():
            return
        before, self.awake = self.awake, policy.awake()
        self._wait(policy)
        if self.awake != before:
            self._changed()
