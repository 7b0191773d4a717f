"""
How much there may be: of sessions, of bytes in a second, of bytes in a month.

:class:`Limits` and :class:`ServerLimits` are what an operator says.
"""

from .buckets import Allowance, Bucket, Meter, Meters
from .terms import Limits, Rate, ServerLimits

__all__ = ["Allowance", "Bucket", "Limits", "Meter", "Meters", "Rate", "ServerLimits"]
