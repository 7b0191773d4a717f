"""
A worker's process, as the supervisor sees it.

Strategy: supervisor and worker exchange lines over two pipes. The first line to the worker is its
:class:`Orders`; commands follow. The end of that pipe is the end of the supervisor, of whatever kind, so no
worker is left behind. The worker reports its state on the other pipe. Orders after a reload come over a Unix
socket, because descriptors go with them. The worker's log comes over its standard output, one event a line.
Other text, such as that of a Python that cannot start, comes over its standard error.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from .. import __version__
from ..service.notify import VARIABLES
from .questions import Questions
from .states import Ending, Worker

_log = Logger(namespace="socksproxy")

#: Bytes of a line of a worker's log; more is cut off.
LONGEST_LINE = 65536

#: Bytes of orders that can be passed on.
_LONGEST_ORDERS = 1 << 18

READY, RELOADED, NOT_RELOADED = b"ready", b"reloaded", b"not reloaded"
#: What a worker says before the number of a command of another node to read the configuration again.
RELOAD_WANTED = b"reload wanted "
#: What the number of sessions follows.
BEAT = b"beat "
DRAIN, END, REOPEN, DUMP = b"drain", b"end", b"reopen", b"dump"

#: Descriptors that go with one message; the system's own limit is 253. What comes before the last message.
_TOGETHER, _MORE = 64, b"+"

#: Sockets that were passed to this process keep their numbers (``LISTEN_PID``, sd_listen_fds(3)); and
#: nothing is imported from the directory in which the worker happens to start.
_BOOT = (
    "import os, sys; "
    "sys.path[:1] == [''] and sys.path.pop(0); "
    "'LISTEN_PID' in os.environ and os.environ.update(LISTEN_PID=str(os.getpid()))\n"
    "from socksproxy.runtime.garbage import importing\n"
    "with importing(): from socksproxy.workers.worker import main\n"
    "main()"
)


#: Raise it with every change of :class:`Orders`, and of the commands and answers above.
ORDERS_VERSION = 5


class OtherVersion(Exception):
    """The supervisor and the worker run different versions of this program."""


class Orders(NamedTuple):
    """
    The supervisor's orders to a worker, at its start and again when the configuration has changed.

    A number of a descriptor is, at the start, its number in the worker; later it is its place among the
    descriptors that come with the orders.

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
    :ivar node: what the node's own file held then, if there is one.
    :ivar directory: in which names of files are looked up.
    :ivar channel: where further orders come; None: there are none.
    :ivar ids: the generation and the serial number that the ids of its sessions begin with; None: they
        stay what they are.
    :ivar datagrams: the way to the router of datagrams, at the start; None: it stays what it is.
    :ivar program: the supervisor's version of the program.
    :ivar beat: seconds after which the worker shows again that it lives, at the start; None: it stays what it
        is.
    :ivar questions: the socket on which the supervisor asks, at the start; None: it stays what it is.
    :ivar protected: addresses and ports of the supervisor to which no client may be connected.
    :ivar metrics: the columns of the metrics, and how many there are, at the start; None: it stays where it
        counts.
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
    node: int | None = None
    directory: str | None = None
    channel: int | None = None
    ids: tuple[int, int] | None = None
    datagrams: int | None = None
    beat: float | None = None
    program: str = __version__
    questions: int | None = None
    protected: Sequence[tuple[str, int]] = ()
    metrics: tuple[int, int] | None = None

    def here(self, descriptors: Sequence[int]) -> Orders:
        """The orders, with *descriptors* in place of their places among these."""
        return self._replace(
            listeners=[[descriptors[place] for place in ports] for ports in self.listeners],
            files={name: descriptors[place] for name, place in self.files.items()},
            log=None if self.log is None else (descriptors[self.log[0]], self.log[1]),
            config=None if self.config is None else descriptors[self.config],
            node=None if self.node is None else descriptors[self.node],
        )

    def line(self) -> bytes:
        """The orders as a line of JSON."""
        return json.dumps({"version": ORDERS_VERSION, **self._asdict()}).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Orders:
        """
        The orders in *line*.

        :raises OtherVersion: when the supervisor runs another version of this program.
        """
        fields = json.loads(line)
        version = fields.pop("version", 0)
        if version != ORDERS_VERSION:
            raise OtherVersion(
                f"the supervisor gives orders of version {version}, and this worker knows version "
                f"{ORDERS_VERSION}: the program has changed since the supervisor started, so restart it"
            )
        return cls(**fields)


