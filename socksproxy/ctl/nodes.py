"""
The subcommand that looks at all nodes.
"""

from __future__ import annotations

from time import time

from .command import Console
from .fleet import STORE_DOWN, alone, last_seen
from .look import word
from .outcome import IN_PART
from .text import Column, escaped, span, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Row = dict[str, Any]

#: Digits of a hash that are shown.
_DIGITS = 8
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
    remarks = [escaped(f"{row['name']}: {remark}") for row in rows for remark in _remarks(row)]
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


def _remarks(row: Row) -> Iterator[str]:
    """What is wrong with a node."""
    if not row["alive"]:
        yield f"gone, {last_seen(row)}"
        return
    if row["seen"] is None:
        yield "tells nothing of itself: it is of an older version"
    if row.get("namesake") is not None:
        yield f'another server has the same name ({row["namesake"]}): give each its own "name" in [node]'
    if row["in_step"] is False:
        yield "has another configuration than most nodes"
    if row["waiting"] is not None:
        yield f"waits for its turn to go over to the configuration {row['waiting'][:_DIGITS]}"
    if row["error"] is not None:
        yield f"refuses the new configuration: {row['error']}"
