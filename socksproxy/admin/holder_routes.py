"""
The routes of users, locked-out addresses and limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..logs.printable import line_of_record
from ..shared.commands import Deed
from .control import Control, Gathered
from .errors import RequestRefused
from .holders import MOST_TOLD, USER_ORDERS
from .node_commands import NodeCommands, wanted_nodes
from .routes import ApiRoute, Asked
from .selection import network_in
from .session_routes import SessionRoutes, limit_of
from .settings import AdminLevel
from .site import Response

#: Users that each worker tells at the least, if it has so many.
_LEAST_USERS = 200
_SCOPES = ("server", "client", "network", "user", "rule")
_PERIOD = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?", re.ASCII)
_LOCAL_USER = re.compile(r"uid [0-9]{1,10}", re.ASCII)
_FIRST, _LAST = "0001-01", "9999-12-31"

#: Digits of the number of a usage record: it fits in 64 bits.
_MOST_DIGITS = 18

#: By what users are sorted, the largest first.
_USER_KEYS: dict[str, Callable[[dict[str, Any]], float]] = {
    "sessions": lambda row: row["sessions"],
    "bytes": lambda row: row["sent"] + row["received"],
    "rate": lambda row: row["rate"],
}


class HolderRoutes:
    """
    Users, lock-outs, limits and usage.

    :param control: asks the processes, and knows the configuration.
    :param sessions: ends the sessions of a user.
    """

    def __init__(self, control: Control, sessions: SessionRoutes) -> None:
        self._control = control
        self._sessions = sessions
        self._nodes = NodeCommands(control)

    @property
    def routes(self) -> list[ApiRoute]:
        """All of them."""
        monitor, operator, admin = AdminLevel
        return [
            ApiRoute("GET", "/v1/users", monitor, self.users),
            ApiRoute("GET", "/v1/users/{name}", monitor, self.user),
            ApiRoute("POST", "/v1/users/{name}/kick", operator, self.kick),
            ApiRoute("POST", "/v1/users/{name}/limits", operator, self.limit_user),
            ApiRoute("DELETE", "/v1/users/{name}/usage", admin, self.forget_usage),
            ApiRoute("GET", "/v1/lockouts", monitor, self.lockouts),
            ApiRoute("DELETE", "/v1/lockouts/{address}", operator, self.unlock),
            ApiRoute("GET", "/v1/limits", monitor, self.limits),
            ApiRoute("GET", "/v1/usage", monitor, self.usage),
        ]

    def users(self, asked: Asked) -> Any:
        """The users with sessions."""
        asked.allow("sort", "limit", "beyond")
        sort = asked.parameters.get("sort", "sessions")
        beyond = asked.parameters.get("beyond")
        limit = limit_of(asked.parameters.get("limit"))
        if sort not in USER_ORDERS:
            raise RequestRefused(400, f"sort: there are {', '.join(USER_ORDERS)}")
        if beyond is not None and sort != "name":
            raise RequestRefused(400, "beyond: only with sort=name")
        # A user may have more sessions in one worker than in another.
        most = min(MOST_TOLD, max(2 * limit, _LEAST_USERS))
        arguments = {"sort": sort, "limit": most, "user": None, "beyond": beyond}
        return self._control.ask("users", arguments).addCallback(self._users, sort, limit)

    def _users(self, gathered: Gathered, sort: str, limit: int) -> Any:
        rows = list(_merged(gathered).values())
        rows.sort(key=lambda row: row["user"])
        if sort != "name":
            rows.sort(key=_USER_KEYS[sort], reverse=True)
        # Each worker tells a part of its users, so the number of users in several workers is unknown.
        total = max([len(rows), *(value["total"] for value in gathered.values)])
        return {"users": rows[:limit], "total": total, "missing": gathered.missing}

    def user(self, asked: Asked) -> Any:
        """One user."""
        asked.allow()
        name = asked.names["name"]
        arguments = {"sort": "name", "limit": 1, "user": name, "beyond": None}
        told = self._control.ask("users", arguments).addCallback(self._user, name)
        return told.addCallback(self._with_usage, name)

    def _user(self, gathered: Gathered, name: str) -> dict[str, Any]:
        shown = line_of_record(name)
        row = _merged(gathered).get(shown)
        known = self._control.user(name)
        if row is None and not known["known"]:
            raise RequestRefused(404, "there is no such user, and there are no sessions of that name")
        return {**(row or _row(shown)), **known, "missing": gathered.missing}

    def _with_usage(self, row: dict[str, Any], name: str) -> Any:
        return self._control.usage_of(name).addCallback(lambda usage: {**row, "usage": usage})

    def kick(self, asked: Asked) -> Any:
        """End the sessions of a user."""
        asked.allow("nodes")
        wanted_nodes(asked)
        user = asked.names["name"]
        ended = self._sessions.end_matching({"user": user})
        ended.addCallback(lambda outcome: {key: outcome[key] for key in ("ended", "missing")})
        return ended.addCallback(self._nodes.tell, asked, Deed.KICK, user)

    def limit_user(self, asked: Asked) -> Any:
        """Limit a user until the next reload."""
        if asked.parameters:
            asked.allow(*asked.body)
        return self._control.limit_user(asked.names["name"], asked.body)

    def forget_usage(self, asked: Asked) -> Any:
        """Delete what a user has used of a day or of a month."""
        asked.allow("period")
        period = asked.parameters.get("period")
        if period is None or not _PERIOD.fullmatch(period):
            raise RequestRefused(400, "period: a month or a day is needed, such as 2026-11 or 2026-11-30")
        deleted = self._control.forget_usage(asked.names["name"], period)
        return deleted.addCallback(lambda amount: {"deleted": amount})

    def usage(self, asked: Asked) -> Any:
        """What holders of quotas have used, or usage records: a line for each."""
        asked.allow("from", "to", "beyond", "after")
        after = asked.parameters.get("after")
        if after is not None:
            asked.allow("after")
            if not (after.isascii() and after.isdecimal() and len(after) <= _MOST_DIGITS):
                raise RequestRefused(400, "after: not the number of a record")
            return self._control.usage_records(int(after)).addCallback(Response, 200, "application/x-ndjson")
        first, last = asked.parameters.get("from", _FIRST), asked.parameters.get("to", _LAST)
        for key, period in (("from", first), ("to", last)):
            if not _PERIOD.fullmatch(period):
                raise RequestRefused(400, f"{key}: not a month or a day such as 2026-11 or 2026-11-30")
        beyond = asked.parameters.get("beyond")
        if beyond is not None and "from" not in asked.parameters:
            raise RequestRefused(400, "beyond: only with from")
        return self._control.usage(first, last, beyond).addCallback(Response, 200, "application/x-ndjson")

    def lockouts(self, asked: Asked) -> Any:
        """The addresses that are locked out."""
        asked.allow()
        return self._control.ask("lockouts", {}).addCallback(self._lockouts)

    def _lockouts(self, gathered: Gathered) -> Any:
        found: dict[str, dict[str, Any]] = {}
        for value in gathered.values:
            for address, seconds, level in value["lockouts"]:
                row = found.setdefault(address, {"address": address, "seconds": 0.0, "level": 0})
                row["seconds"] = max(row["seconds"], round(seconds, 3))
                row["level"] = max(row["level"], level)
        rows = sorted(found.values(), key=lambda row: row["address"])
        return {"lockouts": rows[:MOST_TOLD], "total": len(rows), "missing": gathered.missing}

    def unlock(self, asked: Asked) -> Any:
        """Let an address try passwords again."""
        asked.allow("nodes")
        wanted_nodes(asked)
        address = asked.names["address"]
        if not _LOCAL_USER.fullmatch(address) and network_in(address) is None:
            raise RequestRefused(400, f"{address}: neither an address nor a local user such as uid 1000")
        unlocked = self._control.ask("unlock", {"address": address}).addCallback(self._unlocked)
        unlocked.addCallback(self._nodes.tell, asked, Deed.UNLOCK, address)
        return unlocked.addCallback(_unless_locked_nowhere)

    def _unlocked(self, gathered: Gathered) -> dict[str, Any]:
        unlocked = int(any(value["unlocked"] for value in gathered.values))
        return {"unlocked": unlocked, "missing": gathered.missing}

    def limits(self, asked: Asked) -> Any:
        """How much of their limits holders have taken."""
        asked.allow("scope", "full")
        scope, full = asked.parameters.get("scope"), asked.parameters.get("full", "false")
        if scope is not None and scope not in _SCOPES:
            raise RequestRefused(400, f"scope: there are {', '.join(_SCOPES)}")
        if full not in ("true", "false"):
            raise RequestRefused(400, "full: neither true nor false")
        arguments = {"scope": scope, "full": full == "true"}
        return self._control.ask("limits", arguments).addCallback(self._limits)

    def _limits(self, gathered: Gathered) -> Any:
        # The counts are those of all workers already, unless one has more to tell than another.
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for value in gathered.values:
            for row in value["limits"]:
                found.setdefault((row["scope"], row["holder"]), row)
        rows = [found[key] for key in sorted(found)]
        total = max([len(rows), *(value["total"] for value in gathered.values)])
        return {"limits": rows[:MOST_TOLD], "total": total, "missing": gathered.missing}


def _unless_locked_nowhere(answer: dict[str, Any]) -> dict[str, Any]:
    # Another node may have locked it out.
    nodes = answer.get("nodes")
    if not answer["unlocked"] and nodes != "all":
        words = "this address is not locked out"
        if nodes == "this":
            words += " on this node; the others are not told: the shared store is down"
        raise RequestRefused(404, words, missing=answer["missing"])
    return answer


def _row(user: str) -> dict[str, Any]:
    return {"user": user, "sessions": 0, "sent": 0, "received": 0, "rate": 0.0, "last_seen": None}


def _merged(gathered: Gathered) -> dict[str, dict[str, Any]]:
    """The rows of all processes, by user."""
    rows: dict[str, dict[str, Any]] = {}
    for value in gathered.values:
        for user, (sessions, sent, received, rate, seen) in value["users"].items():
            row = rows.setdefault(user, _row(user))
            row["sessions"] += sessions
            row["sent"] += sent
            row["received"] += received
            row["rate"] = round(row["rate"] + rate, 1)
            if seen is not None:
                row["last_seen"] = round(max(seen, row["last_seen"] or 0.0), 3)
    return rows
