"""
What the operator may say about BIND.
"""

from __future__ import annotations

import attrs

from .outgoing import Outgoing, outgoing_of
from .ports import PortRange, port_range
from .timeouts import positive


@attrs.frozen(kw_only=True)
class BindSettings:
    """
    How BIND is served.

    :ivar ports: the first and the last port on which listeners open; None: any that the system chooses.
    :ivar addresses: at most one IPv4 and one IPv6 literal address to listen
        on; where there is none, the one from which this machine would go to the peer.
    :ivar timeout: seconds in which the peer must have come; NEVER: without an end.
    :ivar any_peer: whether a client may leave open who comes (0.0.0.0 or ::); None: not given, so
        only clients on this machine may.
    :ivar check_port: whether the peer must come from the port that the client names, if it names one.
    :raises ConfigError: for a range of ports that is none, addresses that are none, and a timeout that
        is not above 0.
    """

    ports: PortRange | None = attrs.field(default=None, converter=attrs.converters.optional(port_range))
    addresses: Outgoing = attrs.field(default=Outgoing(), converter=outgoing_of)
    timeout: float = attrs.field(default=120.0, validator=positive)
    any_peer: bool | None = None
    check_port: bool = False
