"""
A worker: a process that accepts clients from the supervisor's listeners and serves them.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, eventAsText, globalLogBeginner
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from zope.interface import implementer

from .. import __version__
from ..admin.answers import Answers
from ..admin.upkeep import Resting
from ..config.command_line import SOCKSOptions
from ..config.plan import Plan
from ..events import SessionIds
from ..logs.streams import StreamWriter
from ..metrics.columns import Columns, OwnColumn
from ..runtime.clocks import use_monotonic_clock
from ..runtime.reactor import global_reactor
from ..service.server import SOCKSService, make_factory
from ..shared.commands import NodeCommand
from ..udp.registry import Associations
from ..udp.routing import Routing
from .counts import SharedCounting
from .datagrams import Way, go
from .descriptor_passing import WorkerResources
from .pool_checks import WorkersChecks
from .process import (
    BEAT,
    DRAIN,
    DUMP,
    END,
    LONGEST_LINE,
    NOT_RELOADED,
    READY,
    RELOAD_WANTED,
    RELOADED,
    REOPEN,
    Inbox,
    Lines,
    Orders,
    OtherVersion,
)
from .questions import Answering
from .shared_table import SharedTable

_log = Logger(namespace="socksproxy")

#: Characters of one event: in JSON, where one takes six bytes at the most, they fit in a line.
_LONGEST_EVENT = LONGEST_LINE // 6 - 64


@implementer(ILogObserver)
class Reporter:
    """
    Writes events for the supervisor to log.

    :param descriptor: where to.
    """

    def __init__(self, descriptor: int) -> None:
        self._stream = StreamWriter(f"/dev/fd/{descriptor}", _lost)

    def __call__(self, event: LogEvent) -> None:
        """See :class:`twisted.logger.ILogObserver`."""
        level = event.get("log_level", LogLevel.info)
        if level < _lowest(event.get("log_namespace", "")):
            return  # such as what Twisted says of ports that open and close; the supervisor has its own
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        if len(text) > _LONGEST_EVENT:
            # Of a traceback, what it ends with says most.
            text = f"{text[:200]} [...] {text[-_LONGEST_EVENT + 300 :]}"
        self._stream.write(_report(level.name, text))


def _lowest(logger: str) -> Any:
    """The lowest level of *logger* that is passed on."""
    if logger.startswith("socksproxy."):
        return LogLevel.debug  # a topic, which speaks if it is asked to
    return LogLevel.info if logger == "socksproxy" else LogLevel.warn


def _report(level: str, text: str) -> str:
    return json.dumps([level, text], ensure_ascii=False) + "\n"


def _lost(count: int) -> str:
    return _report("warn", f"{count} lines of the log are lost: the supervisor has not read them in time")


@implementer(IReadDescriptor)
class Inlet:
    """
    A descriptor on which the supervisor says something.

    :param reactor: watches the descriptor.
    :param descriptor: the descriptor.
    :param read: called when there is something to read.
    :param ended: called when the other end is closed.
    """

    def __init__(
        self,
        reactor: Any,
        descriptor: int,
        read: Callable[[], object],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._read = read
        self._ended = ended
        reactor.addReader(self)

    def fileno(self) -> int:
        """See :meth:`twisted.internet.interfaces.IFileDescriptor.fileno`."""
        return self._descriptor

    def logPrefix(self) -> str:
        """See :meth:`twisted.internet.interfaces.ILoggingContext.logPrefix`."""
        return "supervisor"

    def doRead(self) -> None:
        """See :meth:`twisted.internet.interfaces.IReadDescriptor.doRead`."""
        with suppress(BlockingIOError):
            self._read()

    def connectionLost(self, reason: object) -> None:
        """See :meth:`twisted.internet.interfaces.IFileDescriptor.connectionLost`."""
        self._reactor.removeReader(self)
        self._ended()


def follow_commands(
    reactor: Any, descriptor: int, commands: Mapping[bytes, Callable[[], object]], ended: Callable[[], None]
) -> None:
    """
    Do what the supervisor says.

    :param reactor: watches the pipe.
    :param descriptor: the pipe.
    :param commands: what to do for each line. Unknown lines are those of a later version.
    :param ended: called when the supervisor is gone.
    """
    lines = Lines(lambda line: commands.get(line, lambda: None)())

    def read() -> None:
        data = os.read(descriptor, 65536)
        lines.feed(data)
        if not data:
            inlet.connectionLost(None)

    os.set_blocking(descriptor, False)
    inlet = Inlet(reactor, descriptor, read, ended)


def follow_orders(reactor: Any, descriptor: int, received: Callable[[Orders, list[int]], object]) -> None:
    """
    Take the orders that come when the configuration has changed.

    :param reactor: watches the channel.
    :param descriptor: the channel, a Unix socket.
    :param received: called with the orders, and with the descriptors that they speak of.
    """
    inbox = Inbox(socket.socket(fileno=descriptor))

    def read() -> None:
        taken = inbox.take()
        if taken is not None:
            received(*taken)

    Inlet(reactor, descriptor, read)


class WorkerService(SOCKSService):
    """
    Serves clients of listeners that the supervisor has opened and told of.

    :ivar failed: whether it has ended because it had to.
    """

    failed = False
    #: The columns of the metrics, and which one is this worker's; None: it counts nothing.
    columns: tuple[Columns, int] | None = None
    #: A node whose supervisor was killed has not been stopped.
    withdraws = False
    #: Tells the supervisor something.
    say: Callable[[bytes], None] = staticmethod(lambda what: None)

    def begin_counting(self) -> None:
        """See :meth:`~socksproxy.service.server.SOCKSService.begin_counting`; the supervisor has the rest."""
        self._count()

    def own_column(self) -> OwnColumn | None:
        """See :meth:`~socksproxy.service.server.SOCKSService.own_column`."""
        return None if self.columns is None else OwnColumn(*self.columns)

    def end_process(self) -> None:
        """See :meth:`~socksproxy.service.base.ListeningService.end_process`."""
        self.failed = True
        super().end_process()

    def announce(self, where: str, local: bool, by: str) -> None:
        """See :meth:`~socksproxy.service.base.ListeningService.announce`."""

    def warn_of_root(self) -> None:
        """The supervisor has warned."""

    def check_store(self) -> None:
        """The supervisor has checked it; a worker that takes another's place starts in any case."""

    def reload_commanded(self, command: NodeCommand) -> None:
        """See :meth:`~socksproxy.service.server.SOCKSService.reload_commanded`; the supervisor does it."""
        self.say(RELOAD_WANTED + command.number.encode("ascii"))

    def raise_descriptor_limit(self) -> None:
        """The supervisor has raised it."""

    def admin_of(self, plan: Plan) -> None:
        """See :meth:`~socksproxy.service.base.ListeningService.admin_of`: the supervisor has all of them."""

    def announces(self, plan: Plan) -> bool:
        """See :meth:`~socksproxy.service.base.ListeningService.announces`: the supervisor does."""
        return False

    def rest(self) -> None:
        """See :meth:`~socksproxy.service.base.ListeningService.rest`: the supervisor says what rests."""
        self.let_rest(self.resting)

    def hung_up(self) -> None:
        """The supervisor is told, too, and says what is to be done."""

    @inlineCallbacks
    def follow(self, orders: Orders, descriptors: Sequence[int]) -> Generator[Any, Any, None]:
        """
        Go over to the configuration of *orders*.

        :param descriptors: those that they speak of; all of them are closed in the end, or used.
        :returns: fires when that is done.
        :raises Exception: (by the Deferred) when it cannot be; then all is as it was.
        """
        before = self.options.resources
        assert isinstance(before, WorkerResources)
        options, resources = options_of(orders.here(descriptors), self.reactor, before)
        try:
            yield self.reloading.pool.run(options.parseOptions, orders.arguments)
            yield self.reload(options)
            self.protect(orders.protected)
        finally:
            resources.close_rest()


