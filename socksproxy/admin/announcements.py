"""
What one process does for the list of all nodes: it counts its sessions, and asks the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from ..shared.nodes import KnownNode, announce, find

if TYPE_CHECKING:
    from ..session.shared import ServerContext

#: The questions: how many sessions there are; tell the store of this node; what the store has of all nodes.
LIVE, ANNOUNCE, FIND = "live", "announce node", "find nodes"


class AnnouncementAnswers:
    """
    Answers the questions about nodes in one process.

    :param context: what the sessions of the process share.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    @property
    def questions(self) -> dict[str, Callable[[Mapping[str, Any], list[bytes]], Any]]:
        """What answers, by the names of the questions."""
        return {LIVE: self._live, ANNOUNCE: self._announce, FIND: self._find}

    def _live(self, arguments: Mapping[str, Any], parts: list[bytes]) -> dict[str, Any]:
        return {"sessions": len(self._context.live)}

    def _announce(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Deferred[dict[str, Any]]:
        """
        Write ``text`` about this node. ``told``: whether the store has it.

        ``node`` and ``before``: the name of this node, and what the store had of it before.
        """
        store = self._context.settings.shared
        if store is None:
            return succeed({"told": False})
        return announce(store, arguments["text"].encode()).addCallback(_announced, store.settings.node)

    def _find(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Deferred[dict[str, Any]]:
        """``node``: the name of this one; ``nodes``: what the store has of all. Or None: nothing is known."""
        store = self._context.settings.shared
        if store is None:
            return succeed({"node": None, "nodes": None})
        return find(store).addCallback(_told, store.settings.node)


def _announced(before: bytes | None, node: str) -> dict[str, Any]:
    if before is None:
        return {"told": False}
    return {"told": True, "node": node, "before": before.decode("utf-8", "replace")}


def _told(nodes: list[KnownNode] | None, node: str) -> dict[str, Any]:
    rows = None if nodes is None else [[*each[:-1], each.text.decode("utf-8", "replace")] for each in nodes]
    return {"node": node, "nodes": rows}
