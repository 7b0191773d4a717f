"""
Passwords that were right or wrong a moment ago.

SOCKS authenticates every connection, a browser opens fifty of them at once, and a password's hash is slow by
intent. So a right password is remembered for a while, and so is a wrong one: a program with an old password
repeats it with each connection. What is remembered of a password is its fingerprint
(:mod:`socksproxy.auth.fingerprints`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hmac import compare_digest
from typing import Any, NamedTuple, TypeAlias

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..logs.redaction import redacted
from .fingerprints import Fingerprints
from .known import Recall, knows, tells_changes

_log = Logger(namespace="socksproxy")

#: What a checker says of somebody whom it knows.
AvatarId: TypeAlias = "bytes | str | tuple[()]"

#: Seconds that a check may be under way and others join it; what hangs must not hold up who comes later.
SHARE = 3.0
#: Seconds that a wrong password is remembered, at the most: it may have become right without our knowledge.
WRONG = 60.0


class _Verified(NamedTuple):
    """
    What a checker has said.

    :ivar mac: the fingerprint of the user's name and password.
    :ivar version: the checker's, when it was asked.
    :ivar until: the clock's seconds.
    """

    mac: bytes
    avatar_id: AvatarId
    version: int
    until: float


class _Check:
    """One check that is under way, and who waits for it."""

    __slots__ = ("asked", "began", "mac", "username", "version", "waiting")

    def __init__(self, username: bytes, mac: bytes, version: int, began: float) -> None:
        self.username = username
        self.mac = mac
        self.version = version
        self.began = began
        self.asked: Deferred[Any] | None = None
        self.waiting: list[Deferred[AvatarId]] = []

    def answered(self) -> Iterator[Deferred[AvatarId]]:
        """Each who waits, no longer after this; what one does with the answer may cancel the next."""
        while self.waiting:
            yield self.waiting.pop(0)


class _Wrong(NamedTuple):
    """
    A checker's no.

    :ivar version: the checker's, when it was asked.
    :ivar took: seconds until the checker's answer.
    """

    version: int
    took: float


class _Recent:
    """
    What is known of fingerprints for some seconds.

    :param clock: tells the time.
    :param seconds: how long.
    :param most: how many; the oldest makes room.
    """

    def __init__(self, clock: IReactorTime, seconds: float, most: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._most = most
        self._known: dict[bytes, tuple[float, Any]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, mac: bytes) -> Any:
        """What was put there of *mac*; None: nothing, or too long ago."""
        until, what = self._known.get(mac, (0.0, None))
        return what if self._clock.seconds() < until else None

    def put(self, mac: bytes, what: Any) -> None:
        """Know *what* of *mac* from now on."""
        self._known.pop(mac, None)  # to the end of the queue
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[mac] = self._clock.seconds() + self._seconds, what

    def discard(self, mac: bytes) -> None:
        """Know nothing of *mac*."""
        self._known.pop(mac, None)


@implementer(ICredentialsChecker)
class Remembering:
    """
    Asks another checker of usernames and passwords, and remembers for a while what was right and what wrong.

    It remembers one password of a user's, the last that was right, until the checker's ``version`` (an int
    that grows whenever what it knows has changed; a checker need not have it) is another one. Wrong
    passwords that others show as that user change nothing. A password that is being checked is not checked
    again, nor is one that was wrong lately, where the checker has a version; the answer takes as long as
    the check did.

    :param checker: knows the passwords.
    :param clock: tells the time.
    :param seconds: how long a password is remembered, from when the checker was asked; 0: not at all. A
        wrong one is remembered for :data:`WRONG` seconds at the most.
    :param most: how many users' passwords are, and how many wrong ones; after that the oldest is forgotten.
    :param random: gives so many random bytes.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        checker: Any,
        clock: IReactorTime,
        seconds: float = 60.0,
        most: int = 10_000,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.checker = checker
        self._clock = clock
        self._seconds = seconds
        self._most = most
        self._fingerprints = Fingerprints(random)
        self._verified: dict[bytes, _Verified] = {}
        self._underway: dict[bytes, _Check] = {}
        lasts = min(seconds, WRONG)
        self._refused = _Recent(clock, lasts, most)
        #: Passwords that were shown where a right one was remembered, and not checked: see recall().
        self._suspected = _Recent(clock, lasts, most)
        #: Passwords that were shown by clients who did not wait for the answer.
        self._abandoned = _Recent(clock, lasts, most)

    @property
    def remembered(self) -> int:
        """How many users' passwords are."""
        return len(self._verified)

    def knows(self, avatar_id: AvatarId) -> bool | None:
        """Whether *avatar_id* is still somebody's; None: the checker cannot tell."""
        return knows(self.checker, avatar_id)

    def requestAvatarId(self, credentials: Any) -> Any:
        """
        See :meth:`twisted.cred.checkers.ICredentialsChecker.requestAvatarId`.

        :returns: what is remembered, at once; else a Deferred of it. To cancel that leaves others who wait
            for the same check alone; where nobody does, the check is cancelled.
        """
        username: bytes = credentials.username
        mac = self._fingerprints.of(username, credentials.password)
        version: int = getattr(self.checker, "version", 0)
        known = self._right_one(username, version)
        if known is not None and compare_digest(known.mac, mac):
            return known.avatar_id
        wrong: _Wrong | None = self._refused.get(mac)
        if wrong is not None and wrong.version == version:
            return self._refuse_again(wrong)
        now = self._clock.seconds()
        check = self._underway.get(mac)
        if check is not None and check.version == version and now - check.began < SHARE:
            return self._wait(check)
        return self._ask(credentials, _Check(username, mac, version, now))

    def recall(self, credentials: Any) -> Recall:
        """
        What is remembered of *credentials*, without a check.

        :returns: another password than the one remembered is :attr:`Recall.OTHER` the first time, and
            :attr:`Recall.WRONG` when it is repeated.
        """
        mac = self._fingerprints.of(credentials.username, credentials.password)
        version: int = getattr(self.checker, "version", 0)
        known = self._right_one(credentials.username, version)
        if known is not None and compare_digest(known.mac, mac):
            return Recall.RIGHT
        wrong: _Wrong | None = self._refused.get(mac)
        if (wrong is not None and wrong.version == version) or self._suspected.get(mac):
            return Recall.WRONG
        if known is None:
            return Recall.NOTHING
        self._suspected.put(mac, True)
        return Recall.OTHER

    def _right_one(self, username: bytes, version: int) -> _Verified | None:
        known = self._verified.get(username)
        if known is None or known.version != version or self._clock.seconds() >= known.until:
            return None
        return known

    def _refuse_again(self, wrong: _Wrong) -> Deferred[AvatarId]:
        """Say no once more, when a check would have said it."""
        if wrong.took <= 0:
            return fail(UnauthorizedLogin())
        answer: Deferred[AvatarId] = Deferred(lambda _: timer.cancel())
        timer = self._clock.callLater(wrong.took, lambda: answer.errback(UnauthorizedLogin()))
        return answer

    def _ask(self, credentials: Any, check: _Check) -> Deferred[AvatarId]:
        answer = self._wait(check)
        self._underway[check.mac] = check
        check.asked = maybeDeferred(self.checker.requestAvatarId, credentials)
        check.asked.addCallbacks(self._right, self._wrong, callbackArgs=(check,), errbackArgs=(check,))
        return answer

    def _wait(self, check: _Check) -> Deferred[AvatarId]:
        answer: Deferred[AvatarId] = Deferred(lambda gone: self._leave(check, gone))
        check.waiting.append(answer)
        return answer

    def _leave(self, check: _Check, gone: Deferred[AvatarId]) -> None:
        check.waiting.remove(gone)
        if check.waiting:
            return
        if self._abandoned.get(check.mac):
            # The same password comes again and again. So its check goes on, and there will be an answer.
            return
        self._abandoned.put(check.mac, True)
        self._over(check)
        if check.asked is None:
            return
        try:
            check.asked.cancel()
        except Exception:
            # It is somebody else's, and nobody waits for it any more.
            _log.error("the check of a password cannot be cancelled: {problem}", problem=redacted(Failure()))

    def _right(self, avatar_id: AvatarId, check: _Check) -> None:
        self._over(check)
        self._refused.discard(check.mac)
        self._suspected.discard(check.mac)
        until = check.began + self._seconds
        if self._clock.seconds() < until:
            self._remember(check.username, _Verified(check.mac, avatar_id, check.version, until))
        for answer in check.answered():
            answer.callback(avatar_id)

    def _wrong(self, failure: Failure, check: _Check) -> None:
        self._over(check)
        if type(failure.value) is UnauthorizedLogin and tells_changes(self.checker):
            # A refusal of another kind has a reason that may be gone with the next attempt.
            self._refused.put(check.mac, _Wrong(check.version, self._clock.seconds() - check.began))
            known = self._verified.get(check.username)
            if known is not None and compare_digest(known.mac, check.mac):
                del self._verified[check.username]  # it was right, and is not any more
        for answer in check.answered():
            answer.errback(failure)

    def _over(self, check: _Check) -> None:
        if self._underway.get(check.mac) is check:
            del self._underway[check.mac]

    def _remember(self, username: bytes, verified: _Verified) -> None:
        self._verified.pop(username, None)  # to the end of the queue
        if len(self._verified) >= self._most:
            del self._verified[next(iter(self._verified))]
        self._verified[username] = verified
