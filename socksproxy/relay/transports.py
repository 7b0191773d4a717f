"""
The relay over Twisted's transports: for TLS, wrapped connections and other platforms.

Each end is the other's producer, so that neither buffers more than one
transport's worth; a half-close is passed on as a half-close for as long as the
other direction lives, a reset as a reset.
"""

from __future__ import annotations

import errno as errno_
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..events import Cause
from ..limits.buckets import Meter, Meters
from ..net.own_listeners import Place, place_of
from ..twisted_internals import can_half_close, innermost, read_at_most
from ..values.timeouts import NEVER
from ..wire.words import ProtocolError
from .interfaces import Direction, IRelay, RelayOwner

#: Bytes that a transport reads at a time, and at the least.
_MOST_READ, _LEAST_READ = 65536, 512
#: Seconds in which what has passed before a quota was used up is to be delivered.
_LAST = 5.0


@implementer(IPushProducer)
class RelayEnd:
    """
    One end: what its transport's protocol is told comes here.

    :param relay: the relay it belongs to.
    :param transport: its transport.
    :ivar meter: how much it may have sent; None: whatever it sends.
    """

    def __init__(self, relay: TransportsRelay, transport: Any) -> None:
        self._relay = relay
        self.transport = transport
        self.other: RelayEnd = self
        self.delivered = 0
        self.read_closed = False
        self.write_closed = False
        self.gone = False
        self.meter: Meter | None = None
        # The other end's buffer is full.
        self._full = False
        # What the peer sent ahead and the meter has not let pass, and whether an end stands behind it.
        self._ahead = b""
        self._ends_ahead = False

    # What the protocol passes on.

    def dataReceived(self, data: bytes) -> None:
        """The peer sent *data*."""
        self._relay.active()
        self.pass_on(data)

    def pass_on(self, data: bytes) -> None:
        """*data* goes to the other end, and as much is read next as may be."""
        if self.read_closed:
            return  # it had been read already when a quota was used up
        self.other.send(data)
        if self.meter is not None:
            self.meter.spend(len(data))
            self.resume()

    def readConnectionLost(self) -> None:
        """The peer has closed its direction."""
        if self._ahead:
            self._ends_ahead = True
        elif not self.read_closed:
            self.read_closed = True
            self.leave_meter()
            self._relay.closed_by(self)
            self.other.finish()
            if self.write_closed:
                self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our direction is closed; nothing to do, the relay closed it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self.gone = True
        self._relay.lost(self, reason)

    @property
    def direction(self) -> Direction:
        """The direction from this end to the other."""
        limited = self.meter is not None and self.meter.waiting
        return Direction(self.other.delivered, self.read_closed, self._full, limited)

    # What the relay does.

    def came_ahead(self, data: bytes, ends: bool) -> None:
        """The peer has sent *data* before the relay began, and nothing more if it *ends*."""
        self._ahead, self._ends_ahead = data, ends

    def set_meter(self, meter: Meter | None) -> None:
        """Let through what *meter* allows from now on."""
        before = self.meter
        if meter is before:
            return
        if before is not None:
            before.leave()
        if meter is not None:
            meter.owner = self
        self.meter = meter
        read_at_most(self.transport, _MOST_READ)
        self.resume()

    def leave_meter(self) -> None:
        """No more data will come: other sessions may have what the meter holds."""
        meter, self.meter = self.meter, None
        if meter is not None:
            meter.leave()

    def resume(self) -> None:
        """See :meth:`socksproxy.limits.buckets.Waiter.resume`."""
        if self.gone or self.read_closed:
            return
        most = self._let_ahead()
        if not most:
            self._wait()
            return
        if self.meter is not None:
            read_at_most(self.transport, max(min(most, _MOST_READ), _LEAST_READ))
        if self._ends_ahead:
            self._ends_ahead = False
            self.readConnectionLost()
        elif not self._full:
            self.transport.resumeProducing()

    def _let_ahead(self) -> int:
        """Send what came ahead, as far as it may pass; how much may be read then."""
        meter = self.meter
        most = _MOST_READ if meter is None else meter.take()
        while most and self._ahead:
            part, self._ahead = self._ahead[:most], self._ahead[most:]
            self.other.send(part)
            if meter is not None:
                meter.spend(len(part))
                most = meter.take()
        return most

    def _wait(self) -> None:
        if self.meter is not None and self.meter.exhausted:
            self._relay.used_up()
        else:
            self.transport.pauseProducing()

    def send(self, data: bytes) -> None:
        """Send *data* to the peer."""
        if not self.write_closed and not self.gone:
            self.delivered += len(data)
            self.transport.write(data)

    def finish(self) -> None:
        """The other end will send no more: close this direction when all is sent."""
        if self.write_closed or self.gone:
            return
        self.write_closed = True
        self.transport.unregisterProducer()
        if self.read_closed or not can_half_close(self.transport):
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """Read no more, and close the connection when all is sent."""
        if self.gone:
            return
        self.read_closed = self.write_closed = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    # IPushProducer, for the other end's transport.

    def pauseProducing(self) -> None:
        """The other end's buffer is full: read no more for now."""
        self._full = True
        if not self.gone and not self.read_closed:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The other end's buffer has room again."""
        self._full = False
        if self.meter is not None and self.meter.waiting:
            return
        if not self.gone and not self.read_closed:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The other end is gone, which its protocol tells, too."""


class WrappedEnd(RelayEnd):
    """
    An end whose peer has agreed on a wrapping: all that it sends and gets is encapsulated.

    A message that cannot be taken out ends the relay: what would come behind it is worth nothing.

    :param wrapping: the :class:`~socksproxy.negotiation.IWrapping`.
    """

    def __init__(self, relay: TransportsRelay, transport: Any, wrapping: Any) -> None:
        super().__init__(relay, transport)
        self._wrapping = wrapping

    def dataReceived(self, data: bytes) -> None:
        """The peer sent *data*."""
        try:
            whole = self._wrapping.unwrap(data)
        except ProtocolError as problem:
            self._relay.broken(self, problem)
            return
        self._relay.active()
        if whole:
            self.pass_on(whole)

    def send(self, data: bytes) -> None:
        """Send *data* to the peer."""
        if self.write_closed or self.gone:
            return
        try:
            wrapped = self._wrapping.wrap(data)
        except ProtocolError as problem:
            self._relay.broken(self, problem)
            return
        self.delivered += len(data)
        self.transport.write(wrapped)


@implementer(IRelay)
class TransportsRelay:
    """
    A relay between two Twisted transports.

    The protocols that own the transports pass what they are told on to
    :attr:`client` and :attr:`destination`.

    :param client: the client's transport.
    :param destination: the destination's transport.
    :param clock: for the idle timeout.
    :param owner: is told when one direction has closed, and when both connections are gone.
    :param idle: seconds without a byte after which it ends; NEVER: it does not.
    :param wrapping: what was agreed on with the client, an :class:`~socksproxy.negotiation.IWrapping`;
        None: its bytes are as they are.
    :param meters: see :meth:`meter`.
    """

    def __init__(
        self,
        client: Any,
        destination: Any,
        clock: IReactorTime,
        owner: RelayOwner,
        idle: float = NEVER,
        wrapping: Any = None,
        meters: Meters | None = None,
    ) -> None:
        self.client = RelayEnd(self, client) if wrapping is None else WrappedEnd(self, client, wrapping)
        self.destination = RelayEnd(self, destination)
        self.client.other, self.destination.other = self.destination, self.client
        self.how: Cause | None = None
        self.problem: str | None = None
        self.errno = 0
        self._clock = clock
        self._last = 0.0
        #: None: the relay has ended.
        self._owner: RelayOwner | None = owner
        self._idle = idle
        self._timer: IDelayedCall | None = None
        self._over = False
        self._closing = False
        self._started = False
        self._meters = meters

    @property
    def sent(self) -> int:
        """Bytes handed to the destination's transport."""
        return self.destination.delivered

    @property
    def received(self) -> int:
        """Bytes handed to the client's transport."""
        return self.client.delivered

    def directions(self) -> tuple[Direction, Direction]:
        """See :meth:`socksproxy.relay.interfaces.IRelay.directions`."""
        return self.client.direction, self.destination.direction

    def start(self, early: bytes = b"", client_eof: bool = False) -> None:
        """
        Begin.

        :param early: what the client sent ahead, for the destination.
        :param client_eof: the client has closed its direction already.
        """
        if self._idle != NEVER:
            self._last = self._clock.seconds()
            self._timer = self._clock.callLater(self._idle, self._check_idle)
        for end in (self.client, self.destination):
            end.transport.registerProducer(end.other, True)
        self._started = True
        read_at_most(self.client.transport, _MOST_READ)
        self.client.came_ahead(early, client_eof)
        if self._meters is not None:
            self.meter(self._meters)
        if self.client.meter is None:
            self.client.resume()

    def meter(self, meters: Meters | None) -> None:
        """See :meth:`socksproxy.relay.interfaces.IRelay.meter`."""
        self._meters = meters
        if self._started and not self._over:
            up, down = (None, None) if meters is None else meters
            self.client.set_meter(up)
            self.destination.set_meter(down)

    def abort(self, how: Cause = Cause.ABORTED) -> None:
        """See :meth:`socksproxy.relay.interfaces.IRelay.abort`."""
        self._note(how, 0)
        for end in (self.client, self.destination):
            if not end.gone:
                end.transport.abortConnection()

    def reached(self) -> Place:
        """See :meth:`socksproxy.relay.interfaces.IRelay.reached`."""
        return reached_by(self.client.transport)

    def used_up(self) -> None:
        """A quota is: what has passed counts, and is delivered yet where the peers take it in time."""
        if self._closing:
            return
        self._closing = True
        self._note(Cause.QUOTA, 0)
        self._stop_timer()
        self._timer = self._clock.callLater(_LAST, self.abort, Cause.QUOTA)
        for end in (self.client, self.destination):
            end.close()

    def broken(self, end: RelayEnd, problem: ProtocolError) -> None:
        """*end*'s peer, or the context with it, has broken what was agreed on."""
        if self.problem is None:
            self.problem = str(problem)
        self.abort(Cause.BROKEN)

    def closed_by(self, end: RelayEnd) -> None:
        """*end*'s peer was the first, or the second, to close its direction."""
        self._note(Cause.CLIENT if end is self.client else Cause.DESTINATION, 0)
        if not end.other.read_closed and self._owner is not None:
            self._owner.relay_half_closed(self)

    def lost(self, end: RelayEnd, reason: Failure) -> None:
        """*end*'s connection is gone."""
        other = end.other
        if isinstance(reason.value, ConnectionDone):
            if not end.read_closed:  # closed whole, without a half-close being told
                self.closed_by(end)
                end.read_closed = True
                other.finish()
        else:
            self._reset_by(end, reason)
        if other.gone:
            self._finish()

    def _reset_by(self, end: RelayEnd, reason: Failure) -> None:
        number = getattr(reason.value, "osError", None) or _errno_of(reason)
        mine = end is self.client
        if number in (errno_.ECONNRESET, errno_.EPIPE, 0):
            how = Cause.CLIENT_RESET if mine else Cause.DESTINATION_RESET
        else:
            how = Cause.CLIENT_LOST if mine else Cause.DESTINATION_LOST
        # A reset after an orderly close of that side is still what ended the relay.
        if not end.other.gone:
            self.how, self.errno = (how, number) if self.how not in _FINAL else (self.how, self.errno)
            end.other.transport.abortConnection()

    def _note(self, how: Cause, number: int) -> None:
        if self.how is None or (how in _FINAL and self.how not in _FINAL):
            self.how, self.errno = how, number

    def active(self) -> None:
        """A byte has come."""
        if self._idle != NEVER:
            self._last = self._clock.seconds()

    def _check_idle(self) -> None:
        self._timer = None
        left = self._last + self._idle - self._clock.seconds()
        if left <= 0:
            self.abort(Cause.IDLE)
        else:
            self._timer = self._clock.callLater(left, self._check_idle)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _finish(self) -> None:
        self._stop_timer()
        self._over = True
        for end in (self.client, self.destination):
            end.leave_meter()
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.relay_ended(self)


#: Ends that were decided here; what follows from them does not change the record.
_FINAL = frozenset(Cause) - {
    Cause.CLIENT,
    Cause.CLIENT_RESET,
    Cause.CLIENT_LOST,
    Cause.DESTINATION,
    Cause.DESTINATION_RESET,
    Cause.DESTINATION_LOST,
}


def reached_by(transport: Any) -> Place:
    """Where *transport*'s client has reached us; behind a balancer, the balancer has."""
    return place_of(innermost(transport).getHost())


def _errno_of(reason: Failure) -> int:
    value = reason.value
    if isinstance(value, ConnectionLost) and value.args:
        cause = value.args[0]
        return cause if isinstance(cause, int) else getattr(cause, "errno", 0) or 0
    return 0
