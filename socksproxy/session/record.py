"""
What is known of a session when it is over: one event for the access log.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from twisted.logger import LogLevel

from ..events import Ended
from ..identity import Client
from ..logs.printable import line_of_record
from ..negotiation import command_name
from ..wire.words import Address, Request

NAMESPACE = "socksproxy.access"

_FORMAT = (
    "{client} {command} {destination} reply {reply}, {sent} bytes sent, {received} received, "
    "{session_seconds:.3f} s, ended: {ended}"
)

_INFO = LogLevel.info
# There are no more than 256.
_command_name = lru_cache(256)(command_name)


class AccessRecord:
    """
    Filled in as a session goes on.

    Times are the reactor's seconds; None: it did not come to that.

    :ivar client: who asked.
    :ivar method: by what it has shown who it is; None: nobody asked.
    :ivar began: when the connection was accepted.
    :ivar request: what was asked.
    :ivar requested: when the request was whole.
    :ivar resolved: when the name had been looked up.
    :ivar answered: when the reply was sent.
    :ivar rule: the name of the rule that decided, or what decided in place of one; of an association,
        those that have decided on its destinations, with commas. None: the policy has no rules.
    :ivar reached: the address that was dialed with success.
    :ivar outgoing: the address it was dialed from.
    :ivar announced: where the peer of a BIND was to connect; the answer of RESOLVE and RESOLVE_PTR.
    :ivar strangers: how many came to a BIND's listener who were not the peer; None: there was none.
    :ivar reply: the code that was sent, of the client's version.
    :ivar sent: bytes from the client to the destination.
    :ivar received: bytes from the destination to the client.
    :ivar datagrams_sent: likewise, of an association; :attr:`datagrams_received`.
    :ivar dropped: datagrams of an association that were not passed on, by reason.
    """

    __slots__ = (
        "announced",
        "answered",
        "began",
        "client",
        "datagrams_received",
        "datagrams_sent",
        "dropped",
        "method",
        "outgoing",
        "reached",
        "received",
        "reply",
        "request",
        "requested",
        "resolved",
        "rule",
        "sent",
        "strangers",
        "version",
    )

    def __init__(self, client: Client, began: float) -> None:
        self.client = client
        self.began = began
        self.method: str | None = None
        self.version: int | None = None
        self.request: Request | None = None
        self.requested: float | None = None
        self.resolved: float | None = None
        self.answered: float | None = None
        self.rule: str | None = None
        self.reached: Address | None = None
        self.outgoing: Address | None = None
        self.announced: str | None = None
        self.strangers: int | None = None
        self.reply: int | None = None
        self.sent = 0
        self.received = 0
        self.datagrams_sent: int | None = None
        self.datagrams_received: int | None = None
        self.dropped: dict[str, int] | None = None

    def event(self, id: str, ended: Ended, now: float, wall: float) -> dict[str, Any]:
        """
        The event of a session that is over.

        :param id: the name of the session.
        :param ended: how.
        :param now: the reactor's seconds.
        :param wall: seconds since the epoch, for ``log_time``.
        """
        client, request, reached, outgoing = self.client, self.request, self.reached, self.outgoing
        return {
            "log_namespace": NAMESPACE,
            "log_level": _INFO,
            "log_time": wall,
            "log_format": _FORMAT,
            "client": str(client),
            "user": None if client.user is None else line_of_record(client.user),
            "method": self.method,
            "version": self.version,
            "command": None if request is None else _command_name(request.command),
            "destination": None if request is None else shown(request.destination),
            "rule": self.rule,
            "reached": None if reached is None else str(reached),
            "outgoing": None if outgoing is None else str(outgoing),
            "announced": self.announced,
            "strangers": self.strangers,
            "reply": self.reply,
            "sent": self.sent,
            "received": self.received,
            "datagrams_sent": self.datagrams_sent,
            "datagrams_received": self.datagrams_received,
            "dropped": self.dropped,
            "handshake_seconds": _between(self.began, self.requested),
            "resolution_seconds": _between(self.requested, self.resolved),
            "connect_seconds": _between(self.resolved or self.requested, self.answered),
            "session_seconds": _between(self.began, now),
            "id": id,
            "end": ended.end.value,
            "ended": ended.words,
        }


def shown(destination: Address) -> str:
    """*destination* as a log may show it."""
    host = line_of_record(destination.host)
    return str(destination if host == destination.host else destination._replace(host=host))


def _between(start: float | None, end: float | None) -> float | None:
    # As round(..., 6), in a third of the time.
    return None if start is None or end is None else int((end - start) * 1e6 + 0.5) / 1e6
