"""
Every part of Twisted's insides that this project relies on.

Strategy: Twisted promises nothing about these parts, so no other module touches them. Each function has a
fallback for a Twisted that is made differently: it gives up a gain, and never a session. Where the loss
could be noticed, the log says so. ``tests/test_twisted_internals.py`` has a test for each part, and fails
before an operator meets the fallback.
"""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Callable, Sequence
from socket import SocketType
from typing import Any

from twisted.internet import endpoints, tcp, unix
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.systemd import ListenFDs

from .values.timeouts import NEVER

_log = Logger(namespace="socksproxy")

# Transports and what wraps them.


def innermost(transport: Any) -> Any:
    """The transport that reads and writes, of *transport* and what is wrapped in it."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def reads_header(wrapper: object) -> bool:
    """Whether *wrapper*, a transport or a factory, is the one with which Twisted reads PROXY headers."""
    return "haproxy" in type(wrapper).__module__


def without_header(transport: Any, protocol: object) -> Any:
    """
    Have *protocol* itself hear the transport in which Twisted would read a PROXY header.

    :param transport: the wrapper, which has just connected *protocol*.
    :returns: the transport that the wrapper wraps.
    :raises RuntimeError: where this Twisted's wrapper is made differently.
    """
    wrapper = inner = transport
    while reads_header(inner):
        wrapper, inner = inner, inner.transport
        wrapper.factory.unregisterProtocol(wrapper)
    for name in ("wrappedProtocol", "protocol"):
        if getattr(inner, name, None) is wrapper:
            setattr(inner, name, protocol)
            return inner
    raise RuntimeError("this Twisted's wrapper for the PROXY protocol cannot be taken away")


def is_tls(transport: object) -> bool:
    """
    Whether *transport* itself speaks TLS.

    The class decides: a wrapper passes attributes of the wrapped transport on as its own.
    """
    return hasattr(type(transport), "getPeerCertificate")


def can_half_close(transport: Any) -> bool:
    """Whether one direction of *transport* can be closed alone. No layer of it may speak TLS."""
    if not hasattr(transport, "loseWriteConnection"):
        return False
    while isinstance(transport, ProtocolWrapper):
        if is_tls(transport):
            return False
        transport = transport.transport
    return not is_tls(transport)


def socket_of(transport: Any) -> SocketType | None:
    """The socket that *transport* still owns; None: the transport has no socket that can be seen."""
    return getattr(innermost(transport), "socket", None)


def read_at_most(transport: Any, size: int) -> None:
    """Let *transport* read at most *size* bytes at a time, where it has such a limit."""
    inner = innermost(transport)
    if hasattr(inner, "bufferSize"):
        inner.bufferSize = size


def replace_protocol(transport: Any, protocol: Any) -> bool:
    """
    Let *transport*, as its protocol knows it, deliver to *protocol* from now on.

    What stood between the two, such as the wrapper of an endpoint, is out of the way.

    :returns: False where *transport* is of another kind. The old protocol passes all on then.
    """
    holder, attribute = transport, "wrappedProtocol"
    if isinstance(transport, tcp.Connection):
        holder, attribute = transport, "protocol"
        if isinstance(transport.protocol, ProtocolWrapper):  # the transport speaks TLS itself, by startTLS
            holder, attribute = transport.protocol, "wrappedProtocol"
    elif not isinstance(transport, ProtocolWrapper):
        return False
    setattr(holder, attribute, protocol)
    return True


def is_paused(transport: Any) -> bool:
    """Whether *transport* is one whose reading its protocol has paused, as far as that can be seen."""
    inner = innermost(transport)
    return isinstance(inner, tcp.Connection) and inner not in inner.reactor.getReaders()


#: The transports whose socket can be taken, and the attributes of a connected one that are relied on.
_KNOWN = (tcp.Server, tcp.Client, unix.Server, unix.Client)
_RELIED_ON = (
    "_tempDataBuffer",
    "connected",
    "dataBuffer",
    "disconnected",
    "disconnecting",
    "doWrite",
    "fileno",
    "protocol",
    "socket",
    "stopReading",
    "stopWriting",
)
_warned = False


def is_detachable(transport: object) -> bool:
    """Whether :func:`detach_socket` can be expected to give the socket of *transport*."""
    return type(transport) in _KNOWN and not getattr(transport, "TLS", False)


def detach_socket(transport: Any) -> SocketType | None:
    """
    Take the connected socket out of *transport*, which is dead afterwards.

    The transport has sent all its data then. Its protocol gets no ``connectionLost``.

    :returns: the socket, non-blocking; None when the transport is of another kind, speaks TLS, is closing,
        or cannot send all its data now. The relay goes over the transports then.
    """
    if not is_detachable(transport) or not _is_as_known(transport):
        return None
    if transport.disconnecting or not transport.connected or not _flushed(transport):
        return None
    transport.stopReading()
    transport.stopWriting()
    taken = transport.socket
    transport.connected = 0
    transport.disconnected = 1
    transport.protocol = None
    transport.socket = None
    transport.fileno = _no_descriptor
    link = SocketType(taken.family, taken.type, taken.proto, taken.detach())
    link.setblocking(False)
    return link


def _is_as_known(transport: Any) -> bool:
    global _warned
    missing = [name for name in _RELIED_ON if not hasattr(transport, name)]
    if missing and not _warned:
        _warned = True
        _log.warn(
            "this Twisted's transports have no {missing}: "
            "sessions are relayed over the transports, which is slower",
            missing=", ".join(missing),
        )
    return not missing


def _flushed(transport: Any) -> bool:
    if transport.dataBuffer or transport._tempDataBuffer:
        transport.doWrite()
    return not (transport.dataBuffer or transport._tempDataBuffer)


def _no_descriptor() -> int:
    return -1


# Reactors and Deferreds.


#: What :class:`JointEpoll` relies on, besides the epoll.
_WAITED_WITH = ("_insertNewDelayedCalls", "_justStopped", "_newTimedCalls", "_pendingTimedCalls")
#: Seconds that epoll takes at the most, as the reactor has it.
_LONGEST_WAIT = 2147483.0


class JointEpoll:
    """
    Stands in the place of an epoll reactor's epoll: waits for it and for the events of another one together.

    Strategy: *ours* holds the descriptor of the reactor's epoll beside its own. The reactor calls
    :meth:`poll` in each turn. Rounds follow one another in there, without the reactor's own work between
    them, for as long as the reactor has nothing to do. After each round :meth:`poll` returns if a delayed
    call is due, if its time is over, if a descriptor of the reactor is ready (its waker is one of them), or
    if the reactor stops. A round that is full may not have told of the reactor's descriptors: they are asked
    directly. They are asked, too, after a round that has set :attr:`goes_back`.

    :param reactor: an epoll reactor. Get it with :func:`join_epoll`.
    :param ours: the other epoll.
    :param wait: waits at *ours*, up to so many seconds (less than 0: without end), and handles what
        happens; returns the events. It raises nothing.
    :param most: events of one round.
    :ivar goes_back: whether the reactor has its turn after this round in any case.
    """

    def __init__(
        self,
        reactor: Any,
        ours: select.epoll,
        wait: Callable[[float], Sequence[tuple[int, int]]],
        most: int,
    ) -> None:
        self._reactor = reactor
        self._wait = wait
        self._most = most
        self._theirs: select.epoll = reactor._poller
        self._ready = self._theirs.fileno(), select.EPOLLIN
        ours.register(*self._ready)
        self._left = False
        self.goes_back = False
        # What else the reactor calls: its descriptors stay in its own epoll.
        self.register, self.modify = self._theirs.register, self._theirs.modify
        self.unregister = self._theirs.unregister
        reactor._poller = self

    def poll(self, timeout: float, maxevents: int) -> Sequence[tuple[int, int]]:
        """
        See :meth:`select.epoll.poll`.

        :returns: the events of the reactor's own descriptors.
        """
        if self._left:
            return self._theirs.poll(timeout, maxevents)
        reactor = self._reactor
        # An application that calls iterate() waits no longer than it says, whatever the engine has to do.
        until = NEVER if timeout < 0 else reactor.seconds() + timeout
        while True:
            events = self._wait(timeout)
            if self.goes_back or self._ready in events or len(events) >= self._most:
                self.goes_back = False
                return self._theirs.poll(0, maxevents)
            if not events or self._left or not reactor.running or reactor._justStopped:
                return ()
            # As the reactor's own timeout(), which takes longer than everything else in here.
            if reactor._newTimedCalls:
                reactor._insertNewDelayedCalls()
            calls = reactor._pendingTimedCalls
            due = until
            if calls and calls[0].time < until:
                due = calls[0].time
            if due == NEVER:
                timeout = -1
                continue
            # Comparisons instead of min(): each call counts in here.
            timeout = due - reactor.seconds()
            if timeout <= 0:
                return ()
            if timeout > _LONGEST_WAIT:
                timeout = _LONGEST_WAIT

    def leave(self) -> None:
        """The reactor waits by itself again."""
        self._left = True
        if self._reactor._poller is self:
            self._reactor._poller = self._theirs


def join_epoll(
    reactor: Any, ours: select.epoll, wait: Callable[[float], Sequence[tuple[int, int]]], most: int
) -> JointEpoll | None:
    """
    Let *reactor* wait for *ours* together with its own epoll; see :class:`JointEpoll` for the parameters.

    :returns: None: the reactor has no epoll, or none that can be seen, or another one has its place.
    """
    if type(reactor).__module__ != "twisted.internet.epollreactor":
        return None
    missing = [name for name in ("_poller", *_WAITED_WITH) if not hasattr(reactor, name)]
    if missing:
        _log.warn(
            "this Twisted's epoll reactor has no {missing}: the relay engine waits as a reader of the "
            "reactor, which is slower",
            missing=", ".join(missing),
        )
    if missing or not isinstance(reactor._poller, select.epoll):
        return None
    return JointEpoll(reactor, ours, wait, most)


def handles_signal(reactor: Any, number: int) -> bool:
    """Whether the handler of the signal *number* is the one that *reactor* has installed."""
    return getattr(signal.getsignal(number), "__self__", None) is reactor


def has_canceller(waiting: Deferred[Any]) -> bool:
    """Whether cancelling *waiting* stops the work that it waits for, in however deep a chain."""
    innermost: Any = waiting
    while isinstance(getattr(innermost, "result", None), Deferred):
        innermost = innermost.result
    return getattr(innermost, "_canceller", None) is not None


try:
    from twisted.internet._resolver import GAIResolver
except ImportError:  # pragma: no cover - a Twisted that has it elsewhere

    class GAIResolver:  # type: ignore[no-redef]
        """No resolver is one: the reactor keeps the resolver that it has."""


def is_default_resolver(resolver: object) -> bool:
    """Whether *resolver* is the one that Twisted installs: it blocks threads of the reactor."""
    return isinstance(resolver, GAIResolver)


# Endpoints.


def inner_endpoint(endpoint: Any) -> Any:
    """The endpoint that listens for *endpoint*, which may wrap it in TLS or the PROXY protocol."""
    while True:
        wrapped = getattr(endpoint, "_wrappedEndpoint", None) or getattr(endpoint, "endpoint", None)
        if wrapped is None:
            return endpoint
        endpoint = wrapped


def place_of_endpoint(endpoint: Any) -> tuple[str, int] | None:
    """The interface and the port on which *endpoint* is going to listen; None: the endpoint does not tell."""
    inner = inner_endpoint(endpoint)
    host, port = getattr(inner, "_interface", None), getattr(inner, "_port", None)
    return (host, port) if isinstance(host, str) and isinstance(port, int) else None


def tls_options_of(endpoint: object) -> Any:
    """
    The context factory with which *endpoint* itself speaks TLS, before it listens.

    :returns: None for an endpoint without TLS, or one that does not tell. Its certificates are
        neither completed nor checked before clients come.
    """
    return getattr(endpoint, "_sslContextFactory", None)


def systemd_sockets() -> ListenFDs:
    """The sockets that systemd has passed. Twisted takes them out of the environment when it is imported."""
    parser = getattr(endpoints, "_SystemdParser", None)
    passed: ListenFDs | None = getattr(parser, "_sddaemon", None)
    return ListenFDs.fromEnvironment() if passed is None else passed


def leave_descriptor_alone(endpoint: AdoptedStreamServerEndpoint) -> None:
    """Let *endpoint* neither change nor close its descriptor, whose number may be another file's by now."""
    vars(endpoint).update(_setNonBlocking=_do_nothing, _close=_do_nothing)


