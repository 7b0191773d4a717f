"""
The access record of a session that is over, derived from the session's state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from twisted.logger import LogEvent, LogLevel

from ..commands.service import NO_COUNTS
from ..events import ServerEvents, Subject
from ..logs.printable import line_of_record, shown
from ..negotiation import State, command_name
from ..wire.words import Address
from .session import Session

NAMESPACE = "socksproxy.access"

_FORMAT = (
    "{client} {command} {destination} reply {reply}, {sent} bytes sent, {received} received, "
    "{session_seconds:.3f} s, ended: {ended}"
)

_INFO = LogLevel.info
# There are no more than 256.
_command_name = lru_cache(256)(command_name)


class Recorder(ServerEvents):
    """
    Gives the access records of sessions to an observer.

    :param observer: receives an event for each session that has ended.
    :param probes: whether clients that connect and send nothing have a record, too.
    """

    def __init__(self, observer: Callable[[LogEvent], object], probes: bool) -> None:
        self._observer = observer
        self._probes = probes

    def ended(self, session: Subject, record: dict[str, Any] | None) -> None:
        """See :meth:`socksproxy.events.IServerEvents.ended`."""
        if record is not None and (session.heard or self._probes):
            self._observer(record)


def record_of(session: Session) -> dict[str, Any] | None:
    """The access record of *session*, which has just ended; None: a rule says that there is none."""
    service, request, ended = session.service, session.request_if_any, session.ended
    assert ended is not None
    counts = NO_COUNTS if service is None else service.counts()
    reached = None if service is None else service.reached
    outgoing = None if service is None else service.outgoing
    rule, recorded = _rule(session, reached, counts.datagrams_sent is not None)
    if not recorded:
        return None
    began, requested = session.began, session.requested
    resolved = None if service is None else service.resolved
    client, told = session.client, session.client.told
    return {
        "log_namespace": NAMESPACE,
        "log_level": _INFO,
        "log_time": time.time(),
        "log_format": _FORMAT,
        "client": str(client),
        "user": None if client.user is None else line_of_record(client.user),
        "method": _method(session),
        "version": _version(session),
        "command": None if request is None else _command_name(request.command),
        "destination": None if request is None else shown(request.destination),
        "rule": rule,
        "reached": None if reached is None else str(reached),
        "outgoing": None if outgoing is None else str(outgoing),
        "announced": None if service is None else service.announced,
        "strangers": None if service is None else service.strangers,
        "reply": session.reply,
        "sent": counts.sent,
        "received": counts.received,
        "datagrams_sent": counts.datagrams_sent,
        "datagrams_received": counts.datagrams_received,
        "dropped": counts.dropped,
        "handshake_seconds": _between(began, requested),
        "resolution_seconds": _between(requested, resolved),
        "connect_seconds": _between(resolved or requested, session.answered),
        "session_seconds": _between(began, session.context.seconds()),
        "unique_id": None if told is None or told.unique_id is None else line_of_record(told.unique_id),
        "tls_name": None if told is None or told.tls_name is None else line_of_record(told.tls_name),
        "id": session.id,
        "end": ended.end.value,
        "ended": ended.words,
    }


def line_of(session: Session) -> str:
    """What an operator sees of *session* while it lives, in one line."""
    service, request, client = session.service, session.request_if_any, session.client
    counts = NO_COUNTS if service is None else service.counts()
    fields = {
        "id": session.id,
        "client": str(client),
        "user": None if client.user is None else line_of_record(client.user),
        "phase": session.phase.value,
        "command": None if request is None else _command_name(request.command),
        "destination": None if request is None else shown(request.destination),
        "age": f"{session.context.seconds() - session.began:.3f}",
        "sent": counts.sent,
        "received": counts.received,
    }
    return " ".join(f"{name}={'-' if value is None else value}" for name, value in fields.items())


def _rule(session: Session, reached: Address | None, many: bool) -> tuple[str | None, bool]:
    """The rules that decided, and whether the session is recorded."""
    permission = session.permission
    if permission is None:
        return None, True
    return permission.rules_named() if many else permission.rule_named(reached)


def _method(session: Session) -> str | None:
    """The authentication method; None: none was used."""
    if session.login is not None and session.login.method is not None:
        return session.login.method
    negotiation = session.negotiation
    broken = negotiation.state is State.REFUSED and negotiation.method is not None
    return negotiation.method.name if broken and negotiation.method is not None else None


def _version(session: Session) -> int | None:
    """The version of the protocol; None: the client has not got far enough to be answered."""
    if session.request_if_any is not None:
        return session.request_if_any.version
    return session.negotiation.version if session.negotiation.state is State.REFUSED else None


def _between(start: float | None, end: float | None) -> float | None:
    # As round(..., 6), in a third of the time.
    return None if start is None or end is None else int((end - start) * 1e6 + 0.5) / 1e6
