"""What a client is told of every way to fail."""

from __future__ import annotations

import errno
import socket

import pytest
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import defer, error

from socksproxy.errors import (
    CommandNotSupported,
    ConnectFailed,
    ConnectTimedOut,
    IdentMismatch,
    IdentUnreachable,
    NameNotFound,
    NotAllowed,
    NotAuthenticated,
    ProtocolError,
    SOCKSError,
    TooManySessions,
    describe,
    most_telling,
    reply4_for,
    reply_for,
    words,
)
from socksproxy.wire.words import Reply, Reply4

REPLY_BY_ERRNO = {
    errno.ECONNREFUSED: Reply.CONNECTION_REFUSED,
    errno.ENETUNREACH: Reply.NETWORK_UNREACHABLE,
    errno.ENETDOWN: Reply.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Reply.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Reply.HOST_UNREACHABLE,
    errno.ETIMEDOUT: Reply.TTL_EXPIRED,
    errno.EACCES: Reply.NOT_ALLOWED,
    errno.EPERM: Reply.NOT_ALLOWED,
    errno.EAFNOSUPPORT: Reply.ADDRESS_TYPE_NOT_SUPPORTED,
}
ERRNOS = sorted(errno.errorcode)
FAILURES = [reply for reply in Reply if reply is not Reply.SUCCEEDED]


class UnheardOf(SOCKSError):
    """An error that an embedder made, with a word of her own."""

    reply = Reply.NETWORK_UNREACHABLE


@pytest.mark.parametrize("number", ERRNOS, ids=errno.errorcode.get)
def test_every_errno(number: int) -> None:
    """As the engine gives it (OSError) and as Twisted does (a ConnectError): one truth for both."""
    expected = REPLY_BY_ERRNO.get(number, Reply.GENERAL_FAILURE)
    assert reply_for(OSError(number, "said the system")) is expected
    assert reply_for(error.getConnectError((number, "said the system"))) is expected


@pytest.mark.parametrize(
    ("problem", "reply"),
    [
        (NotAllowed("no"), Reply.NOT_ALLOWED),
        (TooManySessions("too many"), Reply.NOT_ALLOWED),
        (NameNotFound("who?"), Reply.HOST_UNREACHABLE),
        (CommandNotSupported("what?"), Reply.COMMAND_NOT_SUPPORTED),
        (ConnectTimedOut("later"), Reply.TTL_EXPIRED),
        (ConnectFailed("all of them", Reply.CONNECTION_REFUSED), Reply.CONNECTION_REFUSED),
        (ProtocolError("nonsense"), Reply.GENERAL_FAILURE),
        (ProtocolError("type", Reply.ADDRESS_TYPE_NOT_SUPPORTED), Reply.ADDRESS_TYPE_NOT_SUPPORTED),
        (UnheardOf(), Reply.NETWORK_UNREACHABLE),
        # Twisted's, with and without a number.
        (error.TimeoutError(), Reply.TTL_EXPIRED),
        (error.TCPTimedOutError(), Reply.TTL_EXPIRED),
        (defer.TimeoutError(), Reply.TTL_EXPIRED),
        (TimeoutError(), Reply.TTL_EXPIRED),
        (error.ConnectionRefusedError(), Reply.CONNECTION_REFUSED),
        (error.NoRouteError(), Reply.NETWORK_UNREACHABLE),
        (error.DNSLookupError(), Reply.HOST_UNREACHABLE),
        (error.UnknownHostError(), Reply.HOST_UNREACHABLE),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), Reply.HOST_UNREACHABLE),
        (error.ConnectBindError(errno.EADDRNOTAVAIL, "not ours"), Reply.GENERAL_FAILURE),
        (error.ConnectError(), Reply.GENERAL_FAILURE),
        (error.UserError(), Reply.GENERAL_FAILURE),
        (ConnectionRefusedError(), Reply.CONNECTION_REFUSED),
        (PermissionError(), Reply.NOT_ALLOWED),
        (OSError("no number at all"), Reply.GENERAL_FAILURE),
        (defer.CancelledError(), Reply.GENERAL_FAILURE),
        (ZeroDivisionError(), Reply.GENERAL_FAILURE),
    ],
    ids=lambda value: "" if isinstance(value, Reply) else type(value).__name__,
)
def test_every_kind(problem: BaseException, reply: Reply) -> None:
    assert reply_for(problem) is reply


