"""
The policy of a server that has no other one.
"""

from __future__ import annotations

from copy import copy

from zope.interface import implementer

from ..identity import Client
from ..net.own_listeners import OwnListeners
from ..net.special_addresses import WILDCARDS, special
from ..wire.words import Address, AddressType, Command
from .interfaces import IPolicy


@implementer(IPolicy)
class DefaultPolicy:
    """
    Everything is permitted but what is dangerous by surprise.

    Nobody reaches the proxy's own listeners, which would be a loop. A client
    that is not on this machine does not reach loopback, link-local,
    unspecified, multicast, broadcast and cloud metadata addresses, in
    whatever form they come; nor does it accept connections from there. Who may
    leave open whom it accepts is for the settings of BIND to say.

    :param listeners: the proxy's own listeners; where None is given, each factory adds its own.
    :param allow_special: permit special addresses to every client.
    """

    def __init__(self, listeners: OwnListeners | None = None, *, allow_special: bool = False) -> None:
        self.listeners = listeners
        self.allow_special = allow_special

    def with_listeners(self, listeners: OwnListeners) -> DefaultPolicy:
        """This policy for a server that has *listeners*; one that was given others keeps those."""
        if self.listeners is not None:
            return self
        policy = copy(self)
        policy.listeners = listeners
        return policy

    def permits(self, client: Client, command: Command, destination: Address) -> bool:
        """See :meth:`IPolicy.permits`."""
        if destination.type is AddressType.DOMAIN_NAME:
            return True
        if self._is_own(command, destination):
            return False
        kind = special(destination.host)
        if command is Command.BIND and destination.host in WILDCARDS:
            return True
        return kind is None or self.allow_special or client.local

    def _is_own(self, command: Command, destination: Address) -> bool:
        # Only who connects can come back here: a BIND's destination is whom it waits for.
        if self.listeners is None or command is not Command.CONNECT:
            return False
        return self.listeners.include(destination.host, destination.port)
