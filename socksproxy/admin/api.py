"""
The routes of the admin API, and their answers.

``docs/admin-api.rst`` explains them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any

from twisted.internet.defer import Deferred

from ..logs.debug import ALL
from ..shared.commands import Deed
from .answers import speak
from .control import Control, Gathered
from .errors import RequestRefused
from .event_stream import EventSource
from .holder_routes import HolderRoutes
from .node_commands import THIS, NodeCommands, wanted_nodes
from .nodes import NodeRoutes
from .page.routes import with_page
from .routes import ApiRoute, Asked, Routes
from .scrape import MetricsRoute
from .session_routes import SessionRoutes
from .settings import AdminLevel
from .site import Response
from .trace_stream import TraceRoutes
from .upkeep import DEEDS, PartState

_MONITOR, _OPERATOR, _ADMIN = AdminLevel
#: A month.
_MOST_SECONDS = 31 * 86400
#: For how long debug lines are written if the request does not say it.
_DEBUG_SECONDS = 300.0


def routes_of(control: Control) -> Routes:
    """All routes, which ask *control*."""
    sessions = SessionRoutes(control)
    server = ServerRoutes(control)
    parts = PartRoutes(control, sessions)
    return with_page(
        control,
        [
            ApiRoute("GET", "/healthz", _MONITOR, server.health),
            ApiRoute("GET", "/readyz", _MONITOR, server.readiness),
            ApiRoute("GET", "/metrics", _MONITOR, MetricsRoute(control.reactor, control.metrics).scrape),
            ApiRoute("GET", "/v1/status", _MONITOR, server.status),
            ApiRoute("GET", "/v1/nodes", _MONITOR, NodeRoutes(control).nodes),
            ApiRoute("GET", "/v1/workers", _MONITOR, server.workers),
            ApiRoute("GET", "/v1/listeners", _MONITOR, server.listeners),
            ApiRoute("POST", "/v1/reload", _ADMIN, server.reload),
            ApiRoute("POST", "/v1/log/reopen", _OPERATOR, server.reopen_log),
            ApiRoute("POST", "/v1/log-level", _OPERATOR, server.log_level),
            ApiRoute("POST", "/v1/drain", _ADMIN, server.drain),
            ApiRoute("POST", "/v1/undrain", _ADMIN, server.undrain),
            *_deeds("/v1/listeners/{name}", parts.set_listener),
            ApiRoute("GET", "/v1/upstreams", _MONITOR, parts.upstreams),
            ApiRoute("GET", "/v1/pools", _MONITOR, parts.pools),
            *_deeds("/v1/upstreams/{name}", parts.set_upstream),
            ApiRoute("GET", "/v1/trace", _OPERATOR, TraceRoutes(control).trace),
            *HolderRoutes(control, sessions).routes,
            ApiRoute("GET", "/v1/config", _MONITOR, server.config),
            ApiRoute("GET", "/v1/events", _MONITOR, EventSource(control).events),
            ApiRoute("GET", "/v1/sessions", _MONITOR, sessions.all),
            ApiRoute("POST", "/v1/sessions/kill", _OPERATOR, sessions.kill),
            ApiRoute("GET", "/v1/sessions/{id}", _MONITOR, sessions.one),
            ApiRoute("DELETE", "/v1/sessions/{id}", _OPERATOR, sessions.end),
        ],
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
        asked.allow("nodes")
        wanted_nodes(asked)
        done = self._control.reload().addCallback(lambda changes: {"changes": changes})
        return done.addCallback(NodeCommands(self._control).tell, asked, Deed.RELOAD, "", THIS)

    def reopen_log(self, asked: Asked) -> Any:
        """The access log's file has been moved away."""
        asked.allow()
        self._control.reopen_log()
        return _when_all_follow(self._control, {})

    def log_level(self, asked: Asked) -> Any:
        """The server's own log tells more for a while, in all processes."""
        asked.allow("logger", "level", "seconds")
        logger, level = asked.body.get("logger", ALL), asked.body.get("level")
        if level not in ("debug", "info"):
            raise RequestRefused(400, "level: there are debug and info")
        seconds = _seconds(asked, "seconds")
        if level == "info":
            seconds = 0.0
        elif seconds is None:
            seconds = _DEBUG_SECONDS
        speak(self._control.reactor, logger, seconds)
        told = self._control.ask("log level", {"logger": logger, "seconds": seconds})
        return told.addCallback(
            lambda gathered: {
                "logger": logger,
                "level": level,
                "seconds": seconds,
                "missing": gathered.missing,
            }
        )

    def config(self, asked: Asked) -> Any:
        """The configuration in force, without secrets."""
        asked.allow()
        return self._control.document().addCallback(Response)

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


def _when_all_follow(control: Control, answer: dict[str, Any]) -> Deferred[dict[str, Any]]:
    """*answer*, once all processes have done what they were told before, which they do in order."""
    return control.ask("load", {}).addCallback(lambda gathered: {**answer, "missing": gathered.missing})


def _seconds(asked: Asked, key: str) -> float | None:
    value = asked.body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_SECONDS:
        raise RequestRefused(400, f"{key}: not a number of seconds from 0 to {_MOST_SECONDS}")
    return float(value)
