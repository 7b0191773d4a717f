"""A way out that does what a test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from socksproxy.net.dial import Pending
from socksproxy.wire.words import Address, Command


class ScriptedRoute:
    """
    A route whose attempts are made by *dial*.

    :param dial: starts one attempt to an address.
    """

    resolves = judges = needs_trail = False
    via = None
    identity = "scripted"

    def __init__(self, dial: Callable[[Address], Pending]) -> None:
        self._dial = dial

    def carries(self, command: Command) -> bool:
        """See :meth:`socksproxy.routes.interfaces.Route.carries`."""
        return True

    def dial(self, address: Address, engine: bool, trail: Any = None) -> Pending:
        """See :meth:`socksproxy.routes.interfaces.Route.dial`."""
        return self._dial(address)

    def source(self, address: Address) -> str | None:
        """See :meth:`socksproxy.routes.interfaces.Route.source`."""
        return None
