"""
Who a client is: where it connects from, and which user it has turned out to be.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from .net.special_addresses import is_loopback
from .wire.words import Address, Command


class ISOCKSUser(Interface):
    """A user of the proxy: the avatar that the portal's realm gives."""

    name = Attribute("The name, for logs and rules; None: it is not known.")
    # An avatar may also have groups, an iterable of names, for rules; outgoing, which says what connections
    # and datagrams leave from (socksproxy.values.outgoing.Sources, made once, or its words); and limits,
    # which are socksproxy.limits.Limits.

    def permits(client: Client, command: Command, destination: Address) -> bool | Deferred[bool]:
        """
        Whether the user may do this; the server's policy is asked too, and both have to permit it.

        See :meth:`socksproxy.policy.IPolicy.permits`, which is asked for the same things.
        """


@lru_cache(maxsize=4096)
def share_of(source: str | None) -> str | None:
    """
    The client to whom *source* belongs where clients take turns, or count together.

    :param source: a literal address, or a local user as :attr:`Client.whose` names it.
    :returns: an IPv4 address, the /64 network of an IPv6 address, or the local user; None for None.
    """
    if source is None or ":" not in source:
        return source
    address = IPv6Address(source)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    prefix = int(address) >> 64 << 64
    return f"{IPv6Address(prefix)}/64"


class Told(NamedTuple):
    """
    What a balancer tells of its client beside the address.

    :ivar unique_id: how the balancer calls the connection; None: not at all.
    :ivar tls_name: the common name in the client's TLS certificate, which the balancer has verified.
        None: there is none.
    """

    unique_id: str | None
    tls_name: str | None


class Client(NamedTuple):
    """
    Who asks.

    :ivar host: the literal address; None on a Unix socket.
    :ivar port: the port; 0 on a Unix socket.
    :ivar user: the user's name, once a method has checked it.
    :ivar avatar: what the portal gave for the user; it is asked beside the policy.
    :ivar groups: the avatar's, if it has any. This and what follows is filled in only for
        a policy that is an :class:`IDecidingPolicy`.
    :ivar listener: by which listener of ours it has come: the name, or the address and port that it has
        reached, or ``unix:`` and the path.
    :ivar version: the version of its request; 4 or 5.
    :ivar uid: on a Unix socket, the local user whose program it is; None: it is not known.
    :ivar aliases: what else rules may call that listener: where it has a name, its address; ``unix``.
    :ivar told: what a balancer tells of it; None: nothing.
    """

    host: str | None
    port: int = 0
    user: str | None = None
    avatar: ISOCKSUser | None = None
    groups: frozenset[str] = frozenset()
    listener: str | None = None
    version: int | None = None
    uid: int | None = None
    aliases: tuple[str, ...] = ()
    told: Told | None = None

    @property
    def local(self) -> bool:
        """Whether the client is on this machine: loopback or a Unix socket."""
        return self.host is None or is_loopback(self.host)

    @property
    def whose(self) -> str | None:
        """
        What clients have in common that count together: the literal address, or on a Unix socket the
        local user, such as ``uid 1000``. None: it is not known.
        """
        return self.host if self.host is not None or self.uid is None else f"uid {self.uid}"

    @property
    def share(self) -> str | None:
        """The client to whom this one belongs where clients take turns: see :func:`share_of`."""
        return share_of(self.whose)

    def __str__(self) -> str:
        if self.host is None:
            return "unix" if self.uid is None else f"unix:{self.uid}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
