"""
Users: the avatars that a portal gives for credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.cred.checkers import ANONYMOUS
from twisted.cred.portal import IRealm
from zope.interface import implementer

from ..identity import Client, ISOCKSUser
from ..wire.words import Address, Command


@implementer(ISOCKSUser)
class User:
    """
    A user who may do all that the server's policy permits.

    :param name: the name; None: the user is anonymous.
    :param groups: the user's groups, for rules.
    """

    __slots__ = ("groups", "name")

    def __init__(self, name: str | None, groups: Iterable[str] = ()) -> None:
        self.name = name
        self.groups = frozenset(groups)

    def permits(self, client: Client, command: Command, destination: Address) -> bool:
        return True


@implementer(IRealm)
class Realm:
    """Gives a user for every name that a checker vouches for, and an anonymous user without a name."""

    def requestAvatar(
        self, avatarId: Any, mind: object, *interfaces: Any
    ) -> tuple[Any, ISOCKSUser, Callable[[], None]]:
        """
        See :meth:`twisted.cred.portal.IRealm.requestAvatar`.

        :param mind: the :class:`~socksproxy.identity.Client`.
        """
        if ISOCKSUser not in interfaces:
            raise NotImplementedError("the only avatars here are ISOCKSUsers")
        return ISOCKSUser, self.user(None if avatarId is ANONYMOUS else name_of(avatarId)), _nothing

    def user(self, name: str | None) -> User:
        """
        The user *name*.

        :param name: None: the user is anonymous.
        """
        return User(name)


def name_of(avatar_id: str | bytes) -> str:
    """A checker's *avatar_id* as text; bytes that are not UTF-8 become surrogates (surrogateescape)."""
    return avatar_id if isinstance(avatar_id, str) else avatar_id.decode("utf-8", "surrogateescape")


def bytes_of(name: str | bytes) -> bytes:
    """The bytes for which :func:`name_of` gives *name*."""
    return name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name


def _nothing() -> None:
    """Do nothing at the end of the session."""
