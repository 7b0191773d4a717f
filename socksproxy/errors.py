"""
Why a request fails, and what the client is told of it.

One family of exceptions, each with its reply code, and the one table from
``errno`` and Twisted's connect errors to a reply (RFC 1928, section 6).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from socket import gaierror

from twisted.cred.error import UnauthorizedLogin
from twisted.internet import defer, error

from .wire.words import Command, ProtocolError, Reply, Reply4, SOCKSError

__all__ = [
    "SHORTAGES",
    "AddressTypeNotSupported",
    "CannotLeave",
    "CommandNotSupported",
    "ConnectFailed",
    "ConnectTimedOut",
    "ConnectedToItself",
    "IdentMismatch",
    "IdentUnreachable",
    "NameNotFound",
    "NoFreePort",
    "NotAllowed",
    "NotAuthenticated",
    "OverLimit",
    "ProtocolError",
    "QuotaUsedUp",
    "SOCKSError",
    "StoreDown",
    "TooManyAssociations",
    "TooManyBinds",
    "TooManyLookups",
    "TooManySessions",
    "UpstreamFailed",
    "UpstreamFull",
    "UpstreamRefused",
    "describe",
    "most_telling",
    "reply4_for",
    "reply_for",
]


class NotAllowed(SOCKSError):
    """The policy denies the request."""

    reply = Reply.NOT_ALLOWED


class NotAuthenticated(NotAllowed, UnauthorizedLogin):
    """The client has not shown who it is."""


class IdentUnreachable(NotAuthenticated):
    """The identd of the client's machine does not tell who the client is."""

    reply4 = Reply4.NO_IDENT


class IdentMismatch(NotAuthenticated):
    """The identd of the client's machine tells another user than the request."""

    reply4 = Reply4.IDENT_MISMATCH


class OverLimit(NotAllowed):
    """A client, a user, a rule or the server has as much as it may have."""


class TooManySessions(OverLimit):
    """As many sessions as there may be, or as may begin in a while."""


class TooManyBinds(OverLimit):
    """As many listeners as there may be."""


class TooManyAssociations(OverLimit):
    """As many associations as there may be."""


class QuotaUsedUp(OverLimit):
    """All the bytes of a day or a month."""


class StoreDown(OverLimit):
    """The store that nodes share does not answer, and a limit is "strict"."""

    reply = Reply.GENERAL_FAILURE


class NoFreePort(SOCKSError):
    """Every port that may be opened is taken."""


class AddressTypeNotSupported(SOCKSError):
    """The client's version of the protocol has no form for the address."""

    reply = Reply.ADDRESS_TYPE_NOT_SUPPORTED


class NameNotFound(SOCKSError):
    """The name of the destination has no address, or cannot be a name at all."""

    reply = Reply.HOST_UNREACHABLE


class TooManyLookups(NameNotFound):
    """Too many look-ups wait, and a name was not looked up. That says nothing about the name."""

    reply = Reply.GENERAL_FAILURE


class CommandNotSupported(SOCKSError):
    """A command that is unknown or not served here."""

    reply = Reply.COMMAND_NOT_SUPPORTED


def not_carried(via: str | None, command: Command) -> CommandNotSupported:
    """The error for a *command* that the way out called *via* does not carry."""
    return CommandNotSupported(f"{via} does not carry {command.name}")


class ConnectTimedOut(SOCKSError):
    """
    The destination did not answer in time.

    RFC 1928 has no reply for this; Dante and Tor tell it as "TTL expired",
    and clients that retry elsewhere know it as that.
    """

    reply = Reply.TTL_EXPIRED


class ConnectedToItself(SOCKSError):
    """Nothing listens at the destination, and the kernel has connected the socket to itself."""

    reply = Reply.CONNECTION_REFUSED


class ConnectFailed(SOCKSError):
    """
    Every address of the destination failed; *reply* is the most telling one.

    :ivar reply: what the client is told.
    """

    def __init__(self, message: str, reply: Reply) -> None:
        super().__init__(message)
        self.reply = reply


class CannotLeave(SOCKSError, OSError):
    """A socket cannot leave as the configuration says: by an interface, with a mark, from a namespace."""


