"""Wait for one connection at the proxy: ``ALL_PROXY=socks5://127.0.0.1:1080 python active_ftp.py PEER``."""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react

from socksproxy.client import Proxy


class Download(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.done.callback(self.data)


async def main(reactor: Any, peer: str) -> None:
    proxy = Proxy.from_environment()
    assert proxy is not None, "ALL_PROXY names no proxy"
    port: Any = await proxy.listen_endpoint(peer).listen(Factory.forProtocol(Download))
    print("PORT", port.getHost().host, port.getHost().port, flush=True)  # what FTP tells its server
    download = await port.when_accepted()
    print((await download.done).decode("utf-8"))


react(main, sys.argv[1:])
