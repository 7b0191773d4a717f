"""
The file of a node, whose values lie over those of the common file; and in which file each thing stands.

Tables go into one another, key by key. Any other value, a list included, takes the place of the common one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..values.errors import Path


class Standing(NamedTuple):
    """
    Where a thing stands.

    :ivar node: whether that is the node's file.
    :ivar line: from 1 on; None: it is not known.
    """

    node: bool
    line: int | None


class Places:
    """
    Where the things of a configuration stand.

    :param common: the lines of the common file.
    :param node: those of the node's file.
    """

    def __init__(self, common: Mapping[Path, int], node: Mapping[Path, int] | None = None) -> None:
        self._common = common
        self._node = node or {}

    def of(self, path: Path) -> Standing:
        """The place of what is at *path*, or of the nearest thing around it."""
        for length in range(len(path), 0, -1):
            around = path[:length]
            if around in self._node:
                return Standing(True, self._node[around])
            if around in self._common:
                return Standing(False, self._common[around])
        return Standing(False, None)


def overlaid(
    common: dict[str, Any], lines: Mapping[Path, int], node: dict[str, Any], node_lines: Mapping[Path, int]
) -> tuple[dict[str, Any], Places]:
    """
    What two files say together.

    :param common: what the common file holds.
    :param lines: where each thing stands in it.
    :param node: what the node's file holds.
    :param node_lines: where each thing stands in that.
    """
    replaced: set[Path] = set()
    document = _merged(common, node, (), replaced)
    if replaced:
        lines = {path: line for path, line in lines.items() if not _within(path, replaced)}
    return document, Places(lines, node_lines)


def _merged(common: dict[str, Any], node: dict[str, Any], above: Path, replaced: set[Path]) -> dict[str, Any]:
    found = dict(common)
    for key, value in node.items():
        path = (*above, key)
        before = common.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            found[key] = _merged(before, value, path, replaced)
            continue
        found[key] = value
        if key in common:
            replaced.add(path)
    return found


def _within(path: Path, replaced: set[Path]) -> bool:
    """Whether *path* leads to one of the things that are *replaced*, or into one."""
    return any(path[:length] in replaced for length in range(1, len(path) + 1))
