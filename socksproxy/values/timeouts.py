"""
How long a session may stay in a state, and how long a peer may be silent.
"""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Timeouts:
    """
    How long a session may stay in a state, in seconds; None: for ever.

    The last three are for the kernel, in whole seconds; None: what the system does by itself.

    :ivar handshake: from the connection to the whole request.
    :ivar connect: from the request to the reply: looking up and connecting.
    :ivar idle: without a byte in either direction of a relay.
    :ivar half_closed: likewise, while one direction of the relay is closed and the other is not.
    :ivar keepalive: of silence, after which TCP probes the peer (RFC 1122, section 4.2.3.6); None: never.
    :ivar keepalive_interval: between two probes that the peer does not answer.
    :ivar user_timeout: for which a peer may acknowledge nothing: neither data nor probes (RFC 5482).
    """

    handshake: float | None = 10.0
    connect: float | None = 30.0
    idle: float | None = None
    half_closed: float | None = 300.0
    keepalive: int | None = 60
    keepalive_interval: int | None = None
    user_timeout: int | None = 300
