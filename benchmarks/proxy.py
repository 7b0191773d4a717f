#!/usr/bin/env python3
"""This server inside a program of its own: with the one relay or the other, and beside a web server."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from socksproxy import SOCKSFactory

#: What the web server answers with.
BODY = b"Here I am.\n"


#: The path at which the web server tells how long calls have waited since it was asked before.
WAITS = b"/waits"

#: Seconds between two calls of which the wait is measured.
_BETWEEN = 0.002


class Waits:
    """
    How long the reactor lets calls wait that are due at once.

    :param clock: in seconds.
    :ivar taken: microseconds of each call, by how it was made.
    """

    def __init__(self, reactor: Any, clock: Callable[[], float]) -> None:
        self._reactor = reactor
        self._clock = clock
        self.taken: dict[str, list[float]] = {"callLater(0)": [], "callFromThread": []}
        self._call_later()
        Thread(target=self._call_from_thread, daemon=True).start()

    def _note(self, kind: str, began: float) -> None:
        self.taken[kind].append((self._clock() - began) * 1e6)

    def _call_later(self) -> None:
        self._reactor.callLater(0, self._note, "callLater(0)", self._clock())
        self._reactor.callLater(_BETWEEN, self._call_later)

    def _call_from_thread(self) -> None:
        while True:
            time.sleep(_BETWEEN)
            self._reactor.callFromThread(self._note, "callFromThread", self._clock())

    def tell(self) -> bytes:
        """As JSON; what has been told is forgotten."""
        told = json.dumps(self.taken).encode()
        for taken in self.taken.values():
            taken.clear()
        return told


class Page(Resource):
    """The pages of a web server: one for those who ask, and one that tells how long calls have waited."""

    isLeaf = True

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def render_GET(self, request: Request) -> bytes:
        """See :meth:`twisted.web.resource.Resource.render`."""
        return self._waits.tell() if request.path == WAITS else BODY


async def main(reactor: Any, options: argparse.Namespace) -> None:
    """Serve until a signal comes."""
    if options.web_port is not None:
        clock = time.process_time if options.processor_time else time.perf_counter
        await _endpoint(reactor, options.web_port).listen(Site(Page(Waits(reactor, clock))))
    factory = SOCKSFactory(reactor, engine=not options.no_engine)
    await _endpoint(reactor, options.port).listen(factory)
    await Deferred()


def _endpoint(reactor: Any, port: int) -> TCP4ServerEndpoint:
    return TCP4ServerEndpoint(reactor, port, backlog=1024, interface="127.0.0.1")


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True, help="of the proxy, on 127.0.0.1")
    parser.add_argument("--web-port", type=int, help="of the web server")
    parser.add_argument("--no-engine", action="store_true", help="relay over Twisted's transports")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="calls wait for so much of this process's processor time",
    )
    return parser.parse_args()


if __name__ == "__main__":
    options = arguments()
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, options)))
