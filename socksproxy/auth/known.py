"""
What a checker may be asked beside :meth:`~twisted.cred.checkers.ICredentialsChecker.requestAvatarId`.

A checker may have a method ``knows(avatar_id)``: True, False, or None where it cannot tell. It is asked in
the reactor's thread, without a password, when users may have changed, and must not block.

A checker may have a method ``recall(credentials)``: what it remembers of them (:class:`Recall`), at once and
without a check.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any


class Recall(Enum):
    """What is remembered of credentials."""

    #: They were right a moment ago.
    RIGHT = auto()
    #: They were wrong a moment ago.
    WRONG = auto()
    #: The user's password was another one a moment ago.
    OTHER = auto()
    #: Nothing.
    NOTHING = auto()


def knows(checker: Any, avatar_id: Any) -> bool | None:
    """What *checker* says of *avatar_id*; None: it cannot tell, and nobody is sent away for that."""
    ask = getattr(checker, "knows", None)
    if ask is None:
        return None
    answer: bool | None = ask(avatar_id)
    return answer


def inner(checker: Any) -> list[Any]:
    """The checkers that *checker* asks itself, which stand in its ``checker`` or ``checkers``."""
    asked = getattr(checker, "checkers", None) or (getattr(checker, "checker", None),)
    return [one for one in asked if one is not None]


def tells_changes(checker: Any) -> bool:
    """Whether *checker* has a ``version``, an int that grows whenever what it knows has changed."""
    told: bool | None = getattr(checker, "tells_changes", None)
    return hasattr(checker, "version") if told is None else told


def recalls(checker: Any, credentials: Any) -> Recall:
    """What *checker* remembers of *credentials*."""
    ask = getattr(checker, "recall", None)
    if ask is None:
        return Recall.NOTHING
    answer: Recall = ask(credentials)
    return answer
