"""
Calls that wait for a datagram, as the kernel would have them wait.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import Any

from .call import Call

#: Seconds between two looks at whether a signal waits for the caller.
LOOK = 0.1
_TIMEVAL = struct.Struct("=qq")
_PENDING, _IGNORED = (b"SigPnd:", b"ShdPnd:"), (b"SigBlk:", b"SigIgn:")


class WaitingCall:
    """
    A call whose socket has nothing to read yet. It ends with EINTR when a signal comes, because a filter that
    keeps signals from interrupting ``connect`` (Linux 5.19) keeps them from this call, too.

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
        elif has_signal(call.notice.thread):
            self._end(errno.EINTR)
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


def has_signal(thread: int) -> bool:
    """Whether a signal waits for *thread* that the thread does not block or ignore."""
    pending = ignored = 0
    try:
        with open(f"/proc/{thread}/status", "rb") as status:
            for line in status:
                if line.startswith(_PENDING):
                    pending |= int(line.split()[1], 16)
                elif line.startswith(_IGNORED):
                    ignored |= int(line.split()[1], 16)
    except OSError:
        return True
    return bool(pending & ~ignored)
