"""
One session in the relay engine: two sockets, a pump for each direction.

Strategy: both sockets are registered once, edge-triggered, for everything. An
edge that is not used up is a session that stalls, so a pump runs until one of
its two sockets says EAGAIN, or leaves a note with the engine to be called
again. Small data moves through the engine's one buffer; a direction that fills
it repeatedly is spliced through a pipe until its source runs dry.

Where a meter says how much may be moved, a pump that has to wait for it is like
one whose other socket is full: it is told when to go on, and goes on as ever.

A short read means that the source is empty, but only while no end of it and no
urgent data is in sight. A FIN comes in the same edge as the data before it, and
has no other. The kernel ends a read where urgent data begins (RFC 6093, section
3.1), although more is there. A splice even ends there for good: it says that the
source is empty, or at its end, and only a read goes on.
"""

from __future__ import annotations

import errno as errno_
import os
from collections.abc import Callable
from socket import AF_UNIX, SHUT_WR, SO_ERROR, SOL_SOCKET, SocketType
from typing import Protocol as Shape, cast

from zope.interface import implementer

from ..events import Cause
from ..limits.buckets import LEAST_CREDIT, Meter, Meters
from ..net.names import plain
from ..net.own_listeners import Place, path_of
from ..net.tcp_options import reset_on_close
from .epoll_events import BROKEN, READABLE, UNEVEN, WRITE
from .interfaces import Direction, IRelay, RelayOwner
from .pipes import Pipe, PipePool

BUFFER_SIZE = 65536

#: How often a pump turns before others have theirs.
_TURNS = 4
#: Full buffers in a row after which a direction is spliced.
_BULK = 2
#: Bytes that may be moved where no meter says how many.
_UNLIMITED = 1 << 60
#: The streak of a direction that cannot be spliced.
_NEVER = -(1 << 60)
_RESETS = frozenset({errno_.ECONNRESET, errno_.EPIPE})

_SPLICE: Callable[..., int] = os.splice
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class PumpEngine(Shape):
    """
    What the pumps need of the engine.

    :ivar buffer: what small data moves through.
    :ivar pipes: what bulk data is spliced through.
    :ivar spent: bytes that were moved in this turn of the reactor.
    :ivar turn_bytes: how many bytes bulk streams may move in one turn, all together.
    """

    buffer: memoryview
    pipes: PipePool
    spent: int
    turn_bytes: int

    def again(self, pump: Half) -> None: ...

    def run(self, pump: Half) -> None: ...

    def drop(self, fd: int) -> None: ...

    def forget_relay(self, relay: EngineRelay) -> None: ...


