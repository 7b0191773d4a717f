"""
How a session asks the store that several nodes share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred

from ..errors import OverLimit, SOCKSError
from ..events import Cause
from ..limits.account import ASSOCIATIONS, BINDS
from ..policy.rules import Rule
from ..wire.words import Command
from .changes import FollowingSession

T = TypeVar("T")

#: The kind of what a command takes.
_TAKES: dict[int, str] = {Command.BIND: BINDS, Command.UDP_ASSOCIATE: ASSOCIATIONS}


class SharingSession(FollowingSession):
    """
    A session under limits of several nodes.

    Strategy: for CONNECT the store is asked when the look-up or the connection begins, and the answer is
    needed when the connection is there. Every other command begins when the answer is there. A rule that
    allows a destination later is asked about then. Without a store nothing is asked and nothing waits.
    """

    __slots__ = ()

    def _begin_service(self) -> None:
        """
        Start the service of the request.

        :raises SOCKSError: when the request is refused at once.
        :raises OSError: when the system says so.
        """
        service = self.service
        assert service is not None
        if self.context.ledger.store is None:
            service.start()
            return
        command = self.request.command
        if command != Command.CONNECT:
            if self._share(_TAKES.get(command)):
                self.wait(self._admitted(), lambda _: self._start_admitted())
            else:
                service.start()
            return
        service.start()
        if self.ended is None and not service.granted:
            try:
                self._share()
            except OverLimit:
                self._give_up()
                raise

    def _start_admitted(self) -> None:
        try:
            if self.service is not None:
                self.service.start()
        except (SOCKSError, OSError) as problem:
            self.refuse(problem)

    def _enter_rule(self, rule: Rule) -> None:
        super()._enter_rule(rule)
        if self.context.ledger.store is not None:
            self._share()

    @property
    def unadmitted(self) -> bool:
        """Whether the store may have to be waited for before the request is granted."""
        return self.allowance is not None and self.context.ledger.store is not None

    def admit(self, result: T, then: Callable[[T], None]) -> None:
        """Go on with *result* when the store has admitted the session; otherwise discard it."""
        try:
            pending = self._share()
        except OverLimit as problem:
            self._discard(None, result)
            self.refuse(problem)
            return
        if pending:
            self.wait(self._admitted().addErrback(self._discard, result), lambda _: then(result))
        else:
            then(result)

    def _share(self, kind: str | None = None) -> bool:
        """Ask about all that was not asked about yet; whether an answer is missing."""
        if kind is not None:
            return self._limited().share_for(self.client, kind, self._judged_by_store)
        return self.allowance is not None and self.allowance.share(self._judged_by_store)

    def _admitted(self) -> Deferred[None]:
        self._admission = Deferred()
        return self._admission

    def _judged_by_store(self, problem: OverLimit | None) -> None:
        """An answer is there; *problem* is why the session is refused."""
        admission = self._admission
        if problem is None:
            if admission is not None and (self.allowance is None or not self.allowance.unanswered):
                self._admission = None
                admission.callback(None)
        elif admission is not None:
            self._admission = None
            admission.errback(problem)
        elif self.service is not None and self.service.granted:
            self.service.abort(Cause.NODES)
        elif self.ended is None and self._give_up():
            self.refuse(problem)
