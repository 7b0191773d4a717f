"""
Requests that all nodes obey which share a store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..shared.commands import Deed
from .control import Control, Gathered
from .errors import DoneInPart, RequestRefused
from .holders import TELL_NODES
from .routes import Asked

ALL, THIS = "all", "this"


class NodeCommands:
    """
    Passes on to all nodes what this one has done.

    :param control: asks the processes, one of which tells the store.
    """

    def __init__(self, control: Control) -> None:
        self._control = control

    def tell(self, done: Mapping[str, Any], asked: Asked, deed: Deed, about: str, usually: str = ALL) -> Any:
        """
        Tell the other nodes, if the request says so, or by itself.

        :param done: the answer, without them.
        :param usually: the nodes where the request names none.
        :returns: the answer. Where a store is shared, ``nodes`` is in it.
        :raises DoneInPart: when the request says so, and that cannot be.
        """
        nodes = wanted_nodes(asked)
        if (nodes or usually) == THIS:
            return dict(done)
        process = self._control.teller()
        if process is None:
            return self._told(Gathered([], []), done, nodes)
        arguments = {"deed": deed.value, "about": about, "by": asked.peer}
        asking = self._control.ask_each(TELL_NODES, {process: arguments})
        return asking.addCallback(self._told, done, nodes)

    def _told(self, gathered: Gathered, done: Mapping[str, Any], nodes: str | None) -> dict[str, Any]:
        sent = gathered.values[0]["sent"] if gathered.values else False
        if sent:
            return {**done, "nodes": ALL}
        if nodes == ALL:
            why = "nodes share no store: [shared]" if sent is None else "the shared store is down"
            raise DoneInPart(409 if sent is None else 503, f"done on this node alone: {why}", **done)
        return dict(done) if sent is None else {**done, "nodes": THIS}


def wanted_nodes(asked: Asked) -> str | None:
    """
    ``nodes`` of the request; None: it says nothing of them.

    :raises RequestRefused: when that is neither all nor this.
    """
    nodes = asked.parameters.get("nodes", asked.body.get("nodes"))
    if nodes not in (None, ALL, THIS):
        raise RequestRefused(400, f"nodes: neither {ALL} nor {THIS}")
    return nodes
