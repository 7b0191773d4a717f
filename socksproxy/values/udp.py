"""
The settings of UDP ASSOCIATE.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import attrs

from .errors import ConfigError
from .ports import PortRange, port_range
from .timeouts import positive


class Filtering(Enum):
    """The senders whose replies reach the client, in the words of RFC 4787, section 5."""

    #: From every sender that the policy lets the client send to.
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    #: From the addresses that the client has sent to, whatever their port.
    ADDRESS_DEPENDENT = "address-dependent"
    #: From the addresses and ports that the client has sent to.
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


def _port(settings: UDPSettings, attribute: object, port: int | None) -> None:
    if port is not None and not 0 < port < 65536:
        raise ConfigError(f"{port} is not a UDP port from 1 to 65535")


def _ports(settings: UDPSettings, attribute: object, ports: PortRange | None) -> None:
    if ports is not None and settings.port is not None:
        raise ConfigError("a range of UDP ports, or one for all: not both")


def _grace(settings: UDPSettings, attribute: attrs.Attribute[Any], seconds: float) -> None:
    if seconds != 0:
        positive(settings, attribute, seconds)


def _destinations(settings: UDPSettings, attribute: object, number: int) -> None:
    if number < 1:
        raise ConfigError("an association has to remember one destination at the least")


@attrs.frozen(kw_only=True)
class UDPSettings:
    """
    The settings of UDP ASSOCIATE.

    :ivar ports: the first and the last of the ports to which clients send, one port for each association;
        None: the system chooses the ports.
    :ivar port: one port for the clients of all associations; not together with *ports*.
    :ivar filtering: the senders whose replies reach the client.
    :ivar relatch: whether a client may go on from another port of its address.
    :ivar idle: seconds without a datagram in either direction after which an association ends, or NEVER.
    :ivar grace: seconds for which an association outlives its TCP connection.
    :ivar destinations: the number of destinations that an association remembers.
    :raises ConfigError: when a port is wrong, both *port* and *ports* are given, or *destinations* is 0.
    """

    ports: PortRange | None = attrs.field(
        default=None, converter=attrs.converters.optional(port_range), validator=_ports
    )
    port: int | None = attrs.field(default=None, validator=_port)
    filtering: Filtering = Filtering.ADDRESS_DEPENDENT
    relatch: bool = False
    idle: float = attrs.field(default=120.0, validator=positive)
    grace: float = attrs.field(default=0.0, validator=_grace)
    destinations: int = attrs.field(default=1024, validator=_destinations)
