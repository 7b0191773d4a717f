"""A SOCKS proxy inside a program of one's own: ``python embed.py [ENDPOINT]``."""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react

from socksproxy import SOCKSFactory, use_monotonic_clock


async def main(reactor: Any, listen: str = "tcp:1080:interface=127.0.0.1") -> None:
    use_monotonic_clock(reactor)
    factory = SOCKSFactory(reactor, observer=lambda event: print(event["destination"], event["ended"]))
    port = await serverFromString(reactor, listen).listen(factory)
    print("listening on", port.getHost(), flush=True)
    await Deferred[None]()


react(main, sys.argv[1:])
