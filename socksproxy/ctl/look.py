"""
Subcommands that look at the server, and change nothing.
"""

from __future__ import annotations

import json
import sys
from time import localtime, strftime, time

from . import merged
from .command import Console, print_lines
from .connection import accepted, query_of, quoted
from .outcome import REFUSED, USAGE, CtlFailed
from .text import Column, amount, pairs, span, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .connection import AdminClient

    Row = dict[str, Any]

#: Lines about usage that an answer has at the most.
_PAGE = 8000


def when(seconds: float | None) -> str:
    """A time since the epoch, for people."""
    return "-" if seconds is None else strftime("%Y-%m-%d %H:%M:%S", localtime(seconds))


def word(value: object) -> str:
    """A value that may be unknown."""
    return "-" if value is None else str(value)


def status(console: Console) -> None:
    """How the server is."""
    answer = console.client.get("/v1/status")
    workers, config = answer["workers"], answer["config"]
    state = answer["state"]
    if answer["why"] not in (None, state):
        state += f" ({answer['why']})"
    phases = ", ".join(f"{count} {phase}" for phase, count in sorted(answer["phases"].items()) if count)
    rows = [
        ("state", state),
        ("sessions", f"{answer['sessions']}" + (f" ({phases})" if phases else "")),
        ("workers", f"{workers['running']} of {workers['configured']}"),
        ("uptime", f"{span(answer['uptime'])}, since {when(answer['started'])}"),
        ("version", f"{answer['version']} (Python {answer['python']}, Twisted {answer['twisted']})"),
        ("pid", str(answer["pid"])),
        ("generation", str(answer["generation"])),
        ("configuration", f"{word(config['file'])}, loaded {when(config['loaded'])}"),
        ("hash", word(config["hash"])[:16]),
    ]
    console.tell(answer, pairs(rows))


def show(console: Console) -> None:
    """One session."""
    answer = console.client.get(f"/v1/sessions/{quoted(console.options.id)}")
    shown = {
        **answer,
        "began": when(answer["began"]),
        "age": span(answer["age"]),
        "sent": amount(answer["sent"]),
        "received": amount(answer["received"]),
        "rate": amount(answer["rate"], "B/s"),
    }
    console.tell(answer, pairs([(key.replace("_", " "), word(value)) for key, value in shown.items()]))


def users(console: Console) -> None:
    """Users with sessions, or one user."""
    options = console.options
    if options.name is not None and options.all_nodes:
        raise CtlFailed("give either a name or --all-nodes", USAGE)
    if options.name is not None:
        _user(console)
        return
    if options.all_nodes:
        answer = merged.users(console, options.sort, options.limit)
    else:
        answer = merged.users_of_one(console.client, options.sort, options.limit)
    columns = [
        Column("USER", elastic=True),
        *(Column(title, right=True) for title in ("SESSIONS", "RATE", "SENT", "RECEIVED", "LAST LOGIN")),
    ]
    rows = [
        (
            each["user"],
            str(each["sessions"]),
            amount(each["rate"], "B/s"),
            amount(each["sent"]),
            amount(each["received"]),
            "-" if each["last_seen"] is None else f"{span(max(0.0, time() - each['last_seen']))} ago",
            *([", ".join(each["nodes"])] if options.all_nodes else []),
        )
        for each in answer["users"]
    ]
    if options.all_nodes:
        columns.append(Column("NODES", elastic=True))
    console.tell(answer, table(columns, rows, console.width))
    _note_rest(console, answer, "users", "users; --limit 0 shows all")


def _note_rest(console: Console, answer: Row, key: str, words: str) -> None:
    """Say so when the server knows more than is told; JSON has the total."""
    told, total = len(answer[key]), answer.get("total", 0)
    if told < total and not console.options.json:
        console.note(f"{told} of {total} {words}")


def _user(console: Console) -> None:
    answer = console.client.get(f"/v1/users/{quoted(console.options.name)}")
    rows = [
        ("user", answer["user"]),
        ("known", "yes" if answer["known"] else "no"),
        ("groups", ", ".join(answer["groups"]) or "-"),
        ("sessions", str(answer["sessions"])),
        ("rate", amount(answer["rate"], "B/s")),
        ("sent", amount(answer["sent"])),
        ("received", amount(answer["received"])),
        ("last login", when(answer["last_seen"])),
        ("limits", _keys(answer["limits"])),
        ("until reload", _keys(answer["until_reload"])),
    ]
    for period, used in (answer["usage"] or {}).items():
        limit = "" if used["limit"] is None else f" of {amount(used['limit'])}"
        rows.append((f"this {period}", amount(used["bytes"]) + limit))
    console.tell(answer, pairs(rows))


