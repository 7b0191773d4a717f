"""
The subcommands that look at the list of all nodes: to print it, and to see what becomes of a reload.
"""

from __future__ import annotations

from time import monotonic, sleep, time

from .command import Console
from .connection import USUAL_TIMEOUT
from .fleet import STORE_DOWN, alone, last_seen
from .look import word
from .outcome import IN_PART
from .text import Column, escaped, span, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Row = dict[str, Any]

#: Digits of a hash that are shown, and names of nodes with it.
_DIGITS, _MOST_NAMES = 8, 3
#: Seconds between two looks at what nodes tell.
_EVERY = 0.5
_TELLS_NOTHING = "has told nothing of itself: it has just started, or is of an older version"
_COLUMNS = (
    Column("NODE", elastic=True),
    Column("STATE"),
    *(Column(title, right=True) for title in ("SESSIONS", "UPTIME")),
    Column("VERSION"),
    Column("CONFIG"),
    *(Column(title, right=True) for title in ("LOADED", "SEEN")),
)


def nodes(console: Console) -> None:
    """All nodes that share a store."""
    answer = console.client.get("/v1/nodes")
    rows = answer["nodes"]
    lines = table(_COLUMNS, [_cells(row, time()) for row in rows], console.width)
    usual = _with_usual(answer)
    remarks = [escaped(f"{row['name']}: {remark}") for row in rows for remark in _remarks(row, usual)]
    console.tell(answer, [*lines, *([""] if remarks else []), *remarks])
    why = alone(answer)
    if why is not None:
        console.note(why)
    if why == STORE_DOWN:
        console.status = IN_PART


def _cells(row: Row, now: float) -> tuple[str, ...]:
    loaded = row["loaded"]
    return (
        row["name"],
        word(row["state"]) if row["alive"] else "gone",
        word(row["sessions"]) if row["alive"] else "-",
        span(row["uptime"] if row["alive"] else None),
        word(row["version"]),
        word(row["hash"])[:_DIGITS],
        span(None if loaded is None else max(0.0, now - loaded)),
        span(row["seen"]),
    )


def _with_usual(answer: Row) -> str:
    """Who has the configuration from which others differ: most nodes, or these."""
    known = [row for row in answer["nodes"] if row["alive"] and row["hash"] is not None]
    names = [row["name"] for row in known if row["hash"] == answer["hash"]]
    if 2 * len(names) > len(known):
        return "most nodes"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _remarks(row: Row, usual: str) -> Iterator[str]:
    """
    What is wrong with a node.

    :param usual: who has the usual configuration.
    """
    if not row["alive"]:
        yield f"gone, {last_seen(row)}"
        return
    if row["seen"] is None:
        yield _TELLS_NOTHING
    if row.get("namesake") is not None:
        yield f'another server has the same name ({row["namesake"]}): give each its own "name" in [node]'
    if row["in_step"] is False:
        yield f"has another configuration than {usual}"
    if row["waiting"] is not None:
        yield f"waits for its turn to go over to the configuration {row['waiting'][:_DIGITS]}"
    if row["error"] is not None:
        yield f"refuses the new configuration: {row['error']}"


def reload_all(console: Console) -> None:
    """
    Have all nodes read their configurations again, and print what becomes of that on each.

    A node has done so when it tells another time of a configuration that is in force, or of one that is not.
    The clocks of nodes may differ, so such a time is compared with another one of the same node alone.
    """
    timeout = console.options.timeout
    until = monotonic() + (USUAL_TIMEOUT if timeout is None else timeout)
    before = {row["name"]: row for row in console.client.get("/v1/nodes")["nodes"]}
    answer = console.client.change("POST", "/v1/reload", {"nodes": "all"})
    while True:
        told = console.client.get("/v1/nodes")
        rows = [row for row in told["nodes"] if row["name"] != told["node"]]
        waiting = any(row["alive"] and not _has_read(row, before.get(row["name"])) for row in rows)
        if not waiting or monotonic() >= until:
            break
        sleep(_EVERY)
    own = next(row for row in told["nodes"] if row["name"] == told["node"])
    found = {row["name"]: _outcome(row, before.get(row["name"]), own["hash"]) for row in rows}
    lines = [f"{told['node']}: {', '.join(answer['changes']) or 'nothing has changed'}"]
    lines += [escaped(f"{name}: {words}") for name, (_, words) in found.items()]
    others = [{"node": name, "done": done, "words": words} for name, (done, words) in found.items()]
    console.tell({**answer, "node": told["node"], "others": others}, lines)
    why = alone(told)
    if why is not None:
        console.note(why)
    if why is not None or not all(done for done, _ in found.values()):
        console.status = IN_PART


def _has_read(row: Row, before: Row | None) -> bool:
    """Whether a node has read its configuration since it was as *before*; None: it was not there."""
    if before is None:
        return row["seen"] is not None
    if before["seen"] is None and row["seen"] is None:
        return True  # an older version, which never tells
    return any(row.get(key) != before.get(key) for key in ("loaded", "failed"))


def _outcome(row: Row, before: Row | None, hash: str | None) -> tuple[bool, str]:
    """Whether a node has the configuration of that *hash* in force, and what to tell of it."""
    if not row["alive"]:
        return False, f"gone, {last_seen(row)}"
    if row["seen"] is None:
        return False, _TELLS_NOTHING
    if row["error"] is not None:
        return False, f"refuses the new configuration: {row['error']}"
    shown = word(row["hash"])[:_DIGITS]
    if row["waiting"] is not None:
        return False, f"waits for its turn to go over to the configuration {row['waiting'][:_DIGITS]}"
    if not _has_read(row, before):
        return False, f"has not told that it has read its configuration; {shown} is in force"
    if row["hash"] != hash:
        return False, f"{shown} is in force, another configuration than that of this node"
    return True, f"{shown} is in force"
