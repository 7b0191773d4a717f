#!/usr/bin/env python3
"""This server with a choice of relays, which ``twistd socks`` does not offer: for ``syscalls.py``."""

from __future__ import annotations

import argparse
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react

from socksproxy import SOCKSFactory


async def main(reactor: Any, port: int, engine: bool) -> None:
    """Serve until a signal comes."""
    endpoint = TCP4ServerEndpoint(reactor, port, backlog=1024, interface="127.0.0.1")
    await endpoint.listen(SOCKSFactory(reactor, engine=engine))
    await Deferred()


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1")
    parser.add_argument("--no-engine", action="store_true", help="relay over Twisted's transports")
    return parser.parse_args()


if __name__ == "__main__":
    options = arguments()
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, options.port, not options.no_engine)))
