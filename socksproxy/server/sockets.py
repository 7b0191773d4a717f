"""
Accepting straight into the relay engine.

A Twisted transport is made for a long life: making one for each client costs
more than the whole SOCKS conversation. Where the relay engine can be used, the
engine watches the socket of a plain TCP or Unix port in the reactor's place, and
an :class:`Acceptor` accepts its clients as plain sockets. They speak with their
session through a :class:`SocketChannel`. The port is still Twisted's: its life,
and its pausing. Measured gain: see ``docs/performance.rst``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from socket import SocketType
from sys import intern
from typing import TYPE_CHECKING, Any, cast

from twisted.cred.credentials import ICredentials
from twisted.internet import tcp

from ..auth.checkers.peercred import credentials_of, user_of
from ..errors import SHORTAGES
from ..identity import Client
from ..limits.buckets import Meters
from ..negotiation import IWrapping
from ..net.descriptors import DescriptorGate
from ..net.dial import Destination, adopted
from ..net.liveness import ask, has_ended
from ..net.names import plain
from ..net.own_listeners import Place, path_of
from ..net.ports import host_of
from ..net.tcp_options import SocketOption, reset_on_close, set_options
from ..relay.epoll_events import BROKEN, ERROR, READ as READY, READABLE, UNEVEN
from ..relay.interfaces import RelayOwner
from ..relay.transports import TransportsRelay
from ..session.early_data import READ
from ..session.registry import Registry
from ..session.session import Session
from ..twisted_internals import PLAIN_PORTS, accept_with, watch_by_reactor, watch_with
from ..wire.proxy import ProxyHeader
from .balanced import NO_HEADER, Arrival, arrive, reached, shown

if TYPE_CHECKING:
    from ..relay.engine import RelayEngine

#: Clients accepted at once at the most, so that others have their turn.
_BUDGET = 64


class SocketChannel:
    """
    A client's plain socket, until the relay takes it.

    :param engine: tells what happens on the socket.
    :param reactor: makes a transport of the socket, should that be needed.
    :param client: the socket, non-blocking.
    :ivar missed: events that are not used up, for the relay that takes the socket over.
    """

    __slots__ = ("_engine", "_eof", "_paused", "_reactor", "_socket", "missed", "session")

    detachable = True

    def __init__(self, engine: RelayEngine, reactor: Any, client: SocketType) -> None:
        self._engine = engine
        self._reactor = reactor
        self._socket: SocketType | None = client
        self._paused = False
        self._eof = False
        self.missed = 0
        self.session: Session | Arrival | None = None

    def event(self, mask: int) -> None:
        """Something happened on the socket."""
        self.missed |= mask & READABLE
        if self._eof or self._paused:
            if mask & BROKEN:
                self._lost(bool(mask & ERROR))
        elif self.missed:
            self._read()

    def _read(self) -> None:
        session = self.session
        while session is not None and self._socket is not None and not self._paused:
            try:
                data = self._socket.recv(READ)
            except BlockingIOError:
                self.missed = 0
                return
            except OSError:
                self._lost(True)
                return
            if not data:
                self._eof = True
                session.read_closed()
                return
            # A short read has emptied the socket, unless an end or urgent data comes in the same edge.
            drained = len(data) < READ and not self.missed & UNEVEN
            if drained:
                self.missed = 0
            session.received(data)
            if drained:
                return

    def write(self, data: bytes) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.write`."""
        if self._socket is None:
            return
        try:
            whole = self._socket.send(data) == len(data)
        except OSError:
            whole = False
        # An empty send buffer has room for every reply: a client for which it has not is gone.
        if not whole:
            self._lost(True)

    def finish(self) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.finish`."""
        if self._socket is None:
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._lost(True)
            return
        self.resume()

    def _read_again(self) -> None:
        if not self._eof:
            self._read()

    def close(self) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.close`."""
        self._lost(False)

    def abort(self) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.abort`."""
        if self._socket is not None:
            reset_on_close(self._socket)
        self._lost(False)

    def find_out(self) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.find_out`."""
        if self._socket is None:
            return
        ask(self._socket)
        if has_ended(self._socket):
            self._lost(False)

    def pause(self) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.pause`."""
        self._paused = True

    def resume(self) -> None:
        """See :meth:`socksproxy.commands.channel.Channel.resume`."""
        if self._paused:
            self._paused = False
            self._engine.soon(self._read_again)

    def local(self) -> str | None:
        """See :meth:`socksproxy.commands.channel.Channel.local`."""
        if self._socket is None or self._socket.family == socket.AF_UNIX:
            return None
        return host_of(self._socket.getsockname())

    def local_address(self) -> tuple[str, int] | None:
        """See :meth:`socksproxy.commands.channel.Channel.local_address`."""
        if self._socket is None or self._socket.family == socket.AF_UNIX:
            return None
        host, port = self._socket.getsockname()[:2]
        return plain(host), port

    def reached(self) -> Place:
        """See :meth:`socksproxy.commands.channel.Channel.reached`."""
        address = SocketChannel.local_address(self)  # ours, also behind a balancer
        if address is not None:
            return address
        return "" if self._socket is None else path_of(self._socket.getsockname())

    def shows(self) -> ICredentials | None:
        """See :meth:`socksproxy.commands.channel.Channel.shows`."""
        return None if self._socket is None else credentials_of(self._socket)

    def detach(self) -> SocketType | None:
        """See :meth:`socksproxy.commands.channel.Channel.detach`."""
        client, self._socket, self.session = self._socket, None, None
        return client

    def join(
        self,
        destination: Destination,
        owner: RelayOwner,
        idle: float,
        wrapping: IWrapping | None,
        meters: Meters | None = None,
    ) -> TransportsRelay:
        """See :meth:`socksproxy.commands.channel.Channel.join`."""
        client = self.detach()
        assert client is not None
        self._engine.forget(client.fileno())
        link = adopted(self._reactor, client)
        relay = TransportsRelay(
            link.transport, destination.transport, self._reactor, owner, idle, wrapping, meters
        )
        link.end, destination.end = relay.client, relay.destination
        return relay

    def _lost(self, reset: bool) -> None:
        client, session = self._socket, self.session
        self._socket = self.session = None
        if client is None:
            return
        self._engine.drop(client.fileno())
        client.close()
        if session is not None:
            session.lost(reset)


class BalancedSocketChannel(SocketChannel):
    """
    A client's plain socket, which a balancer has connected.

    The parameters are as of :class:`SocketChannel`.
    """

    __slots__ = ("_header",)

    def __init__(self, engine: RelayEngine, reactor: Any, client: SocketType) -> None:
        super().__init__(engine, reactor, client)
        self._header = NO_HEADER

    def identified(self, header: ProxyHeader, session: Session) -> None:
        """See :meth:`socksproxy.server.balanced.BalancedChannel.identified`."""
        self._header, self.session = header, session

    def local_address(self) -> tuple[str, int] | None:
        """See :meth:`socksproxy.commands.channel.Channel.local_address`."""
        return reached(self._header) or super().local_address()

    def shows(self) -> ICredentials | None:
        """See :meth:`socksproxy.commands.channel.Channel.shows`."""
        return shown(self._header)


class Acceptor:
    """
    Accepts a port's clients as plain sockets.

    Strategy: the engine tells for as long as clients wait (the port is level-triggered). One client is
    accepted then, so that a lone one costs no second call that finds nothing. If more wait, the next round
    tells at once, and twice as many are accepted in each round that follows.

    :param port: a listening port.
    :param sessions: where the clients' sessions begin.
    :param gate: pauses the port while descriptors are short.
    :param balanced: whether balancers connect there, with PROXY headers.
    :ivar mask: see :class:`socksproxy.relay.engine.Handler`.
    """

    mask = READY

    def __init__(
        self, port: tcp.Port, sessions: Registry, gate: DescriptorGate, balanced: bool = False
    ) -> None:
        self._port = port
        self._sessions = sessions
        self._gate = gate
        self._balanced = balanced
        self._listening = listening = cast(Any, port.socket)
        self._family = listening.family
        # Without the Python layer of socket.accept(), which costs as much as the system call.
        self._accept: Callable[[], tuple[int, Any]] = listening._accept
        self._watching: RelayEngine | None = None
        self._burst = 1
        self._last_round = 0
        sessions.context.acceptors.add(self)
        self.set_options(sessions.context.socket_options)

    def take_over(self) -> None:
        """Accept from now on: the engine watches the port if the reactor has watched it."""
        accept_with(self._port, self.doRead)
        watch_with(self._port, self.start, self.stop)

    def start(self) -> None:
        """Let the engine watch the port."""
        engine = self._sessions.context.engine
        if self._watching is None and engine is not None:
            engine.listen(self._listening.fileno(), self)
            self._watching = engine

    def stop(self) -> bool:
        """Let nothing watch the port; whether the engine has."""
        engine, self._watching = self._watching, None
        if engine is not None:
            engine.stop_listening(self._listening.fileno(), self)
        return engine is not None

    def event(self, mask: int) -> None:
        """Clients wait."""
        engine = self._watching
        if engine is None:
            return
        in_a_row = engine.rounds <= self._last_round + 1
        self._last_round = engine.rounds
        self._burst = min(2 * self._burst, _BUDGET) if in_a_row else 1
        self.doRead(self._burst)

    def abort(self) -> None:
        """The engine ends: the reactor watches the port again."""
        if self.stop():
            watch_by_reactor(self._port)
            self._port.startReading()

    def set_options(self, options: Sequence[SocketOption]) -> None:
        """
        Clients that come from now on have sockets with *options*.

        Accepted sockets inherit the options on Linux, so that none of them has to set its own.
        """
        if self._family != socket.AF_UNIX and self._listening.fileno() >= 0:
            set_options(self._listening, options)

    def doRead(self, most: int = _BUDGET) -> None:
        """
        The port has clients waiting.

        Nothing is raised, whatever fails: the reactor would close the port for good.
        """
        try:
            self._accept_some(most)
        except Exception:
            self._gate.failed(self._port)

    def _accept_some(self, most: int) -> None:
        for _ in range(most):
            if self._gate.paused:
                # By this port or another: one that is still watched would be told of without end.
                self._gate.exhausted(self._port)
                return
            try:
                descriptor, peer = self._accept()
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno in SHORTAGES:
                    self._gate.exhausted(self._port)
                    return
                continue  # the client went away in the queue, or a packet filter said no
            try:
                client = SocketType(self._family, socket.SOCK_STREAM, 0, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            try:
                client.setblocking(False)
                self._begin(client, peer)
            except BaseException:
                client.close()
                raise
            self._gate.accepted(self._port, descriptor)

    def _begin(self, client: SocketType, peer: Any) -> None:
        sessions = self._sessions
        engine = self._watching or sessions.context.engine
        assert engine is not None
        counters = sessions.context.counters
        if counters is not None:
            counters.connected(self._port)
        make = BalancedSocketChannel if self._balanced else SocketChannel
        channel = make(engine, sessions.context.reactor, client)
        try:
            if self._family == socket.AF_UNIX:
                who = Client(None, uid=None if self._balanced else user_of(client))
            else:
                host = peer[0]
                # IPv4 addresses are plain already.
                who = Client(intern(plain(host) if ":" in host else host), peer[1])
            if isinstance(channel, BalancedSocketChannel):
                channel.session = arrive(sessions, channel, who)
            else:
                channel.session = sessions.begin(channel, who)
            if channel.session is None:
                channel.abort()
                return
            engine.register(client.fileno(), channel)
        except OSError:  # no memory, or over max_user_watches
            _give_up(channel)
        except Exception:
            _give_up(channel)
            raise


def _give_up(channel: SocketChannel) -> None:
    """End what *channel* has of a session, and close its socket."""
    if channel.session is None:
        channel.abort()
    else:
        channel.session.abort()


def take_over(port: Any, sessions: Registry, gate: DescriptorGate, balanced: bool = False) -> bool:
    """
    Accept *port*'s clients as plain sockets from now on, if it is of a kind that can be.

    The engine watches it; everything else about it stays Twisted's.

    :param balanced: whether balancers connect there, with PROXY headers.
    """
    if type(port) not in PLAIN_PORTS or sessions.context.engine is None:
        return False
    if not hasattr(port.socket, "_accept"):
        return False
    Acceptor(port, sessions, gate, balanced).take_over()
    return True


def pace(port: tcp.Port, gate: DescriptorGate) -> None:
    """
    Let Twisted accept *port*'s clients one in a turn, so that *gate* judges after each.

    By itself Twisted takes a hundred, and closes connections for which there is no descriptor.
    """
    accept = port.doRead

    def accept_one() -> None:
        port.numberAccepts = 1
        try:
            accept()
        except Exception:
            gate.failed(port)

    accept_with(port, accept_one)
