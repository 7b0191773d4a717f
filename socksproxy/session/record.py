"""
The access record of a session that is over, derived from the session's state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

from twisted.logger import LogEvent, LogLevel

from ..commands.service import NO_COUNTS
from ..events import AccessRecord, End, ServerEvents, Subject
from ..logs.access_log import AccessLog
from ..logs.printable import line_of_record, shown
from ..negotiation import State, command_name
from ..wire.words import Address
from .session import Session

NAMESPACE = "socksproxy.access"

_FORMAT = (
    "{client} {command} {destination} reply {reply}, {sent} bytes sent, {received} received, "
    "{session_seconds:.3f} s, ended: {ended}"
)

# There are no more than 256.
shown_command = lru_cache(256)(command_name)
# The value of an enum's member is found by a function of Python.
_end_words = {end: end.value for end in End}


class Recorder(ServerEvents):
    """
    Gives the access records of sessions to an observer.

    :param observer: receives an event for each session that has ended.
    :param probes: whether clients that connect and send nothing have a record, too.
    """

    def __init__(self, observer: Callable[[LogEvent], object], probes: bool) -> None:
        self._observer = observer
        self._probes = probes
        # The access log needs no dictionary.
        self._write = observer.write if isinstance(observer, AccessLog) else self._observe

    def ended(self, session: Subject, record: AccessRecord | None) -> None:
        """See :meth:`socksproxy.events.IServerEvents.ended`."""
        # Who has made a request is heard.
        if record is not None and (record.command is not None or self._probes or session.heard):
            self._write(record, time.time())

    def _observe(self, record: AccessRecord, now: float) -> None:
        event: LogEvent = {
            "log_namespace": NAMESPACE,
            "log_level": LogLevel.info,
            "log_time": now,
            "log_format": _FORMAT,
            **record._asdict(),
        }
        self._observer(event)


def record_of(session: Session) -> AccessRecord | None:
    """The access record of *session*, which has just ended; None: a rule says that there is none."""
    service, request, ended = session.service, session.request_if_any, session.ended
    assert ended is not None
    if service is None:
        counts, reached, outgoing, resolved, announced, strangers = NO_COUNTS, None, None, None, None, None
    else:
        counts, reached, outgoing = service.counts(), service.reached, service.outgoing
        resolved, announced, strangers = service.resolved, service.announced, service.strangers
    trail = None if service is None else service.trail
    rule, recorded = rule_of(session, reached, counts.datagrams_sent is not None)
    if not recorded:
        return None
    client, login = session.client, session.login
    told, pin = client.told, None if login is None else login.pin
    destination = None if request is None else shown(request.destination)
    # A literal destination is what is reached.
    same = request is not None and reached is request.destination
    return AccessRecord(
        str(client),
        None if client.user is None else line_of_record(client.user),
        method_of(session),
        _version(session) if request is None else request.version,
        None if request is None else shown_command(request.command),
        destination,
        rule,
        destination if same else None if reached is None else str(reached),
        None if outgoing is None else str(outgoing),
        None if trail is None else trail.via,
        None if trail is None else trail.tries,
        None if pin is None else pin.word,
        None if trail is None else trail.reply,
        announced,
        strangers,
        session.reply,
        counts.sent,
        counts.received,
        counts.datagrams_sent,
        counts.datagrams_received,
        counts.dropped,
        *_times(session, resolved),
        None if told is None or told.unique_id is None else line_of_record(told.unique_id),
        None if told is None or told.tls_name is None else line_of_record(told.tls_name),
        session.id,
        _end_words[ended.end],
        ended.words,
    )


def line_of(session: Session) -> str:
    """What an operator sees of *session* while it lives, in one line."""
    service, request, client = session.service, session.request_if_any, session.client
    counts = NO_COUNTS if service is None else service.counts()
    fields = {
        "id": session.id,
        "client": str(client),
        "user": None if client.user is None else line_of_record(client.user),
        "phase": session.phase.value,
        "command": None if request is None else shown_command(request.command),
        "destination": None if request is None else shown(request.destination),
        "age": f"{session.context.seconds() - session.began:.3f}",
        "sent": counts.sent,
        "received": counts.received,
    }
    return " ".join(f"{name}={'-' if value is None else value}" for name, value in fields.items())


def rule_of(session: Session, reached: Address | None, many: bool) -> tuple[str | None, bool]:
    """The rules that decided, and whether the session is recorded."""
    permission = session.permission
    if permission is None:
        return None, True
    return permission.rules_named() if many else permission.rule_named(reached)


def method_of(session: Session) -> str | None:
    """The authentication method; None: none was used."""
    if session.login is not None and session.login.method is not None:
        return session.login.method
    negotiation = session.negotiation
    broken = negotiation.state is State.REFUSED and negotiation.method is not None
    return negotiation.method.name if broken and negotiation.method is not None else None


def _version(session: Session) -> int | None:
    """The version of a client without a request; None: it has not got far enough to be answered."""
    return session.negotiation.version if session.negotiation.state is State.REFUSED else None


def _times(
    session: Session, resolved: float | None
) -> tuple[float | None, float | None, float | None, float]:
    """The seconds until the request, from there to the addresses, from there to the reply, and in all."""
    began, requested, answered = session.began, session.requested, session.answered
    looked_up = connected = None
    # int(... + 0.5) as round(..., 6), in a third of the time.
    if requested is not None:
        if resolved is not None:
            looked_up = int((resolved - requested) * 1e6 + 0.5) / 1e6
        if answered is not None:
            connected = int((answered - (resolved or requested)) * 1e6 + 0.5) / 1e6
    return (
        None if requested is None else int((requested - began) * 1e6 + 0.5) / 1e6,
        looked_up,
        connected,
        int((session.context.reactor.seconds() - began) * 1e6 + 0.5) / 1e6,
    )
