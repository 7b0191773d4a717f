"""
The table of routes: methods and paths, and who answers them.

A path has one form. Two slashes in a row, and an encoded slash, make another path, which does not exist. So
what is true of a route is true of every way to reach it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from .errors import RequestRefused
from .settings import AdminLevel

_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
#: Parameters of one request.
_MOST_PARAMETERS = 64


class Asked(NamedTuple):
    """
    One request.

    :ivar names: what the path has in place of each ``{NAME}``.
    :ivar parameters: behind the question mark; each may be there once.
    :ivar body: the JSON object; empty where there is none.
    :ivar peer: who asks, for the log.
    :ivar accept: the formats that the client wants.
    """

    names: Mapping[str, str]
    parameters: Mapping[str, str]
    body: Mapping[str, Any]
    peer: str
    accept: str = ""

    def allow(self, *keys: str) -> None:
        """
        See that there are no parameters and no keys of the body but *keys*.

        :raises RequestRefused: when there are others.
        """
        for key in [*self.parameters, *self.body]:
            if key not in keys:
                there = f"there are {', '.join(keys)}" if keys else "there is none"
                raise RequestRefused(400, f"no such parameter: {key:.80}; {there}")


class ApiRoute(NamedTuple):
    """
    What answers one method on one path.

    :ivar method: GET, POST or DELETE.
    :ivar path: with ``{NAME}`` in place of a part that may be anything.
    :ivar level: what it takes.
    :ivar answer: is called with the request.
    """

    method: str
    path: str
    level: AdminLevel
    answer: Callable[[Asked], Any]


class Routes:
    """
    A table of routes.

    :param routes: all of them.
    :ivar start: called when there are listeners with these routes; it may be called again.
    :ivar stop: called when all of them are closed.
    """

    def __init__(self, routes: Sequence[ApiRoute]) -> None:
        self.routes = list(routes)
        self.start: Callable[[], None] = lambda: None
        self.stop: Callable[[], None] = lambda: None
        self._split = [(route, route.path.split("/")[1:]) for route in routes]

    def find(self, method: str, path: bytes) -> tuple[ApiRoute, dict[str, str]]:
        """
        The route of a request, and what its path has for the names of the route's.

        :raises RequestRefused: when there is none.
        """
        parts = _parts(path)
        methods = []
        for route, pattern in self._split:
            names = _matched(pattern, parts)
            if names is None:
                continue
            if route.method == method or (method, route.method) == ("HEAD", "GET"):
                return route, names
            methods.append(route.method)
        if methods:
            raise RequestRefused(405, f"there is {' and '.join(methods)} here", allow=methods)
        raise RequestRefused(404, "there is nothing at this path")


def _parts(path: bytes) -> list[str]:
    if not path.startswith(b"/"):
        raise RequestRefused(400, "the path does not begin with a slash")
    if _PERCENT.search(path):
        raise RequestRefused(400, "a % that no two hexadecimal digits follow")
    try:
        return [unquote_to_bytes(part).decode() for part in path[1:].split(b"/")]
    except UnicodeDecodeError:
        raise RequestRefused(400, "the path is not in UTF-8") from None


def _matched(pattern: Sequence[str], parts: Sequence[str]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    names = {}
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted.startswith("{"):
            if not part:
                return None
            names[wanted[1:-1]] = part
        elif wanted != part:
            return None
    return names


def parameters_of(query: bytes) -> dict[str, str]:
    """
    The parameters in *query*.

    :raises RequestRefused: when they make no sense.
    """
    try:
        pairs = (
            parse_qsl(query.decode("ascii"), True, True, errors="strict", max_num_fields=_MOST_PARAMETERS)
            if query
            else []
        )
    except ValueError:
        raise RequestRefused(400, "the parameters are not NAME=VALUE, with & between them") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RequestRefused(400, "a parameter is there twice")
    return found
