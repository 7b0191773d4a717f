"""
Ranges of ports, as an operator writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .errors import ConfigError


class PortRange(NamedTuple):
    """
    A range of ports, such as the ports that a firewall lets through.

    :ivar first: the first port, 1 to 65535.
    :ivar last: the last port, not before the first.
    """

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """
        The range that *text* describes: ``40000-40999``, or one port.

        :raises ConfigError: when *text* is no range of ports.
        """
        first, dash, last = (part.strip() for part in text.partition("-"))
        numbers = [first, last if dash else first]
        if not all(number.isascii() and number.isdecimal() for number in numbers):
            raise ConfigError(f"{text!r} is not a range of ports such as 40000-40999")
        low, high = (int(number) for number in numbers)
        if not 0 < low <= high < 65536:
            raise ConfigError(f"{text!r}: ports are 1 to 65535, the lower one first")
        return cls(low, high)


def port_range(ports: str | Sequence[int]) -> PortRange:
    """
    The range of *ports*, which is a text for :meth:`PortRange.parse`, or the first and the last port.

    :raises ConfigError: when *ports* are no ports, or in the wrong order.
    """
    return PortRange.parse(ports if isinstance(ports, str) else "{}-{}".format(*ports))
