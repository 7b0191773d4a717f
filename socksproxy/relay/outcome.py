"""
How a relay ends, and what every relay can be asked.
"""

from __future__ import annotations

from enum import Enum

from zope.interface import Attribute, Interface

from ..limits.buckets import Meters


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
    #: One of its allowances is exhausted.
    QUOTA = "quota used up"
    #: New rules or users do not allow what old ones did.
    FORBIDDEN = "no longer permitted"
    ABORTED = "aborted"


class IRelay(Interface):
    """A relay between a client and a destination, from its start to when both sockets are closed."""

    sent = Attribute("Bytes delivered from the client to the destination.")
    received = Attribute("Bytes delivered from the destination to the client.")
    how = Attribute("How it ended, an :class:`End`; None while it lives.")
    errno = Attribute("The error number that ended it; 0 where none did.")

    def local_address() -> tuple[str, int] | None:
        """The literal address and the port of ours that the client has reached; None: a Unix socket."""

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
