"""An identd that says what a test has it say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

reactor: Any = _reactor


class _Asked(Protocol):
    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"\r\n"):
            peer = self.transport.getPeer().host
            self.factory.queries.append((peer, self._received))
            self.factory.say(self.transport, self._received[:-2])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.lost += 1


class Identd(Factory):
    """
    Listens for queries.

    :param say: given the transport and a query without its CRLF, answers in whatever way.
    :ivar queries: who has asked, and what, byte for byte.
    :ivar lost: how many connections are over.
    """

    noisy = False
    protocol = _Asked

    def __init__(self, say: Callable[[Any, bytes], object]) -> None:
        self.say = say
        self.queries: list[tuple[str, bytes]] = []
        self.lost = 0
        self.port = 0
        self._port: Any = None

    def start(self, host: str = "127.0.0.1") -> Deferred[Identd]:
        """Listen on *host*."""
        kind = "tcp6" if ":" in host else "tcp"
        quoted = host.replace(":", r"\:")
        opening: Deferred[Any] = serverFromString(reactor, f"{kind}:0:interface={quoted}").listen(self)
        return opening.addCallback(self._started)

    def _started(self, port: Any) -> Identd:
        self._port, self.port = port, port.getHost().port
        return self

    def stop(self) -> Any:
        """Listen no more."""
        return self._port.stopListening()


def userid(name: bytes) -> Callable[[Any, bytes], object]:
    """Tells that *name* is the user, as most identds would."""
    return answer(b"%%s : USERID : UNIX : %s\r\n" % name.replace(b"%", b"%%"))


def answer(template: bytes) -> Callable[[Any, bytes], object]:
    """Says *template* with the ports in the place of ``%s``, and closes."""

    def say(transport: Any, query: bytes) -> None:
        transport.write(template % query if b"%s" in template else template)
        transport.loseConnection()

    return say
