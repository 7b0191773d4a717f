"""
Units, the values of options, and the settings that belong to no other room.

The names in ``__all__`` are the public interface.
"""

from .timeouts import NEVER
from .udp import Filtering

__all__ = ["NEVER", "Filtering"]