class Half:
    """
    One socket, and the pump from it to the other.

    :ivar meter: how much may be moved; None: whatever there is.
    :ivar moved: bytes that the other socket has taken.
    :ivar queued: whether the engine has a note to call :meth:`pump`.
    """

    __slots__ = (
        "_blocked",
        "_pending",
        "_pipe",
        "_streak",
        "_uneven",
        "eof",
        "meter",
        "moved",
        "other",
        "queued",
        "relay",
        "socket",
    )

    other: Half

    def __init__(self, relay: EngineRelay, socket: SocketType) -> None:
        self.relay = relay
        self.socket = socket
        self.moved = 0
        self.eof = False
        self.queued = False
        self.meter: Meter | None = None
        self._pending: memoryview | bytes | None = None
        self._blocked = False
        self._uneven = False
        self._streak = 0
        self._pipe: Pipe | None = None

    def event(self, mask: int) -> None:
        """Something happened on the socket."""
        if mask & UNEVEN:
            self._uneven = True
            # A pump that does not read would not come upon the error by itself.
            if mask & BROKEN and (self.eof or self._blocked) and not self._check():
                return
        if mask & READABLE:
            self.pump()
        if mask & WRITE and self.other._blocked:
            self.other.pump()

    def pump(self) -> None:
        """Move what can be moved."""
        meter, most = self.meter, BUFFER_SIZE
        if meter is not None:
            most = meter.credit
        if most < LEAST_CREDIT or self._pipe is not None:
            self._pump_at_most(meter)
            return
        if (self._blocked and not self._unblock()) or self.eof:
            return
        relay = self.relay
        engine = relay.engine
        buffer = engine.buffer
        # As _copy(), but written out: this is the way of nearly every message, and a call costs time.
        for _ in range(_TURNS):
            try:
                size = self.socket.recv_into(buffer, most)
            except BlockingIOError:
                return
            except OSError as problem:
                relay.broken(self, problem)
                return
            if not size:
                relay.ended(self)
                return
            try:
                taken = self.other.socket.send(buffer[:size])
            except BlockingIOError:
                taken = 0
            except OSError as problem:
                relay.broken(self.other, problem)
                return
            self.moved += taken
            engine.spent += size
            if meter is not None:
                meter.credit -= size
            if taken < size:
                self._pending = bytes(buffer[taken:size])
                self._blocked = True
                return
            if size < most:
                if self._streak > 0:
                    self._streak = 0
                if not self._uneven:
                    return
            else:
                self._streak += 1
            if meter is not None or self._streak >= _BULK:
                self._pump_at_most(meter)
                return
        engine.again(self)

    @property
    def direction(self) -> Direction:
        """The direction from this socket to the other."""
        limited = self.meter is not None and self.meter.waiting
        return Direction(self.moved, self.eof, self._blocked and not limited, limited)

    def send_first(self, early: bytes) -> None:
        """*early* goes to the other socket before anything that is read here."""
        self._pending = early
        self._blocked = True
        if self.meter is not None:
            self.meter.owe(len(early))

    def set_meter(self, meter: Meter | None) -> None:
        """Move as much as *meter* allows from now on."""
        before = self.meter
        if meter is before:
            return
        waiting = before is not None and before.waiting
        if before is not None:
            before.leave()
        if meter is not None:
            meter.owner = self
            if before is not None and before.owed:
                meter.owe(before.owed)
            else:
                meter.borrow()
        self.meter = meter
        if waiting:
            self.relay.engine.again(self)

    def resume(self) -> None:
        """See :meth:`socksproxy.limits.buckets.Waiter.resume`."""
        self.relay.engine.run(self)

    def abort(self) -> None:
        """End the relay at once."""
        self.relay.abort()

    def close(self) -> None:
        """Close the socket, once. The engine forgets it first: the system may give its number out again."""
        engine = self.relay.engine
        if self._pipe is not None:
            engine.pipes.give(self._pipe)
            self._pipe = None
        if self.meter is not None:
            self.meter.leave()
            self.meter = None
        # What comes yet finds nothing to do; and without a cycle the memory is back at once.
        self._pending = None
        self._blocked = False
        self.eof = True
        self.relay, self.other = _OVER, _GONE
        engine.drop(self.socket.fileno())
        self.socket.close()

    def _pump_at_most(self, meter: Meter | None) -> None:
        """Move what can be moved, as far as *meter* allows; None: there is no limit."""
        if meter is not None and meter.waiting:
            return
        if (self._blocked and not self._unblock_within(meter)) or self.eof:
            return
        engine = self.relay.engine
        for _ in range(_TURNS):
            if engine.spent > engine.turn_bytes:
                break
            most = _UNLIMITED
            if meter is not None:
                most = meter.take()
                if not most:
                    self._wait_for(meter)
                    return
            size = self._move(most)
            if size > 0:
                engine.spent += size
                if meter is not None:
                    meter.spend(size)
            drained = self._pipe is None and 0 < size < min(most, BUFFER_SIZE) and not self._uneven
            if size < 0 or drained or self._blocked or self.eof:
                if meter is not None:
                    meter.rest()
                    if drained and size < LEAST_CREDIT and not self.eof:
                        meter.borrow()
                return
        engine.again(self)

    def _unblock_within(self, meter: Meter | None) -> bool:
        """Send what waits for the meter, and for the other socket; whether all of it went."""
        while meter is not None and meter.owed:
            most = meter.take()
            if not most:
                self._wait_for(meter)
                return False
            assert self._pending is not None
            owed = memoryview(self._pending)
            try:
                taken = self.other.socket.send(owed[:most])
            except BlockingIOError:
                meter.rest()
                return False
            except OSError as problem:
                self.relay.broken(self.other, problem)
                return False
            meter.spend(taken)
            self.moved += taken
            meter.owed -= taken
            self._pending = owed[taken:] if meter.owed else None
        return self._unblock()

    def _wait_for(self, meter: Meter) -> None:
        """There is nothing to be had of *meter* just now."""
        if self._pipe is not None:
            self._return_pipe(_BULK)
        if meter.exhausted:
            self.relay.abort(Cause.QUOTA)
        else:
            self._blocked = True

    def _move(self, most: int) -> int:
        """Move at most *most* bytes; how many were read. Less than 0: there is nothing to be read now."""
        if self._pipe is None and self._streak >= _BULK and most > BUFFER_SIZE:
            self._pipe = self.relay.engine.pipes.take()
        return self._copy(min(most, BUFFER_SIZE)) if self._pipe is None else self._splice(self._pipe, most)

    def _copy(self, most: int) -> int:
        """See :meth:`_move`: through the buffer."""
        buffer = self.relay.engine.buffer
        try:
            size = self.socket.recv_into(buffer, most)
        except BlockingIOError:
            return -1
        except OSError as problem:
            self.relay.broken(self, problem)
            return -1
        if not size:
            self.relay.ended(self)
            return -1
        try:
            taken = self.other.socket.send(buffer[:size])
        except BlockingIOError:
            taken = 0
        except OSError as problem:
            self.relay.broken(self.other, problem)
            return size
        self.moved += taken
        if taken < size:
            self._pending = bytes(buffer[taken:size])
            self._blocked = True
        if size == BUFFER_SIZE:
            self._streak += 1
        elif size < most and self._streak > 0:
            self._streak = 0
        return size

    def _splice(self, pipe: Pipe, most: int) -> int:
        """See :meth:`_move`: through *pipe*."""
        try:
            size = _SPLICE(self.socket.fileno(), pipe.write, min(most, pipe.size), flags=_FLAGS)
        except BlockingIOError:
            self._return_pipe(0)
            return self._copy(min(most, BUFFER_SIZE)) if self._uneven else -1
        except OSError as problem:
            if problem.errno != errno_.EINVAL:
                self.relay.broken(self, problem)
                return -1
            self._return_pipe(_NEVER)  # a socket that cannot be spliced
            return 0
        if not size:
            self._uneven = True
            self._return_pipe(0)
            return self._copy(min(most, BUFFER_SIZE))
        pipe.held = size
        self._drain(pipe)
        return size

    def _unblock(self) -> bool:
        """Send what waits for the other socket; whether all of it went."""
        if self._pending is not None:
            try:
                taken = self.other.socket.send(self._pending)
            except BlockingIOError:
                return False
            except OSError as problem:
                self.relay.broken(self.other, problem)
                return False
            self.moved += taken
            if taken < len(self._pending):
                self._pending = memoryview(self._pending)[taken:]
                return False
            self._pending = None
        if self._pipe is not None and self._pipe.held and not self._drain(self._pipe):
            return False
        self._blocked = False
        return True

    def _drain(self, pipe: Pipe) -> bool:
        """Splice the bytes of *pipe* to the other socket; whether all of them went."""
        while pipe.held:
            try:
                taken = _SPLICE(pipe.read, self.other.socket.fileno(), pipe.held, flags=_FLAGS)
            except BlockingIOError:
                self._blocked = True
                return False
            except OSError as problem:
                if problem.errno != errno_.EINVAL:
                    self.relay.broken(self.other, problem)
                    return False
                return self._unsplice(pipe)
            pipe.held -= taken
            self.moved += taken
        return True

    def _unsplice(self, pipe: Pipe) -> bool:
        """The other socket cannot be spliced to: what is in the pipe goes on as a buffer."""
        pending = bytearray()
        while len(pending) < pipe.held:
            pending += os.read(pipe.read, pipe.held - len(pending))
        pipe.held = 0
        self._pending = bytes(pending)
        self._blocked = True
        self._return_pipe(_NEVER)
        self.relay.engine.again(self)
        return False

    def _return_pipe(self, streak: int) -> None:
        assert self._pipe is not None
        self.relay.engine.pipes.give(self._pipe)
        self._pipe = None
        self._streak = streak

    def _check(self) -> bool:
        """The source sends no more, but something happened to it: whether the relay goes on."""
        number = self.socket.getsockopt(SOL_SOCKET, SO_ERROR)
        if number:
            self.relay.broken(self, OSError(number, os.strerror(number)))
        return not number