def _keys(limits: Row) -> str:
    return ", ".join(f"{key}={value}" for key, value in limits.items()) or "-"


def used(fetch: Callable[[Row], list[Row]], month: bool, first: str | None, last: str | None) -> list[Row]:
    """
    What holders of quotas have used.

    :param fetch: gives what the API has, with parameters.
    :param month: in months; else in days, unless *first* or *last* is a month.
    :param first: the first period, and *last* the last one; both None: only the last one that is counted.
    """
    if first is None and last is None:
        # Days of the server begin with another hour than ours, maybe.
        day = strftime("%Y-%m-%d", localtime(time() - 2 * 86400))
        rows = fetch({"from": day[:7] if month else day})
        rows = [row for row in rows if (len(row["period"]) == 7) == month]
        latest = max((row["period"] for row in rows), default=None)
        return [row for row in rows if row["period"] == latest]
    lengths = {7} if month else set()
    lengths |= {len(period) for period in (first, last) if period is not None}
    if len(lengths) > 1:
        raise CtlFailed("--from, --to and --month: give either months or days", USAGE)
    if first is not None and last is not None and first > last:
        raise CtlFailed(f"--from {first} is later than --to {last}", USAGE)
    rows = fetch({"from": first, "to": last})
    (length,) = lengths
    return [row for row in rows if len(row["period"]) == length]


def usage_of(client: AdminClient, parameters: Row) -> list[Row]:
    """All lines about usage that *parameters* choose, page by page."""
    found: list[Row] = []
    while True:
        data = accepted(client.ask("GET", "/v1/usage" + query_of(parameters))).data
        try:
            page = [json.loads(line) for line in data.splitlines()]
        except ValueError:
            raise CtlFailed("the answer is not JSON: this is no admin socket of socksproxy") from None
        found += page
        if len(page) < _PAGE:
            return found
        parameters = {**parameters, "from": page[-1]["period"], "beyond": page[-1]["holder"]}


def usage(console: Console) -> None:
    """What holders of quotas have used, or all usage records after a number."""
    options = console.options
    if options.after is not None:
        if options.all_nodes:
            raise CtlFailed("records are numbered on each node: give --node, not --all-nodes", USAGE)
        _print_records(console, options.after)
        return

    def fetch(parameters: Row) -> list[Row]:
        if options.all_nodes:
            return merged.usage(console, lambda client: usage_of(client, parameters))
        return usage_of(console.client, parameters)

    rows = used(fetch, options.month, options.first, options.last)
    if options.csv:
        head = "period,holder,bytes,node" if options.all_nodes else "period,holder,bytes"
        print_lines([head, *(_csv_line(row) for row in rows)])
        return
    columns = [Column("PERIOD"), Column("HOLDER", elastic=True), Column("USED", right=True)]
    cells = [[row["period"], row["holder"], amount(row["bytes"])] for row in rows]
    if options.all_nodes:
        columns.append(Column("NODE", elastic=True))
        cells = [[*cell, row["node"]] for cell, row in zip(cells, rows, strict=True)]
        cells += merged.sums(rows)
    console.tell(rows, table(columns, cells, console.width))


def _print_records(console: Console, after: int) -> None:
    """Usage records as lines of JSON, until there are no more."""
    while True:
        path = "/v1/usage" + query_of({"after": str(after)})
        data = accepted(console.client.ask("GET", path)).data
        if not data:
            return
        try:
            after = json.loads(data.splitlines()[-1])["seq"]
        except (ValueError, KeyError, TypeError):
            raise CtlFailed("the answer is no usage record: this is no admin socket of socksproxy") from None
        _print_stream([data])


def _csv_line(row: Row) -> str:
    holder = row["holder"]
    # A spreadsheet calculates what begins with one of these.
    if holder[:1] in "=+-@\t\r" and holder:
        holder = "'" + holder
    node = [row["node"]] if "node" in row else []
    return ",".join([row["period"], '"' + holder.replace('"', '""') + '"', str(row["bytes"]), *node])


def limits(console: Console) -> None:
    """How much of their limits holders have taken."""
    options = console.options
    answer = console.client.get(
        "/v1/limits", {"scope": options.scope, "full": "true" if options.full else None}
    )
    columns = [
        Column("SCOPE"),
        Column("HOLDER", elastic=True),
        Column("NOW", elastic=True),
        Column("LIMITS", elastic=True),
    ]
    cells = [
        (row["scope"], row["holder"] or "-", _keys(row["now"]), _keys(row["limits"]))
        for row in answer["limits"]
    ]
    console.tell(answer, table(columns, cells, console.width))
    _note_rest(console, answer, "limits", "holders; --scope or --full shows fewer")


