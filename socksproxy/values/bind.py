"""
The settings of BIND.
"""

from __future__ import annotations

import attrs

from .outgoing import Outgoing, outgoing_of
from .ports import PortRange, port_range
from .timeouts import positive


@attrs.frozen(kw_only=True)
class BindSettings:
    """
    The settings of BIND.

    :ivar ports: the first and the last port of BIND's listeners; None: the system chooses a port.
    :ivar addresses: at most one IPv4 and one IPv6 literal address to listen on. For a family without one,
        BIND listens on the address from which this machine would connect to the peer.
    :ivar timeout: the seconds in which the peer must connect; NEVER: BIND waits without an end.
    :ivar any_peer: whether a client may accept any peer (0.0.0.0 or ::); None: not given, so only clients on
        this machine may.
    :ivar check_port: whether the peer must connect from the port that the client names, if it names one.
    :raises ConfigError: when the ports are no range, an address is no literal address, or the timeout is not
        above 0.
    """

    ports: PortRange | None = attrs.field(default=None, converter=attrs.converters.optional(port_range))
    addresses: Outgoing = attrs.field(default=Outgoing(), converter=outgoing_of)
    timeout: float = attrs.field(default=120.0, validator=positive)
    any_peer: bool | None = None
    check_port: bool = False
