"""
The stream that a reader of a trace gets over the admin API.

Strategy: each process keeps what it traces in a bounded ring (:mod:`~socksproxy.session.trace`). The process
with the admin listener asks all of them for what is new, several times a second, and writes it in the order
of time. A reader that is slow is not written to; then the rings lose events, and tell how many.
"""

from __future__ import annotations

import json
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..session.trace import MOST_SECONDS
from .control import Control, Gathered
from .errors import RequestRefused
from .event_stream import CUT_AFTER
from .routes import Asked
from .selection import network_in
from .site import AdminRequest, Stream
from .traces import BEGIN, END, TAKE

_log = Logger(namespace="socksproxy")

#: Seconds between two questions for what is new.
ASK_EVERY = 0.25
#: Whom a trace is of.
_FILTERS = ("session", "user", "client")


class TraceRoutes:
    """
    The route that traces.

    :param control: asks the processes that have sessions.
    """

    def __init__(self, control: Control) -> None:
        self._control = control

    def trace(self, asked: Asked) -> Any:
        """A stream of what happens in one session, or in those of a user or a client."""
        asked.allow(*_FILTERS, "seconds")
        wanted = {name: asked.parameters[name] for name in _FILTERS if name in asked.parameters}
        if len(wanted) != 1:
            raise RequestRefused(400, f"give one of {', '.join(_FILTERS)}")
        if "client" in wanted:
            _check_client(wanted["client"])
        seconds = _seconds(asked.parameters.get("seconds"))
        name = token_hex(8)
        arguments = {"name": name, "filter": wanted, "seconds": seconds}
        begun = self._control.ask(BEGIN, arguments).addCallback(self._begun, name, seconds)
        return begun.addErrback(self._not_begun, name)

    def _begun(self, gathered: Gathered, name: str, seconds: float) -> Stream:
        reasons = [value["why"] for value in gathered.values]
        if None not in reasons:
            if not reasons:
                raise RequestRefused(503, "no process answers")
            status = 404 if "no session" in reasons[0] else 409
            raise RequestRefused(status, reasons[0])
        return TraceStream(self._control, name, seconds)

    def _not_begun(self, failure: Failure, name: str) -> Failure:
        # The client is gone, or no process answers: one may still begin the trace.
        _end_trace(self._control, name)
        return failure


@implementer(IPushProducer)
class TraceStream(Stream):
    """
    What one reader gets: a line of JSON for each event.

    :param control: asks the processes that have sessions.
    :param name: of the trace.
    :param seconds: how long the trace lasts.
    """

    kind = "application/x-ndjson"

    def __init__(self, control: Control, name: str, seconds: float) -> None:
        self._control = control
        self._arguments = {"name": name}
        # A process that does not answer any more has no last word.
        self._until = control.reactor.seconds() + seconds + 2 * ASK_EVERY
        self._request: AdminRequest | None = None
        self._full = False
        self._asking = False
        self._timer: IDelayedCall | None = None
        self._seconds = seconds
        self._cut: IDelayedCall | None = None

    def start(self, request: AdminRequest) -> None:
        """See :meth:`Stream.start`."""
        self._request = request
        request.notifyFinish().addBoth(self._gone)
        request.registerProducer(self, True)
        # A reader that does not read keeps no connection.
        self._cut = self._control.reactor.callLater(self._seconds + CUT_AFTER, self._end)
        self._ask()

    def _ask(self) -> None:
        self._timer = None
        if self._request is None or self._full or self._asking:
            return
        self._asking = True
        taken: Deferred[Any] = self._control.ask(TAKE, self._arguments)
        taken.addCallbacks(self._write, self._failed)

    def _write(self, gathered: Gathered) -> None:
        self._asking = False
        request = self._request
        if request is None:
            return
        lines = [line for answer in gathered.answers for line in answer.parts]
        if len(gathered.answers) > 1:
            lines.sort(key=lambda line: float(json.loads(line)["time"]))
        if lines:
            request.write(b"\n".join(lines) + b"\n")
        over = all(value["over"] for value in gathered.values)
        if (over and not gathered.missing) or self._control.reactor.seconds() > self._until:
            self._end()
        elif self._timer is None:
            self._timer = self._control.reactor.callLater(ASK_EVERY, self._ask)

    def _failed(self, failure: Failure) -> None:
        self._asking = False
        _log.failure("a trace fails", failure)
        self._end()

    def _end(self) -> None:
        request = self._request
        if request is not None:
            request.unregisterProducer()
            request.finish()

    def _gone(self, _: object) -> None:
        """The answer is over, or its reader is gone."""
        self._request = None
        for timer in (self._timer, self._cut):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = None
        self.unread()

    def unread(self) -> None:
        """See :meth:`Stream.unread`."""
        _end_trace(self._control, self._arguments["name"])

    def pauseProducing(self) -> None:
        """See :class:`twisted.internet.interfaces.IPushProducer`."""
        self._full = True

    def resumeProducing(self) -> None:
        """See :class:`twisted.internet.interfaces.IPushProducer`."""
        self._full = False
        if self._timer is None:
            self._ask()

    def stopProducing(self) -> None:
        """See :class:`twisted.internet.interfaces.IPushProducer`."""
        self._full = True


def _end_trace(control: Control, name: str) -> None:
    """No process keeps the trace of that *name* any more."""
    control.ask(END, {"name": name}).addErrback(lambda _: None)


def _check_client(text: str) -> None:
    if network_in(text) is None:
        raise RequestRefused(400, f"client: not an address, and not a network: {text:.80}")


def _seconds(text: str | None) -> float:
    """The length of a trace that *text* asks for."""
    if text is None:
        return MOST_SECONDS
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:4]) <= MOST_SECONDS and len(text) < 4):
        raise RequestRefused(400, f"seconds: a whole number from 1 to {MOST_SECONDS:g}")
    return float(text)
