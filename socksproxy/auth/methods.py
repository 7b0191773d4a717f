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
from ..wire.words import Method, ProtocolError
from .credentials import Anonymous, Password


class Say(NamedTuple):
    """Send *data* to the client, and go on listening."""

    data: bytes


class LogIn(NamedTuple):
    """Ask the portal for the user of *credentials*; the exchange is then told what came of it."""

    credentials: ICredentials


#: What an exchange wants done next. None: it needs more bytes. A Deferred fires with one of the others;
#: no bytes are given to the exchange before, and its failure ends the conversation.
Move: TypeAlias = "Say | LogIn | Deferred[Say | LogIn] | None"


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
        nothing; then whenever there is more, with what was not taken before.

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
