"""
Passwords that were right or wrong a moment ago.

Strategy: SOCKS authenticates every connection, a browser opens fifty connections at once, and a password's
hash is slow by intent. So a right password is remembered for a while. A wrong one is remembered, too, because
a program with an old password repeats it with each connection. Only a fingerprint of a password is kept
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
from ..runtime.recent import Recent
from .fingerprints import Fingerprints
from .known import Recall, tells_changes, versioned

_log = Logger(namespace="socksproxy")

#: A checker's name for a user.
AvatarId: TypeAlias = "bytes | str | tuple[()]"

#: Seconds in which other clients may join a check that runs; a check that hangs must not hold up later ones.
SHARE = 3.0
#: The longest time in seconds for which a wrong password is remembered: it may have become right unnoticed.
WRONG = 60.0


class _Verified(NamedTuple):
    """
    A checker's yes.

    :ivar mac: the fingerprint of the user's name and password.
    :ivar version: the version of the checker when it was asked.
    """

    mac: bytes
    avatar_id: AvatarId
    version: int


class _Check:
    """One check that runs, and the Deferreds that wait for it."""

    __slots__ = ("asked", "began", "mac", "username", "version", "waiting")

    def __init__(self, username: bytes, mac: bytes, version: int, began: float) -> None:
        self.username = username
        self.mac = mac
        self.version = version
        self.began = began
        self.asked: Deferred[Any] | None = None
        self.waiting: list[Deferred[AvatarId]] = []

    def answered(self) -> Iterator[Deferred[AvatarId]]:
        """Take out each Deferred that waits. A callback of one may cancel the next."""
        while self.waiting:
            yield self.waiting.pop(0)


class _Wrong(NamedTuple):
    """
    A checker's no.

    :ivar version: the version of the checker when it was asked.
    :ivar took: the seconds until the checker's answer.
    """

    version: int
    took: float


@implementer(ICredentialsChecker)
class Remembering:
    """
    Asks another checker of usernames and passwords, and remembers its answers for a while.

    It remembers one password of each user, the last right one, until the checker's ``version`` changes
    (:mod:`socksproxy.auth.known`). Wrong passwords that others show as that user change nothing. A password
    whose check runs is not checked again. Where the checker has a version, neither is a password that was
    wrong lately; the answer takes as long as the check did.

    :param checker: checks the passwords.
    :param clock: tells the time.
    :param seconds: how long a password is remembered, from the moment when the checker was asked; 0: not at
        all. A wrong one is remembered for at most :data:`WRONG` seconds.
    :param most: how many users' passwords are remembered, and how many wrong ones; the oldest makes room.
    :param random: gives a number of random bytes.
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
        # Found once: every session looks at the versions.
        self._versioned = versioned(checker)
        self._clock = clock
        self._seconds = seconds
        self._wrong_for = min(seconds, WRONG)
        self._fingerprints = Fingerprints(random)
        self._underway: dict[bytes, _Check] = {}
        # The right passwords, by the user's name. The keys of the other tables are fingerprints.
        self._verified: Recent[bytes, _Verified] = Recent(clock, most)
        self._refused: Recent[bytes, _Wrong] = Recent(clock, most)
        # Passwords that recall() has compared with a right one, and found to be another one.
        self._suspected: Recent[bytes, bool] = Recent(clock, most)
        # Passwords of clients that did not wait for the answer.
        self._abandoned: Recent[bytes, bool] = Recent(clock, most)

    @property
    def remembered(self) -> int:
        """The number of users whose passwords are remembered."""
        return len(self._verified)

    def requestAvatarId(self, credentials: Any) -> Any:
        """
        See :meth:`twisted.cred.checkers.ICredentialsChecker.requestAvatarId`.

        :returns: at once what is remembered; else a Deferred. Cancelling it cancels the check if no other
            client waits for the same check.
        """
        avatar_id = self.right_one(credentials)
        if avatar_id is not None:
            return avatar_id
        username: bytes = credentials.username
        mac = self._fingerprints.of(username, credentials.password)
        version = self._version()
        wrong = self._refused.get(mac)
        if wrong is not None and wrong.version == version:
            return self._refuse_again(wrong)
        now = self._clock.seconds()
        check = self._underway.get(mac)
        if check is not None and check.version == version and now - check.began < SHARE:
            return self._wait(check)
        return self._ask(credentials, _Check(username, mac, version, now))

    def right_one(self, credentials: Any) -> AvatarId | None:
        """The checker's name for the user, if the password of *credentials* is remembered as right."""
        known = self._verified.get(credentials.username)
        if known is None or known.version != self._version():
            return None
        mac = self._fingerprints.of(credentials.username, credentials.password)
        return known.avatar_id if compare_digest(known.mac, mac) else None

    def _version(self) -> int:
        """A number that grows whenever users of the checker have changed, as far as it tells that."""
        return sum([getattr(one, "version", 0) for one in self._versioned]) if self._versioned else 0

    def recall(self, credentials: Any) -> Recall:
        """
        What is remembered of *credentials*, without a check.

        :returns: for another password than the remembered one :attr:`Recall.OTHER` the first time, and
            :attr:`Recall.WRONG` when it is repeated.
        """
        if self.right_one(credentials) is not None:
            return Recall.RIGHT
        mac = self._fingerprints.of(credentials.username, credentials.password)
        version = self._version()
        known = self._verified.get(credentials.username)
        wrong = self._refused.get(mac)
        if (wrong is not None and wrong.version == version) or self._suspected.get(mac):
            return Recall.WRONG
        if known is None or known.version != version:
            return Recall.NOTHING
        self._suspected.put(mac, True, self._wrong_for)
        return Recall.OTHER

    def _refuse_again(self, wrong: _Wrong) -> Deferred[AvatarId]:
        """Refuse once more, after the time that the check took."""
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
            # The same password comes again and again. So its check goes on until there is an answer.
            return
        self._abandoned.put(check.mac, True, self._wrong_for)
        self._over(check)
        if check.asked is None:
            return
        try:
            check.asked.cancel()
        except Exception:
            # The canceller is foreign code, and no client waits any more.
            _log.error("the check of a password cannot be cancelled: {problem}", problem=redacted(Failure()))

    def _right(self, avatar_id: AvatarId, check: _Check) -> None:
        self._over(check)
        self._refused.discard(check.mac)
        self._suspected.discard(check.mac)
        left = check.began + self._seconds - self._clock.seconds()
        if left > 0:
            self._verified.put(check.username, _Verified(check.mac, avatar_id, check.version), left)
        for answer in check.answered():
            answer.callback(avatar_id)

    def _wrong(self, failure: Failure, check: _Check) -> None:
        self._over(check)
        if type(failure.value) is UnauthorizedLogin and tells_changes(self.checker):
            # The reason of any other refusal may be gone with the next attempt.
            took = self._clock.seconds() - check.began
            self._refused.put(check.mac, _Wrong(check.version, took), self._wrong_for)
            known = self._verified.get(check.username)
            if known is not None and compare_digest(known.mac, check.mac):
                self._verified.discard(check.username)  # the password was right, and is not any more
        for answer in check.answered():
            answer.errback(failure)

    def _over(self, check: _Check) -> None:
        if self._underway.get(check.mac) is check:
            del self._underway[check.mac]
