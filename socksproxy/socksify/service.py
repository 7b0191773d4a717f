"""
The supervisor's reactor: the parts of ``socksproxy run``, put together.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogBeginner
from zope.interface import provider

from ..runtime.reactor import global_reactor
from .abi import ABI
from .associations import FlowAssociations
from .datagrams import DatagramGate, Datagrams
from .kernel import CallListener
from .name_server import answer
from .stand_ins import StandIns
from .streams import Streams
from .supervisor import CallSupervisor
from .upstream import RunSettings
from .ways import Ways

_HERE = "127.0.0.1"
#: Seconds that a client of the name server may be silent.
_PATIENCE = 30.0


class NameConnection(Protocol):
    """Queries to the name server by TCP: each message follows its size (RFC 1035, section 4.2.2)."""

    transport: Any

    def __init__(self, reactor: Any, stand_ins: StandIns) -> None:
        self._stand_ins = stand_ins
        self._buffer = b""
        self._timer = reactor.callLater(_PATIENCE, self._expire)

    def dataReceived(self, data: bytes) -> None:
        """Answer each query that is complete."""
        self._buffer += data
        self._timer.reset(_PATIENCE)
        while len(self._buffer) >= 2:
            end = 2 + int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < end:
                return
            said = answer(self._buffer[2:end], self._stand_ins)
            self._buffer = self._buffer[end:]
            self.transport.write(len(said).to_bytes(2, "big") + said)

    def connectionLost(self, reason: Any = None) -> None:
        """Forget the timer."""
        if self._timer.active():
            self._timer.cancel()

    def _expire(self) -> None:
        self.transport.abortConnection()


class _NameFactory(ServerFactory):
    noisy = False

    def __init__(self, reactor: Any, stand_ins: StandIns) -> None:
        self._reactor = reactor
        self._stand_ins = stand_ins

    def buildProtocol(self, address: Any) -> NameConnection:
        return NameConnection(self._reactor, self._stand_ins)


@provider(ILogObserver)
def _complain(event: LogEvent) -> None:
    """Tell warnings and errors on the program's standard error."""
    if event["log_level"] < LogLevel.warn:
        return
    said = formatEvent(event)
    if "log_failure" in event:
        said += "\n" + event["log_failure"].getTraceback()
    with suppress(OSError):
        os.write(2, f"socksproxy: run: {said}\n".encode("utf-8", "backslashreplace"))


def supervise(reactor: Any, listener: CallListener, abi: ABI, settings: RunSettings) -> None:
    """Answer the calls that come from *listener*, from now on."""
    stand_ins = StandIns()
    ways = Ways(stand_ins, settings.direct)
    names = reactor.listenTCP(0, _NameFactory(reactor, stand_ins), interface=_HERE)
    associations = FlowAssociations(reactor, settings.upstream.proxy.associate)
    gate = DatagramGate(stand_ins, associations.send)
    reactor.listenUDP(0, gate, interface=_HERE, maxPacketSize=65535)
    streams = Streams(reactor, ways, settings.upstream, names.getHost().port, settings.timeout)
    datagrams = Datagrams(ways, gate, associations.check, settings.udp_direct)
    reactor.addReader(CallSupervisor(reactor, listener, abi, streams, datagrams))


def serve(abi: ABI, listener: CallListener | None, settings: RunSettings, reap: Callable[[], bool]) -> None:
    """
    Answer calls until all programs have ended.

    :param listener: where the calls come from; None: the first program has not come so far.
    :param reap: takes the statuses of children, and returns whether there are any left.
    """
    reactor = global_reactor()

    over = False

    def check() -> None:
        nonlocal over
        if not reap() and not over:
            over = True
            reactor.stop()

    globalLogBeginner.beginLoggingTo([_complain], redirectStandardIO=False, discardBuffer=True)
    if listener is not None:
        supervise(reactor, listener, abi, settings)
    signal.signal(signal.SIGCHLD, lambda *_: reactor.callFromThread(check))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    reactor.callWhenRunning(check)
    reactor.run(installSignalHandlers=False)
