"""
How a relay ends, and what every relay can be asked.
"""

from __future__ import annotations

from enum import Enum

from zope.interface import Attribute, Interface

from ..limits.buckets import Meters
from ..net.own_listeners import Place


class End(Enum):
    """How a relay ended; the value is the access record's word for it."""

    #: The client closed first, and everything was delivered.
    CLIENT = "client"
    #: The destination closed first, and everything was delivered.
    DESTINATION = "destination"
    CLIENT_RESET = "client reset"
    DESTINATION_RESET = "destination reset"
    #: The connection failed in another way: keepalive unanswered, no route any more.
    CLIENT_LOST = "client lost"
    DESTINATION_LOST = "destination lost"
    #: What the client sends is not what was agreed on with it.
    BROKEN = "protocol error"
    IDLE = "idle timeout"
    #: One direction was closed, and the other one moved no data.
    HALF_CLOSED = "half-closed timeout"
    #: Likewise, while descriptors were short.
    SHORTAGE = "descriptors short"
    #: Its client has begun another association, and may have no more at once.
    ROOM = "made room for another"
    #: One of its allowances is exhausted.
    QUOTA = "quota used up"
    #: New rules or users do not allow what old ones did.
    FORBIDDEN = "no longer permitted"
    #: The hours of a rule that ends sessions are over, or have begun.
    HOURS = "outside the rule's hours"
    ABORTED = "aborted"


def nothing(relay: IRelay) -> None:
    """What a relay tells whom nothing is to be told."""


class IRelay(Interface):
    """A relay between a client and a destination, from its start to when both sockets are closed."""

    sent = Attribute("Bytes delivered from the client to the destination.")
    received = Attribute("Bytes delivered from the destination to the client.")
    how = Attribute("How it ended, an :class:`End`; None while it lives.")
    errno = Attribute("The error number that ended it; 0 where none did.")
    problem = Attribute("What a peer has broken of the protocol, in words; None: nothing.")

    def reached() -> Place:
        """Which listener of ours the client has reached; behind a balancer, the balancer has."""

    def abort(how: End = End.ABORTED) -> None:
        """
        Close both ends at once, with a reset. Does nothing when the relay has ended.

        :param how: what the record says of it.
        """

    def meter(meters: Meters | None) -> None:
        """
        Relay as fast as *meters* allow from now on.

        :param meters: no other relay's; None: as fast as it goes.
        """