def read_orders(descriptor: int) -> Orders:
    """
    The first line that the supervisor sends.

    :raises EOFError: when there is no supervisor any more.
    :raises OtherVersion: when the supervisor runs another version of this program.
    """
    line = b""
    while not line.endswith(b"\n"):
        # Byte by byte, as what comes behind it is for the reactor to read.
        data = os.read(descriptor, 1)
        if not data:
            raise EOFError("the supervisor is gone")
        line += data
    return Orders.parse(line)


def options_of(
    orders: Orders, reactor: Any, before: WorkerResources | None = None
) -> tuple[SOCKSOptions, WorkerResources]:
    """
    The options of *orders*, to be parsed, and their resources.

    The configuration is what the supervisor has read, and keeps in a file that all workers share.

    :param before: the resources of the configuration before.
    """
    config, node = map(_held, (orders.config, orders.node))
    resources = WorkerResources(reactor, orders.listeners, orders.files, orders.log, before)
    return SOCKSOptions(reactor, resources, config, orders.directory, node), resources


def _held(descriptor: int | None) -> bytes | None:
    """What is in the file *descriptor*, which is closed."""
    if descriptor is None:
        return None
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    os.close(descriptor)
    return data


def make_worker_service(orders: Orders, reactor: Any) -> WorkerService:
    """
    The service that *orders* ask for.

    :raises twisted.python.usage.UsageError: when an option is wrong here, and was not for the supervisor.
    """
    options, _ = options_of(orders, reactor)
    options.parseOptions(orders.arguments)
    factory = make_factory(options)
    if orders.ids is not None:
        factory.sessions.context.ids = SessionIds(*orders.ids)
    if orders.datagrams is not None:
        _share_udp_ports(reactor, factory.sessions.context.associations, orders.datagrams)
    if orders.counts is not None:
        descriptor, columns, secret = orders.counts
        table = SharedTable(descriptor, columns, bytes.fromhex(secret))
        factory.sessions.context.ledger.counting = SharedCounting(reactor, table, orders.number - 1)
        factory.sessions.context.ways.pools.share(WorkersChecks(table, orders.number - 1))
    service = WorkerService(options, factory)
    if orders.questions is not None:
        answers = Answers(factory, orders.number)
        answers.add("rest", lambda resting: service.let_rest(Resting(**resting)))
        answers.add("limit user", service.limit_user)
        answers.add("end all", lambda _: service.end_sessions())
        go(reactor, orders.questions, Answering(answers))
    service.protect(orders.protected)
    if orders.metrics is not None:
        service.columns = Columns(*orders.metrics), orders.number - 1
    return service


