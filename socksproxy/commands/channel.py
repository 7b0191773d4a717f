"""
What a session asks of whatever carries its client's bytes.
"""

from __future__ import annotations

from socket import SocketType
from typing import Protocol as Shape

from twisted.cred.credentials import ICredentials

from ..limits.buckets import Meters
from ..negotiation import IWrapping
from ..net.dial import Destination
from ..net.own_listeners import Place
from ..relay.interfaces import RelayOwner
from ..relay.transports import TransportsRelay


class Channel(Shape):
    """What carries a session's bytes to and from its client."""

    #: Whether :meth:`detach` can be expected to give a socket.
    detachable: bool

    def write(self, data: bytes) -> None:
        """Send *data*, as one segment where that can be had."""

    def finish(self) -> None:
        """Close our direction when all is sent, and go on reading; or both, where it cannot be done apart."""

    def close(self) -> None:
        """Close both directions when all is sent."""

    def abort(self) -> None:
        """Close at once, with a reset."""

    def find_out(self) -> None:
        """The client has closed its direction: if it has gone, the session is told by its ``lost``."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read again."""

    def local(self) -> str | None:
        """
        The literal address of ours that the client has reached, as
        :func:`socksproxy.net.ports.host_of` gives it; None: a Unix socket.
        """

    def local_address(self) -> tuple[str, int] | None:
        """As :meth:`local`, with the port; the client's own identd knows the connection by both."""

    def reached(self) -> Place:
        """Which listener of ours the client has reached; behind a balancer, the balancer has."""

    def shows(self) -> ICredentials | None:
        """What the transport knows of who the client is: a certificate, a local user; None: nothing."""

    def detach(self) -> SocketType | None:
        """Give up the socket, non-blocking and with nothing left to send; None: it cannot be had."""

    def join(
        self,
        destination: Destination,
        owner: RelayOwner,
        idle: float,
        wrapping: IWrapping | None,
        meters: Meters | None = None,
    ) -> TransportsRelay:
        """
        A relay, not started yet, between this channel's transport and *destination*'s.

        :param owner: is told what becomes of the relay.
        :param wrapping: how the client's bytes are encapsulated; None: they are not.
        :param meters: see :meth:`socksproxy.relay.interfaces.IRelay.meter`.
        """
