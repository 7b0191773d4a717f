"""
The way to other nodes: a server knows those that share a store with it, and where each of them is asked.

An address comes from the store, which others can write. So the server at the address says its name first,
and a Unix socket, which would be one of this machine, is not accepted.
"""

from __future__ import annotations

from .connection import AdminClient, parse_place
from .outcome import DONE, IN_PART, NO_SERVER, REFUSED, TIME_OVER, CtlFailed
from .text import span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Row = dict[str, Any]

#: Nodes that are asked at once.
_AT_ONCE = 32


class FleetAnswers:
    """
    The answers of all nodes.

    :ivar answers: what each node has answered.
    :ivar silent: the nodes without an answer, and why there is none.
    :ivar refusing: those of them that have refused.
    :ivar alone: why this is one node alone; None: the store knows all of them.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.silent: dict[str, str] = {}
        self.refusing: set[str] = set()
        self.alone: str | None = None

    @property
    def status(self) -> int:
        """The exit status."""
        if not self.answers and self.refusing == self.silent.keys():
            return REFUSED
        return IN_PART if self.silent or self.alone == STORE_DOWN else DONE

    @property
    def notes(self) -> list[str]:
        """What the operator should know."""
        notes = [] if self.alone is None else [self.alone]
        return [*notes, *(f"without {name}: {why}" for name, why in sorted(self.silent.items()))]


STORE_DOWN = "this node alone: the shared store is down"
NO_STORE = "this node alone: it shares no store with others"


def alone(answer: Row) -> str | None:
    """Why the *answer* about all nodes has one alone; None: it has not."""
    return {"up": None, "down": STORE_DOWN}.get(answer["store"], NO_STORE)


class NodeUnknown(CtlFailed):
    """No other node knows that there is such a node, or where it is asked; it has just started, maybe."""


def client_of(client: AdminClient, name: str) -> AdminClient:
    """
    What asks the node called *name*.

    :param client: asks a server that knows it.
    :raises CtlFailed: when there is no such node, or it cannot be reached.
    """
    answer = client.get("/v1/nodes")
    rows = {row["name"]: row for row in answer["nodes"]}
    if name not in rows:
        why = alone(answer)
        if why == NO_STORE:
            raise CtlFailed(f"{name}: there is no such node; {why}")
        if why is not None:
            raise NodeUnknown(f"{name}: where it is asked is not known; {why}")
        raise NodeUnknown(f"{name}: there is no such node; there are {', '.join(rows)}")
    return client if name == answer["node"] else _reached(client, rows[name])


def ask_all(client: AdminClient, ask: Callable[[AdminClient], Any]) -> FleetAnswers:
    """
    Ask all nodes at once.

    :param client: asks a server that knows them.
    :param ask: asks one of them, which ``node`` of the client names.
    """
    from threading import Thread

    answer = client.get("/v1/nodes")
    gathered = FleetAnswers()
    gathered.alone = alone(answer)
    rows = list(answer["nodes"])

    def work() -> None:
        while rows:
            try:
                row = rows.pop()
            except IndexError:
                return  # another thread has it
            name = row["name"]
            try:
                asking = client if name == answer["node"] else _reached(client, row)
                asking.node = name
                gathered.answers[name] = ask(asking)
            except CtlFailed as problem:
                gathered.silent[name] = str(problem) if row["alive"] else f"gone, {last_seen(row)}"
                if problem.status == REFUSED and row["alive"]:
                    gathered.refusing.add(name)
            except KeyError as problem:
                gathered.silent[name] = f"the answer has no {problem}: it is of another version"
            except (TypeError, AttributeError):
                gathered.silent[name] = "the answer makes no sense: it is of another version"

    threads = [Thread(target=work, daemon=True) for _ in range(min(len(rows), _AT_ONCE))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return gathered


def last_seen(row: Row) -> str:
    """When a node has told something last."""
    return f"last seen {span(row['seen'])} ago"


def _reached(client: AdminClient, row: Row) -> AdminClient:
    """What asks the node of *row*."""
    name, address = row["name"], row["admin"]
    if address is None:
        raise NodeUnknown(f"{name} tells no address of its admin API: its key admin of [node]")
    try:
        place = parse_place(address)
    except CtlFailed:
        place = None
    if place is None or place.path is not None:
        raise CtlFailed(f"{name} tells {address}, which is no address of an admin API")
    found = client.at(place)
    try:
        other = found.get("/v1/status")["node"]
    except CtlFailed as problem:
        if row["alive"] or problem.status not in (NO_SERVER, TIME_OVER):
            raise
        raise CtlFailed(f"{problem}; {name} is gone, {last_seen(row)}", problem.status) from None
    if other != name:
        raise CtlFailed(f"{name} is not at the address that it tells: {address} is the node {other}")
    return found
