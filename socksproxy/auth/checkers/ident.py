"""
Checkers of the userid of a SOCKS4 request: the client's machine vouches for it (RFC 1413), or it is trusted.

The client in ``twisted.protocols.ident`` writes text where transports take bytes, and strips spaces that
belong to a user's name by RFC 1413.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import IdentMismatch, IdentUnreachable, NotAuthenticated, describe
from ...net.names import plain
from ...runtime.reactor import global_reactor
from ...values.parsers import port, seconds
from ..credentials import IUserid, Userid
from ..users import name_of
from .arguments import arguments

#: The port of an identd.
PORT = 113
#: Seconds in which an identd must have answered.
TIMEOUT = 5.0

#: The greatest number of bytes of an answer. By RFC 1413 an answer has at most 1000, and a user's name 512.
_LONGEST = 1024

_ANSWER = re.compile(
    rb"[ \t]*(\d{1,5})[ \t]*,[ \t]*(\d{1,5})[ \t]*:[ \t]*(USERID|ERROR)[ \t]*:([^:]*)(?::(.*))?", re.DOTALL
)
#: The errors that have a meaning. A log does not show other ones, which a stranger may have made up.
_ERRORS = frozenset({b"INVALID-PORT", b"NO-USER", b"HIDDEN-USER", b"UNKNOWN-ERROR"})


def parse_answer(line: bytes, ports: tuple[int, int]) -> bytes:
    """
    The user's name in an identd's answer.

    The name is everything behind the last colon of the syntax, also white space (RFC 1413, section 6).

    :param line: the answer, without the CRLF.
    :param ports: the client's port and our port of the connection in question.
    :raises IdentUnreachable: when *line* has no name, or is no answer to the question.
    """
    answer = _ANSWER.fullmatch(line)
    if answer is None or (int(answer[1]), int(answer[2])) != ports:
        raise IdentUnreachable("identd does not answer the question")
    kind, first, name = answer[3], answer[4], answer[5]
    if kind == b"ERROR":
        error = first.strip()
        raise IdentUnreachable(f"identd says {error.decode() if error in _ERRORS else 'ERROR'}")
    if name is None:
        raise IdentUnreachable("identd does not answer the question")
    return bytes(name)


class _Question(Protocol):
    """
    Asks an identd.

    :param ports: the client's port and our port of the connection in question.
    :ivar answer: fires with the user's name.
    """

    transport: Any

    def __init__(self, ports: tuple[int, int]) -> None:
        self._ports = ports
        self._received = b""
        self._over = False
        self.answer: Deferred[bytes] = Deferred(lambda _: self._end())

    def connectionMade(self) -> None:
        self.transport.write(b"%d, %d\r\n" % self._ports)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        line, end, _ = self._received.partition(b"\n")
        if len(line) > _LONGEST:
            self._fail(IdentUnreachable("identd does not come to an end"))
        elif end:
            self._judge(line.removesuffix(b"\r"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._over:
            # The bytes that have come may be a part of the name only, which may be the name of another user.
            self._fail(IdentUnreachable("identd closes without an answer"))

    def _judge(self, line: bytes) -> None:
        try:
            name = parse_answer(line, self._ports)
        except IdentUnreachable as problem:
            self._fail(problem)
            return
        self._end()
        self.answer.callback(name)

    def _fail(self, problem: IdentUnreachable) -> None:
        self._end()
        self.answer.errback(problem)

    def _end(self) -> None:
        self._over = True
        self.transport.abortConnection()


@implementer(ICredentialsChecker)
class IdentChecker:
    """
    Asks the client's machine whether the userid is the name of the user whose program has connected.

    The answer is as trustworthy as the client's machine: its administrator chooses the name.

    :param port: the port of the identd.
    :param timeout: seconds in which the identd must have answered.
    :param reactor: connects and keeps time; None: the global one.
    """

    credentialInterfaces = (IUserid,)

    def __init__(self, port: int = PORT, timeout: float = TIMEOUT, reactor: Any = None) -> None:
        self.port = port
        self.timeout = timeout
        self._reactor = reactor

    def requestAvatarId(self, credentials: Userid) -> Deferred[Any]:
        host, local = credentials.client.host, credentials.local
        if host is None or local is None:
            return fail(IdentUnreachable("a client on a Unix socket has no identd"))
        if not credentials.userid:
            return fail(IdentMismatch("the request has no userid"))
        asking: Deferred[Any] = self._ask(host, credentials.client.port, plain(local[0]), local[1])
        asking.addTimeout(self.timeout, self._clock(), _too_late)
        asking.addCallbacks(_compared, _failed, callbackArgs=(credentials.userid,))
        return asking

    def _ask(self, host: str, port: int, own_host: str, own_port: int) -> Deferred[bytes]:
        kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        # An identd answers only the other end of a connection. The endpoint's own timeout never comes.
        endpoint = kind(self._clock(), host, self.port, self.timeout + 1, bindAddress=(own_host, 0))
        asking: Deferred[Any] = connectProtocol(endpoint, _Question((port, own_port)))
        return asking.addCallback(lambda question: question.answer)

    def _clock(self) -> Any:
        if self._reactor is None:
            self._reactor = global_reactor()
        return self._reactor


@implementer(ICredentialsChecker)
class TrustedUserid:
    """Takes the userid of a request for the user's name, which each client so chooses itself."""

    credentialInterfaces = (IUserid,)

    def requestAvatarId(self, credentials: Userid) -> Deferred[Any]:
        if not credentials.userid:
            return fail(NotAuthenticated("the request has no userid"))
        return succeed(name_of(credentials.userid))


def _compared(name: bytes, userid: bytes) -> str:
    # Nearly every identd puts a space in front of the name.
    if userid not in (name, name.removeprefix(b" ")):
        raise IdentMismatch("identd tells another user")
    return name_of(userid)


def _too_late(outcome: object, timeout: float) -> None:
    raise IdentUnreachable(f"identd does not answer in {timeout:g} s")


def _failed(failure: Failure) -> Failure:
    problem = failure.value
    if isinstance(problem, ConnectingCancelledError | CancelledError):
        raise CancelledError
    if isinstance(problem, Exception) and not isinstance(problem, IdentUnreachable):
        raise IdentUnreachable(f"identd: {describe(problem)}")
    return failure


def make_checker(argument: str) -> IdentChecker:
    """
    The checker of ``--auth ident:[port=PORT][:timeout=SECONDS]``.

    :raises InvalidAuthArgumentString: when *argument* is something else.
    """
    return IdentChecker(**arguments("ident", argument, {"port": port(1), "timeout": seconds()}))
