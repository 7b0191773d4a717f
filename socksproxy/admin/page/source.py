"""
The stream of the status page: what all its viewers see.

Strategy: one look at the server serves all viewers, and there is none without them. The page consists of
sections. A viewer gets a section again when it differs from what was there before; one who does not keep up
misses nothing but what was there for a moment: the newest of each section is sent as soon as there is room.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ...logs.throttle import complain
from ...runtime.slices import in_slices
from ..answers import MOST_BYTES
from ..busiest import GROUPS
from ..control import Control, Gathered
from ..errors import RequestRefused
from ..event_stream import ReaderStream
from ..lines import lines_of
from ..routes import Asked, Routes
from .history import History

_log = Logger(namespace="socksproxy")

#: Seconds between two looks at the sessions, and how many of these looks see the rest of the server, too.
EVERY, REST = 2.0, 2
#: Viewers at once, and those that are written to in one turn of the reactor.
MOST_VIEWERS, _AT_ONCE = 64, 4
#: Sessions that are told, and the fewest of each process.
MOST_ROWS, FEWEST_ROWS = 500, 50
#: Holders of limits, and groups of each kind, that are told.
_MOST_HOLDERS, _MOST_GROUPS = 40, 30

#: The sections that are answers of the API.
_ANSWERS = ("status", "workers", "listeners", "upstreams", "pools", "limits", "lockouts")


class PageSource:
    """
    Looks at a server as long as there are viewers.

    :param control: asks its processes.
    :param api: answers what the page shows besides.
    :param history: has the points of the plots.
    """

    def __init__(self, control: Control, api: Routes, history: History) -> None:
        self._control = control
        self._api = api
        self._history = history
        history.changed = self._points
        self._viewers: dict[PageStream, None] = {}
        self._timer: IDelayedCall | None = None
        self._looks = 0
        self._underway = False
        #: The newest of each section, as it is written.
        self.sections: dict[str, bytes] = {}

    def stream(self, asked: Asked) -> PageStream:
        """The route: a stream for another viewer."""
        asked.allow()
        if len(self._viewers) >= MOST_VIEWERS:
            raise RequestRefused(503, f"there are {MOST_VIEWERS} viewers already")
        return PageStream(self, self._control.reactor)

    def enter(self, viewer: PageStream) -> None:
        """*viewer* sees the page from now on."""
        if not self._viewers:
            self.sections.clear()
        self._viewers[viewer] = None
        viewer.number = self._history.number
        viewer.write(event("history", self._history.as_json()))
        viewer.write(b"".join(self.sections.values()))
        if self._timer is None:
            self._looks = 0
            self._timer = self._control.reactor.callLater(0, self._look)

    def leave(self, viewer: PageStream) -> None:
        """*viewer* is gone."""
        self._viewers.pop(viewer, None)
        if not self._viewers and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Points.

    def points_since(self, number: int) -> bytes:
        """The event with the points behind the first *number*."""
        return event("points", json.dumps(self._history.since(number)).encode())

    def _points(self) -> None:
        if not self._viewers:
            return
        now = self._history.number
        usual = self.points_since(now - 1)
        for viewer in self._viewers:
            if viewer.keeps_up:
                viewer.write(usual if viewer.number == now - 1 else self.points_since(viewer.number))
                viewer.number = now

    # Sections.

    def _look(self) -> None:
        self._timer = self._control.reactor.callLater(EVERY, self._look)
        if self._underway:
            return
        self._underway = True
        rows = max(FEWEST_ROWS, MOST_ROWS // max(1, self._control.processes()["configured"]))
        done = self._control.ask("page", {"rows": rows}).addCallback(self._seen)
        if self._looks % REST == 0:
            for name in _ANSWERS:
                done.addCallback(self._answered, name)
        self._looks += 1
        done.addErrback(lambda _: complain(_log, "a look for the status page fails")).addBoth(self._looked)

    def _looked(self, _: object) -> None:
        self._underway = False

    def _answered(self, _: object, name: str) -> Deferred[None] | None:
        route, names = self._api.find("GET", f"/v1/{name}".encode())
        answer = route.answer(Asked(names, {}, {}, ""))
        if not isinstance(answer, Deferred):
            self._put(name, answer)
            return None
        return answer.addCallback(lambda told: self._put(name, told))

    def _put(self, name: str, told: Mapping[str, Any]) -> None:
        if name == "limits":
            told = {**told, "limits": fullest(told["limits"])}
        self._tell(name, _written(told))

    def _seen(self, gathered: Gathered) -> Deferred[None]:
        return in_slices(self._control.reactor, self._sort(gathered))

    def _sort(self, gathered: Gathered) -> Generator[None, None, None]:
        """Put what the processes have told into sections."""
        lines: dict[bytes, list[bytes]] = {}
        size = 0
        for line in (line for answer in gathered.answers for line in lines_of(answer.parts)):
            size += len(line)
            if size > MOST_BYTES:
                break
            lines.setdefault(line[2 : line.index(b'"', 2)], []).append(line)
        yield
        values = gathered.values
        phases: Counter[str] = Counter()
        for value in values:
            phases.update(value["phases"])
        head = {
            "live": sum(value["live"] for value in values),
            "phases": dict(phases),
            "missing": gathered.missing,
        }
        self._tell("ended", b"[" + b", ".join(lines.get(b"ended", ())) + b"]")
        rows = b", ".join(lines.get(b"live", ()))
        self._tell("sessions", json.dumps(head)[:-1].encode() + b', "rows": [' + rows + b"]}")
        told: dict[str, list[list[Any]]] = {}
        for kind in GROUPS:
            yield
            told[kind] = busiest(map(json.loads, lines.get(kind.encode(), ())))
        self._tell("busiest", _written(told))

    def _tell(self, name: str, data: bytes) -> None:
        written = event(name, data)
        if self.sections.get(name) == written:
            return
        self.sections[name] = written
        self._write(name, list(self._viewers))

    def _write(self, name: str, viewers: list[PageStream]) -> None:
        """Write a section to *viewers*, some in each turn of the reactor."""
        for viewer in viewers[:_AT_ONCE]:
            viewer.show(name)
        if viewers[_AT_ONCE:]:
            self._control.reactor.callLater(0, self._write, name, viewers[_AT_ONCE:])


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def event(name: str, data: bytes) -> bytes:
    """An event as browsers read it."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def busiest(told: Iterable[list[Any]]) -> list[list[Any]]:
    """The groups of one kind, in all processes: lists of the name, sessions, rate and bytes."""
    groups: dict[str, list[Any]] = {}
    for _, name, sessions, rate, moved in told:
        group = groups.setdefault(name, [name, 0, 0, 0])
        group[1:] = group[1] + sessions, round(group[2] + rate, 1), group[3] + moved
    keys: tuple[Callable[[list[Any]], Any], ...] = (
        lambda row: (-row[2], -row[3], row[0]),
        lambda row: (-row[1], -row[3], row[0]),
    )
    rows = list(groups.values())
    chosen = {row[0]: row for key in keys for row in sorted(rows, key=key)[:_MOST_GROUPS]}
    return list(chosen.values())


def fullest(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The holders that have taken the largest shares of their limits."""

    def share(row: Mapping[str, Any]) -> float:
        shares: list[float] = [now / (row["limits"].get(kind) or 1) for kind, now in row["now"].items()]
        return max(shares, default=0.0) + bool(row["full"])

    return sorted(rows, key=share, reverse=True)[:_MOST_HOLDERS]


class PageStream(ReaderStream):
    """
    What one viewer gets.

    :param source: has the page.
    :param reactor: keeps time.
    :ivar number: of the newest point that it has got.
    """

    def __init__(self, source: PageSource, reactor: Any) -> None:
        super().__init__(source, reactor)
        self._page = source
        self._missed: dict[str, None] = {}
        self.number = 0

    def show(self, name: str) -> None:
        """The section of that *name* is new: write it, now or as soon as the viewer keeps up."""
        if self.keeps_up:
            self.write(self._page.sections.get(name, b""))
        else:
            self._missed[name] = None

    def resumeProducing(self) -> None:
        """See :class:`twisted.internet.interfaces.IPushProducer`."""
        super().resumeProducing()
        missed, self._missed = self._missed, {}
        for name in missed:
            self.show(name)
