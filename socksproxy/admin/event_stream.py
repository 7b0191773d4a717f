"""
The stream of events over the admin API: once a second what the server is at, and what has changed.

Strategy: while there are readers, one look a second is taken for all of them. What has changed is what
differs from the look before, so nothing in the server has to tell of changes. A reader that does not keep up
is not written to, and is cut off when it has not read anything for a while.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from ..logs.throttle import complain
from .control import Control, Gathered
from .errors import RequestRefused
from .routes import Asked
from .site import AdminRequest, Stream

_log = Logger(namespace="socksproxy")

#: Seconds between two looks.
EVERY = 1.0
#: Readers at once.
MOST_READERS = 64
#: Seconds after which a reader is cut off that has read nothing.
CUT_AFTER = 30.0

_BYTES = "socksproxy_bytes_total"


class ServerLook(NamedTuple):
    """
    What a look has seen.

    :ivar state: of the server, and why it should get no clients.
    :ivar config: the hash of the configuration, and when it was loaded.
    :ivar listeners: the state of each listener, by its address.
    :ivar upstreams: the state of each upstream, by its name.
    :ivar workers: the state and the process of each worker, by its number.
    :ivar moved: bytes sent and received so far; None: nothing counts them.
    """

    state: tuple[str, str | None]
    config: tuple[Any, Any]
    listeners: dict[str, Any]
    upstreams: dict[str, Any]
    workers: dict[int, tuple[Any, Any]]
    moved: tuple[float, float] | None


class EventSource:
    """
    Looks at a server once a second, as long as there are readers.

    :param control: knows the server.
    """

    def __init__(self, control: Control) -> None:
        self._control = control
        self._readers: dict[EventStream, None] = {}
        self._timer: IDelayedCall | None = None
        self._before: ServerLook | None = None

    def events(self, asked: Asked) -> EventStream:
        """The route: a stream for another reader."""
        asked.allow()
        if len(self._readers) >= MOST_READERS:
            raise RequestRefused(503, f"there are {MOST_READERS} readers already")
        return EventStream(self, self._control.reactor)

    def enter(self, reader: EventStream) -> None:
        """*reader* gets events from now on."""
        self._readers[reader] = None
        if self._timer is None:
            self._before = None
            self._timer = self._control.reactor.callLater(0, self._look)

    def leave(self, reader: EventStream) -> None:
        """*reader* is gone."""
        self._readers.pop(reader, None)
        if not self._readers and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._control.reactor.callLater(EVERY, self._look)
        self._control.ask("counts", {}).addCallback(self._seen).addErrback(
            lambda _: complain(_log, "a look at the server fails")
        )

    def _seen(self, gathered: Gathered) -> None:
        look, before = self._take(), self._before
        self._before = look
        moved: tuple[float | None, float | None] = (None, None)
        if look.moved is not None and before is not None and before.moved is not None:
            moved = look.moved[0] - before.moved[0], look.moved[1] - before.moved[1]
        status = {
            "time": round(time.time(), 3),
            "state": look.state[0],
            "why": look.state[1],
            "sessions": sum(value["sessions"] for value in gathered.values),
            "sent": moved[0],
            "received": moved[1],
            "missing": gathered.missing,
        }
        told = [("status", status)]
        if before is not None:
            told += changes(before, look)
        for name, data in told:
            for reader in list(self._readers):
                reader.tell(name, data)

    def _take(self) -> ServerLook:
        control = self._control
        config, metrics = control.config(), control.metrics()
        moved = None
        if metrics is not None:
            snapshot = metrics.snapshot()
            if _BYTES in snapshot.families:
                sent, received = (snapshot.value(_BYTES, direction=word) for word in ("sent", "received"))
                moved = sent, received
        return ServerLook(
            control.state(),
            (config["hash"], config["loaded"]),
            {row["address"]: row["state"] for row in control.listeners()},
            {name: row["state"] for name, row in control.upstreams().items()},
            {row["number"]: (row["state"], row["pid"]) for row in control.workers()},
            moved,
        )


def changes(before: ServerLook, now: ServerLook) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events that tell what differs between two looks."""
    if now.state != before.state:
        yield "state", {"state": now.state[0], "why": now.state[1]}
    if now.config != before.config:
        yield "reload", {"hash": now.config[0], "loaded": now.config[1]}
    for name, key, old, new in (
        ("listener", "address", before.listeners, now.listeners),
        ("upstream", "name", before.upstreams, now.upstreams),
    ):
        for each in sorted(old.keys() | new.keys()):
            if old.get(each) != new.get(each):
                yield name, {key: each, "state": new.get(each)}
    for number in sorted(before.workers.keys() | now.workers.keys()):
        state, pid = now.workers.get(number, (None, None))
        if before.workers.get(number) != (state, pid):
            yield "worker", {"number": number, "state": state, "pid": pid}


class ReaderKeeper(Protocol):
    """Has what readers get."""

    def enter(self, reader: Any) -> None: ...

    def leave(self, reader: Any) -> None: ...


@implementer(IPushProducer)
class ReaderStream(Stream):
    """
    What one reader gets, who is cut off when it has read nothing for a while.

    :param source: is told when the reader comes and goes.
    :param reactor: keeps time.
    """

    kind = "text/event-stream"

    def __init__(self, source: ReaderKeeper, reactor: Any) -> None:
        self._source = source
        self._reactor = reactor
        self._request: AdminRequest | None = None
        self._cut: IDelayedCall | None = None

    @property
    def keeps_up(self) -> bool:
        """Whether the reader is there, and has read nearly all that was written."""
        return self._request is not None and self._cut is None

    def start(self, request: AdminRequest) -> None:
        """See :meth:`Stream.start`."""
        self._request = request
        request.notifyFinish().addBoth(self._gone)
        request.registerProducer(self, True)
        self._source.enter(self)

    def write(self, data: bytes) -> None:
        """Write *data*, whether the reader keeps up or not."""
        if self._request is not None and data:
            self._request.write(data)

    def _gone(self, _: object) -> None:
        self._request = None
        self._source.leave(self)
        self._keep()

    def pauseProducing(self) -> None:
        """See :class:`twisted.internet.interfaces.IPushProducer`."""
        if self._cut is None and self._request is not None:
            self._cut = self._reactor.callLater(CUT_AFTER, self._expired)

    def resumeProducing(self) -> None:
        """See :class:`twisted.internet.interfaces.IPushProducer`."""
        self._keep()

    def stopProducing(self) -> None:
        """See :class:`twisted.internet.interfaces.IPushProducer`."""

    def _keep(self) -> None:
        cut, self._cut = self._cut, None
        if cut is not None and cut.active():
            cut.cancel()

    def _expired(self) -> None:
        if self._request is not None:
            self._request.channel.transport.abortConnection()


class EventStream(ReaderStream):
    """The events that one reader gets."""

    _lost = 0

    def tell(self, name: str, data: dict[str, Any]) -> None:
        """Write an event, unless the reader does not keep up."""
        if not self.keeps_up:
            self._lost += 1
            return
        if self._lost:
            data, self._lost = {**data, "lost": self._lost}, 0
        self.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
