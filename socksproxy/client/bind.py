"""
BIND: the proxy listens for one connection, and passes it on.
"""

from __future__ import annotations

from typing import Any, Protocol as Shape

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from ..wire.words import Address, Command
from .connecting import Attempt, address_of, hand_over, host_behind
from .errors import ProxiedConnectError


class Owner(Shape):
    """What :class:`BindEndpoint` needs of a proxy."""

    @property
    def reactor(self) -> Any: ...

    @property
    def timeout(self) -> float | None: ...

    def endpoint(self) -> IStreamClientEndpoint: ...

    def request(self, command: Command, host: str | bytes, port: int) -> tuple[Any, Any]: ...


@implementer(IStreamServerEndpoint)
class BindEndpoint:
    """
    See :meth:`socksproxy.client.Proxy.listen_endpoint`.

    :param proxy: listens.
    :param peer: who is expected.
    :param port: its port, where it is known.
    """

    def __init__(self, proxy: Owner, peer: str | bytes, port: int) -> None:
        self._proxy = proxy
        self._peer = peer
        self._port = port

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """
        Have the proxy listen.

        :returns: fires with a :class:`BoundPort` at the proxy's first reply.
        """
        proxy = self._proxy
        try:
            handshake, request = proxy.request(Command.BIND, self._peer, self._port)
        except ProxiedConnectError as problem:
            return fail(problem)
        attempt = Binding(proxy.reactor, proxy.endpoint(), handshake, request)
        attempt.port = BoundPort(attempt, protocolFactory)
        return attempt.start(proxy.timeout)


class Binding(Attempt):
    """An attempt to BIND: its result fires at the first reply, and it goes on to the second one."""

    port: BoundPort

    def answered(self, address: Address) -> None:
        """The proxy listens at *address*, or has a connection from *address*."""
        assert self.negotiator is not None
        if self.port.address is None:
            host = host_behind(address, self.negotiator.transport)
            try:
                self.port.opened(address_of(Address.of(host, address.port)))
            except Exception:
                self.failed(Failure())
                return
            self.result.callback(self.port)
        else:
            hand_over(self, self.negotiator, self._handshake, self.port.factory, address)

    def failed(self, problem: BaseException | Failure) -> None:
        """Before the first reply the result fails, and afterwards the port."""
        if self.port.address is None:
            super().failed(problem)
        elif not self.over:
            self._end()
            self.port.ended(problem if isinstance(problem, Failure) else Failure(problem))

    def succeed(self, value: object) -> None:
        """The protocol *value* has the connection."""
        self._over = True
        self.port.ended(value)


@implementer(IListeningPort)
class BoundPort:
    """
    A port of a proxy that takes one connection.

    :param binding: has the connection to the proxy.
    :param factory: makes the protocol, for the address of the peer that the proxy tells.
    """

    def __init__(self, binding: Binding, factory: IProtocolFactory) -> None:
        self._binding = binding
        self._waiting: list[Deferred[Any]] = []
        self._outcome: Any = None
        self.factory = factory
        self.address: IAddress | None = None

    def getHost(self) -> IAddress:
        """Where peers connect to. An unspecified address of the proxy is replaced by the proxy's own."""
        assert self.address is not None
        return self.address

    def when_accepted(self) -> Deferred[Any]:
        """
        Wait for the peer.

        :returns: fires with the protocol; with a :class:`~socksproxy.client.ProxiedConnectError` where
            the proxy tells a failure or its connection ends before.
        """
        if self._outcome is not None:
            return succeed(self._outcome) if not isinstance(self._outcome, Failure) else fail(self._outcome)
        waiting: Deferred[Any] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def startListening(self) -> None:
        """See :class:`twisted.internet.interfaces.IListeningPort`: it listens already."""

    def stopListening(self) -> Deferred[None]:
        """Close the connection to the proxy, unless a peer has it."""
        if not self._binding.over:
            self._binding.stop()
            self.ended(Failure(ConnectingCancelledError(self.getHost())))
        return succeed(None)

    def opened(self, address: IAddress) -> None:
        """The proxy listens at *address*."""
        self.factory.doStart()
        self.address = address

    def ended(self, outcome: Any) -> None:
        """The port is closed: *outcome* is a protocol or a failure."""
        self._outcome = outcome
        self.factory.doStop()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(outcome)
