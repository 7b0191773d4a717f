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
    Permits everything except destinations that are a surprising danger.

    No client reaches the proxy's own listeners, which would be a loop. A client that is not on this machine
    does not reach loopback, link-local, unspecified, multicast, broadcast and cloud metadata addresses, in
    any form, and accepts no connections from them. The settings of BIND say whether a client may leave open
    which peer it accepts.

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
        # Only CONNECT can lead back here: the destination of a BIND is the peer that it waits for.
        if self.listeners is None or command is not Command.CONNECT:
            return False
        return self.listeners.include(destination.host, destination.port)
