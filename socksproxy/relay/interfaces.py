"""
How a relay ends, and what every relay can be asked.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol as Shape

from zope.interface import Attribute, Interface

from ..events import Cause
from ..limits.buckets import Meters
from ..net.own_listeners import Place


class RelayOwner(Shape):
    """Is told what becomes of a relay."""

    def relay_half_closed(self, relay: IRelay) -> None:
        """One direction of *relay* has closed, and the other goes on."""

    def relay_ended(self, relay: IRelay) -> None:
        """Both connections of *relay* are closed; this is told once."""


class Direction(NamedTuple):
    """
    One direction of a relay, as it is at a moment.

    :ivar moved: bytes that were delivered.
    :ivar closed: whether the sender has closed it.
    :ivar full: whether bytes wait because the receiver does not take them.
    :ivar limited: whether bytes wait because of a limit.
    """

    moved: int
    closed: bool
    full: bool
    limited: bool


class IRelay(Interface):
    """A relay between a client and a destination, from its start to when both sockets are closed."""

    sent = Attribute("Bytes delivered from the client to the destination.")
    received = Attribute("Bytes delivered from the destination to the client.")
    how = Attribute("How it ended, an :class:`~socksproxy.events.Cause`; None while it lives.")
    errno = Attribute("The error number that ended it; 0 where none did.")
    problem = Attribute("What a peer has broken of the protocol, in words; None: nothing.")

    def reached() -> Place:
        """Which listener of ours the client has reached; behind a balancer, the balancer has."""

    def abort(how: Cause = Cause.ABORTED) -> None:
        """
        Close both ends at once, with a reset. Does nothing when the relay has ended.

        :param how: what the record says of it.
        """

    def directions() -> tuple[Direction, Direction]:
        """The direction from the client to the destination, and the other one."""

    def meter(meters: Meters | None) -> None:
        """
        Relay as fast as *meters* allow from now on.

        :param meters: no other relay's; None: as fast as it goes.
        """
