"""
What a checker may be asked beside :meth:`~twisted.cred.checkers.ICredentialsChecker.requestAvatarId`.

All of this is optional:

* A method ``knows(avatar_id)`` returns True, False, or None when the checker cannot tell. It is called in the
  reactor's thread, without a password, when users may have changed, and must not block.
* An attribute ``version`` is an int that grows whenever the checker's users have changed. It is there from
  the start.
* A method ``recall(credentials)`` returns at once, without a check, what the checker remembers
  (:class:`Recall`).
* A method ``methods()`` returns the authentication methods that the checker brings along.
* A method ``retire()`` is called when another portal takes the place of the checker's. It ends what the
  checker has running, as soon as that has answered. A further question may start it again.

A checker that asks other checkers has them in its ``checker`` or ``checkers``. Where it does not answer
itself, they answer for it.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

from ..negotiation import IMethod


class Recall(Enum):
    """What is remembered of credentials."""

    #: They were right a moment ago.
    RIGHT = auto()
    #: They were wrong a moment ago.
    WRONG = auto()
    #: Another password of the user was right a moment ago.
    OTHER = auto()
    #: Nothing.
    NOTHING = auto()


def inner(checker: Any) -> list[Any]:
    """The checkers that *checker* asks."""
    asked = getattr(checker, "checkers", None) or (getattr(checker, "checker", None),)
    return [one for one in asked if one is not None]


def knows(checker: Any, avatar_id: Any) -> bool | None:
    """Whether *avatar_id* is still a user of *checker*; None: the checker cannot tell."""
    ask = getattr(checker, "knows", None)
    if ask is not None:
        answer: bool | None = ask(avatar_id)
        return answer
    answers = {knows(one, avatar_id) for one in inner(checker)} or {None}
    return True if True in answers else None if None in answers else False


def versioned(checker: Any) -> list[Any]:
    """*checker*, or those of the checkers that it asks, as far as they have a ``version``."""
    if getattr(checker, "version", None) is not None:
        return [checker]
    return [found for one in inner(checker) for found in versioned(one)]


def tells_changes(checker: Any) -> bool:
    """Whether *checker*, or each of the checkers that it asks, has a ``version``."""
    asked = inner(checker)
    return hasattr(checker, "version") or (bool(asked) and all(map(tells_changes, asked)))


def methods_of(checker: Any) -> list[IMethod]:
    """The authentication methods that *checker* and the checkers that it asks bring along."""
    own: list[IMethod] = getattr(checker, "methods", list)()
    return [*own, *(method for one in inner(checker) for method in methods_of(one))]


def retire(checker: Any) -> None:
    """Have *checker*, and the checkers that it asks, end what they have running."""
    getattr(checker, "retire", lambda: None)()
    for one in inner(checker):
        retire(one)


def recalls(checker: Any, credentials: Any) -> Recall:
    """What *checker* remembers of *credentials*."""
    answer: Recall = getattr(checker, "recall", lambda _: Recall.NOTHING)(credentials)
    return answer
