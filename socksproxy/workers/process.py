"""
A worker's process, as the supervisor sees it.

They speak through two pipes, in lines. The first that the worker reads is its
:class:`Orders`; then come commands, and the end of that pipe is the end of the
supervisor, however it came to it: no worker is left behind. What the worker says of
itself is in the other one. Its log comes by its standard output, one event a
line; whatever else it says, such as what Python writes when it cannot start, by its standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from .machine import Ending, Worker

_log = Logger(namespace="socksproxy")

#: Bytes of a line of a worker's log; more is cut off.
LONGEST_LINE = 65536

READY = b"ready"
DRAIN, END, REOPEN = b"drain", b"end", b"reopen"

#: Sockets that were passed to this process keep their numbers (``LISTEN_PID``, sd_listen_fds(3)); and
#: nothing is imported from the directory in which the worker happens to start.
_BOOT = (
    "import os, sys; "
    "sys.path[:1] == [''] and sys.path.pop(0); "
    "'LISTEN_PID' in os.environ and os.environ.update(LISTEN_PID=str(os.getpid())); "
    "from socksproxy.workers.worker import main; main()"
)


class Orders(NamedTuple):
    """
    What a worker is told at its start. Numbers are those of descriptors.

    :ivar number: which one it is, from 1 on.
    :ivar reactor: the module that installs its reactor.
    :ivar arguments: the options as they were given.
    :ivar listeners: for each listener, its ports.
    :ivar files: for names of files, what these hold.
    :ivar log: the access log and where it is, if there is one.
    :ivar counts: the shared counts, how many columns they have, and their secret in hexadecimal digits;
        None: each worker counts for itself.
    :ivar status: where it says what it is at.
    :ivar config: what the configuration file held when the supervisor read it, if there is one.
    """

    number: int
    reactor: str
    arguments: list[str]
    listeners: list[list[int]]
    files: dict[str, int]
    log: tuple[int, str] | None
    counts: tuple[int, int, str] | None
    status: int
    config: int | None = None

    def line(self) -> bytes:
        """The line that says all that."""
        return json.dumps(self._asdict()).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Orders:
        """What *line* says."""
        return cls(**json.loads(line))


class Lines:
    """
    Cuts what comes into lines.

    :param received: called with each line, without its end, cut to :data:`LONGEST_LINE`.
    """

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> None:
        """*data* has come."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self._skipping:
                self._received(line[:LONGEST_LINE])
            self._skipping = False
        if len(rest) > LONGEST_LINE:
            if not self._skipping:
                self._received(rest[:LONGEST_LINE])
            self._skipping = True
        self._rest = b"" if self._skipping else rest

    def end(self) -> None:
        """Nothing more comes."""
        rest, self._rest = self._rest, b""
        if rest:
            self._received(rest)


class WorkerProcess(ProcessProtocol):
    """
    One process.

    :param number: which worker it is.
    :param worker: is told what becomes of it.
    :param control: the descriptor, in the worker, where it reads its orders.
    :param status: the one where it says what it is at.
    """

    transport: Any = None

    def __init__(self, number: int, worker: Worker, control: int, status: int) -> None:
        #: The process's number, once it runs.
        self.pid: int | None = None
        self._number = number
        self._worker = worker
        self._control = control
        self._listens = True
        self._lines = {1: Lines(self._logged), 2: Lines(self._said), status: Lines(self._told)}
        #: The last line of its standard error: it may tell why it ended.
        self._last = ""

    # What the supervisor asks.

    def send(self, line: bytes) -> None:
        """Tell the worker something, if it still listens."""
        if self._listens:
            self.transport.writeToChild(self._control, line + b"\n")

    def drain(self) -> None:
        """See :class:`~socksproxy.workers.machine.Process`."""
        self.send(DRAIN)

    def end(self) -> None:
        """See :class:`~socksproxy.workers.machine.Process`."""
        self.send(END)

    def kill(self) -> None:
        """See :class:`~socksproxy.workers.machine.Process`."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    # What Twisted tells.

    def connectionMade(self) -> None:
        """See :meth:`twisted.internet.interfaces.IProcessProtocol.makeConnection`."""
        self.pid = self.transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """See :meth:`twisted.internet.interfaces.IProcessProtocol.childDataReceived`."""
        self._lines[childFD].feed(data)

    def childConnectionLost(self, childFD: int) -> None:
        """See :meth:`twisted.internet.interfaces.IProcessProtocol.childConnectionLost`."""
        if childFD == self._control:
            self._listens = False
        else:
            self._lines[childFD].end()

    def processEnded(self, reason: Failure) -> None:
        """See :meth:`twisted.internet.interfaces.IProcessProtocol.processEnded`."""
        self._worker.ended(Ending(self._how(reason.value), isinstance(reason.value, ProcessDone)))

    def _how(self, reason: Any) -> str:
        if reason.signal is not None:
            return f"signal {_signal_name(reason.signal)}"
        last = f" ({self._last})" if reason.exitCode and self._last else ""
        return f"exit status {reason.exitCode}{last}"

    # What the worker says.

    def _told(self, line: bytes) -> None:
        if line == READY:
            self._worker.ready()

    def _said(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            self._last = text
            _log.warn("worker {number}: {text}", number=self._number, text=text)

    def _logged(self, line: bytes) -> None:
        try:
            name, text = json.loads(line)
            level = LogLevel.lookupByName(name)
        except Exception:
            # Somebody has printed something.
            level, text = LogLevel.info, line.decode("utf-8", "replace").rstrip()
        _log.emit(level, "worker {number}: {text}", number=self._number, text=text)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def spawn(
    reactor: Any, process: WorkerProcess, orders: Orders, control: int, descriptors: dict[int, int]
) -> None:
    """
    Start a worker.

    :param reactor: starts it.
    :param process: is told what becomes of it.
    :param orders: what it is told.
    :param control: the number of the descriptor where it reads them.
    :param descriptors: what it inherits besides, by the numbers there.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    if any(number < control for number in descriptors):
        # Twisted has taken these out of the environment when it read them.
        count = environment.get("LISTEN_FDNAMES", "").count(":") + 1
        environment.update(LISTEN_PID="the worker's", LISTEN_FDS=str(count))
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        children: dict[int, Any] = {
            0: nothing,
            1: "r",
            2: "r",
            control: "w",
            orders.status: "r",
            **descriptors,
        }
        name = f"worker {orders.number}"
        command = [sys.executable, "-c", _BOOT, "socksproxy", name, str(control)]
        reactor.spawnProcess(process, sys.executable, command, environment, childFDs=children)
    finally:
        os.close(nothing)
    process.transport.writeToChild(control, orders.line())
