"""
Subcommands that change what the server does.
"""

from __future__ import annotations

import json
import sys

from .command import Console
from .connection import quoted
from .follow import wait_for
from .look import usage_of, used
from .nodes import reload_all
from .outcome import IN_PART, REFUSED, USAGE, CtlFailed
from .text import escaped
from .watch import filters_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def kill(console: Console) -> None:
    """End sessions."""
    options = console.options
    filters = filters_of(options)
    if options.ids and filters:
        raise CtlFailed("give either ids or filters", USAGE)
    if not options.ids and not filters:
        raise CtlFailed("give the ids of sessions, or a filter such as --user", USAGE)
    if options.all_nodes:
        if options.ids:
            raise CtlFailed("ids are unique on each node alone: give --node, or a filter", USAGE)
        _kill_on_all(console, filters)
    elif options.ids and not options.dry_run and options.expect is None:
        _kill_ids(console, options.ids)
    else:
        _kill_matching(console, {"id": options.ids} if options.ids else filters)


def _kill_ids(console: Console, ids: Sequence[str]) -> None:
    ended, refused = [], []
    for each in ids:
        try:
            console.note_missing(console.client.change("DELETE", f"/v1/sessions/{quoted(each)}"))
            ended.append(each)
        except CtlFailed as problem:
            if problem.status != REFUSED:
                raise
            refused.append(each)
            console.note(f"{each}: {problem}")
    if refused:
        console.status = IN_PART if ended else REFUSED
    console.tell({"ended": ended, "refused": refused}, [f"{len(ended)} sessions ended"])


def _kill_matching(console: Console, filters: dict[str, Any]) -> None:
    options = console.options
    order = {"filter": filters, "expect": options.expect}
    if options.dry_run or not options.yes:
        answer = console.client.change("POST", "/v1/sessions/kill", {**order, "dry_run": True})
        matched = answer["matched"]
        if options.dry_run:
            console.tell(answer, [f"{matched} sessions match"])
            return
        if matched:
            _confirm(f"End {matched} sessions?")
            order["expect"] = matched
    answer = console.client.change("POST", "/v1/sessions/kill", order)
    console.tell(answer, [f"{answer['ended']} sessions ended"])
    if not answer["matched"]:
        raise CtlFailed("no session matches", max(REFUSED, console.status))


def _kill_on_all(console: Console, filters: dict[str, Any]) -> None:
    """End the sessions that match on each of the nodes that share a store."""
    options = console.options
    expected: dict[str | None, int] | None = None
    if options.dry_run or not options.yes or options.expect is not None:
        answer = _kill_on_each(console, lambda node: {"filter": filters, "dry_run": True})
        matched = answer["matched"]
        if options.dry_run:
            console.tell(answer, [*_per_node(answer, "matched"), f"{matched} sessions match"])
            return
        if options.expect not in (None, matched):
            raise CtlFailed(f"{matched} sessions match, not {options.expect}")
        if matched and not options.yes:
            _confirm(f"End {matched} sessions?")
        expected = {node: row["matched"] for node, row in answer["nodes"].items()}
    answer = _kill_on_each(
        console,
        lambda node: {"filter": filters, "expect": None if expected is None else expected.get(node, 0)},
    )
    console.tell(answer, [*_per_node(answer, "ended"), f"{answer['ended']} sessions ended"])
    if not answer["matched"]:
        raise CtlFailed("no session matches", max(REFUSED, console.status))


def _kill_on_each(console: Console, order: Callable[[str | None], dict[str, Any]]) -> dict[str, Any]:
    """
    Send an order to each node.

    :param order: gives that of a node.
    :returns: the sums, with the answers of the nodes.
    """
    gathered = console.ask_all(lambda client: client.change("POST", "/v1/sessions/kill", order(client.node)))
    console.note_silent(gathered)
    nodes = dict(sorted(gathered.answers.items()))
    sums = {key: sum(row[key] for row in nodes.values()) for key in ("matched", "ended")}
    missing = [f"{node}/{number}" for node, row in nodes.items() for number in row["missing"]]
    return {**sums, "nodes": nodes, "silent": gathered.silent, "missing": missing}


def _per_node(answer: dict[str, Any], key: str) -> list[str]:
    return [f"{node}: {row[key]}" for node, row in answer["nodes"].items() if row[key]]


