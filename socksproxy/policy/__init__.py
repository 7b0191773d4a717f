"""
Who may reach what.

:class:`IPolicy` is what the server asks; :class:`DefaultPolicy` is what it asks
when nothing else is given: safe for a proxy whose clients are not all on this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from ..identity import Client
from ..net.own_listeners import OwnListeners
from ..net.special_addresses import special
from ..wire.words import Address, AddressType, Command

if TYPE_CHECKING:
    from .rules import Decision

__all__ = ["DefaultPolicy", "ICommandPolicy", "IDecidingPolicy", "INamePolicy", "IPolicy"]


class IPolicy(Interface):
    """Decides what a client may do. It is asked in the reactor's thread and must not block."""

    def permits(client: Client, command: Command, destination: Address) -> bool | Deferred[bool]:
        """
        Whether *client* may do *command* with *destination*.

        It is asked for the destination as requested (a name in lower case, or
        a literal address), and then again for every address that a name
        resolves to; only an address that it permits is dialed.

        :param client: who asks.
        :param command: what for.
        :param destination: a checked name or a literal address, and the port.
        :returns: the decision, at once or by a Deferred; a failure denies.
        """


class INamePolicy(IPolicy):
    """
    A policy that wants to know of an address why it is asked for it.

    For a name its :meth:`permits` has only to say whether there is a point in looking it up.
    """

    def permits_address(
        client: Client, command: Command, destination: Address, name: str | None
    ) -> bool | Deferred[bool]:
        """
        Whether *client* may do *command* with *destination*, which it did not name itself.

        :param destination: a literal address and the port.
        :param name: the name that was asked for and has this address; None: a client of BIND
            has left open who comes, and this is who has come. That answer is not waited for.
        """


class ICommandPolicy(IPolicy):
    """
    A policy that can tell, before a destination is known, whether there is any for a client.

    Without this a client of UDP ASSOCIATE has its association, and is denied each destination.
    """

    def permits_command(client: Client, command: Command) -> bool | Decision | Deferred[bool]:
        """
        Whether there may be a destination with which *client* may do *command*.

        It is asked for ``Command.UDP_ASSOCIATE``, at the request.

        :returns: the answer, at once or by a Deferred; a failure denies. A
            :class:`~socksproxy.policy.rules.Decision` tells the access record which rule denies.
        """


class IDecidingPolicy(INamePolicy):
    """A policy that tells more than yes or no, at once."""

    def decide(client: Client, command: Command, destination: Address, name: str | None = None) -> Decision:
        """
        What is decided, and by which rule.

        :param destination: as for :meth:`IPolicy.permits`.
        :param name: the name that was asked for and has this address; None: there is none.
        """


@implementer(IPolicy)
class DefaultPolicy:
    """
    Everything is permitted but what is dangerous by surprise.

    Nobody reaches the proxy's own listeners, which would be a loop. A client
    that is not on this machine does not reach loopback, link-local,
    unspecified, multicast, broadcast and cloud metadata addresses, in
    whatever form they come; nor does it accept connections from there. Who may
    leave open whom it accepts is for the settings of BIND to say.

    :param listeners: the proxy's own listeners; the factory sets its own where None is given.
    :param allow_special: permit special addresses to every client.
    """

    def __init__(self, listeners: OwnListeners | None = None, *, allow_special: bool = False) -> None:
        self.listeners = listeners
        self.allow_special = allow_special

    def permits(self, client: Client, command: Command, destination: Address) -> bool:
        """See :meth:`IPolicy.permits`."""
        if destination.type is AddressType.DOMAIN_NAME:
            return True
        if self._is_own(command, destination):
            return False
        kind = special(destination.host)
        if command is Command.BIND and destination.host in ("0.0.0.0", "::"):
            return True
        return kind is None or self.allow_special or client.local

    def _is_own(self, command: Command, destination: Address) -> bool:
        # Only who connects can come back here: a BIND's destination is whom it waits for.
        if self.listeners is None or command is not Command.CONNECT:
            return False
        return self.listeners.include(destination.host, destination.port)