@implementer(IRelay)
class EngineRelay:
    """
    A relay in the engine. See :meth:`socksproxy.relay.engine.RelayEngine.relay`.

    :ivar owner: is told what becomes of the relay; None: the relay has ended.
    """

    #: The engine moves bytes of any protocol, so none is broken.
    problem: str | None = None

    __slots__ = ("client", "destination", "engine", "errno", "how", "owner")

    def __init__(
        self, engine: PumpEngine, client: SocketType, destination: SocketType, owner: RelayOwner
    ) -> None:
        self.engine = engine
        self.client = Half(self, client)
        self.destination = Half(self, destination)
        self.client.other, self.destination.other = self.destination, self.client
        self.how: Cause | None = None
        self.errno = 0
        self.owner: RelayOwner | None = owner

    @property
    def sent(self) -> int:
        """Bytes that the destination's socket has taken."""
        return self.client.moved

    @property
    def received(self) -> int:
        """Bytes that the client's socket has taken."""
        return self.destination.moved

    def directions(self) -> tuple[Direction, Direction]:
        """See :meth:`socksproxy.relay.interfaces.IRelay.directions`."""
        return self.client.direction, self.destination.direction

    def abort(self, how: Cause = Cause.ABORTED) -> None:
        """See :meth:`socksproxy.relay.interfaces.IRelay.abort`."""
        if self.owner is not None:
            self.how = how
            self._close(reset=True)

    def meter(self, meters: Meters | None) -> None:
        """See :meth:`socksproxy.relay.interfaces.IRelay.meter`."""
        if self.owner is not None:
            up, down = (None, None) if meters is None else meters
            self.client.set_meter(up)
            self.destination.set_meter(down)

    def reached(self) -> Place:
        """See :meth:`socksproxy.relay.interfaces.IRelay.reached`."""
        link = self.client.socket
        name = link.getsockname()
        return path_of(name) if link.family == AF_UNIX else (plain(name[0]), name[1])

    def ended(self, half: Half) -> None:
        """*half*'s peer has closed its direction, and the other socket has taken all that the peer sent."""
        half.eof = True
        other = half.other
        if self.how is None:  # what came first
            self.how = Cause.CLIENT if half is self.client else Cause.DESTINATION
        if other.eof:
            self._close(reset=False)
            return
        try:
            other.socket.shutdown(SHUT_WR)
        except OSError as problem:
            self.broken(other, problem)
            return
        if self.owner is not None:
            self.owner.relay_half_closed(self)

    def broken(self, half: Half, problem: OSError) -> None:
        """*half*'s socket has failed: the other one's peer gets a reset."""
        if self.owner is None:
            return
        self.errno = problem.errno or 0
        reset = self.errno in _RESETS
        if half is self.client:
            self.how = Cause.CLIENT_RESET if reset else Cause.CLIENT_LOST
        else:
            self.how = Cause.DESTINATION_RESET if reset else Cause.DESTINATION_LOST
        self._close(reset=True)

    def _close(self, *, reset: bool) -> None:
        owner, self.owner = self.owner, None
        for half in (self.client, self.destination):
            if reset:
                reset_on_close(half.socket)
            half.close()
        self.engine.forget_relay(self)
        if owner is not None:
            owner.relay_ended(self)


class _Over:
    """Stands for the relay of a half that is closed."""

    def abort(self) -> None:
        """There is nothing to end."""


class _Gone:
    """Stands for the other half of one that is closed."""

    _blocked = False


_OVER, _GONE = cast(EngineRelay, _Over()), cast(Half, _Gone())
