#!/usr/bin/env python3
"""This server inside a program of its own: with the one relay or the other, and beside a web server."""

from __future__ import annotations

import argparse
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import Site

from socksproxy import SOCKSFactory

#: What the web server answers with.
BODY = b"Here I am.\n"


class Page(Resource):
    """A web server's only page."""

    isLeaf = True

    def render_GET(self, request: object) -> bytes:
        """See :meth:`twisted.web.resource.Resource.render`."""
        return BODY


async def main(reactor: Any, port: int, web_port: int | None, engine: bool) -> None:
    """Serve until a signal comes."""
    if web_port is not None:
        await _endpoint(reactor, web_port).listen(Site(Page()))
    await _endpoint(reactor, port).listen(SOCKSFactory(reactor, engine=engine))
    await Deferred()


def _endpoint(reactor: Any, port: int) -> TCP4ServerEndpoint:
    return TCP4ServerEndpoint(reactor, port, backlog=1024, interface="127.0.0.1")


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True, help="of the proxy, on 127.0.0.1")
    parser.add_argument("--web-port", type=int, help="of the web server")
    parser.add_argument("--no-engine", action="store_true", help="relay over Twisted's transports")
    return parser.parse_args()


if __name__ == "__main__":
    options = arguments()
    react(
        lambda reactor: Deferred.fromCoroutine(
            main(reactor, options.port, options.web_port, not options.no_engine)
        )
    )
