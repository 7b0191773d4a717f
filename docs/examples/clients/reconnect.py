"""Keep a connection: ``ALL_PROXY=socks5://127.0.0.1:1080 python reconnect.py HOST PORT``."""

import sys
from typing import Any

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.basic import LineReceiver

from socksproxy.client import ProxiedConnectError, Proxy, ProxyError


class Lines(LineReceiver):
    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        print("received", line.decode("utf-8"), flush=True)


def connecting_failed(failure: Any) -> None:
    """The service tries again after this, unless this raises."""
    problem = failure.trap(ProxiedConnectError) and failure.value
    whose = "the proxy" if isinstance(problem, ProxyError) else "the destination"
    print(f"{whose}: {problem}", flush=True)


async def main(reactor: Any, host: str, port: str) -> None:
    proxy = Proxy.from_environment()
    assert proxy is not None, "ALL_PROXY names no proxy"
    endpoint = proxy.connect_endpoint(host, int(port))
    retry = backoffPolicy(initialDelay=0.1, maxDelay=60.0)
    service = ClientService(endpoint, Factory.forProtocol(Lines), retryPolicy=retry)
    service.startService()
    while True:
        await service.whenConnected(failAfterFailures=1).addErrback(connecting_failed)
        await Deferred[None]()


react(main, sys.argv[1:])
