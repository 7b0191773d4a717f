"""
What the operator may say about UDP ASSOCIATE.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Filtering(Enum):
    """From whom replies are passed on to the client, in the words of RFC 4787, section 5."""

    #: From anybody whom the policy lets the client send to.
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    #: From the addresses that the client has sent to, whatever their port.
    ADDRESS_DEPENDENT = "address-dependent"
    #: From the addresses and ports that the client has sent to.
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class UDPSettings(NamedTuple):
    """
    How UDP ASSOCIATE is served.

    :ivar ports: the first and the last of the ports that clients send to, one for each
        association; None: the system chooses them.
    :ivar port: one port that clients send to, for all associations; not together with *ports*.
    :ivar filtering: from whom replies are passed on.
    :ivar relatch: whether a client may go on from another port of its address.
    :ivar idle: seconds without a datagram in either direction after which an association ends; None: never.
    :ivar grace: seconds for which an association outlives its TCP connection.
    :ivar destinations: how many destinations an association remembers.
    """

    ports: tuple[int, int] | None = None
    port: int | None = None
    filtering: Filtering = Filtering.ADDRESS_DEPENDENT
    relatch: bool = False
    idle: float | None = 120.0
    grace: float = 0.0
    destinations: int = 1024


def check(settings: UDPSettings) -> None:
    """
    Whether *settings* make sense.

    :raises ValueError: with one line that says what does not.
    """
    if settings.ports is not None and settings.port is not None:
        raise ValueError("a range of UDP ports, or one for all: not both")
    for port in (settings.port, *(settings.ports or ())):
        if port is not None and not 0 < port < 65536:
            raise ValueError(f"{port} is not a UDP port from 1 to 65535")
    if settings.ports is not None and settings.ports[0] > settings.ports[1]:
        raise ValueError("the lower UDP port comes first")
    if settings.destinations < 1:
        raise ValueError("an association has to remember one destination at the least")
