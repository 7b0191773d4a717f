"""
The list of sessions, once or again and again.
"""

from __future__ import annotations

import json
from time import localtime, strftime

from . import merged
from .command import Console
from .outcome import NO_SERVER, TIME_OVER, USAGE, CtlFailed
from .screen import Screen
from .subcommands import FILTERS
from .text import Column, amount, cut, span, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from typing import Any

    from .connection import AdminClient

#: Sessions of one page, and of a list without --limit.
_PAGE, _USUAL = 1000, 100
#: Seconds between two looks: usually, and at least.
_EVERY, _LEAST_EVERY = 2.0, 0.1

_NODE = Column("NODE", elastic=True)
_COLUMNS = (
    Column("ID"),
    Column("USER", elastic=True),
    Column("CLIENT", elastic=True),
    Column("DESTINATION", elastic=True),
    Column("RATE", right=True),
    Column("BYTES", right=True),
    Column("AGE", right=True),
)


def filters_of(options: Namespace) -> dict[str, Any]:
    """The filters that the operator has given, as the API has them."""
    names = [argument.names[0].removeprefix("--").replace("-", "_") for argument in FILTERS]
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def sessions(console: Console) -> None:
    """List sessions."""
    options = console.options
    if options.watch and options.all_nodes:
        raise CtlFailed("give either --watch or --all-nodes", USAGE)
    if options.watch:
        _watch(console, options.sort, lambda answer: [])
        return
    if options.every is not None or options.count is not None:
        raise CtlFailed("--every and --count are for --watch", USAGE)
    limit = _USUAL if options.limit is None else options.limit
    parameters = {**filters_of(options), "sort": options.sort}
    if options.all_nodes:
        answer = merged.sessions(console, lambda client: _all(client, parameters, limit), options.sort, limit)
    else:
        answer = _all(console.client, parameters, limit)
    console.tell(answer, _table(answer, console.width))
    if not options.json and len(answer["sessions"]) < answer["total"]:
        console.note(f"{len(answer['sessions'])} of {answer['total']} sessions; --limit 0 shows all")


def _all(client: AdminClient, parameters: dict[str, Any], limit: int) -> dict[str, Any]:
    """The first sessions, so many as *limit* says; 0: all."""
    found: list[Any] = []
    missing: set[int] = set()
    cursor = None
    while True:
        size = min(_PAGE, limit - len(found)) if limit else _PAGE
        answer = client.get("/v1/sessions", {**parameters, "limit": size, "cursor": cursor})
        found += answer["sessions"]
        missing.update(answer["missing"])
        cursor = answer["cursor"]
        if cursor is None or (limit and len(found) >= limit):
            return {**answer, "sessions": found, "missing": sorted(missing)}


def _table(answer: dict[str, Any], width: int | None) -> list[str]:
    nodes = "nodes" in answer
    rows = [
        (
            *([row["node"]] if nodes else []),
            row["id"],
            row["user"] or "-",
            row["client"],
            f"{row['destination']}" if row["destination"] else f"({row['phase']})",
            amount(row["rate"], "B/s"),
            amount(row["sent"] + row["received"]),
            span(row["age"]),
        )
        for row in answer["sessions"]
    ]
    return table((_NODE, *_COLUMNS) if nodes else _COLUMNS, rows, width)


def top(console: Console) -> None:
    """Watch the sessions that move most."""

    def head(answer: dict[str, Any]) -> list[str]:
        told = console.client.get("/v1/status")
        workers = told["workers"]
        phases = ", ".join(f"{count} {phase}" for phase, count in sorted(told["phases"].items()) if count)
        state = told["state"] if told["why"] in (None, told["state"]) else f"{told['state']} ({told['why']})"
        first = (
            f"socksproxy {told['version']}: {state}, up {span(told['uptime'])}, "
            f"workers {workers['running']} of {workers['configured']}"
        )
        moved = sum(row["rate"] for row in answer["sessions"])
        second = f"{told['sessions']} sessions ({phases})" if phases else f"{told['sessions']} sessions"
        return [first, second, f"{answer['total']} match; these move {amount(moved, 'B/s')}"]

    _watch(console, console.options.sort or "rate", head)


def _watch(console: Console, sort: str | None, head: Callable[[dict[str, Any]], list[str]]) -> None:
    """
    Draw the list until the operator has seen enough.

    :param head: gives the lines above the list.
    """
    options = console.options
    every = max(_LEAST_EVERY, _EVERY if options.every is None else options.every)
    parameters = {**filters_of(options), "sort": sort}
    looks = 0
    with Screen() as screen:
        while True:
            width, height = screen.size()
            limit = getattr(options, "limit", None) or (_PAGE if height else _USUAL)
            limit = min(limit, _PAGE, max(1, height - 6) if height else _PAGE)
            try:
                answer = console.client.get("/v1/sessions", {**parameters, "limit": limit})
                lines = _drawn(console, answer, head, width)
            except CtlFailed as problem:
                # It starts again, maybe; what cannot get better ends the watch.
                if problem.status not in (NO_SERVER, TIME_OVER) or not looks:
                    raise
                lines = [strftime("%H:%M:%S", localtime()), f"{problem}; trying again"]
            looks += 1
            screen.draw(lines)
            if looks == options.count:
                return
            screen.rest(every)


def _drawn(
    console: Console,
    answer: dict[str, Any],
    head: Callable[[dict[str, Any]], list[str]],
    width: int | None,
) -> list[str]:
    if console.options.json:
        return [json.dumps(answer)]
    lines = [strftime("%H:%M:%S", localtime()), *head(answer)]
    if answer["missing"]:
        lines.append(f"no answer from the workers {', '.join(map(str, answer['missing']))}")
    lines += ["", *_table(answer, width)]
    more = answer["total"] - len(answer["sessions"])
    if more:
        lines.append(f"and {more} more")
    return lines if width is None else [cut(line, width) for line in lines]
