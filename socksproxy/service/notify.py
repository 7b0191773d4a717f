"""
What a service manager such as systemd is told of the service: the protocol of sd_notify(3).

A message is a datagram to the socket that ``NOTIFY_SOCKET`` names. Without that variable nothing is sent, and
no timer runs.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: The variables that are for this process alone: a worker is not to speak in its supervisor's place.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

#: Seconds between two messages at the most; a watchdog with less patience gets them more often.
BEAT = 5.0
#: So many beats come within the time that the watchdog waits.
_BEATS = 6
#: Seconds beyond those that sessions have, in which the service must have ended.
_TO_END = 10.0


class Notifier:
    """
    Tells the service manager that the service is ready, reloads, lives, and ends.

    :param clock: for the time between two messages.
    :param status: gives one line for people.
    :param sound: whether all parts of the service live; the watchdog hears of the service only if so.
    :param environment: has what the service manager says.
    :ivar active: whether there is a service manager that wants to be told.
    :ivar watchdog: seconds without a message after which the service manager ends the service; None: it
        does not.
    :ivar beat: seconds between two messages.
    """

    def __init__(
        self,
        clock: IReactorTime,
        status: Callable[[], str],
        sound: Callable[[], bool],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._clock = clock
        self._status = status
        self._sound = sound
        name = environment.get("NOTIFY_SOCKET", "")
        # An abstract name begins with "@"; machines of their own have sockets of other kinds.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self.active = name.startswith(("/", "@"))
        self.watchdog = _watchdog(environment) if self.active else None
        self.beat = BEAT if self.watchdog is None else min(BEAT, self.watchdog / _BEATS)
        self._socket: socket.socket | None = None
        self._unsent: list[bytes] = []
        self._said = ""
        self._ending = False
        self._timer: IDelayedCall | None = None

    def ready(self) -> None:
        """Clients are accepted, or the configuration has been read again."""
        if not self.active or self._ending:
            return
        self._tell("READY=1")
        if self._timer is None:
            self._beat()

    def reloading(self) -> None:
        """The configuration is being read again; :meth:`ready` tells the end of that."""
        if self.active and not self._ending:
            self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, seconds: float) -> None:
        """The service ends, and its sessions have *seconds* for that."""
        if self.active and not self._ending:
            self._ending = True
            self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int((seconds + _TO_END) * 1e6)}")

    def stopped(self) -> None:
        """The service has ended."""
        self._ending = False
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _beat(self) -> None:
        self._timer = self._clock.callLater(self.beat, self._beat)
        lines = []
        status = f"{'Stopping: ' if self._ending else ''}{self._status()}"
        if status != self._said:
            self._said = status
            lines.append(f"STATUS={status}")
        if self.watchdog is not None and self._sound():
            lines.append("WATCHDOG=1")
        if lines:
            self._tell(*lines)

    def _tell(self, *lines: str) -> None:
        self._unsent.append("\n".join(lines).encode())
        # Each is tried in its turn; those that find no room wait for the next beat.
        with suppress(BlockingIOError):
            while self._unsent:
                self._send(self._unsent[0])
                del self._unsent[0]
        del self._unsent[:-_BEATS]

    def _send(self, message: bytes) -> None:
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto(message, self._address)
        except BlockingIOError:
            raise
        except OSError:
            pass  # there is no service manager any more


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """The patience of the watchdog of this very process, in seconds; None: there is none."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    usec = environment.get("WATCHDOG_USEC", "")
    return int(usec) / 1e6 if usec.isdecimal() and int(usec) else None
