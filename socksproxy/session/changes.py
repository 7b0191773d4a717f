"""
How a session follows changes of the policy, the users, the limits and the hours of rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.cred.error import LoginFailed
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..commands.associate import Associate
from ..errors import NotAllowed
from ..events import Cause
from ..logs.redaction import redacted
from ..net.dial import Dialed
from ..policy import IPolicy
from ..policy.asking import answer_at_once, still_permitted
from ..wire.words import Address, Command
from .permission import Permission
from .routing import RoutedSession

_log = Logger(namespace="socksproxy")

T = TypeVar("T")


class FollowingSession(RoutedSession):
    """
    A session that follows changes.

    Strategy: the policy is asked at once about a session that has led to an address already; a session that
    is not permitted any more ends. About any other session the policy is asked when its address is known
    (:meth:`confirm`). A relay keeps its :class:`Permission` until the answer of the policy in force is
    there: until then the rules that have allowed the relay hold for it.
    """

    __slots__ = ()

    def limits_changed(self) -> None:
        """The limits may have changed: the session goes on under the limits that hold now."""
        service = self.service
        peers = None if service is None else service.peers
        rules = [rule for rule in map(self.rule, peers) if rule is not None] if peers else None
        self._limited().follow(self.client, self._request is not None, rules)
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
        service, policy = self.service, self.context.deciding
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
        answer = self._asked_again(new, service.peers)
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
        self._stop_judging()
        renewal = self._renewal()
        if renewal is None:
            self._judge(otherwise)
        else:
            self._wait_for_judgement(renewal, lambda _: self._judge(otherwise), otherwise)

    def _wait_for_judgement(
        self, pending: Deferred[Any], then: Callable[[Any], None], otherwise: Cause
    ) -> None:
        """Go on with *then* when *pending* fires; the session goes on meanwhile, whatever it waits for."""
        self._judging = pending
        pending.addCallbacks(then, self._not_judged, errbackArgs=(otherwise,))
        pending.addErrback(self._broke)

    def _stop_judging(self) -> None:
        judging, self._judging = self._judging, None
        if judging is not None:
            judging.cancel()

    def _renewal(self) -> Deferred[Any] | None:
        """
        Finds out whether the client is still known, if something else asks clients who they are now.

        :raises UnauthorizedLogin: (by the Deferred) when it is not.
        """
        authentication, login = self.context.authentication, self.login
        if authentication is self._authentication:
            return None
        if authentication is not None:
            self.login = login = login or self.login_by(None)
            return login.renew(authentication)
        if login is not None:
            login.forget()
        return None

    def _judge(self, otherwise: Cause) -> None:
        """Ask the policy in force about what the session has led to."""
        self._judging = None
        service = self.service
        if service is None or not (service.granted or service.peers):
            self._policy = None  # what comes of it is judged when it is there
            self.limits_changed()
            return
        self._policy = self.context.policy
        permission = self._new_permission(None)
        if isinstance(service, Associate) or not service.granted:
            # The next datagrams, and who comes to a BIND, are under the rules that hold now.
            self.permission = permission
        if isinstance(service, Associate):
            if permission is not None:
                permission.enter = self._enter_rule
            if self.allowance is not None:
                self.allowance.settle(None)
        answer = service.reconsider(permission or self.context.policy)
        if isinstance(answer, Deferred):
            self._wait_for_judgement(
                answer, lambda permitted: self._judged(permitted, permission, otherwise), otherwise
            )
        else:
            self._judged(answer, permission, otherwise)

    def _asked_again(self, policy: IPolicy, reached: Sequence[Address]) -> bool | Deferred[bool]:
        """Whether *policy* permits the request, which has led to *reached*."""
        request = self.request
        return still_permitted(policy, self.client, Command(request.command), request.destination, reached)

    def _judged(self, permitted: bool, permission: Permission | None, otherwise: Cause) -> None:
        self._judging = None
        self.permission = permission
        if not permitted:
            self._forbid(otherwise)
            return
        if permission is not None:
            permission.enter = self._enter_rule  # for peers that come to a BIND later
        self.limits_changed()

    def _not_judged(self, failure: Failure, otherwise: Cause) -> None:
        if self._judging is None:
            return  # it was cancelled
        self._judging = None
        self._complain_of(failure)
        self._forbid(otherwise)

    def _complain_of(self, failure: Failure) -> None:
        """*failure* is why the session cannot be judged; a client that is not known any more is none."""
        if not failure.check(LoginFailed):
            _log.error(
                "{client}: whether it is still permitted cannot be found out, so it is not: {problem}",
                client=self.client,
                problem=redacted(failure),
            )

    def _forbid(self, cause: Cause) -> None:
        if self.service is not None and self.service.granted:
            self.service.abort(cause)
        elif self._give_up():
            self.refuse(NotAllowed(cause.value.words))

    def _not_renewed(self, problem: Exception) -> None:
        """Nothing vouches for the client any more, or nothing can tell."""
        self._complain_of(Failure(problem))
        self.refuse(NotAllowed(Cause.FORBIDDEN.value.words))

    def confirm(self, reached: Sequence[Address], result: T, then: Callable[[T], None]) -> None:
        """Go on with *result*, which old rules have led to, if the present rules permit *reached*."""
        self._policy = self.context.policy
        permission = self._new_permission(self._enter_rule)

        def judged(permitted: bool) -> None:
            self.permission = permission
            if permitted:
                then(result)
            else:
                self._discard(None, result)
                self.refuse(NotAllowed(Cause.FORBIDDEN.value.words))

        answer = self._asked_again(permission or self.context.policy, reached)
        if isinstance(answer, Deferred):
            self.wait(answer.addErrback(self._discard, result), judged)
        else:
            judged(answer)

    def _discard(self, failure: Failure | None, result: object) -> Failure | None:
        if isinstance(result, Dialed):
            self.context.discard(result.link)
        return failure