def _do_nothing(descriptor: int) -> None:
    """*descriptor* stays as it is."""


# Listening ports.


def keep_socket_open(port: Any) -> None:
    """Let *port* close its descriptor only: other processes go on to accept from its socket."""
    port._shouldShutdown = False


def accept_with(port: Any, accept: Callable[[], None]) -> None:
    """Have the reactor call *accept* when *port* has clients waiting."""
    port.doRead = accept


def watch_with(port: Any, start: Callable[[], None], stop: Callable[[], bool]) -> None:
    """
    Have *port* watched by something else than the reactor.

    :param start: begins to watch, instead of the port's ``startReading``.
    :param stop: ends it, instead of the port's ``stopReading``; returns whether the port was watched.
        Closing the port calls it, even twice.
    """
    reads = port in port.reactor.getReaders()
    port.stopReading()
    vars(port).update(startReading=start, stopReading=stop)
    if reads:
        start()


def watch_by_reactor(port: Any) -> None:
    """Undo :func:`watch_with`: the port's ``startReading`` is Twisted's again."""
    if "startReading" in vars(port):
        del port.startReading, port.stopReading


def change_factory(port: Any, factory: Any) -> None:
    """Give *port*'s clients to *factory* from now on. The accepting goes back to Twisted's own."""
    before = port.factory
    if factory is before:
        return
    factory.doStart()
    port.factory = factory
    if "stopReading" in vars(port):
        was_watched = port.stopReading()
        watch_by_reactor(port)
        if was_watched:
            port.startReading()
    before.doStop()
    vars(port).pop("doRead", None)


