"""
What one process answers to the status page: its fastest sessions, what moves the most, what has ended.

Strategy: one walk over the sessions gives all of it, some sessions in each turn of the reactor. Sessions that
end are remembered only while the page asks.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from heapq import heappush, heapreplace, nlargest
from itertools import chain
from typing import Any

from ..events import AccessRecord, ServerEvents
from ..logs.printable import line_of_record
from ..session.record import rule_of
from ..session.registry import Registry
from .lines import append_line
from .rows import row_of
from .selection import Seen

#: The fields of a session that lives, and of a session that has ended.
LIVE = (
    *("id", "client", "user", "command", "destination", "rule", "via", "phase"),
    *("began", "sent", "received", "rate"),
)
ENDED = (
    *("id", "client", "user", "command", "destination", "rule", "via", "end"),
    *("time", "sent", "received", "session_seconds"),
)
#: What sessions are counted by.
GROUPS = ("user", "destination", "rule", "upstream")
#: Groups of each kind that are told, by sessions and again by their rate.
TOLD = 30
#: Sessions that have ended that are told, and for how many seconds.
MOST_ENDED, ENDED_FOR = 100, 60.0
#: Seconds after the last question for which sessions that end are remembered.
_ASKED_FOR = 30.0
#: Sessions that are written down in one turn of the reactor.
_WRITTEN_AT_ONCE = 40
#: Groups that are looked at in one turn.
_SORTED_AT_ONCE = 2000

Work = Generator[object, None, Any]


class BusiestAnswers(ServerEvents):
    """
    Answers the question of the status page.

    :param registry: the sessions of this process.
    :param worker: the number of this process.
    :param look: gives all sessions, some at a time.
    """

    def __init__(self, registry: Registry, worker: int, look: Callable[[], Iterator[list[Seen]]]) -> None:
        self._registry = registry
        self._worker = worker
        self._look = look
        self._asked: float | None = None
        self._over: deque[tuple[float, AccessRecord]] = deque(maxlen=MOST_ENDED)

    def ended(self, session: Any, record: AccessRecord | None) -> None:
        """See :meth:`socksproxy.events.IServerEvents.ended`."""
        assert self._asked is not None
        if self._registry.context.reactor.seconds() - self._asked > _ASKED_FOR:
            self._asked = None
            self._registry.context.events.unsubscribe(self)
            self._over.clear()
        elif record is not None and session.heard:
            self._over.append((time.time(), record))

    def page(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Work:
        """
        What the page shows: lines that begin with what they are.

        :param arguments: ``rows``, the most sessions.
        """
        if self._asked is None:
            self._registry.context.events.subscribe(self)
        self._asked = self._registry.context.reactor.seconds()
        return self._page(arguments["rows"], parts)

    def _page(self, most: int, parts: list[bytes]) -> Work:
        # The least of them first: by rate, then by bytes; no two have the same number.
        fastest: list[tuple[float, int, tuple[int, ...], Seen]] = []
        groups = {kind: BusyGroups() for kind in GROUPS}
        phases: Counter[str] = Counter()
        for some in self._look():
            for seen in some:
                phases[seen.session.phase.value] += 1
                _count(seen, groups)
                placed = (seen.rate, seen.moved, seen.session.number, seen)
                if len(fastest) < most:
                    heappush(fastest, placed)
                elif placed > fastest[0]:
                    heapreplace(fastest, placed)
            yield None
        lines: list[list[Any]] = []
        for kind in GROUPS:
            lines += yield from groups[kind].told(kind)
        told = chain(lines, self._lines([placed[-1] for placed in fastest]))
        for number, line in enumerate(told, 1):
            append_line(parts, json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace"))
            if number % _WRITTEN_AT_ONCE == 0:
                yield None
        return {"worker": self._worker, "live": len(self._registry.live), "phases": dict(phases)}

    def _lines(self, fastest: list[Seen]) -> Iterator[list[Any]]:
        wall = time.time()
        for when, record in list(self._over):
            if wall - when <= ENDED_FOR:
                told = record._asdict()
                yield ["ended", *(round(when, 3) if key == "time" else told[key] for key in ENDED)]
        for seen in fastest:
            if seen.session in self._registry.live:
                row = row_of(seen, wall, self._worker)
                yield ["live", *(row[key] for key in LIVE)]


class BusyGroups:
    """What sessions move, by a name that they have in common."""

    def __init__(self) -> None:
        self._groups: dict[str, list[float]] = {}

    def add(self, name: str, seen: Seen) -> None:
        """*seen* is a session of that *name*."""
        group = self._groups.get(name)
        if group is None:
            self._groups[name] = [1, seen.rate, seen.moved]
        else:
            group[0] += 1
            group[1] += seen.rate
            group[2] += seen.moved

    def told(self, kind: str) -> Generator[None, None, list[list[Any]]]:
        """Lines of those that move the most, and of those with the most sessions."""
        groups = self._groups
        names = list(groups)
        chosen: dict[str, None] = {}
        for key in (1, 0):
            best: list[tuple[float, float, str]] = []
            for start in range(0, len(names), _SORTED_AT_ONCE):
                some = [
                    (groups[name][key], groups[name][2], name)
                    for name in names[start : start + _SORTED_AT_ONCE]
                ]
                best = nlargest(TOLD, chain(best, some))
                yield None
            chosen.update(dict.fromkeys(name for _, _, name in best))
        lines = []
        for name in chosen:
            sessions, rate, moved = groups[name]
            lines.append([kind, line_of_record(name), sessions, round(rate, 1), moved])
        return lines


def _count(seen: Seen, groups: Mapping[str, BusyGroups]) -> None:
    """Add a session to the groups that it belongs to."""
    session = seen.session
    service, request, user = session.service, session.request_if_any, session.client.user
    if user is not None:
        groups["user"].add(user, seen)
    if request is not None:
        groups["destination"].add(request.destination.host, seen)
    if service is None:
        return
    rule, _ = rule_of(session, service.reached, service.counts().datagrams_sent is not None)
    if rule is not None:
        groups["rule"].add(rule, seen)
    if service.trail is not None and service.trail.via is not None:
        groups["upstream"].add(service.trail.via, seen)
