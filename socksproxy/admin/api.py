"""
The routes of the admin API, and their answers.

``docs/admin-api.rst`` explains them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from heapq import merge
from operator import itemgetter
from typing import Any

from twisted.internet.defer import Deferred

from .answers import MOST_BYTES, ProcessAnswer, lines_of
from .control import Control, Gathered
from .errors import RequestRefused
from .routes import ApiRoute, Asked, Routes
from .scrape import MetricsRoute
from .selection import FILTERS, MOST_LIMIT, ORDERS, USUAL_LIMIT, SessionPlace, number_of, tests_of
from .settings import AdminLevel
from .site import Response
from .trace_stream import TraceRoutes
from .upkeep import DEEDS, PartState

_MONITOR, _OPERATOR, _ADMIN = AdminLevel
#: A month.
_MOST_SECONDS = 31 * 86400


def routes_of(control: Control) -> Routes:
    """All routes, which ask *control*."""
    sessions = SessionRoutes(control)
    server = ServerRoutes(control)
    parts = PartRoutes(control, sessions)
    return Routes(
        [
            ApiRoute("GET", "/healthz", _MONITOR, server.health),
            ApiRoute("GET", "/readyz", _MONITOR, server.readiness),
            ApiRoute("GET", "/metrics", _MONITOR, MetricsRoute(control.reactor, control.metrics).scrape),
            ApiRoute("GET", "/v1/status", _MONITOR, server.status),
            ApiRoute("GET", "/v1/workers", _MONITOR, server.workers),
            ApiRoute("GET", "/v1/listeners", _MONITOR, server.listeners),
            ApiRoute("POST", "/v1/reload", _ADMIN, server.reload),
            ApiRoute("POST", "/v1/log/reopen", _OPERATOR, server.reopen_log),
            ApiRoute("POST", "/v1/drain", _ADMIN, server.drain),
            ApiRoute("POST", "/v1/undrain", _ADMIN, server.undrain),
            *_deeds("/v1/listeners/{name}", parts.set_listener),
            ApiRoute("GET", "/v1/upstreams", _MONITOR, parts.upstreams),
            ApiRoute("GET", "/v1/pools", _MONITOR, parts.pools),
            *_deeds("/v1/upstreams/{name}", parts.set_upstream),
            ApiRoute("GET", "/v1/trace", _OPERATOR, TraceRoutes(control).trace),
            ApiRoute("GET", "/v1/sessions", _MONITOR, sessions.all),
            ApiRoute("POST", "/v1/sessions/kill", _OPERATOR, sessions.kill),
            ApiRoute("GET", "/v1/sessions/{id}", _MONITOR, sessions.one),
            ApiRoute("DELETE", "/v1/sessions/{id}", _OPERATOR, sessions.end),
        ]
    )


def _deeds(path: str, answer: Callable[[PartState, Asked], Any]) -> list[ApiRoute]:
    """The routes that take the part at *path* out of service, and back."""
    return [
        ApiRoute("POST", f"{path}/{deed}", _OPERATOR, partial(answer, state)) for deed, state in DEEDS.items()
    ]


class ServerRoutes:
    """
    The server as a whole.

    :param control: knows it.
    """

    def __init__(self, control: Control) -> None:
        self._control = control

    def health(self, asked: Asked) -> Any:
        """The event loop turns, or there would be no answer."""
        return {"live": True}

    def readiness(self, asked: Asked) -> Any:
        """Whether balancers should send clients."""
        _, why = self._control.state()
        return {"ready": True} if why is None else Response({"ready": False, "why": why}, 503)

    def status(self, asked: Asked) -> Any:
        """What an operator wants to know first."""
        asked.allow()
        return self._control.ask("counts", {}).addCallback(self._status)

    def _status(self, gathered: Gathered) -> Any:
        phases: Counter[str] = Counter()
        for value in gathered.values:
            phases.update(value["phases"])
        return {
            **self._control.status(),
            "sessions": sum(value["sessions"] for value in gathered.values),
            "phases": dict(phases),
            "missing": gathered.missing,
        }

    def workers(self, asked: Asked) -> Any:
        """The processes that serve clients."""
        asked.allow()
        return self._control.ask("counts", {}).addCallback(self._workers)

    def _workers(self, gathered: Gathered) -> Any:
        told = {value["worker"]: value for value in gathered.values}
        rows = []
        for row in self._control.workers():
            value = told.get(row["number"], {})
            more = {key: value.get(key) for key in ("sessions", "cpu_seconds", "resident_bytes", "lag")}
            rows.append({**row, **more})
        return {"workers": rows, "missing": gathered.missing}

    def listeners(self, asked: Asked) -> Any:
        """Where clients are accepted."""
        asked.allow()
        return {"listeners": self._control.listeners()}

    def reload(self, asked: Asked) -> Any:
        """Read the configuration again, and wait for the end."""
        asked.allow()
        return self._control.reload().addCallback(lambda changes: {"changes": changes})

    def reopen_log(self, asked: Asked) -> Any:
        """The access log's file has been moved away."""
        asked.allow()
        self._control.reopen_log()
        return {}

    def drain(self, asked: Asked) -> Any:
        """Have balancers send clients elsewhere, then accept none, then end the sessions that are left."""
        asked.allow("seconds", "notice", "refuse")
        refuse = asked.body.get("refuse", False)
        if not isinstance(refuse, bool):
            raise RequestRefused(400, "refuse: neither true nor false")
        notice = 0.0 if refuse else _seconds(asked, "notice")
        return _when_all_follow(self._control, self._control.drain(_seconds(asked, "seconds"), notice))

    def undrain(self, asked: Asked) -> Any:
        """Take a drain back."""
        asked.allow()
        self._control.undrain()
        return _when_all_follow(self._control, {})


