"""``docs/admin-api.rst`` and the routes that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest_twisted
from twisted.internet.testing import MemoryReactorClock

from socksproxy import SOCKSFactory
from socksproxy.admin.api import routes_of
from socksproxy.admin.control import control_of
from socksproxy.admin.selection import FILTERS

from ..conftest import Serve
from ..support.admin import administered, asks
from ..support.docs import DOCS, blocks, table
from ..support.proxy import Playing, Proxy

PAGE = DOCS / "admin-api.rst"


def documented() -> dict[tuple[str, str], str]:
    """The level of each method and path that the page has."""
    found = {}
    rows = re.findall(
        r"^   \* - (``(?:GET|POST|DELETE) /.*)\n     - (\w+)$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    for cell, level in rows:
        first, *others = re.findall(r"``([^`]+)``", cell)
        method, _, path = first.partition(" ")
        path = re.sub(r"\b[A-Z]+\b", "{}", path.partition("?")[0])
        for each in (path, *(f"{path.rpartition('/')[0]}/{other}" for other in others)):
            found[method, each] = level
    return found


def test_routes() -> None:
    """Each route is documented with its level, and no other one is."""
    routes = routes_of(control_of(SOCKSFactory(MemoryReactorClock()))).routes
    there = {(each.method, re.sub(r"{\w+}", "{}", each.path)): each.level.name.lower() for each in routes}
    assert documented() == there


@pytest_twisted.inlineCallbacks
def test_example(serve_as: Serve, tmp_path: Path) -> Playing:
    """The example's command is understood, and its answer has the form of the real one."""
    (block,) = blocks(PAGE, ".. code-block:: console")
    command, answer = block.splitlines()
    target = command.rpartition("http://localhost")[2]
    proxy: Proxy = yield serve_as()
    with administered(proxy.factory, tmp_path / "admin"):
        told = yield proxy.play(asks, tmp_path / "admin", "GET", target)
    assert told.status == 200
    assert list(told.body) == list(json.loads(answer))


def test_parameters() -> None:
    """Each filter of sessions is documented."""
    told = [word.strip("` ") for row in table(PAGE, "Parameter") for word in row.split(",")]
    assert sorted(told) == sorted([*FILTERS, "worker"])
