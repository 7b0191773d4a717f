"""
Authentication methods (RFC 1928, section 3): conversations that end in credentials.

A method is sans-io: bytes go in and moves come out (:class:`~socksproxy.negotiation.IMethod`). The factory
takes other methods beside these. The move that leaves the negotiation is a
:class:`~socksproxy.negotiation.LogIn`, whose credentials the portal checks, or a Deferred that fires with the
method's next move. The exchange gets no bytes before the Deferred fires, and a failure ends the conversation.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.credentials import ICredentials
from zope.interface import implementer

from ..negotiation import IExchange, IMethod, Immediate, IWrapping, LogIn
from ..wire.password import SUCCESS, build_status, parse_credentials
from ..wire.words import Method
from .credentials import Anonymous, IAnonymous, IUsernamePassword, Password


@implementer(IMethod)
class NoAuthentication:
    """
    Method 0: the client sends nothing.

    :param shown: the credentials that are known anyway; None: there are none.
    :param name: the name of the method in the access record.
    """

    number = Method.NO_AUTHENTICATION
    credentials = IAnonymous

    def __init__(self, shown: ICredentials | None = None, name: str = "anonymous") -> None:
        self.name = name
        self._shown = Anonymous() if shown is None else shown

    def begin(self, client: Any) -> IExchange:
        return Immediate(self._shown)


@implementer(IExchange)
class _AskPassword:
    """The sub-negotiation of RFC 1929."""

    __slots__ = ()

    def receive(self, data: bytes) -> tuple[int, object]:
        # Most clients wait for the choice of the method.
        parsed = parse_credentials(data) if data else None
        if parsed is None:
            return 0, None
        (username, password), taken = parsed
        return taken, LogIn(Password(username, password))

    def judged(self, granted: bool) -> bytes:
        return _GRANTED if granted else _DENIED

    def wrapping(self) -> IWrapping | None:
        return None


_GRANTED = build_status(SUCCESS)
_DENIED = build_status(1)
_ASK_PASSWORD = _AskPassword()


@implementer(IMethod)
class UsernamePassword:
    """Method 2: a username and password (RFC 1929)."""

    number = Method.USERNAME_PASSWORD
    name = "password"
    credentials = IUsernamePassword

    def begin(self, client: Any) -> IExchange:
        return _ASK_PASSWORD
