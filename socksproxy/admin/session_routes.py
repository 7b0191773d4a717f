"""
The routes of sessions: list them, look at one, end some.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import merge
from typing import Any

from twisted.internet.defer import Deferred

from .answers import MOST_BYTES, ProcessAnswer
from .control import Control, Gathered
from .errors import RequestRefused
from .lines import lines_of
from .routes import Asked
from .selection import FILTERS, MOST_LIMIT, ORDERS, USUAL_LIMIT, SessionPlace, number_of, tests_of
from .site import Response


class SessionRoutes:
    """
    Sessions: list them, look at one, end some.

    :param control: asks the processes that have them.
    """

    def __init__(self, control: Control) -> None:
        self._control = control

    def all(self, asked: Asked) -> Any:
        """A page of the sessions that match."""
        asked.allow(*FILTERS, "worker", "sort", "limit", "cursor")
        wanted = dict(asked.parameters)
        arguments: dict[str, Any] = {
            "sort": wanted.pop("sort", "age"),
            "limit": limit_of(wanted.pop("limit", None)),
            "cursor": wanted.pop("cursor", None),
        }
        worker = _worker(wanted.pop("worker", None))
        if arguments["sort"] not in ORDERS:
            raise RequestRefused(400, f"sort: there are {', '.join(ORDERS)}")
        if arguments["cursor"] is not None:
            SessionPlace.parse(arguments["cursor"])
        tests_of(wanted)
        arguments["filter"] = wanted
        return self._control.ask("sessions", arguments, worker).addCallback(_page, arguments["limit"])

    def one(self, asked: Asked) -> Any:
        """One session."""
        asked.allow()
        number_of(asked.names["id"])
        arguments = {"sort": "age", "limit": 1, "cursor": None, "filter": {"id": asked.names["id"]}}
        return self._control.ask("sessions", arguments).addCallback(_only)

    def end(self, asked: Asked) -> Any:
        """End one session."""
        asked.allow()
        number_of(asked.names["id"])
        ended = self._kill({"id": asked.names["id"]}, None, lambda matched: _check_one(matched))
        return ended.addCallback(lambda outcome: {"ended": outcome["ended"]})

    def kill(self, asked: Asked) -> Any:
        """End the sessions that match, if they are as many as is expected."""
        asked.allow("filter", "expect", "dry_run")
        body = asked.body
        wanted, expect, dry = body.get("filter"), body.get("expect"), body.get("dry_run", False)
        if not isinstance(wanted, dict) or wanted in ({}, {"worker": None}):
            raise RequestRefused(
                400, "filter: an object with at least one key is needed; nothing matches all sessions"
            )
        if expect is not None and (not isinstance(expect, int) or isinstance(expect, bool) or expect < 0):
            raise RequestRefused(400, "expect: not a number of sessions")
        if not isinstance(dry, bool):
            raise RequestRefused(400, "dry_run: neither true nor false")
        wanted = dict(wanted)
        worker = _worker(wanted.pop("worker", None))

        def check(matched: int) -> None:
            if expect is not None and matched != expect:
                raise RequestRefused(409, f"{matched} sessions match, not {expect}", matched=matched)

        return self._kill(wanted, worker, check, dry)

    def end_matching(self, wanted: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        """End the sessions that match the filter *wanted*."""
        return self._kill(wanted, None, lambda matched: None)

    def _kill(
        self,
        wanted: Mapping[str, Any],
        worker: int | None,
        check: Callable[[int], None],
        dry: bool = False,
    ) -> Deferred[dict[str, Any]]:
        """
        End sessions: find them first, in all processes, and end what was found and nothing else.

        :param check: is given how many there are, and raises what stops it.
        """
        tests_of(wanted)
        missing: set[int] = set()
        matched = 0

        def found(gathered: Gathered) -> Any:
            nonlocal matched
            missing.update(gathered.missing)
            matched = sum(value["matched"] for value in gathered.values)
            check(matched)
            each = {
                value["worker"]: {"token": value["token"]} for value in gathered.values if value["matched"]
            }
            return Gathered([], []) if dry or not each else self._control.ask_each("end", each)

        def ended(gathered: Gathered) -> dict[str, Any]:
            missing.update(gathered.missing)
            count = sum(value["ended"] for value in gathered.values)
            return {"matched": matched, "ended": count, "missing": sorted(missing)}

        return self._control.ask("find", {"filter": wanted}, worker).addCallback(found).addCallback(ended)


def limit_of(text: str | None) -> int:
    """The number that *text* is; None: the usual one."""
    if text is None:
        return USUAL_LIMIT
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= MOST_LIMIT and len(text) < 9):
        raise RequestRefused(400, f"limit: not a number from 1 to {MOST_LIMIT}")
    return int(text)


def _worker(value: Any) -> int | None:
    if value is None:
        return None
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise RequestRefused(400, "worker: not the number of a worker")
    return int(text)


def _check_one(matched: int) -> None:
    if not matched:
        raise RequestRefused(404, "there is no such session, or it has ended")


def _only(gathered: Gathered) -> Any:
    rows = [line for answer in gathered.answers for line in lines_of(answer.parts)]
    if not rows:
        raise RequestRefused(404, "there is no such session, or it has ended", missing=gathered.missing)
    return Response(rows[0] + b"\n")


def _page(gathered: Gathered, limit: int) -> Response:
    """One page of the pages of all processes."""
    rows: list[bytes] = []
    size, last, more = 0, None, any(value["more"] for value in gathered.values)
    # Behind the end of a page that was cut there may be sessions that come before those of another one.
    ends = [value["places"][-1] for value in gathered.values if value["more"] and value["places"]]
    end = min(map(_place, ends), default=None)
    for place, row in merge(*map(_placed, gathered.answers)):
        size += len(row)
        if len(rows) == limit or size > MOST_BYTES or (end is not None and place > end):
            more = True
            break
        rows.append(row)
        last = place
    cursor = last.cursor if more and last is not None else None
    total = sum(value["total"] for value in gathered.values)
    live = sum(value["live"] for value in gathered.values)
    tail = {"total": total, "live": live, "cursor": cursor, "missing": gathered.missing}
    return Response(b'{"sessions": [' + b",\n".join(rows) + b"], " + json.dumps(tail)[1:].encode() + b"\n")


def _placed(answer: ProcessAnswer) -> Iterator[tuple[SessionPlace, bytes]]:
    """The sessions of one process; no more of them are made than the page takes."""
    rows = (row for part in answer.parts for row in part.split(b"\n"))
    return ((_place(told), row) for told, row in zip(answer.value["places"], rows, strict=True))


def _place(told: Sequence[Any]) -> SessionPlace:
    key, generation, worker, number = told
    return SessionPlace(key, (generation, worker, number))
