"""
The routes of the status page.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..control import Control
from ..routes import ApiRoute, Routes
from ..settings import AdminLevel
from .files import PageFiles
from .history import History
from .source import PageSource


def with_page(control: Control, api: Sequence[ApiRoute]) -> Routes:
    """
    The routes of *api*, and the status page, which shows what they answer.

    :param control: the server.
    """
    history = History(control.reactor, control.metrics)
    files = PageFiles()
    source = PageSource(control, Routes(api), history)
    level = AdminLevel.MONITOR
    routes = Routes(
        [
            *api,
            ApiRoute("GET", "/", level, files.page),
            ApiRoute("GET", "/page/{file}", level, files.file),
            ApiRoute("GET", "/v1/page", level, source.stream),
        ]
    )
    routes.start, routes.stop = history.start, history.stop
    return routes