class PartRoutes:
    """
    Listeners, upstreams and pools: see them, take them out of service and back.

    :param control: has them.
    :param sessions: ends the sessions of what is disabled.
    """

    def __init__(self, control: Control, sessions: SessionRoutes) -> None:
        self._control = control
        self._sessions = sessions

    def set_listener(self, state: PartState, asked: Asked) -> Any:
        """Have a listener be in *state*."""
        asked.allow()
        words = self._control.set_listener(asked.names["name"], state)
        return self._set(state, {"listener": words[-1]})

    def set_upstream(self, state: PartState, asked: Asked) -> Any:
        """Have an upstream be in *state*."""
        asked.allow()
        self._control.set_upstream(asked.names["name"], state)
        return self._set(state, {"via": asked.names["name"]})

    def _set(self, state: PartState, sessions: Mapping[str, str]) -> Any:
        answer = {"state": state.value, "ended": 0}
        if state is not PartState.DISABLED:
            return _when_all_follow(self._control, answer)
        return self._sessions.end_matching(sessions).addCallback(
            lambda outcome: {**answer, "ended": outcome["ended"], "missing": outcome["missing"]}
        )

    def upstreams(self, asked: Asked) -> Any:
        """The upstreams, with their numbers in all processes."""
        asked.allow()
        return self._control.ask("upstreams", {}).addCallback(self._upstreams)

    def _upstreams(self, gathered: Gathered) -> Any:
        numbers: dict[str, Counter[str]] = {}
        for value in gathered.values:
            for name, told in value["upstreams"].items():
                numbers.setdefault(name, Counter()).update(told)
        rows = [{**known, **numbers.get(name, {})} for name, known in self._control.upstreams().items()]
        return {"upstreams": sorted(rows, key=itemgetter("name")), "missing": gathered.missing}

    def pools(self, asked: Asked) -> Any:
        """The pools, and the health of their members in each process."""
        asked.allow()
        return self._control.ask("upstreams", {}).addCallback(self._pools)

    def _pools(self, gathered: Gathered) -> Any:
        states = {name: known["state"] for name, known in self._control.upstreams().items()}
        rows = []
        for name, known in self._control.pools().items():
            health: dict[str, Counter[str]] = {}
            for value in gathered.values:
                for member, word in value["pools"].get(name, {}).items():
                    health.setdefault(member, Counter())[word] += 1
            members = [
                {"name": member, "state": states.get(member), "health": dict(words)}
                for member, words in health.items()
            ]
            rows.append({**known, "members": members})
        return {"pools": rows, "missing": gathered.missing}


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
            "limit": _limit(wanted.pop("limit", None)),
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
        if not isinstance(wanted, dict) or not wanted:
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


def _when_all_follow(control: Control, answer: dict[str, Any]) -> Deferred[dict[str, Any]]:
    """*answer*, once all processes have done what they were told before: they take one thing after another."""
    return control.ask("load", {}).addCallback(lambda gathered: {**answer, "missing": gathered.missing})


def _seconds(asked: Asked, key: str) -> float | None:
    value = asked.body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_SECONDS:
        raise RequestRefused(400, f"{key}: not a number of seconds from 0 to {_MOST_SECONDS}")
    return float(value)


def _limit(text: str | None) -> int:
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
    pages = [_placed(answer) for answer in gathered.answers]
    # Behind the end of a page that was cut there may be sessions that come before those of another one.
    known = [
        page[-1][0] for page, value in zip(pages, gathered.values, strict=True) if page and value["more"]
    ]
    end = min(known, default=None)
    for place, row in merge(*pages):
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


def _placed(answer: ProcessAnswer) -> list[tuple[SessionPlace, bytes]]:
    places = [
        SessionPlace(key, (first, second, third)) for key, first, second, third in answer.value["places"]
    ]
    return list(zip(places, lines_of(answer.parts), strict=True))
