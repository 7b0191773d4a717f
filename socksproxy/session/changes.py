"""
How a session follows changes of the policy, the users, the limits and the hours of rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.cred.error import LoginFailed
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..commands.associate import Associate
from ..errors import (
    NotAllowed,
)
from ..events import Cause
from ..logs.redaction import redacted
from ..net.dial import Dialed
from ..policy.asking import answer_at_once, ask_again
from ..policy.rules import Rule
from ..wire.words import Address, Command
from .parts import SessionParts
from .permission import Permission

_log = Logger(namespace="socksproxy")

T = TypeVar("T")


class FollowingSession(SessionParts):
    """
    A session that follows changes.

    Strategy: a session that has led to an address already is asked about at once, and ends if it is not
    permitted any more. One that has not is asked about when its address is known (:meth:`confirm`).
    """

    __slots__ = ()

    def limits_changed(self) -> None:
        """The limits may have changed: the session goes on under those that hold now."""
        service = self.service
        peers = None if service is None else service.peers
        rules = [rule for rule in map(self.rule, peers) if rule is not None] if peers else None
        self._limited().renew(self.client, self._request is not None, rules)
        if service is not None:
            service.limits_changed()

    def hours_changed(self) -> None:
        """
        Hours of rules that end sessions have begun or ended.

        The session is judged again if such a rule has allowed it and its hours are over, or denies it now.
        """
        if self._is_underway and self.permission is not None and self._is_out_of_hours(self.permission):
            self.reconsider(Cause.HOURS)

    def _is_out_of_hours(self, permission: Permission) -> bool:
        service, policy, request = self.service, self.context.deciding, self.request
        reached = None if service is None else service.reached
        if permission.is_out_of_hours(self.context.hours.awake, reached):
            return True
        if isinstance(service, Associate) and service.granted:
            # Its destinations are asked about every few seconds; one without any has no rule yet.
            return not any(permission.effects()) and not service.permitted()
        if service is None or service.peers is None:
            return False  # what comes of it is being asked about
        assert policy is not None
        new = Permission(policy)
        answer = ask_again(new, self.client, Command(request.command), request.destination, service.peers)
        latest = new.latest
        # A user's answer that takes its time says nothing about hours; the rules have answered.
        if answer_at_once(answer, latest is not None and latest.allowed):
            return False
        rule = None if latest is None else latest.effect
        return rule is not None and rule.ends_sessions

    def reconsider(self, otherwise: Cause = Cause.FORBIDDEN) -> None:
        """
        The policy or the users have changed: a session that is not permitted any more ends.

        :param otherwise: how it ends then.
        """
        if not self._is_underway:
            return  # it has not asked for anything yet, or is about to end
        self._stop_asking()
        self._asked = asked = self._known_again()
        asked.addCallback(lambda _: self._permitted_again())
        asked.addCallbacks(self._judged_again, self._not_judged_again, (otherwise,), {}, (otherwise,))
        asked.addErrback(self._broke)

    def _stop_asking(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.cancel()

    def _known_again(self) -> Deferred[Any]:
        """
        Find out whether the client is still known, by what asks now.

        :raises UnauthorizedLogin: (by the Deferred) when it is not.
        """
        authentication, login = self.context.authentication, self.login
        if authentication is self._asked_by:
            return succeed(None)
        if authentication is not None:
            self.login = login = login or self.login_by(None)
            return login.renew(authentication)
        if login is not None:
            login.forget()
        return succeed(None)

    def _permitted_again(self) -> bool | Deferred[bool]:
        service = self.service
        if service is None or not (service.granted or service.peers):
            self._policy = None  # what comes of it is judged when it is there
            return True
        self._policy = self.context.policy
        self._consider_again(self._enter_rule if isinstance(service, Associate) else None)
        return service.reconsider()

    def ask_again(self, reached: Sequence[Address]) -> bool | Deferred[bool]:
        """Whether the request, which has led to *reached*, is still permitted."""
        request = self.request
        return ask_again(self.policy, self.client, Command(request.command), request.destination, reached)

    def _consider_again(self, enter: Callable[[Rule], None] | None) -> None:
        policy = self.context.deciding
        if policy is None:
            self.permission = None
        else:
            self._consider(policy, enter)

    def _judged_again(self, permitted: bool, otherwise: Cause) -> None:
        self._asked = None
        if permitted:
            if self.permission is not None:
                self.permission.enter = self._enter_rule  # for who is yet to come to a BIND
            self.limits_changed()
        else:
            self._forbid(otherwise)

    def _not_judged_again(self, failure: Failure, otherwise: Cause) -> None:
        if self._asked is None:
            return  # it was cancelled
        self._asked = None
        if not failure.check(LoginFailed):
            _log.error(
                "{client}: nobody can tell whether it is still permitted, so it is not: {problem}",
                client=self.client,
                problem=redacted(failure),
            )
        self._forbid(otherwise)

    def _forbid(self, cause: Cause) -> None:
        if self.service is not None and self.service.granted:
            self.service.abort(cause)
        elif self._give_up():
            self._refuse_again(cause)

    def _refuse_again(self, cause: Cause = Cause.FORBIDDEN) -> None:
        self.refuse(NotAllowed(cause.value.words))

    def confirm(self, reached: Sequence[Address], result: T, then: Callable[[T], None]) -> None:
        """Go on with *result*, which old rules have led to, if those that hold now permit *reached*."""
        self._policy = self.context.policy
        self._consider_again(self._enter_rule)
        asked: Deferred[Any] = maybeDeferred(self.ask_again, reached)
        asked.addCallback(_required, result).addErrback(self._discard, result)
        self.wait(asked, then)

    def _discard(self, failure: Failure, result: object) -> Failure:
        if isinstance(result, Dialed):
            self.context.discard(result.link)
        return failure


def _required(permitted: bool, result: T) -> T:
    if not permitted:
        raise NotAllowed(Cause.FORBIDDEN.value.words)
    return result