class UpstreamFailed(SOCKSError):
    """
    A proxy on the way out fails: nothing is known of the destination.

    :ivar upstream: the name of the proxy that fails.
    """

    def __init__(self, message: str, upstream: str = "") -> None:
        super().__init__(message)
        self.upstream = upstream


class UpstreamFull(UpstreamFailed):
    """An upstream has as many sessions as it may have. It is not to blame, and may have room soon."""


class UpstreamRefused(SOCKSError):
    """
    The last proxy on the way out has refused.

    :ivar reply: what the proxy has told, as SOCKS5 says it.
    """

    def __init__(self, message: str, reply: Reply) -> None:
        super().__init__(message)
        self.reply = reply


#: The system has no descriptor or no memory left: nothing is said of what was asked for.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_REPLY_BY_ERRNO = {
    errno.ECONNREFUSED: Reply.CONNECTION_REFUSED,
    errno.ENETUNREACH: Reply.NETWORK_UNREACHABLE,
    errno.ENETDOWN: Reply.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Reply.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Reply.HOST_UNREACHABLE,
    errno.ETIMEDOUT: Reply.TTL_EXPIRED,
    # A local packet filter that rejects, or a broadcast address.
    errno.EACCES: Reply.NOT_ALLOWED,
    errno.EPERM: Reply.NOT_ALLOWED,
    errno.EAFNOSUPPORT: Reply.ADDRESS_TYPE_NOT_SUPPORTED,
}

# For what has no number, or one that is not of errno.
_REPLY_BY_KIND: tuple[tuple[tuple[type[BaseException], ...], Reply], ...] = (
    (
        (error.TimeoutError, error.TCPTimedOutError, defer.TimeoutError, TimeoutError),
        Reply.TTL_EXPIRED,
    ),
    ((error.DNSLookupError, error.UnknownHostError, gaierror), Reply.HOST_UNREACHABLE),
    ((error.ConnectionRefusedError, ConnectionRefusedError), Reply.CONNECTION_REFUSED),
    ((error.NoRouteError,), Reply.NETWORK_UNREACHABLE),
    ((PermissionError,), Reply.NOT_ALLOWED),
)

#: The first of these that any attempt gave is the most telling: an answer
#: from the host itself says more than silence, and silence more than no route.
_TELLING = (
    Reply.CONNECTION_REFUSED,
    Reply.TTL_EXPIRED,
    Reply.HOST_UNREACHABLE,
    Reply.NETWORK_UNREACHABLE,
    Reply.NOT_ALLOWED,
    Reply.ADDRESS_TYPE_NOT_SUPPORTED,
    Reply.COMMAND_NOT_SUPPORTED,
    Reply.GENERAL_FAILURE,
)


def reply_for(problem: BaseException) -> Reply:
    """The SOCKS5 reply that tells *problem* truthfully."""
    if isinstance(problem, SOCKSError):
        return problem.reply
    for kinds, reply in _REPLY_BY_KIND:
        if isinstance(problem, kinds):
            return reply
    number = problem.errno if isinstance(problem, OSError) else getattr(problem, "osError", None)
    return _REPLY_BY_ERRNO.get(number, Reply.GENERAL_FAILURE) if number else Reply.GENERAL_FAILURE


def reply4_for(problem: BaseException) -> Reply4:
    """The SOCKS4 reply that tells *problem*."""
    return problem.reply4 if isinstance(problem, SOCKSError) else Reply4.REJECTED


def most_telling(replies: Iterable[Reply]) -> Reply:
    """The reply that says most of several failed attempts."""
    return min(replies, key=_TELLING.index, default=Reply.GENERAL_FAILURE)


def describe(problem: BaseException) -> str:
    """A few words on *problem* for a log: no traceback, nothing a client sent."""
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror.lower()
    if isinstance(problem, SOCKSError) and str(problem):
        return str(problem)
    return _WORDS[reply_for(problem)]


_WORDS = {reply: reply.name.lower().replace("_", " ") for reply in Reply}


def words(reply: Reply) -> str:
    """The name of *reply* as a log shows it."""
    return _WORDS[reply]
