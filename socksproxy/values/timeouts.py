"""
How long a session may stay in a state, and how long a peer may be silent.
"""

from __future__ import annotations

from math import inf
from typing import Any

import attrs

from .errors import ConfigError

#: A time that does not come: what has this timeout does not end by itself.
NEVER = inf


def positive(settings: object, attribute: attrs.Attribute[Any], seconds: Any) -> None:
    """
    Validate a field with a number of seconds above 0, or :data:`NEVER`.

    :raises ConfigError: when the field has something else, such as None or 0.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ConfigError(f"{attribute.name}: not a number of seconds above 0, or NEVER", seconds)


_positive_or_none: Any = attrs.validators.optional(positive)


@attrs.frozen(kw_only=True)
class Timeouts:
    """
    How long a session may stay in a state, in seconds; :data:`NEVER`: without an end.

    The last three are for the kernel, in whole seconds.

    :ivar handshake: from the connection to the whole request.
    :ivar connect: from the request to the reply: looking up and connecting.
    :ivar idle: without a byte in either direction of a relay.
    :ivar half_closed: without a byte, while one direction of the relay is closed and the other is not.
    :ivar keepalive: of silence, after which TCP probes the peer (RFC 1122, section 4.2.3.6); NEVER: it
        does not.
    :ivar keepalive_interval: between two probes that the peer does not answer; None: as the system has it.
    :ivar user_timeout: for which a peer may acknowledge nothing: neither data nor probes (RFC 5482); None: as
        the system has it.
    :raises ConfigError: for a timeout that is not above 0.
    """

    handshake: float = attrs.field(default=10.0, validator=positive)
    connect: float = attrs.field(default=30.0, validator=positive)
    idle: float = attrs.field(default=NEVER, validator=positive)
    half_closed: float = attrs.field(default=300.0, validator=positive)
    keepalive: float = attrs.field(default=60, validator=positive)
    keepalive_interval: int | None = attrs.field(default=None, validator=_positive_or_none)
    user_timeout: int | None = attrs.field(default=300, validator=_positive_or_none)
