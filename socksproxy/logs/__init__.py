"""
The access log, and what the other logs may contain.

The names in ``__all__`` are the public interface.
"""

from .access_log import access_observer

__all__ = ["access_observer"]
