"""
Units, the values of options, and settings that several packages use.

The names in ``__all__`` are the public interface.
"""

from .timeouts import NEVER
from .udp import Filtering

__all__ = ["NEVER", "Filtering"]
