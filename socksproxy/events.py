"""
What a server reports of its sessions: that they begin, are refused or granted, and end.

The access log subscribes to these events, and so can everything else that counts or traces sessions
(:class:`IServerEvents`). How a session ended has a word of a closed list (:class:`End`) for programs and
free words for people (:class:`Ended`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from itertools import count
from typing import NamedTuple, Protocol

from twisted.cred.error import UnauthorizedLogin
from zope.interface import Interface, implementer

from .errors import (
    SHORTAGES,
    NameNotFound,
    NoFreePort,
    OverLimit,
    ProtocolError,
    QuotaUsedUp,
    TooManyLookups,
    UpstreamFailed,
    UpstreamFull,
    UpstreamRefused,
    reply_for,
)
from .wire.words import Reply

__all__ = [
    "FIELDS",
    "AccessRecord",
    "Cause",
    "End",
    "Ended",
    "IServerEvents",
    "ServerEvents",
    "SessionIds",
    "Subject",
    "end_for",
]


class AccessRecord(NamedTuple):
    """
    What is recorded of a session that is over; the documentation of the access log explains the fields.

    Texts that come from a client hold no control characters, and 255 characters at the most.
    """

    client: str
    user: str | None
    method: str | None
    version: int | None
    command: str | None
    destination: str | None
    rule: str | None
    reached: str | None
    outgoing: str | None
    via: str | None
    tries: int | None
    sticky: str | None
    upstream_reply: int | None
    announced: str | None
    strangers: int | None
    reply: int | None
    sent: int
    received: int
    datagrams_sent: int | None
    datagrams_received: int | None
    dropped: dict[str, int] | None
    handshake_seconds: float | None
    resolution_seconds: float | None
    connect_seconds: float | None
    session_seconds: float | None
    unique_id: str | None
    tls_name: str | None
    id: str
    end: str
    ended: str


#: The fields of an access record, in this order.
FIELDS = AccessRecord._fields


class End(Enum):
    """How a session ended, in one word of a closed list; the value is the word."""

    # One of the enum's own is a function in Python, and every record looks the word up.
    __hash__ = object.__hash__

    #: The client closed first, or its connection failed.
    CLIENT = "client"
    #: The destination closed first, or its connection failed.
    DESTINATION = "destination"
    #: RESOLVE or RESOLVE_PTR has its answer.
    ANSWERED = "answered"
    IDLE = "idle"
    HALF_CLOSED = "half_closed"
    QUOTA = "quota"
    #: The time for which a rule permits the session is over.
    EXPIRED = "expired"
    DENIED = "denied"
    #: A limit is reached, or descriptors or ports are short.
    LIMIT = "limit"
    AUTH = "auth"
    #: The destination refused the connection.
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    DNS = "dns"
    #: The handshake, the connection or the peer of a BIND took too long.
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"
    #: The proxy on the way out failed.
    UPSTREAM = "upstream"
    #: The server ended the session at once.
    KILLED = "killed"
    #: New rules or users do not permit what the old ones did.
    RELOAD = "reload"
    #: The server stopped, and the session's time to finish was over.
    DRAIN = "drain"
    #: A fault in the server.
    FAULT = "fault"


class Ended(NamedTuple):
    """
    How a session ended.

    :ivar end: the word of the closed list.
    :ivar words: the words for people.
    """

    end: End
    words: str


class Cause(Enum):
    """What ends a session whose request was granted, and some others; the value is an :class:`Ended`."""

    #: The client closed first, and everything was delivered.
    CLIENT = Ended(End.CLIENT, "client")
    #: The destination closed first, and everything was delivered.
    DESTINATION = Ended(End.DESTINATION, "destination")
    CLIENT_RESET = Ended(End.CLIENT, "client reset")
    DESTINATION_RESET = Ended(End.DESTINATION, "destination reset")
    #: The connection failed in another way: keepalive unanswered, no route any more.
    CLIENT_LOST = Ended(End.CLIENT, "client lost")
    DESTINATION_LOST = Ended(End.DESTINATION, "destination lost")
    #: The client's bytes are not encapsulated as the authentication method agreed.
    BROKEN = Ended(End.PROTOCOL, "protocol error")
    #: The client sent too much on the TCP connection of its association.
    TALK = Ended(End.PROTOCOL, "protocol error: data on the connection of an association")
    HANDSHAKE = Ended(End.TIMEOUT, "handshake timeout")
    #: RESOLVE or RESOLVE_PTR has its answer.
    ANSWERED = Ended(End.ANSWERED, "answered")
    IDLE = Ended(End.IDLE, "idle timeout")
    #: One direction was closed, and the other one moved no data.
    HALF_CLOSED = Ended(End.HALF_CLOSED, "half-closed timeout")
    #: The half-closed session moved no data while descriptors were short.
    SHORTAGE = Ended(End.LIMIT, "descriptors short")
    #: The client has begun another association, and may have no more at once.
    ROOM = Ended(End.LIMIT, "made room for another")
    #: The nodes together have as many as they may have, which has turned out late.
    NODES = Ended(End.LIMIT, "over a limit of all nodes")
    #: One of the session's allowances is exhausted.
    QUOTA = Ended(End.QUOTA, "quota used up")
    #: New rules or users do not allow what old ones did.
    FORBIDDEN = Ended(End.RELOAD, "no longer permitted")
    #: The hours of a rule that ends sessions are over, or have begun.
    HOURS = Ended(End.EXPIRED, "outside the rule's hours")
    ABORTED = Ended(End.KILLED, "aborted")
    #: As ABORTED, because the server stops and does not wait longer.
    DRAINED = Ended(End.DRAIN, "aborted")
    FAULT = Ended(End.FAULT, "internal error")


_BY_KIND: tuple[tuple[tuple[type[BaseException], ...], End], ...] = (
    ((QuotaUsedUp,), End.QUOTA),
    ((OverLimit, NoFreePort, TooManyLookups, UpstreamFull), End.LIMIT),
    ((UnauthorizedLogin,), End.AUTH),
    ((NameNotFound,), End.DNS),
    ((ProtocolError,), End.PROTOCOL),
    ((UpstreamFailed,), End.UPSTREAM),
)

_BY_REPLY = {
    Reply.NOT_ALLOWED: End.DENIED,
    Reply.CONNECTION_REFUSED: End.REFUSED,
    Reply.NETWORK_UNREACHABLE: End.UNREACHABLE,
    Reply.HOST_UNREACHABLE: End.UNREACHABLE,
    Reply.TTL_EXPIRED: End.TIMEOUT,
    Reply.COMMAND_NOT_SUPPORTED: End.PROTOCOL,
    Reply.ADDRESS_TYPE_NOT_SUPPORTED: End.PROTOCOL,
}


def end_for(problem: BaseException) -> End:
    """How a session ends whose request is refused because of *problem*."""
    for kinds, end in _BY_KIND:
        if isinstance(problem, kinds):
            return end
    if isinstance(problem, OSError) and problem.errno in SHORTAGES:
        return End.LIMIT
    # The system tells a failed connection by numbers of its own, for which there are replies.
    otherwise = End.UNREACHABLE if isinstance(problem, OSError) else End.FAULT
    if isinstance(problem, UpstreamRefused):
        otherwise = End.UPSTREAM
    return _BY_REPLY.get(reply_for(problem), otherwise)


#: When this process started, in milliseconds since the epoch.
_STARTED = int(time.time() * 1000)
#: Numbers the factories of this process.
_next_serial = count().__next__


class SessionIds:
    """
    Names sessions. Names are unique as long as each pair of generation and worker is used once.

    :param generation: grows at each start, also after a crash; None: when this process started.
    :param worker: the serial number of a worker, which its replacement does not inherit; None: the next
        serial number of this process, from 0 on. Each factory of a process has one of its own.
    """

    def __init__(self, generation: int | None = None, worker: int | None = None) -> None:
        self.generation = _STARTED if generation is None else generation
        self.worker = _next_serial() if worker is None else worker
        #: Gives the next session's number.
        self.next: Callable[[], int] = count(1).__next__

    def name(self, number: int) -> str:
        """The name of session *number* of this process."""
        return f"{self.generation}.{self.worker}.{number}"


class Subject(Protocol):
    """What a subscriber sees of a session."""

    @property
    def id(self) -> str:
        """The session's name."""

    @property
    def heard(self) -> bool:
        """Whether the client has sent anything; a health check or a scanner has not."""


