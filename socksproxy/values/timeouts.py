"""
The timeouts of sessions and of silent peers.
"""

from __future__ import annotations

from math import inf
from typing import Any

import attrs

from .errors import ConfigError

#: The timeout that never expires.
NEVER = inf


def positive(settings: object, attribute: attrs.Attribute[Any], seconds: Any) -> None:
    """
    Validate a field with a number of seconds above 0, or :data:`NEVER`.

    :raises ConfigError: when the field has any other value, such as None or 0.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ConfigError(f"{attribute.name}: not a number of seconds above 0, or NEVER", seconds)


_positive_or_none: Any = attrs.validators.optional(positive)


@attrs.frozen(kw_only=True)
class Timeouts:
    """
    The timeouts of sessions, in seconds; :data:`NEVER`: no timeout.

    The kernel keeps the last three, in whole seconds.

    :ivar handshake: the time from the connection to the whole request.
    :ivar connect: the time from the request to the reply, to look the name up and to connect.
    :ivar idle: the time without a byte in either direction of a relay.
    :ivar half_closed: the time without a byte while one direction of a relay is closed and the other is open.
    :ivar keepalive: the silence after which TCP probes the peer (RFC 1122, section 4.2.3.6); NEVER: TCP does
        not probe.
    :ivar keepalive_interval: the time between two probes without an answer; None: the system's setting.
    :ivar user_timeout: the time in which a peer must acknowledge data or probes (RFC 5482); None: the
        system's setting.
    :raises ConfigError: when a timeout is not above 0.
    """

    handshake: float = attrs.field(default=10.0, validator=positive)
    connect: float = attrs.field(default=30.0, validator=positive)
    idle: float = attrs.field(default=NEVER, validator=positive)
    half_closed: float = attrs.field(default=300.0, validator=positive)
    keepalive: float = attrs.field(default=60, validator=positive)
    keepalive_interval: int | None = attrs.field(default=None, validator=_positive_or_none)
    user_timeout: int | None = attrs.field(default=300, validator=_positive_or_none)
