"""Whether a user is still there, asked without a password: see :mod:`socksproxy.auth.known`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.task import Clock

from socksproxy.auth.cache import Remembering
from socksproxy.auth.chain import Chain
from socksproxy.auth.checkers.threads import CheckThreads, ThreadedChecker
from socksproxy.auth.known import knows


class Mute:
    """It cannot tell."""

    credentialInterfaces = (IUsernamePassword,)

    def requestAvatarId(self, credentials: Any) -> Any:
        raise AssertionError("nobody is to log in")


class Knows(Mute):
    """It knows *users*, and no others."""

    def __init__(self, *users: bytes) -> None:
        self.users = users

    def knows(self, avatar_id: bytes) -> bool:
        return avatar_id in self.users


@pytest.mark.parametrize(
    ("checkers", "answer"),
    [
        ([Knows(b"bob")], True),
        ([Knows(b"eve")], False),
        ([Mute()], None),
        ([Knows(b"eve"), Knows(b"bob")], True),
        ([Knows(b"eve"), Knows()], False),
        ([Mute(), Knows(b"bob")], True),
        ([Mute(), Knows(b"eve")], None),
    ],
)
def test_knows(checkers: list[Any], answer: bool | None) -> None:
    """Of several one has to know the user, or all that there is none; what stands between only asks."""
    clock: Any = Clock()
    threaded = [ThreadedChecker(checker, CheckThreads(clock)) for checker in checkers]
    for each in (checkers, threaded):
        chain = Chain(IUsernamePassword, each, clock)
        assert knows(chain, b"bob") is answer
        assert knows(Remembering(chain, clock), b"bob") is answer