class SharedUNIXPort(unix.Port):
    """
    A Unix port on a socket that another process has opened, and whose file belongs to that process.

    :param listening: the socket.
    :param factory: serves the clients.
    :param reactor: watches it.
    """

    _shouldShutdown = False

    def __init__(self, listening: socket.socket, factory: Any, reactor: Any) -> None:
        super().__init__(listening.getsockname(), factory, reactor=reactor)
        listening.setblocking(False)
        self.socket = listening

    def startListening(self) -> None:
        """See :meth:`twisted.internet.interfaces.IListeningPort.startListening`."""
        self.factory.doStart()  # type: ignore[union-attr]
        self.connected = True
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Any) -> None:
        """See :meth:`twisted.internet.interfaces.IFileDescriptor.connectionLost`. The file stays."""
        tcp.Port.connectionLost(self, reason)


#: The ports whose clients can be accepted as plain sockets.
PLAIN_PORTS = (tcp.Port, unix.Port, SharedUNIXPort)


def connect_from(
    reactor: Any,
    to: Any,
    factory: ClientFactory,
    timeout: float,
    source: tuple[str, int] | None,
    link: SocketType,
) -> tcp.Connector:
    """
    What the reactor's ``connectTCP`` does, with a socket that the caller has made.

    :param to: the destination, with ``host`` and ``port``.
    :param source: what the socket is bound to; None: the system's choice.
    :param link: the socket, which the transport closes.
    """
    link.setblocking(False)

    class ReadyClient(tcp.Client):
        def createInternetSocket(self) -> SocketType:
            return link

    class ReadyConnector(tcp.Connector):
        def _makeTransport(self) -> tcp.Client:
            return ReadyClient(self.host, self.port, self.bindAddress, self, self.reactor)

    connector = ReadyConnector(to.host, to.port, factory, timeout, source, reactor)
    connector.connect()
    return connector
