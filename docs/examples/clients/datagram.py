"""Ask for the time of an SNTP server: ``ALL_PROXY=socks5://127.0.0.1:1080 python datagram.py HOST PORT``."""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import react

from socksproxy.client import Proxy

UNTIL_1970 = 2208988800


class Question(DatagramProtocol):
    noisy = False

    def __init__(self) -> None:
        self.answer: Deferred[int] = Deferred()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.answer.callback(int.from_bytes(datagram[40:44], "big") - UNTIL_1970)


async def main(reactor: Any, host: str, port: str = "123") -> None:
    proxy = Proxy.from_environment()
    assert proxy is not None, "ALL_PROXY names no proxy"
    question = Question()
    transport = await proxy.associate(question)
    transport.write(b"\x1b" + bytes(47), (host, int(port)))
    print("seconds since 1970:", await question.answer.addTimeout(10, reactor))
    await transport.stopListening()


react(main, sys.argv[1:])
