"""
The relay engine: an epoll of its own beside the reactor's, and plain sockets in it.

Strategy: under the epoll reactor, the engine waits in the reactor's place, for its own sockets and for the
reactor's (:class:`~socksproxy.twisted_internals.JointEpoll`). A message then costs one wait and no turn of
the reactor. Under any other reactor, the engine's descriptor is a reader like others. Each socket is
registered with the engine once, edge-triggered, and has a :class:`Handler`: a client in its handshake, a
connection that is being made (:mod:`~socksproxy.relay.attempt`), or one half of a relay
(:mod:`~socksproxy.relay.pump`). A handler uses an edge up, or asks for another turn with
:meth:`RelayEngine.again`. Two budgets keep the reactor responsive: events and bytes in one round. A fault of
ours in a handler ends its session only.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from socket import SocketType
from typing import Any, Protocol as Shape

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from ..events import Cause
from ..limits.buckets import Meters
from ..logs.throttle import LogThrottle, complain
from ..net.sockets import NewSocket
from ..net.tcp_options import SOCKET_OPTIONS, SocketOption
from ..twisted_internals import join_epoll
from ..values.timeouts import NEVER
from .attempt import Attempt, itself
from .busy_poll import BusyPoll
from .epoll_events import EVERYTHING, READ
from .idle import IdleRelays
from .interfaces import RelayOwner
from .pipes import PipePool
from .pump import BUFFER_SIZE, EngineRelay

_log = Logger(namespace="socksproxy")

_BATCH = 256
#: Bytes that bulk streams may move in one turn of the reactor.
_TURN_BYTES = 4 << 20


class Handler(Shape):
    """
    Handles the events of a descriptor.

    A handler that a relay may replace keeps the events that it has not used up, as ``missed``. A handler
    that is registered for other events than :data:`~socksproxy.relay.epoll_events.EVERYTHING` has them
    as ``mask``.
    """

    def event(self, mask: int) -> None: ...

    def abort(self) -> None: ...


class Pump(Handler, Shape):
    """
    A handler whose work may take several turns of the reactor.

    :ivar queued: whether the engine has a note to call :meth:`pump`.
    """

    queued: bool

    def pump(self) -> None: ...


@implementer(IReadDescriptor)
class RelayEngine:
    """
    The engine of one reactor. Get it with :func:`socksproxy.relay.engine_for`.

    :param reactor: one with :class:`twisted.internet.interfaces.IReactorFDSet`.
    :param pipes: what to splice through.
    :param turn_bytes: how much bulk streams may move in one turn of the reactor, all together.
    :ivar buffer: what small data moves through.
    :ivar rounds: rounds that have told of everything that had happened; a full one may have left some out.
    """

    def __init__(self, reactor: Any, pipes: PipePool | None = None, turn_bytes: int = _TURN_BYTES) -> None:
        self.reactor = reactor
        self.pipes = PipePool() if pipes is None else pipes
        self.buffer = memoryview(bytearray(BUFFER_SIZE))
        self.turn_bytes = turn_bytes
        self.spent = 0
        self.rounds = 0
        self.closed = False
        self._idle = IdleRelays(reactor, Cause.IDLE)
        #: A relay has ended.
        self.forget_relay: Callable[[EngineRelay], None] = self._idle.discard
        #: By descriptor; a list takes a fifth of the memory of a dictionary.
        self._handlers: list[Handler | None] = []
        self._registered = 0
        self._fresh: set[int] = set()
        self._listeners: set[Handler] = set()
        self._again: deque[Pump] = deque()
        self._soon: list[Callable[[], None]] = []
        self._next_turn: IDelayedCall | None = None
        self._users = 0
        self._broken = LogThrottle(reactor)
        self._epoll = select.epoll()
        self._poll: Callable[[float, int], list[tuple[int, int]]] = self._epoll.poll
        self._joint = join_epoll(reactor, self._epoll, self._round, _BATCH)
        if self._joint is None:
            reactor.addReader(self)
        self._trigger: Any = reactor.addSystemEventTrigger("during", "shutdown", self._shut_down)

    def poll_busily(self, seconds: float) -> None:
        """
        Wait without sleep where the next events are near; see :class:`~socksproxy.relay.busy_poll.BusyPoll`.

        Under another reactor than epoll's, the engine does not wait, and this changes nothing.

        :param seconds: the longest wait without sleep; 0: every wait sleeps.
        """
        self._poll = BusyPoll(self._epoll.poll, seconds).poll if seconds else self._epoll.poll

    # What the reactor asks.

    def fileno(self) -> int:
        """See :meth:`twisted.internet.interfaces.IFileDescriptor.fileno`."""
        return -1 if self.closed else self._epoll.fileno()

    def logPrefix(self) -> str:
        """See :meth:`twisted.internet.interfaces.ILoggingContext.logPrefix`."""
        return "relay"

    def connectionLost(self, reason: object) -> None:
        """See :meth:`twisted.internet.interfaces.IFileDescriptor.connectionLost`."""
        self.close()

    def doRead(self) -> None:
        """See :meth:`twisted.internet.interfaces.IReadDescriptor.doRead`."""
        self._round(0)

    def _round(self, timeout: float) -> Sequence[tuple[int, int]]:
        """
        Wait, up to *timeout* seconds, and handle what happens.

        Nothing is raised, whatever fails: the reactor would close the engine with all its sessions.

        :returns: the events.
        """
        self.spent = 0
        handlers, fresh = self._handlers, self._fresh
        if fresh:
            fresh.clear()
        try:
            events = self._poll(timeout, _BATCH)
            for fd, mask in events:
                # The reactor's descriptor has no handler.
                handler = handlers[fd] if fd < len(handlers) else None
                # A number that was closed and given out again within this round: the event is the old one's.
                if handler is None or (fresh and fd in fresh):
                    continue
                try:
                    handler.event(mask)
                except Exception:
                    self._failed(handler)
            if len(events) < _BATCH:
                self.rounds += 1
            else:  # with so many sockets ready, a listener would have its turn after all of them
                for listener in tuple(self._listeners):
                    listener.event(READ)
        except Exception:
            self._broke()
            return ()
        # A turn of the reactor costs little beside bulk, and more comes meanwhile: larger pieces cost less.
        if self.spent > BUFFER_SIZE and self._joint is not None:
            self._joint.goes_back = True
        return events

    # Descriptors.

    def register(self, fd: int, handler: Handler, mask: int = EVERYTHING) -> None:
        """
        Tell *handler* of the events of *fd*.

        :raises OSError: when there is no room for another.
        """
        self._epoll.register(fd, mask)
        handlers = self._handlers
        if fd >= len(handlers):
            handlers += [None] * (fd + 1 - len(handlers))
        self._registered += handlers[fd] is None
        handlers[fd] = handler
        self._fresh.add(fd)

    def listen(self, fd: int, listener: Handler) -> None:
        """
        Tell *listener*, in each round, for as long as clients wait at the listening socket *fd*.

        :raises OSError: when there is no room for another.
        """
        self.register(fd, listener, READ)
        self._listeners.add(listener)

    def stop_listening(self, fd: int, listener: Handler) -> None:
        """Tell *listener* no more."""
        self._listeners.discard(listener)
        self.forget(fd)

    def drop(self, fd: int) -> None:
        """*fd* is about to be closed, which takes it out of the epoll."""
        handlers = self._handlers
        if 0 <= fd < len(handlers) and handlers[fd] is not None:
            handlers[fd] = None
            self._registered -= 1
        if not self._registered and not self._users:
            self._close()

    def forget(self, fd: int) -> None:
        """Take *fd* out; it may live on elsewhere."""
        with suppress(OSError, ValueError):  # it was never in, or is closed
            self._epoll.unregister(fd)
        self.drop(fd)

    # Turns.

    def again(self, pump: Pump) -> None:
        """Let *pump* go on in the next turn of the reactor."""
        if not pump.queued:
            pump.queued = True
            self._again.append(pump)
            self._want_turn()

    def soon(self, call: Callable[[], None]) -> None:
        """Make *call* in the next turn of the reactor."""
        self._soon.append(call)
        self._want_turn()

    def _want_turn(self) -> None:
        if self._next_turn is None:
            self._next_turn = self.reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self._next_turn = None
        self.spent = 0
        calls, self._soon = self._soon, []
        for call in calls:
            try:
                call()
            except Exception:
                complain(_log, "the relay failed in a call")
        again = self._again
        for _ in range(len(again)):
            if self.spent > self.turn_bytes:
                break
            pump = again.popleft()
            pump.queued = False
            self.run(pump)
        if again and not self.closed:
            self._want_turn()

    def run(self, pump: Pump) -> None:
        """Let *pump* go on now."""
        try:
            pump.pump()
        except Exception:
            self._failed(pump)

    def _failed(self, handler: Handler) -> None:
        """A fault of ours: it costs one session, not the engine."""
        complain(_log, "the relay failed in {handler}", handler=type(handler).__name__)
        self._end(handler)

    def _broke(self) -> None:
        """Waiting for events failed, such as for want of memory: what it has taken is told again."""
        if self._broken.due():
            complain(_log, "the relay failed; it goes on")
        for fd, handler in enumerate(self._handlers):
            with suppress(OSError, ValueError):
                if handler is not None:
                    self._epoll.modify(fd, getattr(handler, "mask", EVERYTHING))

    # Relays.

    def relay(
        self,
        client: SocketType,
        destination: SocketType,
        owner: RelayOwner,
        early: bytes = b"",
        idle: float = NEVER,
        meters: Meters | None = None,
        answer: bytes = b"",
    ) -> EngineRelay:
        """
        Relay between two connected, non-blocking stream sockets, which the engine closes.

        A socket that is registered already, for everything, stays so and is not registered anew.

        :param owner: is told when one direction has closed, and when both sockets are closed.
        :param early: what the client has sent already, for the destination.
        :param idle: seconds without a byte after which it ends; NEVER: it does not.
        :param meters: see :meth:`socksproxy.relay.interfaces.IRelay.meter`.
        :param answer: what the destination has sent already, for the client.
        """
        relay = EngineRelay(self, client, destination, owner)
        if idle != NEVER:
            self._idle.add(relay, idle)
        if meters is not None:
            relay.meter(meters)
        if early:
            relay.client.send_first(early)
        if answer:
            relay.destination.send_first(answer)
        for half in (relay.client, relay.destination):
            try:
                missed = self.take_over(half.socket.fileno(), half)
            except OSError as problem:  # no memory, or over max_user_watches
                relay.broken(half, problem)
                break
            if missed or (early and half is relay.client) or (answer and half is relay.destination):
                half.event(missed | READ)
        return relay

    def take_over(self, fd: int, handler: Handler) -> int:
        """
        Tell *handler* alone of the events of *fd*, which is registered for everything, or not at all, or -1.

        :returns: the events that the other handler has not used up.
        :raises OSError: when there is no room for another.
        """
        handlers = self._handlers
        before = handlers[fd] if 0 <= fd < len(handlers) else None
        if before is not None:
            handlers[fd] = handler
            missed: int = getattr(before, "missed", READ)
            return missed
        if fd >= 0:
            self.register(fd, handler)
        return 0

    def _end(self, handler: Handler) -> None:
        try:
            handler.abort()
        except Exception:
            # A fault of ours: it costs one session, and the others end all the same.
            complain(_log, "the relay failed to end {handler}", handler=type(handler).__name__)

    # Connections.

    def connect(
        self,
        sockaddr: tuple[str, int],
        family: int,
        source: tuple[str, int] | None = None,
        options: Iterable[SocketOption] = SOCKET_OPTIONS,
        made: Callable[[SocketType], Any] = itself,
        new_socket: NewSocket = SocketType,
    ) -> Attempt:
        """Connect a stream socket. The parameters are those of :class:`~socksproxy.relay.attempt.Attempt`."""
        return Attempt(self, sockaddr, family, source, options, made, new_socket)

    # Life.

    def use(self) -> None:
        """The caller needs the engine until :meth:`leave`."""
        self._users += 1

    def leave(self) -> None:
        """The caller of :meth:`use` needs the engine no more. It closes with its last user and session."""
        self._users -= 1
        if not self._users and not self._registered:
            self._close()

    def _shut_down(self) -> None:
        self._trigger = None
        self.close()

    def close(self) -> None:
        """End what is left, and the engine."""
        for handler in list(self._handlers):
            if handler is not None:
                self._end(handler)
        self._close()

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._joint is None:
            self.reactor.removeReader(self)
        else:
            self._joint.leave()
        self._handlers.clear()
        self._listeners.clear()
        self._again.clear()
        self._registered = 0
        self._idle.close()
        timer, self._next_turn = self._next_turn, None
        if timer is not None and timer.active():
            timer.cancel()
        self.pipes.close()
        self._epoll.close()
        if self._trigger is not None:
            self.reactor.removeSystemEventTrigger(self._trigger)
