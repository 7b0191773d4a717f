"""
Calls that wait for a datagram, as the kernel would have them wait, and the signals that end a wait.

A filter that keeps signals from interrupting calls that have begun (Linux 5.19) keeps all signals from them
that do not kill. So the supervisor looks whether there is one.
"""

from __future__ import annotations

import errno
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from .call import Call

#: Seconds between two looks at whether a signal waits for the caller.
LOOK = 0.1
_TIMEVAL = struct.Struct("=qq")
#: ERESTARTSYS, the kernel's own: the call begins again after the signal, or ends with EINTR, as the program
#: has told the kernel (SA_RESTART). It is right only for a thread that a signal waits for, since another one
#: would see the number.
RESTART = 512
_STOPPING = sum(
    1 << number - 1
    for number in (
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGALRM,
        signal.SIGTERM,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
    )
)


class WaitingCall:
    """
    A call whose socket has nothing to read yet. A signal ends it, whatever signal it is.

    :param reactor: watches the socket.
    :param call: the call.
    :param proceed: answers it when there is something to read.
    """

    def __init__(self, reactor: Any, call: Call, proceed: Callable[[Call], None]) -> None:
        self._reactor = reactor
        self._call = call
        self._proceed = proceed
        seconds, micros = _TIMEVAL.unpack(call.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))
        timeout = seconds + micros / 1e6
        self._deadline = reactor.seconds() + timeout if timeout else None
        self._timer = reactor.callLater(LOOK, self._look)
        reactor.addReader(self)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._call.socket.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "socksproxy run"

    def doRead(self) -> None:
        """There is something."""
        self._stop()
        self._proceed(self._call)

    def connectionLost(self, reason: object) -> None:
        """There is an error to be told."""
        self.doRead()

    def _look(self) -> None:
        call = self._call
        if not call.listener.is_valid(call.notice.id):
            self._end(errno.EINTR)
        elif self._deadline is not None and self._reactor.seconds() >= self._deadline:
            self._end(errno.EAGAIN)
        elif any(signals := signals_for(call.notice.thread)):
            self._end(RESTART if signals.own and self._deadline is None else errno.EINTR)
        else:
            self._timer = self._reactor.callLater(LOOK, self._look)

    def _end(self, problem: int) -> None:
        self._stop()
        self._call.answer(-problem)
        self._call.close()

    def _stop(self) -> None:
        self._reactor.removeReader(self)
        if self._timer.active():
            self._timer.cancel()


class WaitingSignals(NamedTuple):
    """
    Signals that wait for a thread, and that are neither blocked nor ignored: bits, SIGHUP the lowest.

    :ivar own: those that come to the thread for certain.
    :ivar shared: those of its process that may come to another thread.
    """

    own: int
    shared: int

    @property
    def stops(self) -> bool:
        """Whether a program that gets one usually ends or stops, so that no call must keep it waiting."""
        return bool(self.own & _STOPPING)


def signals_for(thread: int) -> WaitingSignals:
    """The signals that wait for *thread*; none when it has ended."""
    found: dict[bytes, bytes] = {}
    try:
        with open(f"/proc/{thread}/status", "rb") as status:
            for line in status:
                name, _, value = line.partition(b":")
                found[name] = value
    except OSError:
        return WaitingSignals(0, 0)
    passed = ~(int(found[b"SigBlk"], 16) | int(found[b"SigIgn"], 16))
    own, shared = int(found[b"SigPnd"], 16) & passed, int(found[b"ShdPnd"], 16) & passed
    # The kernel gives a signal of the process to its first thread, when that one takes it.
    return WaitingSignals(own | shared, 0) if int(found[b"Tgid"]) == thread else WaitingSignals(own, shared)
