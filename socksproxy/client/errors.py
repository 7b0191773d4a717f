"""
Why a connection through a proxy fails.

One family: :class:`ProxiedConnectError`. Each error is also the class of :mod:`twisted.internet.error` that
callers without a proxy catch.

The proxy has failed (:class:`ProxyError`), or the proxy works and tells that the destination or the request
has failed (:class:`DestinationError`). Errors that are neither do not tell which of the two has failed.
"""

from __future__ import annotations

from twisted.internet import error

from ..wire.words import AddressType, Reply, Request
from .handshake import HandshakeFailed, Problem


class ProxiedConnectError(error.ConnectError):
    """
    A connection through a proxy has not come about.

    :ivar reply: the number that the proxy has told: REP of SOCKS5, CD of SOCKS4, the status of HTTP; for a
        login its status, for methods the proxy's choice. None: the proxy has told none.
    :ivar hop: which proxy of a chain has failed or has told the failure; the first one from here is 1.
    """

    def __init__(self, message: str = "", reply: int | None = None, hop: int = 1) -> None:
        # Not ConnectError's: a class that is an OSError, too, has another one.
        Exception.__init__(self, message)
        self.osError = None
        self.message = message
        self.reply = reply
        self.hop = hop

    def __str__(self) -> str:
        return self.message if self.hop == 1 else f"proxy {self.hop} of the chain: {self.message}"


class ProxyError(ProxiedConnectError):
    """A proxy has failed; the destination has not been asked."""


class ProxyUnreachable(ProxyError):
    """There is no connection to the proxy. The cause is the ``__cause__``."""


class ProxyTimedOut(ProxyError, error.TimeoutError):
    """The proxy does not answer in time: before a connection, in TLS, in the greeting or in the login."""


class ProxyProtocolError(ProxyError):
    """The proxy breaks the protocol, or closes the connection in the middle of it."""


class NoAcceptableMethod(ProxyError):
    """The proxy accepts none of the methods that were offered: it wants another login."""


class ProxyRefusedLogin(ProxyError):
    """The proxy does not accept the login."""


class DestinationError(ProxiedConnectError):
    """The proxy works and cannot do what it is asked."""


class InvalidDestination(DestinationError, ValueError):
    """The destination cannot be expressed in the protocol. Nothing has been sent."""


class DestinationRefused(DestinationError, error.ConnectionRefusedError):
    """The destination refuses the connection (reply 5)."""


class DestinationUnreachable(DestinationError, error.NoRouteError):
    """The network or the host of the destination is unreachable (replies 3 and 4)."""


class DestinationNameNotFound(DestinationUnreachable, error.DNSLookupError):
    """The host is unreachable, and it is a name: proxies tell so that a name has no address."""


class DestinationTimedOut(DestinationError, error.TimeoutError, error.TCPTimedOutError):
    """The proxy tells that the destination does not answer (reply 6)."""


class NotAllowed(DestinationError):
    """The rules of the proxy do not allow the request (reply 2)."""


class CommandNotSupported(DestinationError):
    """The proxy does not serve the command (reply 7), or the protocol of the proxy has no such command."""


class AddressTypeNotSupported(DestinationError):
    """The proxy does not serve addresses of this family (reply 8)."""


class GeneralFailure(ProxiedConnectError):
    """The proxy refuses without a reason: reply 1, 91 of SOCKS4, or a number that has no one meaning."""


class ProxyClosed(ProxiedConnectError):
    """The proxy has closed the connection instead of an answer. Some proxies refuse so (``ssh -D``)."""


class ReplyTimedOut(ProxiedConnectError, error.TimeoutError):
    """The proxy has taken the request and does not answer it in time."""


_PROBLEMS: dict[Problem, type[ProxiedConnectError]] = {
    Problem.PROTOCOL: ProxyProtocolError,
    Problem.NO_METHOD: NoAcceptableMethod,
    Problem.LOGIN: ProxyRefusedLogin,
    Problem.CLOSED: ProxyClosed,
}

_REPLIES: dict[int, tuple[type[ProxiedConnectError], str]] = {
    Reply.GENERAL_FAILURE: (GeneralFailure, "the proxy refuses the request"),
    Reply.NOT_ALLOWED: (NotAllowed, "the proxy does not allow the request"),
    Reply.NETWORK_UNREACHABLE: (DestinationUnreachable, "the network of the destination is unreachable"),
    Reply.HOST_UNREACHABLE: (DestinationUnreachable, "the destination is unreachable"),
    Reply.CONNECTION_REFUSED: (DestinationRefused, "the destination refuses the connection"),
    Reply.TTL_EXPIRED: (DestinationTimedOut, "the destination does not answer"),
    Reply.COMMAND_NOT_SUPPORTED: (CommandNotSupported, "the proxy does not serve the command"),
    Reply.ADDRESS_TYPE_NOT_SUPPORTED: (
        AddressTypeNotSupported,
        "the proxy does not serve addresses of this family",
    ),
    # Tor's own (proposal 304, ExtendedErrors).
    0xF0: (DestinationNameNotFound, "the onion service's descriptor cannot be found"),
    0xF1: (DestinationUnreachable, "the onion service's descriptor is invalid"),
    0xF2: (DestinationUnreachable, "the introduction to the onion service has failed"),
    0xF3: (DestinationUnreachable, "the rendezvous with the onion service has failed"),
    0xF4: (NotAllowed, "the onion service wants a client authorization"),
    0xF5: (NotAllowed, "the onion service refuses the client authorization"),
    0xF6: (DestinationNameNotFound, "the onion address is invalid"),
    0xF7: (DestinationTimedOut, "the introduction to the onion service has timed out"),
}


def error_for(problem: HandshakeFailed, request: Request, hop: int = 1) -> ProxiedConnectError:
    """
    The error of the family for *problem*.

    :param request: what was asked.
    :param hop: which proxy of the chain has been asked.
    """
    if problem.problem is not Problem.REFUSED:
        return _PROBLEMS[problem.problem](str(problem), problem.reply, hop)
    kind: type[ProxiedConnectError]
    kind, words = _REPLIES.get(problem.meaning, _REPLIES[Reply.GENERAL_FAILURE])
    named = request.destination.type is AddressType.DOMAIN_NAME
    if problem.meaning == Reply.HOST_UNREACHABLE and named:
        kind, words = DestinationNameNotFound, "the name is not found, or its host is unreachable"
    return kind(f"{words} ({problem.detail})", problem.reply, hop)
