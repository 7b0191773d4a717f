"""
What one process with sessions answers to the questions of the admin API.

Strategy: a question has a name and arguments that JSON can carry, so that a supervisor can ask its workers
in the same way as a process asks itself. An answer takes as many turns of the reactor as it needs, and no
turn looks at more than :data:`AT_ONCE` sessions. Long answers consist of parts, lines of JSON each.
"""

from __future__ import annotations

import json
import resource
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..events import Cause
from ..limits.account import SESSIONS, Scope
from ..logs.debug import ALL, TOPICS, topics_of
from ..net.descriptors import current_limit
from ..runtime.lag import Lag
from ..runtime.slices import in_slices
from ..session.session import Session
from .announcements import AnnouncementAnswers
from .busiest import BusiestAnswers
from .errors import RequestRefused
from .holders import TELL_NODES, HolderAnswers
from .lines import append_line
from .rates import Rates
from .rows import row_of
from .selection import Page, Seen, SessionPlace, Test, tests_of
from .traces import TraceAnswers

if TYPE_CHECKING:
    from ..server.factory import SOCKSFactory

#: Sessions that are looked at in one turn of the reactor.
AT_ONCE = 64
#: Sessions that are written down, or ended, in one turn: each takes some ten times as long.
_WRITTEN_AT_ONCE, _ENDED_AT_ONCE = 16, 16

#: Upstreams that are told; the files of pools may have more.
_MOST_UPSTREAMS = 1000

#: Searches whose sessions are remembered until they are ended, and for how many seconds.
MOST_FOUND, FOUND_FOR = 256, 10.0

#: Bytes of all lines of one answer.
MOST_BYTES = 512 << 10

Work = Generator[object, None, Any]


class ProcessAnswer(NamedTuple):
    """
    What a process answers.

    :ivar value: something that JSON can carry.
    :ivar parts: lines of JSON.
    """

    value: Any
    parts: list[bytes]