def _confirm(question: str) -> None:
    """
    Ask the operator.

    :raises CtlFailed: when the answer is no, or no terminal can ask.
    """
    if not sys.stdin.isatty():
        raise CtlFailed("there is no terminal on which to ask: give --yes", USAGE)
    print(question, "[y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CtlFailed("nothing is done")


def reset_usage(console: Console) -> None:
    """Delete what a user has used."""
    options = console.options
    period = options.period
    if period is None:
        rows = used(lambda parameters: usage_of(console.client, parameters), True, None, None)
        if not rows:
            raise CtlFailed("nothing is counted in this month")
        period = rows[0]["period"]
    path = f"/v1/users/{quoted(options.name)}/usage?period={quoted(period)}"
    answer = console.client.change("DELETE", path)
    console.tell({**answer, "period": period}, [f"{period}: {answer['deleted']} bytes are deleted"])


def limit(console: Console) -> None:
    """Limit a user until the next reload."""
    options = console.options
    if bool(options.limits) == options.clear:
        raise CtlFailed("give limits such as sessions=5, or --clear", USAGE)
    wanted = dict(map(_limit_of, options.limits))
    answer = console.client.change("POST", f"/v1/users/{quoted(options.name)}/limits", wanted)
    console.tell(answer, [f"until the next reload: {json.dumps(wanted)}" if wanted else "taken back"])


def _limit_of(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise CtlFailed(f"{text}: KEY=VALUE is due, such as sessions=5", USAGE)
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def unlock(console: Console) -> None:
    """Let an address try passwords again."""
    options = console.options
    query = "?nodes=this" if options.this_node else ""
    answer = console.client.change("DELETE", f"/v1/lockouts/{quoted(options.address)}{query}")
    words = "is not locked out any more" if answer["unlocked"] else "was not locked out on this node"
    console.tell(answer, [f"{escaped(options.address)} {words}{_others(answer)}"])
    _note_nodes(console, answer)


def kick(console: Console) -> None:
    """End the sessions of a user."""
    options = console.options
    body = {"nodes": "this"} if options.this_node else None
    answer = console.client.change("POST", f"/v1/users/{quoted(options.name)}/kick", body)
    here = " on this node" if "nodes" in answer else ""
    console.tell(answer, [f"{answer['ended']} sessions ended{here}{_others(answer)}"])
    _note_nodes(console, answer)


def _others(answer: dict[str, Any]) -> str:
    return "; the other nodes are told" if answer.get("nodes") == "all" else ""


def _note_nodes(console: Console, answer: dict[str, Any]) -> None:
    if answer.get("nodes") == "this" and not console.options.this_node:
        console.note("done on this node alone: the shared store is down")
        console.status = IN_PART


def listener(console: Console) -> None:
    """Take a listener out of service, or back."""
    _set(console, "listeners")


def upstream(console: Console) -> None:
    """Take an upstream out of service, or back."""
    _set(console, "upstreams")


def _set(console: Console, kind: str) -> None:
    options = console.options
    answer = console.client.change("POST", f"/v1/{kind}/{quoted(options.name)}/{options.deed}")
    ended = f", {answer['ended']} sessions ended" if answer["ended"] else ""
    console.tell(answer, [f"{options.name}: {answer['state']}{ended}"])


def reload(console: Console) -> None:
    """Read the configuration again."""
    if console.options.all_nodes:
        reload_all(console)
        return
    answer = console.client.change("POST", "/v1/reload")
    console.tell(answer, answer["changes"] or ["nothing has changed"])


def drain(console: Console) -> None:
    """Drain the server."""
    options = console.options
    order: dict[str, Any] = {"seconds": options.seconds, "notice": options.notice}
    if options.refuse:
        order = {"seconds": options.seconds, "refuse": True}
    answer = console.client.change("POST", "/v1/drain", order)
    if not options.wait:
        words = (
            f"clients are accepted for {answer['notice']:g} s, sessions may take {answer['seconds']:g} s more"
        )
        console.tell(answer, [words])
        return
    console.note_missing(answer)
    # The server itself ends what is left then.
    most = answer["notice"] + answer["seconds"] + 30
    wait_for(console, "drained", most if options.timeout is None else options.timeout)


def undrain(console: Console) -> None:
    """Take a drain back."""
    console.tell(console.client.change("POST", "/v1/undrain"), ["clients are accepted again"])


def log(console: Console) -> None:
    """Open the access log again."""
    console.tell(console.client.change("POST", "/v1/log/reopen"), ["the access log is open again"])


def log_level(console: Console) -> None:
    """Have the server's own log tell more for a while."""
    options = console.options
    given = {"level": options.level, "seconds": options.seconds, "logger": options.logger}
    order = {key: value for key, value in given.items() if value is not None}
    answer = console.client.change("POST", "/v1/log-level", order)
    silent = options.level == "info"
    console.tell(answer, ["no debug lines" if silent else f"debug lines for {answer['seconds']:g} s"])
