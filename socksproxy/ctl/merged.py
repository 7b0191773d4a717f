"""
What all nodes have together: their answers in one.
"""

from __future__ import annotations

from .text import amount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .command import Console
    from .connection import AdminClient

    Row = dict[str, Any]

#: The numbers of a user that are added up.
_ADDED = ("sessions", "sent", "received", "rate")
#: Users of one answer, and of a list without --limit.
_PAGE, _USUAL = 1000, 100

#: What sessions and users are sorted by, in the order of a list.
_ORDERS: dict[str | None, Callable[[Row], float]] = {
    "age": lambda row: -row["age"],
    "rate": lambda row: -row["rate"],
    "bytes": lambda row: -row["sent"] - row["received"],
    "sessions": lambda row: -row["sessions"],
    "name": lambda row: 0,
}


def sessions(console: Console, ask: Callable[[AdminClient], Row], sort: str | None, limit: int) -> Row:
    """
    The sessions of all nodes. Ids are unique on each node alone, so each session has the name of its node.

    :param ask: gives the sessions of one node.
    :param limit: the most of them; 0: all.
    """
    answers, rows, rest = _merged(console, ask, "sessions")
    rows.sort(key=_ORDERS[sort or "age"])
    total, live = (sum(answer[key] for answer in answers) for key in ("total", "live"))
    return {"sessions": rows[: limit or None], "total": total, "live": live, **rest}


def users(console: Console, sort: str | None, limit: int | None) -> Row:
    """The users of all nodes, each with what all of them count, and their names."""
    _, rows, rest = _merged(console, _all_users, "users")
    found: dict[str, Row] = {}
    for row in rows:
        node = row.pop("node")
        user = found.setdefault(row["user"], {**row, **dict.fromkeys(_ADDED, 0), "nodes": []})
        for key in _ADDED:
            user[key] += row[key]
        user["last_seen"] = max(row["last_seen"] or 0, user["last_seen"] or 0) or None
        user["nodes"].append(node)
    return {"users": _first(found.values(), sort, limit), "total": len(found), **rest}


def users_of_one(client: AdminClient, sort: str | None, limit: int | None) -> Row:
    """
    The users of one node.

    :param limit: the most of them; 0: all; None: the usual number.
    """
    if limit is None or 0 < limit <= _PAGE:
        answer: Row = client.get("/v1/users", {"sort": sort, "limit": limit})
        return answer
    answer = _all_users(client)
    return {**answer, "users": _first(answer["users"], sort, limit)}


def _all_users(client: AdminClient) -> Row:
    """All users of one node, page by page: one may have more sessions on it than on another one."""
    found: list[Row] = []
    missing: set[int] = set()
    beyond = None
    while True:
        answer = client.get("/v1/users", {"sort": "name", "limit": _PAGE, "beyond": beyond})
        found += answer["users"]
        missing.update(answer["missing"])
        if len(answer["users"]) < _PAGE:
            return {"users": found, "total": len(found), "missing": sorted(missing)}
        beyond = found[-1]["user"]


def _first(users: Iterable[Row], sort: str | None, limit: int | None) -> list[Row]:
    rows = sorted(users, key=lambda row: (_ORDERS[sort or "sessions"](row), row["user"]))
    return rows[: (_USUAL if limit is None else limit) or None]


def _merged(
    console: Console, ask: Callable[[AdminClient], Row], key: str
) -> tuple[list[Row], list[Row], Row]:
    """The answers of all nodes, the rows of all, each with its node, and what the answer has besides."""
    gathered = console.ask_all(ask)
    console.note_silent(gathered)
    answers = sorted(gathered.answers.items())
    rows = [{"node": node, **row} for node, answer in answers for row in answer[key]]
    missing = [f"{node}/{number}" for node, answer in answers for number in answer["missing"]]
    rest = {"nodes": [node for node, _ in answers], "silent": gathered.silent, "missing": missing}
    return [answer for _, answer in answers], rows, rest


def usage(console: Console, fetch: Callable[[AdminClient], list[Row]]) -> list[Row]:
    """
    What holders of quotas have used on each node.

    :param fetch: gives the lines of one node.
    """
    gathered = console.ask_all(fetch)
    console.note_silent(gathered)
    rows = [{**row, "node": node} for node, lines in gathered.answers.items() for row in lines]
    return sorted(rows, key=lambda row: (row["period"], row["holder"], row["node"]))


def sums(rows: list[Row]) -> list[list[str]]:
    """A line for each holder who has used something on several nodes."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        found.setdefault((row["period"], row["holder"]), []).append(row["bytes"])
    return [[*holder, amount(sum(used)), "(all)"] for holder, used in found.items() if len(used) > 1]
