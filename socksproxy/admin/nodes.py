"""
All nodes that share a store: what each of them tells of itself, and which differ.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from ..shared.nodes import GONE
from .announcements import FIND, LIVE
from .control import Control, Gathered
from .routes import Asked

#: Characters of what is wrong with a configuration.
_MOST_WORDS = 200
#: Texts that a node tells are no longer, and numbers are smaller.
_LONGEST, _MOST_NUMBER = 300, 1e12

#: What a node tells of itself, and the type of each.
_KEYS: Mapping[str, type] = {
    "state": str,
    "why": str,
    "drain": str,
    "version": str,
    "sessions": int,
    "uptime": float,
    "hash": str,
    "loaded": float,
    "waiting": str,
    "error": str,
    "failed": float,
    "admin": str,
    "namesake": str,
}

Row = dict[str, Any]


def told_of(control: Control) -> Deferred[Row]:
    """Fires with what this node tells of itself."""
    return control.ask(LIVE, {}).addCallback(_told, control)


def _told(gathered: Gathered, control: Control) -> Row:
    status, admin = control.status(), control.node().admin
    config = status["config"]
    failed, waiting = config["failed"], config.get("waiting")
    problem = config.get("error") or (None if failed is None else "\n".join(failed["mistakes"]))
    return {
        **{key: status[key] for key in ("state", "why", "drain", "version", "uptime")},
        "sessions": sum(value["sessions"] for value in gathered.values),
        "hash": config["hash"],
        "loaded": config["loaded"],
        "waiting": None if waiting is None else waiting["hash"],
        "error": None if problem is None else problem.partition("\n")[0][:_MOST_WORDS],
        "failed": None if failed is None else failed["time"],
        "admin": admin,
        "namesake": None,
    }


def text_of(row: Row) -> str:
    """What is written into the store for *row*, which :func:`told_of` gives."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def row_of(text: str, seen: float | None) -> Row:
    """
    What a node has told of itself, as far as it makes sense; None: it has not, or that makes none.

    :param text: what it has written.
    :param seen: how many seconds ago.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    row: Row = dict.fromkeys(_KEYS)
    if isinstance(told, dict):
        row.update({key: _sound(told.get(key), kind) for key, kind in _KEYS.items()})
    if row["admin"] is not None and not row["admin"].startswith(("http://", "https://")):
        row["admin"] = None
    if row["uptime"] is not None and seen is not None:
        row["uptime"] = round(row["uptime"] + seen, 3)
    return row


def _sound(value: Any, kind: type) -> Any:
    """*value*; None: it is not of that kind, or of no reasonable size."""
    if kind is str:
        return value if isinstance(value, str) and len(value) <= _LONGEST else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    sound = 0 <= value < _MOST_NUMBER and (kind is float or isinstance(value, int))
    return value if sound else None


def instance_of(text: str) -> str | None:
    """Which server of a name has told that *text*; empty: it does not say; None: it tells nothing."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return (_sound(told.get("instance"), str) or "") if isinstance(told, dict) else None


class NodeRoutes:
    """
    The route of the nodes.

    :param control: knows this node, and asks a process for the others.
    """

    def __init__(self, control: Control) -> None:
        self._control = control

    def nodes(self, asked: Asked) -> Any:
        """All nodes, or this one alone where there is no store that answers."""
        asked.allow()
        return told_of(self._control).addCallback(self._find)

    def _find(self, own: Row) -> Deferred[Row]:
        process = self._control.teller()
        each: dict[int, Row] = {} if process is None else {process: {}}
        return self._control.ask_each(FIND, each).addCallback(self._all, own)

    def _all(self, gathered: Gathered, own: Row) -> Row:
        value: Row = gathered.values[0] if gathered.values else {"node": "", "nodes": None}
        store = "none" if value["node"] is None else "down" if value["nodes"] is None else "up"
        name = value["node"] or self._control.node().name
        here = {"processes": self._control.processes()["running"], "seen": 0.0, "alive": True}
        rows = [{"name": name, **own, **here}]
        for other, seen, processes, text in value["nodes"] or ():
            if other == name:
                rows[0]["namesake"] = row_of(text, seen)["namesake"]
            else:
                alive = processes > 0 or (seen is not None and seen <= GONE)
                told = {"processes": processes, "seen": seen, "alive": alive}
                rows.append({"name": other, **row_of(text, seen), **told})
        rows.sort(key=lambda row: str(row["name"]))
        usual = usual_hash(rows)
        for row in rows:
            row["in_step"] = None if row["hash"] is None else row["hash"] == usual
        return {"node": name, "store": store, "hash": usual, "nodes": rows, "missing": gathered.missing}


def usual_hash(rows: Iterable[Row]) -> str | None:
    """The hash of the configuration that most nodes have; of two with as many, the one loaded last."""
    counts: Counter[str] = Counter()
    loaded: dict[str, float] = {}
    for row in rows:
        if row["alive"] and row["hash"] is not None:
            counts[row["hash"]] += 1
            loaded[row["hash"]] = max(row["loaded"] or 0.0, loaded.get(row["hash"], 0.0))
    return max(counts, key=lambda each: (counts[each], loaded[each]), default=None)
