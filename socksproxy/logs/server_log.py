"""
The server's own log, where it goes to a place of our options instead of that of ``twistd``.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsText,
    formatEventAsClassicLogText,
    formatTime,
)
from zope.interface import implementer

from ..values.logs import LogKind, LogPlace, log_place
from .journal import entry
from .sinks import sink_for
from .syslog import INFO, SEVERITIES, header_for

#: The formats of the server's own log.
SERVER_FORMATS = ("text", "json")

#: What the supervisor writes before the text of a worker.
_OF_A_WORKER = re.compile(r"worker ([0-9]+): ")


@implementer(ILogObserver)
class ServerLog:
    """
    Writes the events of the server's own log to its place. Any thread may log.

    :param path: see :func:`~socksproxy.values.logs.log_place`.
    :param format: ``text`` or ``json``.
    :param reactor: connects, has the time for sockets, and takes what other threads log.
    :param tls: verifies the server, where the place is one with TLS.
    :raises OSError: when a file cannot be opened for appending.
    :raises ValueError: when there is no such place.
    """

    def __init__(self, path: str, format: str, reactor: Any, tls: Any = None) -> None:
        self.place = log_place(path)
        self.path = self.place.text
        self.format = format
        self._reactor = reactor
        self._sink = sink_for(self.place, reactor, tls=tls)
        self._encode = _encoder(self.place, format)

    def __call__(self, event: LogEvent) -> None:
        """See :class:`twisted.logger.ILogObserver`."""
        data = self._encode(event)
        if not data:
            return
        if threading.current_thread() is threading.main_thread():
            self._sink.write(data)
        else:
            self._reactor.callFromThread(self._sink.write, data)

    def reopen(self) -> str | None:
        """Go on in a new file of the same name: the old one has been moved away. See :meth:`Sink.reopen`."""
        return self._sink.reopen()

    def close(self) -> Deferred[None]:
        """Events that come later are lost; fires when those before have been sent."""
        return self._sink.close()


def _encoder(place: LogPlace, format: str) -> Callable[[LogEvent], bytes]:
    """What makes the messages for *place* of events; it gives nothing for an event without a text."""
    text_of = _json if format == "json" else _plain
    header = header_for(place, "server")

    def for_file(event: LogEvent) -> bytes:
        if format == "text":
            return (formatEventAsClassicLogText(event, formatTime) or "").encode("utf-8", "backslashreplace")
        text = _json(event)
        return f"{text}\n".encode("ascii") if text else b""

    def for_syslog(event: LogEvent) -> bytes:
        text, seconds = text_of(event), event.get("log_time", time.time())
        if not text:
            return b""
        return (header(_severity(event), seconds, _when(seconds)) + text).encode("utf-8", "backslashreplace")

    def for_journal(event: LogEvent) -> bytes:
        text = text_of(event)
        return entry(place.name, _severity(event), text, _fields(event)) if text else b""

    if place.is_file:
        return for_file
    return for_journal if place.kind is LogKind.JOURNALD else for_syslog


def _severity(event: LogEvent) -> int:
    return SEVERITIES.get(event.get("log_level", LogLevel.info), INFO)


def _when(seconds: float) -> str:
    """*seconds* in the form of RFC 3339."""
    form = "%Y-%m-%dT%H:%M:%S"
    zone = time.strftime("%z", time.localtime(seconds))
    return (
        f"{time.strftime(form, time.localtime(seconds))}.{int(seconds % 1 * 1000):03d}{zone[:3]}:{zone[3:]}"
    )


def _plain(event: LogEvent) -> str:
    return eventAsText(event, includeTimestamp=False, includeSystem=False)


def _fields(event: LogEvent) -> list[tuple[str, object]]:
    worker = _OF_A_WORKER.match(_plain(event))
    return [("logger", event.get("log_namespace")), ("worker", worker and worker[1])]


def _json(event: LogEvent) -> str:
    """The event as one line; empty: it has no text."""
    text = _plain(event)
    if not text:
        return ""
    worker = _OF_A_WORKER.match(text)
    found: dict[str, object] = {
        "time": _when(event.get("log_time", time.time())),
        "level": event.get("log_level", LogLevel.info).name,
        "logger": event.get("log_namespace"),
    }
    if worker is not None:
        found["worker"] = int(worker[1])
        text = text[worker.end() :]
    return json.dumps({**found, "text": text})


@implementer(ILogObserver)
class Switch:
    """
    Passes events on to the server log that is in force.

    :ivar log: that log; None: there is none.
    :ivar chosen: whether ``twistd`` has this as its log.
    """

    def __init__(self) -> None:
        self.log: ServerLog | None = None
        self.chosen = False

    def __call__(self, event: LogEvent) -> None:
        """See :class:`twisted.logger.ILogObserver`."""
        if self.log is not None:
            self.log(event)


#: The one of this process.
switch = Switch()


def chosen() -> Switch:
    """For ``twistd --logger``: the log goes where our options say."""
    switch.chosen = True
    return switch