def pass_on(channel: socket.socket, orders: Orders, descriptors: Sequence[int]) -> None:
    """
    Send *orders*, with the *descriptors* that they speak of.

    :raises OSError: when they cannot be sent. The channel must not be used again then.
    """
    rest = list(descriptors)
    while len(rest) > _TOGETHER:
        socket.send_fds(channel, [_MORE], rest[:_TOGETHER])
        del rest[:_TOGETHER]
    socket.send_fds(channel, [orders.line()], rest)


class Inbox:
    """
    Takes what :func:`pass_on` sends.

    :param channel: where it comes.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._descriptors: list[int] = []

    def take(self) -> tuple[Orders, list[int]] | None:
        """Orders and their descriptors; None: they are not all there yet."""
        # socket.recv_fds() does not pass its flags on, up to Python 3.11 at least.
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0) | socket.MSG_DONTWAIT
        room = socket.CMSG_LEN(_TOGETHER * array("i").itemsize)
        data, passed, _, _ = self._channel.recvmsg(_LONGEST_ORDERS, room, flags)
        for _, _, numbers in passed:
            self._descriptors += array("i", numbers)
        if data == _MORE:
            return None
        descriptors, self._descriptors = self._descriptors, []
        return Orders.parse(data), descriptors


class Lines:
    """
    Cuts what comes into lines.

    :param received: called with each line, without its end, cut to :data:`LONGEST_LINE`.
    """

    def __init__(self, received: Callable[[bytes], object]) -> None:
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
    :param hand_over: passes orders on to it.
    :param questions: asks it.
    :param reload_wanted: called with the number of a command of another node to read the configuration again.
    """

    transport: Any = None

    def __init__(
        self,
        number: int,
        worker: Worker,
        control: int,
        status: int,
        hand_over: Callable[[WorkerProcess], None],
        questions: Questions,
        reload_wanted: Callable[[bytes], None] = lambda number: None,
    ) -> None:
        self.questions = questions
        self._reload_wanted = reload_wanted
        #: The process's number, once it runs.
        self.pid: int | None = None
        self._number = number
        self._worker = worker
        self._control = control
        self._hand_over = hand_over
        #: This process's end of the way on which orders are passed on, and the worker's.
        self.channel, self.its_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.setblocking(False)
        self._listens = True
        self._lines = {1: Lines(self._logged), 2: Lines(self._said), status: Lines(self._told)}
        #: The last line of its standard error: it may tell why it ended.
        self._last = ""

    # What the supervisor asks.

    def send(self, line: bytes) -> None:
        """Tell the worker something, if it still listens."""
        if self._listens:
            self.transport.writeToChild(self._control, line + b"\n")

    def reload(self) -> bool:
        """See :class:`~socksproxy.workers.states.Process`."""
        try:
            self._hand_over(self)
        except OSError as problem:
            _log.error(
                "worker {number} does not get the configuration: {problem}",
                number=self._number,
                problem=problem.strerror or problem,
            )
            return False
        return True

    def drain(self) -> None:
        """See :class:`~socksproxy.workers.states.Process`."""
        self.send(DRAIN)

    def end(self) -> None:
        """See :class:`~socksproxy.workers.states.Process`."""
        self.send(END)

    def kill(self) -> None:
        """See :class:`~socksproxy.workers.states.Process`."""
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
        self.close_channel()
        problem: Any = reason.value
        killed = problem.signal is not None
        self._worker.ended(Ending(self._how(problem), isinstance(problem, ProcessDone), killed))

    def close_channel(self) -> None:
        """Nothing is passed on any more."""
        self.channel.close()
        self.its_channel.close()

    def _how(self, reason: Any) -> str:
        if reason.signal is not None:
            return f"signal {_signal_name(reason.signal)}"
        last = f" ({self._last})" if reason.exitCode and self._last else ""
        return f"exit status {reason.exitCode}{last}"

    # What the worker says.

    def _told(self, line: bytes) -> None:
        if line == READY:
            self._worker.ready()
        elif line == RELOADED:
            self._worker.reloaded()
        elif line == NOT_RELOADED:
            self._worker.not_reloaded()
        elif line.startswith(BEAT):
            self._worker.beat(int(line[len(BEAT) :]))
        elif line.startswith(RELOAD_WANTED):
            self._reload_wanted(line[len(RELOAD_WANTED) :])

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
            # A library has printed a line.
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
    ours = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment = {**ours, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
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
    except OSError:
        process.close_channel()
        raise
    finally:
        os.close(nothing)
        process.its_channel.close()
    process.transport.writeToChild(control, orders.line())