def _share_udp_ports(reactor: Any, associations: Associations, descriptor: int) -> None:
    """Have *associations* share ports with other workers; *descriptor* is the way to the router."""
    routing = Routing(lambda message, data: way.send(message, data))
    way = go(reactor, descriptor, Way(routing.received))
    associations.routing = routing


def run(orders: Orders, control: int, reactor: Any) -> None:
    """
    Serve until the end.

    :param orders: what to serve.
    :param control: where commands come.
    :param reactor: the one that is installed.
    """
    use_monotonic_clock(reactor)
    _warn_of_another_version(orders)
    service = make_worker_service(orders, reactor)

    def stop() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()

    def drain() -> None:
        service.withdraws = True
        stop()

    def end() -> None:
        service.end_now()
        drain()

    def say(what: bytes) -> None:
        with suppress(OSError):  # there is no supervisor any more
            os.write(orders.status, what + b"\n")

    service.say = say

    def followed(failure: Failure | None) -> None:
        if failure is None:
            say(RELOADED)
            return
        if not service.stopping:
            _log.failure("the new configuration cannot be put in force", failure)
        # No client is accepted under the old configuration once the new one counts as in force.
        service.close_ports().addCallback(lambda _: say(NOT_RELOADED))

    _obey_signals(reactor, drain, end)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    follow_commands(
        reactor,
        control,
        {DRAIN: drain, END: end, REOPEN: service.reopen_log, DUMP: service.dump_sessions},
        stop,
    )
    if orders.channel is not None:
        follow_orders(reactor, orders.channel, lambda *taken: service.follow(*taken).addBoth(followed))
    reactor.callWhenRunning(say, READY)
    if orders.beat is not None:
        _beat(orders, reactor, lambda: say(BEAT + b"%d" % len(service.factory.sessions)))
    # With the reactor's own handlers a signal that comes with a command would be one too many.
    reactor.run(installSignalHandlers=False)
    if service.failed:
        # The supervisor must not take it for a worker that was told to end.
        raise SystemExit(1)


def _obey_signals(reactor: Any, drain: Callable[[], None], end: Callable[[], None]) -> None:
    """Call *drain* at the first SIGTERM, and *end* at each further one."""
    signals = 0

    def terminated(number: int, frame: FrameType | None) -> None:
        nonlocal signals
        signals += 1
        reactor.callFromThread(drain if signals == 1 else end)

    signal.signal(signal.SIGTERM, terminated)


def _beat(orders: Orders, reactor: Any, beat: Callable[[], None]) -> None:
    """Call *beat* as often as the supervisor wants to hear of this process."""
    # A supervisor that does not read must not stop this process.
    os.set_blocking(orders.status, False)
    beats = LoopingCall(beat)
    beats.clock = reactor
    reactor.callWhenRunning(beats.start, orders.beat)


def _warn_of_another_version(orders: Orders) -> None:
    """One line where the package has been replaced under a supervisor that runs."""
    if orders.program != __version__:
        _log.warn(
            "the program is version {ours} now, and the supervisor runs {theirs}: restart the server",
            ours=__version__,
            theirs=orders.program,
        )


def main() -> None:
    """What a worker's process runs."""
    control = int(sys.argv[-1])
    # The terminal and service managers send these to all processes; the supervisor says what is to be done.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    try:
        orders = read_orders(control)
    except (EOFError, OtherVersion) as problem:
        raise SystemExit(str(problem)) from None
    with suppress(ImportError, AttributeError):
        importlib.import_module(orders.reactor).install()
    reactor = global_reactor()
    globalLogBeginner.beginLoggingTo([Reporter(1)], discardBuffer=True, redirectStandardIO=False)
    try:
        run(orders, control, reactor)
    except UsageError as problem:
        raise SystemExit(str(problem)) from None
