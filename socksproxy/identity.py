"""
The identity of a client: its address, and the user that it has logged in as.
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
    # An avatar may have three more attributes: groups, an iterable of names, for rules; outgoing, the
    # addresses from which connections and datagrams leave (socksproxy.values.outgoing.Sources, made once, or
    # its words); limits, a socksproxy.limits.Limits.

    def permits(client: Client, command: Command, destination: Address) -> bool | Deferred[bool]:
        """
        Whether the user may do *command* with *destination*. The server's policy has to permit it, too.

        The parameters are those of :meth:`socksproxy.policy.IPolicy.permits`.
        """


@lru_cache(maxsize=4096)
def share_of(source: str | None) -> str | None:
    """
    The name under which *source* takes turns and is counted, together with its neighbours.

    :param source: a literal address, or a local user as :attr:`Client.whose` names it.
    :returns: an IPv4 address, the /64 network of an IPv6 address, or the local user; None where *source* is
        None.
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
    The facts that a balancer tells about its client, beside the address.

    :ivar unique_id: the balancer's name for the connection; None: it tells none.
    :ivar tls_name: the common name in the client's TLS certificate, which the balancer has verified.
        None: the client has no certificate.
    :ivar check: whether the balancer tells of no client: until it makes a request, it is taken for a health
        check.
    """

    unique_id: str | None
    tls_name: str | None
    check: bool = False


class Client(NamedTuple):
    """
    A client of the proxy, as policies and limits see it.

    :ivar host: the literal address; None on a Unix socket.
    :ivar port: the port; 0 on a Unix socket.
    :ivar user: the user's name, once an authentication method has checked it.
    :ivar avatar: the user's avatar, from the portal; it permits or denies requests beside the policy.
    :ivar groups: the avatar's groups, if it has any. This field and the following ones are filled in only
        for a policy that is an :class:`IDecidingPolicy`.
    :ivar listener: the listener of ours that the client has reached: its name, or its address and port, or
        ``unix:`` and its path.
    :ivar version: the SOCKS version of the request; 4 or 5.
    :ivar uid: on a Unix socket, the local user who runs the client; None: it is not known.
    :ivar aliases: other words of rules for that listener: its address where it has a name; ``unix``.
    :ivar told: the facts that a balancer tells about the client; None: no balancer tells any.
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
    def check(self) -> bool:
        """Whether the client is taken for a health check of a balancer, until it makes a request."""
        return self.told is not None and self.told.check

    @property
    def local(self) -> bool:
        """Whether the client is on this machine: loopback or a Unix socket."""
        return self.host is None or is_loopback(self.host)

    @property
    def whose(self) -> str | None:
        """
        The owner of the client: the literal address, or on a Unix socket the local user, such as
        ``uid 1000``. None: it is not known.
        """
        return self.host if self.host is not None or self.uid is None else f"uid {self.uid}"

    @property
    def share(self) -> str | None:
        """The name under which this client takes turns and is counted: see :func:`share_of`."""
        return share_of(self.whose)

    def __str__(self) -> str:
        if self.host is None:
            return "unix" if self.uid is None else f"unix:{self.uid}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