def lockouts(console: Console) -> None:
    """The addresses that are locked out."""
    answer = console.client.get("/v1/lockouts")
    columns = [Column("ADDRESS", elastic=True), Column("LEFT", right=True), Column("LEVEL", right=True)]
    cells = [(row["address"], span(row["seconds"]), str(row["level"])) for row in answer["lockouts"]]
    console.tell(answer, table(columns, cells, console.width))
    _note_rest(console, answer, "lockouts", "addresses, or of more")


def workers(console: Console) -> None:
    """The processes that serve clients."""
    answer = console.client.get("/v1/workers")
    titles = ("SESSIONS", "UPTIME", "FAILURES", "CPU", "MEMORY", "LAG")
    columns = [Column("WORKER"), Column("PID", right=True), Column("STATE")]
    columns += [Column(title, right=True) for title in titles]
    cells = [
        (
            str(row["number"]),
            word(row["pid"]),
            word(row["state"]),
            word(row["sessions"]),
            span(row["uptime"]),
            word(row["failures"]),
            span(row["cpu_seconds"]),
            amount(row["resident_bytes"]),
            "-" if row["lag"] is None else f"{1000 * row['lag']:.1f} ms",
        )
        for row in answer["workers"]
    ]
    console.tell(answer, table(columns, cells, console.width))


def listeners(console: Console) -> None:
    """Where clients are accepted."""
    answer = console.client.get("/v1/listeners")
    columns = [Column("NAME", elastic=True), Column("ADDRESS", elastic=True), Column("STATE")]
    cells = [(word(row["name"]), word(row["address"]), row["state"]) for row in answer["listeners"]]
    console.tell(answer, table(columns, cells, console.width))


def upstreams(console: Console) -> None:
    """The ways out through other proxies."""
    answer = console.client.get("/v1/upstreams")
    columns = [Column("NAME", elastic=True), Column("TYPE"), Column("ADDRESS", elastic=True), Column("STATE")]
    columns += [Column(title, right=True) for title in ("SESSIONS", "TOTAL", "FAILED")]
    cells = [
        (
            row["name"],
            word(row["type"]),
            word(row["address"]),
            row["state"],
            word(row.get("sessions")),
            word(row.get("total")),
            word(row.get("own_failures")),
        )
        for row in answer["upstreams"]
    ]
    console.tell(answer, table(columns, cells, console.width))


def pools(console: Console) -> None:
    """The pools, and their members."""
    answer = console.client.get("/v1/pools")
    columns = [
        Column("POOL", elastic=True),
        Column("MEMBER", elastic=True),
        Column("STATE"),
        Column("HEALTH"),
    ]
    cells = [
        (pool["name"], member["name"], word(member["state"]), _health(member["health"]))
        for pool in answer["pools"]
        for member in pool["members"]
    ]
    console.tell(answer, table(columns, cells, console.width))


def _health(words: Row) -> str:
    """The health of a member: one word, unless the workers find it different."""
    if len(words) == 1:
        return str(next(iter(words)))
    return ", ".join(f"{each} in {count}" for each, count in sorted(words.items()))


def config(console: Console) -> None:
    """The configuration in force."""
    answer = console.client.get("/v1/config")
    console.tell(answer, [json.dumps(answer, indent=2)])


def metrics(console: Console) -> None:
    """The metrics."""
    text = accepted(console.client.ask("GET", "/metrics")).data.decode("utf-8", "replace")
    print_lines([json.dumps(text)] if console.options.json else text.rstrip("\n").split("\n"))


def health(console: Console) -> None:
    """Whether the server is ready, or answers."""
    answer = console.client.ask("GET", "/healthz" if console.options.live else "/readyz")
    body = answer.body
    if answer.status >= 300:
        console.status = REFUSED
        if "error" in body:
            raise CtlFailed(str(body["error"]))
        console.note(f"not ready: {body.get('why')}")
    words = "live" if console.options.live else "ready" if body.get("ready") else "not ready"
    console.tell(body, [words])


def raw(console: Console) -> None:
    """Any request."""
    options = console.options
    if not options.path.startswith("/") or not options.path.isprintable() or " " in options.path:
        raise CtlFailed(f"{options.path}: a path such as /v1/status is due", USAGE)
    if not options.path.isascii():
        raise CtlFailed(f"{options.path}: other characters than ASCII are written as %XX", USAGE)
    try:
        body = None if options.body is None else json.loads(options.body)
    except ValueError:
        raise CtlFailed(f"{options.body}: this is not JSON", USAGE) from None
    if options.method == "GET" and body is None:
        _print_stream(console.client.lines(options.path, {}, None))
        return
    data = accepted(console.client.ask(options.method, options.path, body)).data
    _print_stream([data])


def _print_stream(parts: Iterable[bytes]) -> None:
    for part in parts:
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