@pytest.mark.parametrize(
    "problem",
    [NotAllowed(), NameNotFound(), ConnectTimedOut(), ConnectionRefusedError(), ZeroDivisionError()],
)
def test_socks4(problem: Exception) -> None:
    """SOCKS4 has one word for every refusal; 92 and 93 speak of ident alone."""
    assert reply4_for(problem) is Reply4.REJECTED


@pytest.mark.parametrize(
    ("problem", "reply"),
    [
        (IdentUnreachable("no identd"), Reply4.NO_IDENT),
        (IdentMismatch("somebody else"), Reply4.IDENT_MISMATCH),
        (NotAuthenticated("who?"), Reply4.REJECTED),
    ],
)
def test_who_are_you(problem: Exception, reply: Reply4) -> None:
    """SOCKS4 tells why; SOCKS5 has one word for it. And cred knows them as refusals."""
    assert reply4_for(problem) is reply
    assert reply_for(problem) is Reply.NOT_ALLOWED
    assert isinstance(problem, UnauthorizedLogin)


class TestMostTelling:
    """Of several attempts, the reply of the one that came nearest to the destination."""

    ORDER = (
        Reply.CONNECTION_REFUSED,
        Reply.TTL_EXPIRED,
        Reply.HOST_UNREACHABLE,
        Reply.NETWORK_UNREACHABLE,
        Reply.NOT_ALLOWED,
        Reply.ADDRESS_TYPE_NOT_SUPPORTED,
        Reply.COMMAND_NOT_SUPPORTED,
        Reply.GENERAL_FAILURE,
    )

    def test_order_has_every_failure(self) -> None:
        assert sorted(self.ORDER) == FAILURES

    @pytest.mark.parametrize("one", FAILURES)
    @pytest.mark.parametrize("other", FAILURES)
    def test_every_pair(self, one: Reply, other: Reply) -> None:
        expected = min(one, other, key=self.ORDER.index)
        assert most_telling([one, other]) is expected
        assert most_telling(iter([other, one])) is expected

    def test_of_none(self) -> None:
        assert most_telling([]) is Reply.GENERAL_FAILURE


class TestDescribe:
    """A few words in a log: never a traceback, and never nothing."""

    @pytest.mark.parametrize(
        ("problem", "text"),
        [
            (OSError(errno.ECONNREFUSED, "Connection refused"), "connection refused"),
            (OSError(errno.EMFILE, "Too many open files"), "too many open files"),
            (OSError("odd"), "general failure"),
            (TimeoutError(), "ttl expired"),
            (NotAllowed("the policy denies it"), "the policy denies it"),
            (NotAllowed(), "not allowed"),
            (UnheardOf(), "network unreachable"),
            (ConnectFailed("connection refused", Reply.CONNECTION_REFUSED), "connection refused"),
            (error.getConnectError((errno.ECONNREFUSED, "Connection refused")), "connection refused"),
            (error.DNSLookupError("a name that a client sent"), "host unreachable"),
            (ZeroDivisionError("a name that a client sent"), "general failure"),
        ],
    )
    def test_texts(self, problem: BaseException, text: str) -> None:
        assert describe(problem) == text

    @pytest.mark.parametrize("number", ERRNOS, ids=errno.errorcode.get)
    def test_every_errno_of_twisted(self, number: int) -> None:
        """The words tell the same as the reply."""
        problem = error.getConnectError((number, "Said The System"))
        assert describe(problem) == words(reply_for(problem))


@pytest.mark.parametrize("reply", Reply)
def test_words(reply: Reply) -> None:
    assert words(reply).replace(" ", "_").upper() == reply.name
