"""
Authentication methods (RFC 1928, section 3): a conversation that ends in credentials.

A method of somebody else's is an :class:`IMethod` too, and is given to the
factory beside ours. It is sans-io: bytes go in and what is to be done comes out.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from twisted.cred.credentials import ICredentials
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface, implementer

from ..wire.password import SUCCESS, build_status, parse_credentials
from ..wire.socks5 import build_choice
from ..wire.words import Method
from .credentials import Anonymous, IAnonymous, IUsernamePassword, Password


class Say(NamedTuple):
    """Send *data* to the client, and go on listening."""

    data: bytes


class LogIn(NamedTuple):
    """Ask the portal for the user of *credentials*; the exchange is then told what came of it."""

    credentials: ICredentials


#: Something that takes time; no bytes are given to the exchange before, and a failure ends the conversation.
Waiting: TypeAlias = "Deferred[Say | LogIn]"

#: What an exchange wants done next. None: it needs more bytes.
Move: TypeAlias = "Say | LogIn | Waiting | None"


class IWrapping(Interface):
    """
    What a method has agreed on for the bytes after it: each way they are encapsulated.

    It neither blocks nor keeps more than one unfinished message of the client's.
    """

    def wrap(data: bytes) -> bytes:
        """*data* as the client is to get it: one message or several."""

    def unwrap(data: bytes) -> bytes:
        """
        What is whole in the client's stream with *data* added; the rest is kept.

        :raises ProtocolError: when it cannot be: the session ends.
        """

    def wrap_datagram(data: bytes) -> bytes:
        """One datagram, header and all, as the client is to get it."""

    def unwrap_datagram(data: bytes) -> bytes:
        """
        One datagram of the client's.

        :raises ProtocolError: when it cannot be: the datagram is dropped.
        """


class IExchange(Interface):
    """One client's conversation in a method."""

    def receive(data: bytes) -> tuple[int, Move]:
        """
        Take bytes from the client.

        It is first called with what has come behind the greeting, which may be
        nothing; then whenever there is more, or with what was not taken when it last had something to say.

        :returns: how many bytes were taken, and what is to be done.
        :raises ProtocolError: when the client breaks the method's protocol; :meth:`judged` is then asked
            for what to say last.
        """

    def judged(granted: bool) -> bytes:
        """What is to be sent once the portal has decided; nothing comes after it here."""

    def wrapping() -> IWrapping | None:
        """How the bytes after a granted exchange are encapsulated; None: they are not."""


class IMethod(Interface):
    """An authentication method."""

    number = Attribute("Its number in the client's greeting.")
    name = Attribute("Its name in the access record: a word.")
    credentials = Attribute("The interface of the credentials that it ends in.")

    def begin(client: Any) -> IExchange:
        """
        Begin a conversation.

        :param client: the :class:`~socksproxy.policy.Client`.
        """


@implementer(IExchange)
class Immediate:
    """Nothing is asked: the credentials are there before the method is chosen."""

    __slots__ = ("_credentials",)

    def __init__(self, credentials: ICredentials) -> None:
        self._credentials = credentials

    def receive(self, data: bytes) -> tuple[int, Move]:
        """See :meth:`IExchange.receive`."""
        return 0, LogIn(self._credentials)

    def judged(self, granted: bool) -> bytes:
        """See :meth:`IExchange.judged`: the choice of the method, or that there is none."""
        return _CHOSEN if granted else _NONE_CHOSEN

    def wrapping(self) -> IWrapping | None:
        """See :meth:`IExchange.wrapping`."""
        return None


_CHOSEN = build_choice(Method.NO_AUTHENTICATION)
_NONE_CHOSEN = build_choice(Method.NO_ACCEPTABLE)


@implementer(IMethod)
class NoAuthentication:
    """
    Method 0: the client has nothing to say.

    :param shown: what is known of it without that.
    :param name: how that is called in the access record.
    """

    number = Method.NO_AUTHENTICATION
    credentials = IAnonymous

    def __init__(self, shown: ICredentials | None = None, name: str = "anonymous") -> None:
        self.name = name
        self._shown = Anonymous() if shown is None else shown

    def begin(self, client: Any) -> IExchange:
        """See :meth:`IMethod.begin`."""
        return Immediate(self._shown)


@implementer(IExchange)
class _AskPassword:
    """The sub-negotiation of RFC 1929."""

    __slots__ = ()

    def receive(self, data: bytes) -> tuple[int, Move]:
        """See :meth:`IExchange.receive`."""
        parsed = parse_credentials(data)
        if parsed is None:
            return 0, None
        (username, password), taken = parsed
        return taken, LogIn(Password(username, password))

    def judged(self, granted: bool) -> bytes:
        """See :meth:`IExchange.judged`."""
        return _GRANTED if granted else _DENIED

    def wrapping(self) -> IWrapping | None:
        """See :meth:`IExchange.wrapping`."""
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
        """See :meth:`IMethod.begin`."""
        return _ASK_PASSWORD
