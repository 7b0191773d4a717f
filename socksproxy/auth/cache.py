"""
Passwords that were right a moment ago.

SOCKS authenticates every connection, a browser opens fifty of them at once, and
a password's hash is slow by intent. What is remembered of a password is a MAC
under a key that only this process has had, and only while it runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import blake2s
from hmac import compare_digest
from typing import Any, NamedTuple, TypeAlias

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .faults import told
from .known import knows
from .threads import NotChecked

_log = Logger(namespace="socksproxy")

#: What a checker says of somebody whom it knows.
AvatarId: TypeAlias = "bytes | str | tuple[()]"

#: Seconds that a check may be under way and others join it; what hangs must not hold up who comes later.
SHARE = 3.0


class _Verified(NamedTuple):
    """
    What a checker has said.

    :ivar mac: of the user's name and password.
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


@implementer(ICredentialsChecker)
class Remembering:
    """
    Asks another checker of usernames and passwords, and remembers for a while what was right.

    It remembers one password of a user's, the last that was right, and that no
    longer than until one of theirs is wrong, or the checker's ``version`` (an int that grows
    whenever what it knows has changed; a checker need not have it) is another one. What is wrong is not
    remembered, but who asks the same while it is checked gets the same answer.

    :param checker: knows the passwords.
    :param clock: tells the time.
    :param seconds: how long a password is remembered, from when the checker was asked; 0: not at all.
    :param most: how many users' are; after that the one remembered longest is forgotten.
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
        # Copied for each password: its key is worked in already.
        self._keyed = blake2s(key=random(blake2s.MAX_KEY_SIZE))
        self._verified: dict[bytes, _Verified] = {}
        self._underway: dict[bytes, _Check] = {}

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
        keyed = self._keyed.copy()
        # With its length before it, no other name and password make the same bytes.
        keyed.update(len(username).to_bytes(4, "big") + username + credentials.password)
        mac = keyed.digest()
        version: int = getattr(self.checker, "version", 0)
        now = self._clock.seconds()
        known = self._verified.get(username)
        if (
            known is not None
            and known.version == version
            and now < known.until
            and compare_digest(known.mac, mac)
        ):
            return known.avatar_id
        check = self._underway.get(mac)
        if check is not None and check.version == version and now - check.began < SHARE:
            return self._wait(check)
        return self._ask(credentials, _Check(username, mac, version, now))

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
        self._over(check)
        if check.asked is None:
            return
        try:
            check.asked.cancel()
        except Exception:
            # It is somebody else's, and nobody waits for it any more.
            _log.error("the check of a password cannot be cancelled: {problem}", problem=told(Failure()))

    def _right(self, avatar_id: AvatarId, check: _Check) -> None:
        self._over(check)
        until = check.began + self._seconds
        if self._clock.seconds() < until:
            self._remember(check.username, _Verified(check.mac, avatar_id, check.version, until))
        for answer in check.answered():
            answer.callback(avatar_id)

    def _wrong(self, failure: Failure, check: _Check) -> None:
        self._over(check)
        if failure.check(UnauthorizedLogin) and not failure.check(NotChecked):
            # Somebody else's wrong password costs the user one check, and no more.
            self._verified.pop(check.username, None)
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
