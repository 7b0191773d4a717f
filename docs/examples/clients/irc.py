"""Say a line on IRC: ``ALL_PROXY=socks5://127.0.0.1:1080 python irc.py HOST PORT NICK CHANNEL LINE``."""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.words.protocols.irc import IRCClient

from socksproxy.client import Proxy


class Speaker(IRCClient):
    def __init__(self, nickname: str, channel: str, line: str, done: Deferred[None]) -> None:
        self.nickname, self.channel, self.line, self.done = nickname, channel, line, done

    def signedOn(self) -> None:
        self.join(self.channel)

    def joined(self, channel: str) -> None:
        self.say(channel, self.line)
        self.quit()

    def connectionLost(self, reason: Any = None) -> None:
        self.done.callback(None)


async def main(reactor: Any, host: str, port: str, nickname: str, channel: str, line: str) -> None:
    proxy = Proxy.from_environment()
    assert proxy is not None, "ALL_PROXY names no proxy"
    done: Deferred[None] = Deferred()
    factory = Factory.forProtocol(lambda: Speaker(nickname, channel, line, done))
    await proxy.connect_endpoint(host, int(port)).connect(factory)
    await done


react(main, sys.argv[1:])
