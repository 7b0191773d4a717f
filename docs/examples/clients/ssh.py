"""
Run a command on another machine: ``python ssh.py HOST PORT USER FINGERPRINT COMMAND``.

The proxy is that of ``ALL_PROXY``, and the password is in ``SSH_PASSWORD``.
"""

import os
import sys
from typing import Any

from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.common import NS
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.keys import FingerprintFormats, Key
from twisted.conch.ssh.transport import SSHClientTransport
from twisted.conch.ssh.userauth import SSHUserAuthClient
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.python.failure import Failure

from socksproxy.client import Proxy


class Transport(SSHClientTransport):
    def __init__(self, user: str, fingerprint: str, command: str, done: Deferred[None]) -> None:
        self.user, self.fingerprint, self.command, self.done = user, fingerprint, command, done

    def verifyHostKey(self, key: bytes, fingerprint: str) -> Deferred[bool]:
        found = Key.fromString(key).fingerprint(FingerprintFormats.SHA256_BASE64)
        return succeed(True) if found == self.fingerprint else fail(ValueError(f"another key: {found}"))

    def connectionSecure(self) -> None:
        self.requestService(Login(self.user.encode("utf-8"), Connection(self)))

    def connectionLost(self, reason: Failure | None = None) -> None:
        super().connectionLost(reason)
        self.done.callback(None)


class Login(SSHUserAuthClient):
    def getPassword(self, prompt: Any = None) -> Deferred[bytes]:
        return succeed(os.environ["SSH_PASSWORD"].encode("utf-8"))

    def getPublicKey(self) -> None:
        return None


class Connection(SSHConnection):
    def __init__(self, over: Transport) -> None:
        super().__init__()
        self.over = over

    def serviceStarted(self) -> None:
        self.openChannel(Command(conn=self))


class Command(SSHChannel):
    name = b"session"
    conn: Any

    def channelOpen(self, specificData: bytes) -> None:
        self.conn.sendRequest(self, "exec", NS(self.conn.over.command.encode("utf-8")))

    def dataReceived(self, data: bytes) -> None:
        print(data.decode("utf-8"), end="", flush=True)

    def closed(self) -> None:
        self.conn.over.loseConnection()


async def main(reactor: Any, host: str, port: str, user: str, fingerprint: str, command: str) -> None:
    proxy = Proxy.from_environment()
    assert proxy is not None, "ALL_PROXY names no proxy"
    done: Deferred[None] = Deferred()
    factory = Factory.forProtocol(lambda: Transport(user, fingerprint, command, done))
    await proxy.connect_endpoint(host, int(port)).connect(factory)
    await done


react(main, sys.argv[1:])
