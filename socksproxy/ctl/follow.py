"""
Subcommands that wait for what happens.
"""

from __future__ import annotations

import json
import re
from time import localtime, monotonic, sleep, strftime

from .command import Console, print_lines
from .connection import USUAL_TIMEOUT, accepted
from .fleet import NodeUnknown
from .outcome import NO_SERVER, TIME_OVER, USAGE, CtlFailed
from .text import escaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .connection import AdminClient

#: Seconds between two looks at what is waited for.
_EVERY = 0.2
#: Seconds for a look, however short the time is.
_LEAST = 0.1
#: Seconds for which a stream of events may say nothing.
_SILENT = 30.0
_GENERATION = re.compile(r"generation:([0-9]{1,18})", re.ASCII)


def wait(console: Console) -> None:
    """Wait until the server is as it should be."""
    timeout = console.options.timeout
    wait_for(console, console.options.what, USUAL_TIMEOUT if timeout is None else timeout)


def wait_for(console: Console, what: str, seconds: float) -> None:
    """
    Wait until the server is *what*, at most so many *seconds*.

    :raises CtlFailed: when the time is over, or it will never be so.
    """
    match = _GENERATION.fullmatch(what)
    if match is None and what not in ("ready", "drained"):
        raise CtlFailed(f"{what}: ready, drained or generation:N is due", USAGE)
    least = int(match[1]) if match else 0
    until = monotonic() + seconds
    client: AdminClient | None = None
    last = ""
    while True:
        # The last look has a moment, too.
        over = max(until, monotonic() + _LEAST)
        try:
            client = console.reached(over) if client is None else client
            client.until = over
            status = accepted(client.ask("GET", "/v1/status")).body
            if _is_so(status, what, least):
                console.tell(status, [what])
                return
            last = f"it is {status['state']}, with {status['sessions']} sessions"
            if match:
                last += f", of the generation {status['generation']}"
        except CtlFailed as problem:
            # A server that starts, or starts again, has no socket for a while. No other node knows it then.
            absent = problem.status in (NO_SERVER, TIME_OVER) or isinstance(problem, NodeUnknown)
            if not absent or what == "drained":
                raise
            if not last or problem.status != TIME_OVER:
                last = str(problem)
        left = until - monotonic()
        if left <= 0:
            raise CtlFailed(f"not {what} within {seconds:g} seconds: {last}", TIME_OVER)
        sleep(min(_EVERY, left))


def _is_so(status: dict[str, Any], what: str, least: int) -> bool:
    if what != "drained":
        return status["why"] is None and status["generation"] >= least
    if status["drain"] == "none":
        raise CtlFailed("the server is not drained, or a drain was taken back")
    return status["drain"] in ("closed", "ended") and status["sessions"] == 0 and not status["missing"]


def events(console: Console) -> None:
    """Print what happens to the server."""
    left = console.options.count
    for name, data in _events(console.client.lines("/v1/events", {}, _SILENT)):
        if console.options.json:
            print_lines([json.dumps({"event": name, **data})])
        else:
            print_lines([_line(data.pop("time", None), name, data)])
        if left is not None:
            left -= 1
            if left <= 0:
                return
    raise CtlFailed("the server has ended the stream", NO_SERVER)


def _events(lines: Iterator[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in lines:
        key, _, value = line.decode("utf-8", "replace").rstrip("\n").partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, _parsed(value)


def _parsed(text: str | bytes) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(text)
    except ValueError:
        raise CtlFailed("the stream ends in the middle of a line: the server went away", NO_SERVER) from None
    return event


def trace(console: Console) -> None:
    """Print what happens in sessions."""
    options = console.options
    wanted = {"session": options.session, "user": options.user, "client": options.client}
    if sum(value is not None for value in wanted.values()) != 1:
        raise CtlFailed("give one of --session, --user and --client", USAGE)
    seconds = None if options.seconds is None else int(options.seconds)
    for line in console.client.lines("/v1/trace", {**wanted, "seconds": seconds}, None):
        if console.options.json:
            print_lines([line.decode("utf-8", "backslashreplace").rstrip("\n")])
            continue
        event = _parsed(line)
        time, session, name = (event.pop(key, None) for key in ("time", "session", "event"))
        print_lines([_line(time, f"{session or ''} {name}".strip(), event)])


def _line(time: float | None, name: str, data: dict[str, Any]) -> str:
    """One event for people."""
    when = "" if time is None else f"{strftime('%H:%M:%S', localtime(time))}.{int(time % 1 * 1000):03d} "
    values = (f"{key}={_shown(value)}" for key, value in data.items() if value is not None)
    return escaped(" ".join([f"{when}{name}", *values]))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and " " not in value else json.dumps(value, ensure_ascii=False)
