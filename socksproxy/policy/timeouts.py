"""
How long a session may stay in a state.
"""

from __future__ import annotations

from typing import NamedTuple


class Timeouts(NamedTuple):
    """
    How long a session may stay in a state, in seconds; None: for ever.

    :ivar handshake: from the connection to the whole request.
    :ivar connect: from the request to the reply: looking up and connecting.
    :ivar idle: without a byte in either direction of a relay.
    """

    handshake: float | None = 10.0
    connect: float | None = 30.0
    idle: float | None = None