class Answers:
    """
    Answers questions about the sessions of *factory*.

    :param factory: serves the sessions.
    :param worker: the number of this process; 0: it is the only one.
    """

    def __init__(self, factory: SOCKSFactory, worker: int = 0) -> None:
        self._factory = factory
        self._registry = factory.sessions
        self._context = factory.context
        self._worker = worker
        self._rates = Rates()
        self._lag = Lag(factory.reactor)
        self._found: dict[int, tuple[Sequence[Session], IDelayedCall]] = {}
        self._tokens = count(1)
        holders = HolderAnswers(self._context, worker, self._look)
        self._questions: dict[str, Callable[[Mapping[str, Any], list[bytes]], Any]] = {
            "counts": self._counts,
            "sessions": self._sessions,
            "load": self._load,
            "upstreams": self._upstreams,
            "users": holders.users,
            "lockouts": holders.lockouts,
            "unlock": holders.unlock,
            "limits": holders.limits,
            TELL_NODES: holders.tell_nodes,
            "find": self._find,
            "end": self._end,
            "log level": self._log_level,
            "page": BusiestAnswers(self._registry, worker, self._look).page,
            **TraceAnswers(self._registry).questions,
            **AnnouncementAnswers(self._context).questions,
        }

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[ProcessAnswer]:
        """
        Answer *question*.

        :returns: fires with the answer; cancelling it stops the work.
        :raises RequestRefused: (by the Deferred) when *arguments* make no sense.
        """
        parts: list[bytes] = []
        method = self._questions.get(question)
        if method is None:
            return maybeDeferred(_unknown, question)
        answer = maybeDeferred(method, arguments, parts)
        return answer.addCallback(self._worked).addCallback(ProcessAnswer, parts)

    def _worked(self, value: Any) -> Any:
        return in_slices(self._context.reactor, value) if isinstance(value, Generator) else value

    # Looking at sessions.

    def _look(self) -> Iterator[list[Seen]]:
        """All sessions, some at a time."""
        live, reactor = list(self._registry.live), self._context.reactor
        for start in range(0, len(live), AT_ONCE):
            now = reactor.seconds()
            yield [
                self._seen(session, now)
                for session in live[start : start + AT_ONCE]
                if session in self._registry.live
            ]
        if len(self._rates) > 2 * len(live) + 1000:
            self._rates.keep({session.number[2] for session in live})

    def _seen(self, session: Session, now: float) -> Seen:
        moved = 0
        if session.service is not None:
            counts = session.service.counts()
            moved = counts.sent + counts.received
        rate = self._rates.look(session.number[2], now, moved, session.began)
        return Seen(session, now - session.began, moved, rate)

    def _matching(self, tests: list[Test]) -> Iterator[list[Seen]]:
        for some in self._look():
            yield [seen for seen in some if all(test(seen) for test in tests)]

    # Questions. Each has its arguments, and appends lines to the parts.

    def _counts(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Work:
        """Sessions by phase."""
        phases: Counter[str] = Counter()
        live = list(self._registry.live)
        for start in range(0, len(live), AT_ONCE):
            phases.update(session.phase.value for session in live[start : start + AT_ONCE])
            yield None
        phases.pop("over", None)
        return {
            "worker": self._worker,
            "sessions": len(self._registry.live),
            "phases": dict(phases),
            "cpu_seconds": round(time.process_time(), 3),
            "resident_bytes": _resident_bytes(),
            "lag": round(self._lag.seconds(), 6),
        }

    def add(self, question: str, answer: Callable[[Mapping[str, Any]], Any]) -> None:
        """Have *answer*, which is given the arguments, answer *question*, too."""
        self._questions[question] = lambda arguments, parts: answer(arguments)

    def _log_level(self, arguments: Mapping[str, Any], parts: list[bytes]) -> None:
        """Write debug lines for so many seconds."""
        speak(self._context.reactor, arguments["logger"], arguments["seconds"])

    def _load(self, arguments: Mapping[str, Any], parts: list[bytes]) -> dict[str, Any]:
        """How much is free, from 0 to 1, and by how many seconds the event loop is late."""
        limit = current_limit()
        free = 1 - self._registry.needed() / limit
        most = self._context.settings.limits.server.sessions
        if most:
            free = min(free, 1 - self._context.ledger.count((Scope.SERVER, ""), SESSIONS) / most)
        return {"worker": self._worker, "free": max(0.0, free), "lag": self._lag.seconds()}

    def _upstreams(self, arguments: Mapping[str, Any], parts: list[bytes]) -> dict[str, Any]:
        """The numbers of the upstreams, and the health of the members of pools."""
        ways = self._context.ways
        upstreams = {
            name: {
                "sessions": counters.sessions,
                "total": counters.total,
                "own_failures": counters.own_failures,
                "destination_failures": counters.destination_failures,
            }
            for name, counters in islice(ways.all_counters().items(), _MOST_UPSTREAMS)
        }
        pools = {
            pool: {member.name: member.health.value for member in islice(members, _MOST_UPSTREAMS)}
            for pool, members in ways.pools.items()
        }
        return {"worker": self._worker, "upstreams": upstreams, "pools": pools}

    def _sessions(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Work:
        """
        A page of sessions, a line for each.

        The value has the place of each, so that pages of several processes can be merged.
        """
        after = arguments.get("cursor")
        page = Page(
            arguments["sort"], arguments["limit"], None if after is None else SessionPlace.parse(after)
        )
        tests = tests_of(arguments["filter"])
        return self._page(page, tests, parts)

    def _page(self, page: Page, tests: list[Test], parts: list[bytes]) -> Work:
        for matching in self._matching(tests):
            page.take(matching)
            yield None
        places: list[SessionPlace] = []
        size = 0
        wall = time.time()
        for number, (place, seen) in enumerate(page.sessions, 1):
            if seen.session in self._registry.live:
                line = json.dumps(row_of(seen, wall, self._worker), ensure_ascii=False)
                row = line.encode("utf-8", "backslashreplace")
                size += len(row)
                if size > MOST_BYTES:
                    page.more = True
                    break
                append_line(parts, row)
                places.append(place)
            if number % _WRITTEN_AT_ONCE == 0:
                yield None
        return {
            "total": page.total,
            "live": len(self._registry.live),
            "more": page.more,
            "places": [[place.key, *place.number] for place in places],
        }

    def _find(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Work:
        """Count the sessions that match, and remember them for :meth:`_end`, under a token."""
        tests = tests_of(arguments["filter"])
        return self._remember(tests)

    def _remember(self, tests: list[Test]) -> Work:
        found: list[Session] = []
        for matching in self._matching(tests):
            found += [seen.session for seen in matching]
            yield None
        # One search must not forget another one: its sessions would not end.
        if len(self._found) >= MOST_FOUND:
            raise RequestRefused(503, "too many searches for sessions at once")
        token = next(self._tokens)
        timer = self._context.reactor.callLater(FOUND_FOR, self._found.pop, token)
        self._found[token] = found, timer
        return {"worker": self._worker, "matched": len(found), "token": token}

    def _end(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Work:
        """End the sessions that were found under a token: these, and no others."""
        chosen, timer = self._found.pop(arguments["token"], ((), None))
        if timer is not None:
            timer.cancel()
        ended = 0
        for number, session in enumerate(chosen, 1):
            if session in self._registry.live:
                self._registry.abort(session, Cause.ABORTED)
                ended += 1
            if number % _ENDED_AT_ONCE == 0:
                yield None
        return {"ended": ended}


def _resident_bytes() -> int | None:
    """The memory of this process; None: the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return None


def speak(clock: IReactorTime, logger: Any, seconds: float) -> None:
    """
    Have *logger* write debug lines for so many *seconds*; 0: no more.

    :raises RequestRefused: when there is no such logger.
    """
    try:
        topics = list(topics_of(logger))
    except (KeyError, AttributeError):
        raise RequestRefused(400, f"logger: there are {ALL}, {', '.join(TOPICS)}") from None
    for topic in topics:
        topic.speak(clock, seconds)


def _unknown(question: str) -> Any:
    raise RequestRefused(501, f"this process does not know the question {question}")