class IServerEvents(Interface):
    """
    A subscriber to what happens in a server.

    The methods are called while a session is served: they must neither block nor take long. A method that
    raises costs its event, and nothing else. Inherit from :class:`ServerEvents` to implement some of them.
    """

    def began(session: Subject) -> None:
        """A client has connected, and its session begins."""

    def refused(session: Subject, ended: Ended) -> None:
        """The request, or the client, is refused; *ended* says why."""

    def granted(session: Subject) -> None:
        """The request is granted; bytes or datagrams flow from now on, or an answer is sent."""

    def ended(session: Subject, record: AccessRecord | None) -> None:
        """
        The session is over; each session that began ends once.

        :param record: what is recorded of it; None: a rule says that nothing is.
        """

    def dropped() -> None:
        """A client is one too many, and is closed without a session."""

    def paused() -> None:
        """Descriptors are short, and no clients are accepted for now; told again while that lasts."""

    def upstream_entered(upstream: str) -> None:
        """A connection or an association through *upstream*, a name, begins; also each try counts."""

    def upstream_left(upstream: str) -> None:
        """A connection or an association through *upstream* has ended, or a try has failed."""

    def upstream_failed(upstream: str, own: bool) -> None:
        """
        A try through *upstream* has failed.

        :param own: whether the upstream itself has failed; if not, the upstream does not reach what is behind
            it: the destination, or the next upstream of a chain. Failures that say nothing about either one
            are not told.
        """

    def upstream_checked(upstream: str, alive: bool) -> None:
        """An active check of *upstream* has ended."""


@implementer(IServerEvents)
class ServerEvents:
    """A subscriber that does nothing; subclasses define the methods for the events that they want."""

    def began(self, session: Subject) -> None: ...

    def refused(self, session: Subject, ended: Ended) -> None: ...

    def granted(self, session: Subject) -> None: ...

    def ended(self, session: Subject, record: AccessRecord | None) -> None: ...

    def dropped(self) -> None: ...

    def paused(self) -> None: ...

    def upstream_entered(self, upstream: str) -> None: ...

    def upstream_left(self, upstream: str) -> None: ...

    def upstream_failed(self, upstream: str, own: bool) -> None: ...

    def upstream_checked(self, upstream: str, alive: bool) -> None: ...
