"""A resolver whose answers are a test's to give."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from socksproxy.net.reverse import IReverseResolver


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Nobody does."""


@implementer(IHostnameResolver)
class Hosts:
    """
    Answers from a table, at once; a name whose addresses are None has to wait for :meth:`answer`.

    :param hosts: names, in lower case, and their addresses in order. Other names do not exist.
    :ivar asked: the names that were asked for, in order.
    """

    def __init__(self, hosts: dict[str, list[str] | None]) -> None:
        self.hosts = hosts
        self.asked: list[str] = []
        self._waiting: dict[str, list[IResolutionReceiver]] = {}

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See :meth:`twisted.internet.interfaces.IHostnameResolver.resolveHostName`."""
        self.asked.append(hostName)
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        addresses = self.hosts.get(hostName, [])
        if addresses is None:
            self._waiting.setdefault(hostName, []).append(resolutionReceiver)
        else:
            _tell(resolutionReceiver, addresses)
        return resolution

    def answer(self, name: str, *addresses: str) -> None:
        """Whoever waits for *name* gets *addresses*."""
        for receiver in self._waiting.pop(name):
            _tell(receiver, addresses)


def _tell(receiver: IResolutionReceiver, addresses: Sequence[str]) -> None:
    for host in addresses:
        kind = IPv6Address if ":" in host else IPv4Address
        receiver.addressResolved(kind("TCP", host, 0))
    receiver.resolutionComplete()


@implementer(IReverseResolver)
class Both(Hosts):
    """Knows the names of addresses, too; one whose name is None has to wait for :attr:`waiting`."""

    def __init__(self, hosts: dict[str, list[str] | None], names: dict[str, str | None]) -> None:
        super().__init__(hosts)
        self.names = names
        self.waiting: list[Deferred[str]] = []

    def resolveAddress(self, host: str) -> Deferred[str]:
        if host not in self.names:
            return fail(LookupError(host))
        name = self.names[host]
        if name is not None:
            return succeed(name)
        self.waiting.append(Deferred())
        return self.waiting[-1]
